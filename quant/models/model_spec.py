# SPDX-License-Identifier: Apache-2.0
"""What every network of the library is built from: classes, input, width, and fresh weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

STEP = 8  # channels per word of the engine's maps, and per SRBS sub-row
SMALL_EDGE = 64  # pixels: up to here the CIFAR forms, beyond the ImageNet ones


def round_width(channels: float) -> int:
    """Return the multiple of 8 nearest to `channels`, one more if that loses over 10 %.

    The rule of MobileNetV2 (Sandler et al. 2018); at least 8. Multiples of 8 stay what they are.
    """
    nearest = max(STEP, int(channels + STEP / 2) // STEP * STEP)
    return nearest + STEP if nearest < 0.9 * channels else nearest


def init_weights(net: nn.Module, linear_std: float) -> None:
    """Draw fresh weights: He et al. 2015 (fan out) for convolutions, a normal for linear layers."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=linear_std)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and module.bias is not None:
            nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class ModelSpec:
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
