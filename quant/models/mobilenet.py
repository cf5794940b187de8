# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2 (Sandler et al. 2018), with torchvision's names and shapes.

The engine runs no ReLU6; it runs the network with ReLU in its place. The CIFAR form keeps stride 1
at the first two strided places, so that 32 pixels end as 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from quant.models.model_spec import ModelSpec, init_weights, round_width

LINEAR_STD = 0.01
DROPOUT = 0.2
STEM_CHANNELS, LAST_CHANNELS = 32, 1280
# Table 2 of the paper: expansion t, channels c, repeats n, stride s.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
UNSTRIDED_STAGE = 1  # stage whose stride the CIFAR form drops, beside the stem's


Activation = Callable[..., nn.Module]  # nn.ReLU6 or nn.ReLU


@dataclass(frozen=True)
class _Unit:
    """Makes convolution, BatchNorm, activation."""

    activation: Activation

    def __call__(
        self, in_channels: int, channels: int, kernel: int, stride: int, groups: int
    ) -> nn.Sequential:
        conv = nn.Conv2d(
            in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        return nn.Sequential(conv, nn.BatchNorm2d(channels), self.activation(inplace=True))


class InvertedResidual(nn.Module):
    """1x1 expansion (none if `expansion` is 1), depthwise 3x3, linear 1x1; shortcut if it fits."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, expansion: int, unit: _Unit
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        expand = [unit(in_channels, hidden, 1, 1, 1)] if expansion != 1 else []
        self.has_shortcut = stride == 1 and in_channels == channels
        self.expands = expansion != 1
        self.conv = nn.Sequential(
            *expand,
            unit(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2; input [n, in_channels, edge, edge], output logits [n, classes]."""

    def __init__(self, spec: ModelSpec, activation: Activation = nn.ReLU6) -> None:
        super().__init__()
        channels, unit = spec.scaled(STEM_CHANNELS), _Unit(activation)
        layers: list[nn.Module] = [
            unit(spec.in_channels, channels, 3, 1 if spec.is_small else 2, 1)
        ]
        for number, (expansion, width, repeats, stride) in enumerate(STAGES):
            first = 1 if spec.is_small and number == UNSTRIDED_STAGE else stride
            for i in range(repeats):
                out = spec.scaled(width)
                step = first if i == 0 else 1
                layers.append(InvertedResidual(channels, out, step, expansion, unit))
                channels = out
        # The paper narrows every layer but this one.
        last = round_width(LAST_CHANNELS * max(1.0, spec.width))
        layers.append(unit(channels, last, 1, 1, 1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(last, spec.classes))
        init_weights(self, LINEAR_STD)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def mobilenet_v2(spec: ModelSpec) -> MobileNetV2:
    """Return MobileNetV2; `spec.width` is the paper's width multiplier."""
    return MobileNetV2(spec)


def mobilenet_v2_relu(spec: ModelSpec) -> MobileNetV2:
    """Return MobileNetV2 with ReLU in the place of ReLU6."""
    return MobileNetV2(spec, nn.ReLU)
