# SPDX-License-Identifier: Apache-2.0
"""Networks of operations that an engine may or may not run: exact, or refused by name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.own.good import Functional, conv, tail


def strided() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), *tail(edge=4))


def valid_padding() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding="valid"), nn.ReLU(), *tail(edge=7))


def pointwise() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.ReLU(), *tail(6, 8))


def large_kernel() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), *tail(edge=8))


class Residual(Functional):
    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        y = self.conv2(x)
        y += x
        x = F.max_pool2d(F.relu(y), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(1, 4), conv(4, 4), conv(4, 4)
        self.fc = nn.Linear(8 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1)
        return self.fc(F.max_pool2d(x, 2).flatten(1))


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = conv(1, 4), conv(4, 4), nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = self.b(F.relu(y)) + y
        return self.fc(F.max_pool2d(z, 2).flatten(1))


def average_pool() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 10))


def overlapping_pool() -> nn.Module:
    pool = nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(conv(1, 4), nn.ReLU(), pool, nn.Flatten(), nn.Linear(256, 10))


def large_pool() -> nn.Module:
    pool = nn.MaxPool2d(4)
    return nn.Sequential(conv(1, 4), nn.ReLU(), pool, nn.Flatten(), nn.Linear(64, 10))


def ceiling_pool() -> nn.Module:
    pool = nn.MaxPool2d(2, ceil_mode=True)
    first = nn.Conv2d(1, 4, 4)
    return nn.Sequential(first, nn.ReLU(), pool, nn.Flatten(), nn.Linear(196, 10))


def pool_first() -> nn.Module:
    return nn.Sequential(nn.MaxPool2d(2), conv(1, 4), nn.ReLU(), *tail(edge=4))


def pool_before_relu() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.MaxPool2d(2), nn.ReLU(), conv(4, 4), *tail(edge=4))


def relu_first() -> nn.Module:
    return nn.Sequential(nn.ReLU(), conv(1, 4), *tail(edge=8))


def two_pools() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.ReLU(), nn.MaxPool2d(2), *tail(edge=4))


def norm_after_relu() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.ReLU(), nn.BatchNorm2d(4), *tail(edge=8))


def last_conv_over_the_whole_map() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 10, 8))
