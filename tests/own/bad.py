# SPDX-License-Identifier: Apache-2.0
"""Networks, for images 1x16x16 and 10 classes, that must be refused, each by its own words."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.own.good import Functional, conv, tail


def after(*layers: nn.Module, channels: int = 4) -> nn.Module:
    """Puts layers behind the first convolution and classifies."""
    return nn.Sequential(conv(1, 4), *layers, *tail(channels, 8))


def circular() -> nn.Module:
    return after(conv(4, 4, padding_mode="circular"))


def reflect() -> nn.Module:
    return after(conv(4, 4, padding_mode="reflect"))


class Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias, padding=1)


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Frozen(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None]


class OwnInner(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight.abs(), bias)


def conv_with_own_forward() -> nn.Module:
    return after(Standardized(4, 4, 3, padding=1))


def linear_with_own_forward() -> nn.Module:
    return nn.Sequential(nn.Flatten(), Doubled(256, 10))


def norm_with_own_forward() -> nn.Module:
    return after(Frozen(4))


def conv_with_own_inner() -> nn.Module:
    return after(OwnInner(4, 4, 3, padding=1))


def forward_hook() -> nn.Module:
    net = after(nn.ReLU())
    net[0].register_forward_hook(lambda *args: args[-1] * 2)
    return net


def pre_hook() -> nn.Module:
    net = after(nn.ReLU())
    net[1].register_forward_pre_hook(lambda _, args: (args[0] * 2,))
    return net


def hook_of_the_whole() -> nn.Module:
    net = after(nn.ReLU())
    net.register_forward_hook(lambda *args: args[-1] * 2)
    return net


def replaced_forward() -> nn.Module:
    net = after(nn.ReLU())
    net[1].forward = torch.sin  # type: ignore[method-assign]
    return net


def weight_norm() -> nn.Module:
    return after(parametrizations.weight_norm(conv(4, 4)))


def old_spectral_norm() -> nn.Module:
    return after(nn.utils.spectral_norm(conv(4, 4)))


def tied_weights() -> nn.Module:
    first, second = conv(4, 4), conv(4, 4)
    second.weight = first.weight
    return after(first, nn.ReLU(), second)


def one_layer_twice() -> nn.Module:
    layer = conv(4, 4)
    return after(layer, nn.ReLU(), layer)


def gelu() -> nn.Module:
    return after(nn.GELU())


def leaky() -> nn.Module:
    return after(nn.LeakyReLU(0.1))


class Silu(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * torch.sigmoid(x))


def nan_weights() -> nn.Module:
    net = after(nn.ReLU())
    nn.init.constant_(net[0].weight, float("nan"))
    return net


def infinite_variance() -> nn.Module:
    net = after(nn.BatchNorm2d(4))
    net[1].running_var.fill_(float("inf"))
    return net


def statistics_of_the_batch() -> nn.Module:
    return after(nn.BatchNorm2d(4, track_running_stats=False))


def lazy() -> nn.Module:
    return after(nn.LazyConv2d(4, 3, padding=1))


class Branching(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class BranchingOnSizes(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.shape[-1] == 16 else F.max_pool2d(x, 2))


class Looping(Functional):
    def forward(self, x: Tensor) -> Tensor:
        for row in x:
            x = x + row
        return super().forward(x)


class Raising(Functional):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 32:
            raise LookupError("images must have\n32 pixels")
        return super().forward(x)


class RaisingWhenMade(Functional):
    def __init__(self) -> None:
        super().__init__()
        self.conv1.weight[0] /= 0 * len(self.missing)


class OnlyWhileReading(Functional):
    """Gives other numbers to torch.fx than to images."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if isinstance(x, torch.fx.Proxy) else -y


class Normalized(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - 0.5) / 0.25)


class OwnTensor(Functional):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.scale)


class TwoImages(Functional):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x + y)


class TwoResults(Functional):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class OverwritesInput(Functional):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        flat = y.flatten(1)
        y.relu_()
        return self.fc2(flat)


class WrongSize(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.max_pool2d(x, 2))


class AlwaysDrops(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5))


def three_channels() -> nn.Module:
    return nn.Sequential(conv(3, 4), *tail(edge=8))


def seven_classes() -> nn.Module:
    return nn.Sequential(conv(1, 4), *tail(edge=8, classes=7))


def ends_with_a_map() -> nn.Module:
    return nn.Sequential(conv(1, 10))


def softmax_over_rows() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.Softmax(dim=2), *tail(edge=8))


def no_layers() -> nn.Module:
    return nn.Sequential(nn.MaxPool2d(4), nn.Flatten())


def relu6() -> nn.Module:
    return after(nn.ReLU6())


def softmax_in_the_middle() -> nn.Module:
    return after(nn.Softmax(dim=1), conv(4, 4))


def huge_bias() -> nn.Module:
    net = after(nn.ReLU())
    nn.init.constant_(net[0].bias, 1e9)
    return net


def norm_of_a_flattened_map() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.Flatten(), nn.BatchNorm1d(1024), nn.Linear(1024, 10))


def norm_of_the_images() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(1), conv(1, 4), *tail(edge=8))


def recurrent() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.RNN(256, 10))


def upsampled() -> nn.Module:
    return after(nn.Upsample(scale_factor=2), nn.MaxPool2d(2))


def transposed() -> nn.Module:
    return after(nn.ConvTranspose2d(4, 4, 3, padding=1))


def no_module() -> int:
    return 3


def dilated() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=2, dilation=2), nn.ReLU(), *tail(edge=8))


def dilated_depthwise() -> nn.Module:
    gaps = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)
    return nn.Sequential(conv(1, 4), nn.ReLU(), gaps, nn.ReLU(), *tail(edge=8))


class OwnCall(Functional):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().__call__(x)


class Alternating(Functional):
    runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Alternating.runs += 1
        y = super().forward(x)
        return y if Alternating.runs % 2 else y.relu()


class Ending(Functional):
    def forward(self, _: torch.Tensor) -> torch.Tensor:
        raise SystemExit(3)


class ReturnsTable(Functional):
    def forward(self, x: torch.Tensor) -> object:
        y = super().forward(x)
        return y, {"aux": y}


def negative_variance() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(784, 10))
    assert isinstance(net[1], nn.BatchNorm2d)
    assert net[1].running_var is not None
    net[1].running_var.fill_(-1.0)
    return net


def huge_weights() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10))
    for parameter in net.parameters():
        parameter.data *= 1e15
    return net


def data_parallel() -> nn.Module:
    return nn.DataParallel(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)))


def compiled() -> object:
    return torch.compile(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)))


def scripted() -> nn.Module:
    return torch.jit.trace(nn.Linear(16, 16), torch.zeros(1, 1, 16, 16))


def layer_alone() -> nn.Module:
    return nn.Linear(16, 10)


def frozen() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10)).requires_grad_(False)


class JoinedImages(nn.Module):
    """Nothing that it joins is written, or rounded, by a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4 * 256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([F.max_pool2d(x, 3, 1, 1), x], 1)
        return self.fc(self.conv(x).relu().flatten(1))


def relu_behind_a_pool() -> nn.Module:
    return after(nn.MaxPool2d(3, 1, 1), nn.ReLU())
