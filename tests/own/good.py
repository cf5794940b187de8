# SPDX-License-Identifier: Apache-2.0
"""Networks as users write them, for images 1x16x16 and 10 classes, that the engine runs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


def conv(i: int, o: int, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1, **more)


def tail(channels: int = 4, edge: int = 2, classes: int = 10) -> list[nn.Module]:
    """Pools down from twice `edge` and classifies."""
    return [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(channels * edge**2, classes)]


def sequential() -> nn.Module:
    return nn.Sequential(
        conv(1, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4), nn.ReLU(), *tail(edge=4)
    )


def nested() -> nn.Module:
    block = nn.Sequential(conv(1, 4), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.Identity())
    return nn.Sequential(OrderedDict(features=block, classifier=nn.Sequential(*tail(edge=8))))


class Functional(nn.Module):
    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(1, channels), conv(channels, channels)
        self.fc1, self.fc2 = nn.Linear(channels * 16, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), kernel_size=2, stride=2)
        x = x.view(x.size(0), -1)
        x = F.dropout(F.relu(self.fc1(x)), 0.2, self.training)
        return self.fc2(x)


class Sized(Functional):
    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x).relu(), 2)
        x = F.max_pool2d(self.conv2(x).relu_(), 2)
        n, c, h, w = x.shape
        return self.fc2(self.fc1(x.reshape(n, c * h * w)).relu())


def in_place() -> nn.Module:
    relu = nn.ReLU(inplace=True)  # shared too
    return nn.Sequential(conv(1, 4), relu, nn.MaxPool2d(2), conv(4, 4), relu, *tail(edge=4))


def dropout() -> nn.Module:
    return nn.Sequential(
        conv(1, 4),
        nn.ReLU(),
        nn.Dropout2d(0.1),
        *tail(edge=8)[:2],
        nn.Dropout(),
        nn.Linear(256, 10),
    )


def same_padding() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding="same"), nn.ReLU(), *tail(edge=8))


def no_affine() -> nn.Module:
    return nn.Sequential(
        conv(1, 4, bias=False), nn.BatchNorm2d(4, affine=False), nn.ReLU(), *tail(edge=8)
    )


def no_bias_anywhere() -> nn.Module:
    norm = nn.BatchNorm2d(4, bias=False)
    return nn.Sequential(
        conv(1, 4, bias=False), norm, nn.ReLU(), *tail(edge=8)[:2], nn.Linear(256, 10, bias=False)
    )


def norms_after_dense() -> nn.Module:
    return nn.Sequential(
        *[conv(1, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 8)],
        *[nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10), nn.BatchNorm1d(10, affine=False)],
    )


class AnyNames(nn.Module):
    """Names that are members of our networks, reserved, no identifiers, or equal once written."""

    def __init__(self) -> None:
        super().__init__()
        self.input = conv(1, 4)
        self.layers = nn.Sequential(conv(4, 4), conv(4, 4))
        self.layers_0, self.Layers_0_pool, self._conv = conv(4, 4), conv(4, 4), conv(4, 4)
        self.größe, self.層, self.graph = conv(4, 4), conv(4, 4), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(F.relu(self.input(x)))
        x = F.relu(self._conv(F.relu(self.Layers_0_pool(self.layers_0(x)))))
        return self.graph(F.max_pool2d(F.relu(self.層(self.größe(x))), 2).flatten(1))


def down_to_one_pixel() -> nn.Module:
    steps = [m for i in (1, 4, 4, 4) for m in (conv(i, 4), nn.ReLU(), nn.MaxPool2d(2))]
    return nn.Sequential(*steps, nn.Flatten(), nn.Linear(4, 10))


def pools_with_nothing_left_over() -> nn.Module:
    steps = [m for i in (1, 4) for m in (conv(i, 4), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True))]
    return nn.Sequential(*steps, nn.Flatten(), nn.Linear(4 * 16, 10))


def one_channel_wide() -> nn.Module:
    return nn.Sequential(conv(1, 1), nn.ReLU(), conv(1, 3), nn.ReLU(), *tail(3, 8))


def dense_only() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10))


def no_relu() -> nn.Module:
    return nn.Sequential(conv(1, 4), conv(4, 4), *tail(edge=8))


def ends_with_relu() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.ReLU(), *tail(edge=8), nn.ReLU())


def ends_with_softmax() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.ReLU(), *tail(edge=8), nn.Softmax(dim=1))


class LogSoftmax(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(super().forward(x), dim=-1)


def ends_with_sigmoid() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.ReLU(), *tail(edge=8), nn.Dropout(), nn.Sigmoid())


def fully_convolutional() -> nn.Module:
    blocks = [m for i in (1, 4, 4) for m in (conv(i, 4), nn.ReLU(), nn.MaxPool2d(2))]
    return nn.Sequential(*blocks, conv(4, 10), nn.MaxPool2d(2))


class Conv3(nn.Conv2d):
    """A subclass that only sets defaults."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__(i, o, 3, padding=1, bias=False)


def defaults_of_a_subclass() -> nn.Module:
    return nn.Sequential(Conv3(1, 4), nn.BatchNorm2d(4), nn.ReLU(), *tail(edge=8))


class Unused(Functional):
    """Has layers that it does not run, and one that only training runs."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.LSTM(3, 3)
        self.auxiliary = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + self.auxiliary.weight.mean()
        return super().forward(x)


def with_arguments(channels: int, names: list[str], scale: float = 1.0) -> nn.Module:
    assert (names, scale) == (["a", "b"], 0.5)
    return Functional(channels)


class Identities(Functional):
    """Steps that change nothing, and sizes that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)).contiguous(), 2)
        x = self.same(F.max_pool2d(F.relu(self.conv2(x)), 2))
        x = F.adaptive_avg_pool2d(x, 4).reshape(-1, x.size(1) * x.shape[2] * x.size()[-1])
        return self.fc2(F.relu(self.fc1(torch.flatten(x, start_dim=1))))


def two_norms() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.BatchNorm2d(4), nn.BatchNorm2d(4), *tail(edge=8))


def two_relus() -> nn.Module:
    return nn.Sequential(conv(1, 4), nn.ReLU(), nn.ReLU(), *tail(edge=8))


def random_weights_of_its_own() -> nn.Module:
    net = Functional()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(5))
    return net


def deep() -> nn.Module:
    """Values of untrained layers in such a row vanish, unless BatchNorm knows their spread."""
    layers: list[nn.Module] = []
    for channels in [1, *[6] * 13]:
        layers += [nn.Conv2d(channels, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 64, 10))


def dead() -> nn.Module:
    """No value is left behind the first ReLU."""
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 256, 10),
    )
    for parameter in net[0].parameters():
        parameter.data = -parameter.data.abs()
    return net


def odd_edges() -> nn.Module:
    first = nn.Conv2d(1, 4, 4)
    return nn.Sequential(first, nn.ReLU(), conv(4, 4), nn.ReLU(), *tail(edge=6))


def not_square() -> nn.Module:
    first = nn.Conv2d(1, 4, (3, 5), padding=(1, 0), stride=(2, 1))
    linear = nn.Linear(4 * 4 * 6, 10)
    return nn.Sequential(first, nn.ReLU(), conv(4, 4), nn.MaxPool2d(2), nn.Flatten(), linear)


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(1, 4), conv(4, 6), nn.Conv2d(4, 6, 1)
        self.fc = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.fc(F.relu(self.a(x) + self.b(x)).mean((2, 3)))


def global_mean() -> nn.Module:
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(conv(1, 8), nn.ReLU(), pool, nn.Flatten(), nn.Linear(8, 10))


def global_mean_at_the_end() -> nn.Module:
    first = nn.Sequential(conv(1, 4), nn.ReLU())
    return nn.Sequential(first, conv(4, 10), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def settings_changed() -> nn.Module:
    """What a function sets for all of torch is undone."""
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.Flatten(), nn.Linear(6 * 256, 10))


def traced_by_fx() -> nn.Module:
    return fx.symbolic_trace(Functional().eval())


def other_pools() -> nn.Module:
    """A stem as for large images, an average behind pools that keep incomplete windows."""
    stem = [nn.Conv2d(1, 8, 7, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    rest = [conv(8, 9), nn.ReLU(), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, ceil_mode=True)]
    return nn.Sequential(*stem, *rest, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 10))


def needless_relus() -> nn.Module:
    """ReLUs behind pools of what is not negative, with an average behind them."""
    first = [conv(1, 8), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU(), conv(8, 8), nn.ReLU()]
    rest = [nn.MaxPool2d(3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*first, *rest, nn.Flatten(), nn.Linear(8, 10))


def needless_relu_behind_a_free_pool() -> nn.Module:
    pool = [nn.MaxPool2d(2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(conv(1, 8), nn.ReLU(), *pool, nn.Flatten(), nn.Linear(8, 10))


class Fire(nn.Module):
    """Two convolutions of one map, joined; a pool of one of them, joined with a strided one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze = conv(1, 8), nn.Conv2d(8, 4, 1)
        self.one, self.three = nn.Conv2d(4, 16, 1), conv(4, 6)
        self.pooled, self.strided = conv(22, 8), nn.Conv2d(22, 5, 3, stride=2, padding=1)
        self.fc = nn.Linear(13 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(F.relu(self.stem(x))))
        x = torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)
        pooled = F.max_pool2d(F.relu(self.pooled(x)), 2)
        return self.fc(torch.cat([pooled, F.relu(self.strided(x))], 1).flatten(1))


class Dense(nn.Module):
    """Every layer reads all maps before it; the last one adds them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(1, 8), conv(8, 16), conv(24, 5)
        self.mix, self.fc = nn.Conv2d(29, 29, 1), nn.Linear(29, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([x, F.relu(self.a(x))], 1)
        x = torch.cat([x, F.relu(self.b(x))], 1)
        return self.fc(F.relu(self.mix(x) + x).mean((2, 3)))


def grouped() -> nn.Module:
    first = [conv(1, 4), nn.ReLU(), conv(4, 6, groups=2), nn.ReLU()]
    strided = nn.Conv2d(6, 9, (5, 3), stride=2, padding=1, groups=3)
    return nn.Sequential(*first, strided, nn.ReLU(), nn.Flatten(), nn.Linear(9 * 7 * 8, 10))


def depthwise_separable() -> nn.Module:
    """Two blocks as in MobileNet, one of them of stride 2; the first convolution is depthwise."""

    def block(i: int, o: int, **more: Any) -> list[nn.Module]:
        across = conv(i, i, groups=i, bias=False, **more)
        norms = nn.BatchNorm2d(i), nn.BatchNorm2d(o)
        return [across, norms[0], nn.ReLU(), nn.Conv2d(i, o, 1, bias=False), norms[1], nn.ReLU()]

    blocks = [*block(1, 44), *block(44, 12, stride=2)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))


class Inverted(nn.Module):
    """A block of MobileNetV2 with its sum; its depthwise convolution has two outputs a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.widen = conv(1, 8), nn.Conv2d(8, 40, 1)
        self.across, self.narrow = conv(40, 80, groups=40), nn.Conv2d(80, 8, 1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.max_pool2d(F.relu(self.across(F.relu(self.widen(x)))), 2)
        return self.fc((F.max_pool2d(x, 2) + self.narrow(y)).mean((2, 3)))
