# SPDX-License-Identifier: Apache-2.0
"""ResNet-18, -34 and -50 (He et al. 2016), with torchvision's names and shapes; -8 and -20.

A bottleneck strides in its 3x3 convolution, as torchvision's weights expect; the paper strides in
the first 1x1. The CIFAR form begins with a 3x3 convolution of stride 1 and no max pool. The two
smallest have three stages of 16, 32 and 64 channels and that form for any image, as the paper has
them for CIFAR-10 (section 4.2), but project shortcuts (its option B) where it pads them with zeros.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn

from quant.models.model_spec import ModelSpec, init_weights

LINEAR_STD = 0.01
STAGE_CHANNELS = (64, 128, 256, 512)
SMALL_CHANNELS = (16, 32, 64)


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
    )


class Residual(nn.Module):
    """Base of both blocks: ReLU(branch(x) + shortcut(x)), the shortcut projected where needed."""

    expansion: ClassVar[int]

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                _conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
            )

    def branch(self, x: Tensor) -> Tensor:
        """Return what is added to the shortcut."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.branch(x) + shortcut)


class BasicBlock(Residual):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels, stride)
        self.conv1 = _conv(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Bottleneck(Residual):
    """1x1 to few channels, 3x3, 1x1 to four times as many."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels * self.expansion, stride)
        self.conv1 = _conv(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _conv(channels, channels * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))


class ResNet(nn.Module):
    """A ResNet; input [n, in_channels, edge, edge], output logits [n, classes].

    `depths` are the blocks per stage; three stages are the small form.
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...], spec: ModelSpec
    ) -> None:
        super().__init__()
        is_smallest = len(depths) == len(SMALL_CHANNELS)
        widths = SMALL_CHANNELS if is_smallest else STAGE_CHANNELS
        is_small = spec.is_small or is_smallest
        channels = spec.scaled(widths[0])
        kernel, stride = (3, 1) if is_small else (7, 2)
        self.conv1 = _conv(spec.in_channels, channels, kernel, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if is_small else nn.MaxPool2d(3, stride=2, padding=1)
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            inner = spec.scaled(width)
            units = []
            for i in range(depth):
                units.append(block(channels, inner, 2 if i == 0 and number > 1 else 1))
                channels = inner * block.expansion
            stages[f"layer{number}"] = nn.Sequential(*units)
        for name, stage in stages.items():
            self.add_module(name, stage)
        self._stages = list(stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, spec.classes)
        init_weights(self, LINEAR_STD)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self._stages:
            x = self.get_submodule(name)(x)
        return self.fc(self.avgpool(x).flatten(1))


def resnet8(spec: ModelSpec) -> ResNet:
    """Return ResNet-8."""
    return ResNet(BasicBlock, (1, 1, 1), spec)


def resnet20(spec: ModelSpec) -> ResNet:
    """Return ResNet-20."""
    return ResNet(BasicBlock, (3, 3, 3), spec)


def resnet18(spec: ModelSpec) -> ResNet:
    """Return ResNet-18."""
    return ResNet(BasicBlock, (2, 2, 2, 2), spec)


def resnet34(spec: ModelSpec) -> ResNet:
    """Return ResNet-34."""
    return ResNet(BasicBlock, (3, 4, 6, 3), spec)


def resnet50(spec: ModelSpec) -> ResNet:
    """Return ResNet-50."""
    return ResNet(Bottleneck, (3, 4, 6, 3), spec)
