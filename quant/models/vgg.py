# SPDX-License-Identifier: Apache-2.0
"""VGG16 (Simonyan & Zisserman 2015, configuration D) and VGG-nagadomi, with or without BatchNorm.

`features` is a chain of 3x3 convolutions and 2x2 max pools, `classifier` the fully connected
layers over the map flattened in (c, h, w) order. Names and shapes of VGG16 at 224 pixels are
torchvision's. VGG-nagadomi is the network of N. Nagadomi's Kaggle CIFAR-10 entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from quant.models.model_spec import ModelSpec, init_weights

LINEAR_STD = 0.01
IMAGENET_EDGE = 7  # pixels of the map that the ImageNet classifier reads


@dataclass(frozen=True)
class VggPlan:
    """Channels of the convolutions of each stage, widths of the hidden linear layers, dropouts.

    A 2x2 max pool, and `stage_dropout` if not 0, ends every stage.
    """

    stages: tuple[tuple[int, ...], ...]
    hidden: tuple[int, ...]
    dropout: float = 0.5
    stage_dropout: float = 0.0

    @property
    def smallest_edge(self) -> int:
        """Pixels below which a pool has nothing to pool."""
        return int(2 ** len(self.stages))


VGG16_STAGES = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
VGG16 = VggPlan(VGG16_STAGES, (4096, 4096))
VGG16_SMALL = VggPlan(VGG16_STAGES, (512,))
NAGADOMI = VggPlan(((64, 64), (128, 128), (256,) * 4), (1024, 1024), stage_dropout=0.25)


class Vgg(nn.Module):
    """A VGG network; input [n, in_channels, edge, edge], output logits [n, classes]."""

    def __init__(self, plan: VggPlan, spec: ModelSpec, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = spec.in_channels
        for stage in plan.stages:
            for width in stage:
                layers += _conv(channels, spec.scaled(width), batch_norm)
                channels = spec.scaled(width)
            layers.append(nn.MaxPool2d(2))
            if plan.stage_dropout:
                layers.append(nn.Dropout(plan.stage_dropout))
        self.features = nn.Sequential(*layers)
        edge = spec.edge // plan.smallest_edge if spec.is_small else IMAGENET_EDGE
        self.avgpool = nn.Identity() if spec.is_small else nn.AdaptiveAvgPool2d(edge)
        widths = (channels * edge**2, *(spec.scaled(width) for width in plan.hidden))
        self.flatten = nn.Flatten()
        self.classifier = _classifier(widths, spec.classes, plan.dropout)
        init_weights(self, LINEAR_STD)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.flatten(self.avgpool(self.features(x))))


def _conv(in_channels: int, out_channels: int, batch_norm: bool) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    norm = [nn.BatchNorm2d(out_channels)] if batch_norm else []
    return [conv, *norm, nn.ReLU(inplace=True)]


def _classifier(widths: tuple[int, ...], classes: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU, dropout for every hidden layer, then the linear layer to the classes."""
    layers: list[nn.Module] = []
    for operands, outputs in pairwise(widths):
        layers += [nn.Linear(operands, outputs), nn.ReLU(inplace=True), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def vgg16(spec: ModelSpec, *, batch_norm: bool = False) -> Vgg:
    """Return VGG16; in its CIFAR form one hidden linear layer of 512 replaces the two of 4096."""
    return Vgg(VGG16_SMALL if spec.is_small else VGG16, spec, batch_norm)


def vgg_nagadomi(spec: ModelSpec, *, batch_norm: bool = False) -> Vgg:
    """Return VGG-nagadomi, for CIFAR-10: dropout after every stage, two hidden linear layers."""
    return Vgg(NAGADOMI, spec, batch_norm)
