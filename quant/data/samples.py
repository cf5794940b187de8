# SPDX-License-Identifier: Apache-2.0
"""What every source of images gives: samples in three disjoint parts, and their augmentation.

Images are uint8 [n, c, h, w] in 0..255, labels int64 [n]. The network reads image * 2^-8, so its
input quantization is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quant.data.augment import Augmentation, augment

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1  # of the training images, where a part is not given

INPUT_BITS = 8
INPUT_EXPONENT = -8


class Images(Protocol):
    """Images by number: a uint8 tensor [n, c, h, w], or one that reads its files when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """n, c, h, w."""

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """Return the chosen images, uint8 [len, c, h, w]."""


CONSTANT = 255  # the largest pixel, so that its weights are small


def with_constant(images: Tensor) -> Tensor:
    """Return uint8 images [n, c, h, w] with a last channel of `CONSTANT`."""
    n, _, height, width = images.shape
    return torch.cat([images, images.new_full((n, 1, height, width), CONSTANT)], 1)


@dataclass(frozen=True)
class ConstantAdded:
    """Images with a last channel of `CONSTANT`, added to those that are asked for."""

    images: Images

    @property
    def shape(self) -> tuple[int, ...]:
        """n, c, h, w."""
        n, channels, *edges = self.images.shape
        return n, channels + 1, *edges

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """Return the chosen images, uint8 [len, c, h, w]."""
        return with_constant(self.images[chosen])


@dataclass(frozen=True)
class Samples:
    """Images uint8 [n, c, h, w], indexed with a slice or an int64 tensor, and labels int64 [n].

    Labels that are values are float32 [n, k].
    """

    images: Images
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def with_constant(self) -> Samples:
        """Return the samples with a constant last channel."""
        images = self.images
        is_read = isinstance(images, Tensor)
        return replace(self, images=with_constant(images) if is_read else ConstantAdded(images))


@dataclass(frozen=True)
class InputShape:
    """The images a network reads, and the classes it tells apart or values it gives.

    A width of 0 is a square's.
    """

    channels: int
    height: int
    classes: int
    width: int = 0
    kind: str = "classes"  # or "values"

    @property
    def image(self) -> tuple[int, int, int]:
        """Shape of one image, (c, h, w)."""
        return self.channels, self.height, self.width or self.height


@dataclass(frozen=True)
class Split:
    """Disjoint parts, the number of classes or values, and how training images are varied.

    `constant` says whether the last channel of all images is constant, and so not varied.
    """

    train: Samples
    validation: Samples
    test: Samples
    classes: int
    augmentation: Augmentation
    constant: bool = False

    @classmethod
    def of(cls, parts: Sequence[Samples], classes: int, augmentation: Augmentation) -> Split:
        """Return the split of [train, validation, test]."""
        train, validation, test = parts
        return cls(train, validation, test, classes, augmentation)

    @property
    def shape(self) -> InputShape:
        """Size of the images and number of classes."""
        channels, height, width = self.train.images.shape[1:]
        return InputShape(channels, height, self.classes, width)

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return varied network inputs [n, c, h, w], on the grid of the real ones."""
        if not self.constant:
            return augment(x, generator, self.augmentation)
        return torch.cat([augment(x[:, :-1], generator, self.augmentation), x[:, -1:]], 1)

    def with_constant(self) -> Split:
        """Return the split with a constant last channel in all images."""
        parts = [part.with_constant() for part in (self.train, self.validation, self.test)]
        return replace(self, train=parts[0], validation=parts[1], test=parts[2], constant=True)


def to_input(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uint8 images as network input: image * 2^-8, exact."""
    return images.to(dtype) * 2.0**INPUT_EXPONENT


def cut(
    labels: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return two disjoint sets of indices, rising; the second holds `share` of every class.

    Of every class with two or more samples each set gets at least one.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        held[generator.permutation(members)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
