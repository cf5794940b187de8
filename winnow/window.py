# SPDX-License-Identifier: Apache-2.0
"""Kernel, stride and zero padding of a convolution, and which pixels its outputs read."""

from __future__ import annotations

from dataclasses import dataclass

MAX_KERNEL = 7  # places of a kernel along an axis
MAX_STRIDE = 2


@dataclass(frozen=True)
class Axis:
    """A convolution along rows or columns; `before` and `after` are pixels of zero padding."""

    kernel: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0

    def outputs(self, pixels: int) -> int:
        """Return how many outputs a map of `pixels` gives; less than 1 if the kernel is larger."""
        return (pixels + self.before + self.after - self.kernel) // self.stride + 1

    def reach(self, outputs: int) -> int:
        """Return how many pixels of the padded map neighbouring outputs read."""
        return (outputs - 1) * self.stride + self.kernel

    def missing(self, pixels: int) -> int:
        """Return how many pixels behind a map of `pixels` its last output reads."""
        return max(0, self.reach(self.outputs(pixels)) - self.before - pixels)


@dataclass(frozen=True)
class Window:
    """A convolution's kernel over both axes; the default is a 1x1 convolution."""

    rows: Axis = Axis()
    columns: Axis = Axis()

    @property
    def positions(self) -> int:
        """Places of the kernel."""
        return self.rows.kernel * self.columns.kernel

    @property
    def fits(self) -> bool:
        """Whether the engine has kernels and strides of that size."""
        return all(x.kernel <= MAX_KERNEL and x.stride <= MAX_STRIDE for x in self.axes)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return self.rows, self.columns

    @property
    def is_plain(self) -> bool:
        """Whether every output reads the one pixel at its own place."""
        return self == Window()

    def outputs(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the result for a map of that size."""
        return self.rows.outputs(height), self.columns.outputs(width)

    def __str__(self) -> str:
        return f"{self.rows.kernel}x{self.columns.kernel}"
