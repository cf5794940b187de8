# SPDX-License-Identifier: Apache-2.0
"""What every network of the library is built from: classes, input and width."""

from __future__ import annotations

from dataclasses import dataclass

from quant.models.width import round_width

SMALL_EDGE = 64  # pixels: up to here the CIFAR forms, beyond the ImageNet ones


@dataclass(frozen=True)
class Form:
    """Number of classes, channels and edge (pixels) of the square input, width multiplier."""

    classes: int
    in_channels: int = 3
    edge: int = 32
    width: float = 1.0

    @property
    def is_small(self) -> bool:
        """Whether the network takes its CIFAR form: little or no downsampling at the input."""
        return self.edge <= SMALL_EDGE

    def scaled(self, channels: int) -> int:
        """Return the channels of the full network times the width multiplier."""
        return round_width(channels * self.width)
