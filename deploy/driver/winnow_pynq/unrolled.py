# SPDX-License-Identifier: Apache-2.0
"""Images that the host unrolls: the channels of a pixel are what lies under a kernel there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

GROUP = 8  # channels in a word


@dataclass(frozen=True)
class Kernel:
    """What images are unrolled by: a kernel, its stride, zeros around; (rows, columns) each."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    def __post_init__(self) -> None:
        values = (*self.kernel, *self.stride, *self.before, *self.after)
        whole = all(type(value) is int for value in values) and len(values) == 8
        if not whole or min(self.kernel + self.stride) < 1 or min(values) < 0:
            raise ValueError(f"no kernel: {values}")

    def outputs(self, pixels: Sequence[int]) -> tuple[int, int]:
        """Return height and width of images of that size, unrolled."""
        axes = zip(pixels, self.kernel, self.stride, self.before, self.after, strict=True)
        height, width = ((x + b + a - k) // s + 1 for x, k, s, b, a in axes)
        return height, width

    def require(self, shape: tuple[int, int, int], words: int) -> None:
        """Raise ValueError unless images (c, h, w) take so many words once they are unrolled."""
        (height, width), kernel = self.outputs(shape[1:]), self.kernel
        groups = -(-shape[0] * kernel[0] * kernel[1] // GROUP)
        if min(height, width) < 1 or groups * height * width != words:
            raise ValueError(f"{words} words for images unrolled by {kernel}")


def unrolled(image: Array, window: Kernel) -> Array:
    """Return bytes [c, h, w] as words of what lies under a kernel, in (c, row, column) order."""
    c, (rows, columns), (down, right) = len(image), window.kernel, window.stride
    height, width = window.outputs(image.shape[1:])
    sides = zip(window.before, window.after, strict=True)
    padded = np.pad(image, [(0, 0), *sides])
    words = np.zeros((-(-c * rows * columns // GROUP), height, width, GROUP), np.uint8)
    for number, (channel, i, j) in enumerate(np.ndindex(c, rows, columns)):
        under = padded[channel, i : i + down * height : down, j : j + right * width : right]
        words[number // GROUP, :, :, number % GROUP] = under[:height, :width]
    return words.reshape(-1)
