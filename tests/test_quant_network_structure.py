# SPDX-License-Identifier: Apache-2.0
"""Channel groups and blocks that follow from the graph: those of the library, and of others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quant.data import InputShape
from quant.models.chain import ChainNet, chain_spec
from quant.models.library import NAMES, make_model
from quant.network.channels import ChannelGroup
from quant.network.network import Network, backbone
from quant.network.structure import block_ends, channel_groups
from winnow.config import ModelConfig

SHAPE = (3, 32, 32)


def library(name: str, edge: int = 32, width: float = 1.0) -> Network:
    """Return a network of the library without storage."""
    with torch.device("meta"):
        return Network.of(make_model(name, 10, edge=edge, width=width), (3, edge, edge))


def vgg_groups(convs: list[int], norm: int, positions: int) -> list[ChannelGroup]:
    """Return the groups of a VGG network: every convolution, read by the next layer."""
    names = [f"features.{i}" for i in convs]
    readers = [*names[1:], "classifier.0"]
    return [
        ChannelGroup(
            name,
            (name,),
            (f"features.{i + 1}",) * norm,
            (reader,),
            positions if reader == "classifier.0" else 1,
        )
        for name, i, reader in zip(names, convs, readers, strict=True)
    ]


@pytest.mark.parametrize("edge", [32, 224])
def test_groups_of_a_vgg_are_all_convolutions(edge: int) -> None:
    plain = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    normed = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]
    pixels = {32: 1, 224: 49}[edge]
    assert channel_groups(library("vgg16", edge).graph) == vgg_groups(plain, 0, pixels)
    assert channel_groups(library("vgg16_bn", edge).graph) == vgg_groups(normed, 1, pixels)


@pytest.mark.parametrize(
    ("name", "depths", "inner"),
    [
        ("resnet8", (1, 1, 1), (1,)),
        ("resnet20", (3, 3, 3), (1,)),
        ("resnet18", (2, 2, 2, 2), (1,)),
        ("resnet34", (3, 4, 6, 3), (1,)),
        ("resnet50", (3, 4, 6, 3), (1, 2)),
    ],
)
def test_groups_of_a_resnet_are_inside_its_blocks(
    name: str, depths: tuple[int, ...], inner: tuple[int, ...]
) -> None:
    units = [f"layer{i}.{j}" for i, depth in enumerate(depths, 1) for j in range(depth)]
    for edge in (32, 224):
        assert channel_groups(library(name, edge).graph) == [
            ChannelGroup(
                f"{unit}.conv{i}",
                (f"{unit}.conv{i}",),
                (f"{unit}.bn{i}",),
                (f"{unit}.conv{i + 1}",),
            )
            for unit in units
            for i in inner
        ]


def test_groups_of_mobilenet_are_its_hidden_channels() -> None:
    first = ChannelGroup(
        "features.0.0",
        ("features.0.0",),
        ("features.0.1", "features.1.conv.0.0", "features.1.conv.0.1"),
        ("features.1.conv.1",),
    )
    hidden = [
        ChannelGroup(
            f"features.{i}.conv.0.0",
            (f"features.{i}.conv.0.0",),
            tuple(f"features.{i}.conv.{part}" for part in ("0.1", "1.0", "1.1")),
            (f"features.{i}.conv.2",),
        )
        for i in range(2, 18)
    ]
    last = ChannelGroup("features.18.0", ("features.18.0",), ("features.18.1",), ("classifier.1",))
    assert channel_groups(library("mobilenet_v2").graph) == [first, *hidden, last]
    # Narrow, the first block has a shortcut around those channels.
    narrow = channel_groups(library("mobilenet_v2", width=0.25).graph)
    assert narrow == [*hidden, last]


CHAIN = ModelConfig(
    channels=(8, 16, 8), pool_after=(1, 2), exit_after=(1,), exit_head="convolutions", hidden=(16,)
)


def test_groups_of_a_chain_are_read_by_its_exits_too() -> None:
    net = Network.of(ChainNet(chain_spec(CHAIN, InputShape(3, 32, 10))), SHAPE, "by_exit")
    assert channel_groups(net.graph) == [
        ChannelGroup("conv1", ("conv1",), ("conv1_norm",), ("exits.conv1.exit1_conv1", "conv2")),
        ChannelGroup("conv2", ("conv2",), ("conv2_norm",), ("conv3",)),
        ChannelGroup("conv3", ("conv3",), ("conv3_norm",), ("fc1",), 64),
    ]
    assert channel_groups(backbone(net).graph)[0].consumers == ("conv2",)


class Branches(nn.Module):
    """Two convolutions over one map, joined; a convolution in groups reads the first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(i, 8, 1) for i in (3, 8, 8))
        self.c, self.d = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 1, groups=2)
        self.relu, self.fc = nn.ReLU(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = torch.cat([self.relu(self.a(x)), self.relu(self.b(x))], 1)
        return self.fc(self.relu(self.d(self.relu(self.c(x)))).mean((2, 3)))


def test_channels_that_are_joined_or_read_in_groups_are_left_alone() -> None:
    net = Network.of(Branches(), SHAPE)
    assert [group.name for group in channel_groups(net.graph)] == ["d"]


ENDS = {
    "vgg16": ["features.2", "features.7", "features.14", "features.21", "features.28"],
    "vgg16_bn": ["features.4", "features.11", "features.21", "features.31", "features.41"],
    "vgg_nagadomi": ["features.2", "features.8", "features.18"],
    "vgg_nagadomi_bn": ["features.4", "features.12", "features.26"],
    "resnet8": [f"layer{i}.0.relu_1" for i in range(1, 4)],
    "resnet20": [f"layer{i}.2.relu_1" for i in range(1, 4)],
    "resnet18": [f"layer{i}.1.relu_1" for i in range(1, 5)],
    "resnet34": [f"layer{i}.{last}.relu_1" for i, last in enumerate((2, 3, 5, 2), 1)],
    "resnet50": [f"layer{i}.{last}.relu_2" for i, last in enumerate((2, 3, 5, 2), 1)],
    "mobilenet_v2": [
        "features.1.conv.2", "add", "add_2", "add_5", "add_7", "add_9", "features.17.conv.3",
    ],
}  # fmt: skip
ENDS["mobilenet_v2_relu"] = ENDS["mobilenet_v2"]


@pytest.mark.parametrize("edge", [32, 224])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_end_before_the_size_changes(name: str, edge: int) -> None:
    assert block_ends(library(name, edge).graph) == ENDS[name]


def test_blocks_of_a_chain_end_with_norms() -> None:
    net = Network.of(ChainNet(chain_spec(CHAIN, InputShape(3, 32, 10))), SHAPE, "by_exit")
    assert block_ends(net.graph) == ["conv1_norm", "conv2_norm", "conv3_norm"]


def test_strided_convolutions_begin_blocks() -> None:
    convs = [nn.Conv2d(8, 8, 3, stride, 1) for stride in (1, 2, 1, 2)]
    layers = [m for conv in convs for m in (conv, nn.ReLU())]
    net = Network.of(nn.Sequential(nn.Conv2d(3, 8, 1), *layers, nn.Flatten()), SHAPE)
    assert block_ends(net.graph) == ["1", "5", "7"]
