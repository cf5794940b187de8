# SPDX-License-Identifier: Apache-2.0
"""The layer graph: which layer reads which, and what follows it, in chains, sums and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quant.data import InputShape
from quant.layers.quant_add import QuantAverage
from quant.models.chain import ChainNet, chain_spec
from quant.models.library import make_model
from quant.network.graph import INPUT
from quant.network.layer_graph import (
    LayerGraph,
    layer_graph,
    layer_results,
    lone_pools,
    rounding,
    visit_layers,
    written_results,
)
from quant.network.network import Network
from winnow.config import ModelConfig

MODEL = ModelConfig(
    channels=(4, 6, 8), pool_after=(1, 3), exit_after=(1, 2), exit_head="convolutions", hidden=(12,)
)


def chain() -> Network:
    return Network.of(ChainNet(chain_spec(MODEL, InputShape(2, 12, 5))), (2, 12, 12), "by_exit")


def layers_of(module: nn.Module, shape: tuple[int, int, int]) -> LayerGraph:
    return layer_graph(Network.of(module, shape).graph)


def test_chain() -> None:
    found = [
        (p.name, p.source, p.in_channels, p.height, p.norm, p.relu, p.pool, p.result)
        for p in layer_graph(chain().graph).values()
    ]
    assert found == [
        ("conv1", INPUT, 2, 12, "conv1_norm", True, "pool", "pool"),
        ("conv2", "conv1", 4, 6, "conv2_norm", True, None, "relu_1"),
        ("conv3", "conv2", 6, 6, "conv3_norm", True, "pool_1", "pool_1"),
        ("fc1", "conv3", 8, 3, None, True, None, "relu_3"),
        ("fc", "fc1", 12, 1, None, False, None, "fc"),
    ]


def test_results_are_taken_after_what_follows() -> None:
    net = chain().eval()
    x = torch.rand(3, 2, 12, 12)
    results = layer_results(net.train(), x)
    assert net.training
    net.eval()
    assert torch.equal(results["conv3"], net.with_exits(x)[0][0][1])
    assert torch.equal(results["fc"], net(x))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_sum_belongs_to_the_layer_that_only_it_reads(inplace: bool) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
            self.relu = nn.ReLU(inplace)

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.a(x))
            z = self.b(y)
            z += y
            return self.c(self.relu(z))

    found = layers_of(Sum(), (2, 6, 6)).values()
    assert [(p.source, p.relu, p.add, p.add_relu, p.result) for p in found] == [
        (INPUT, True, None, False, "relu"),
        ("a", False, "iadd", True, "relu_1"),
        ("b", False, None, False, "c"),
    ]


def test_of_two_layers_the_later_one_adds_and_none_adds_twice() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(4))
            self.pool = nn.MaxPool2d(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x) + self.b(x)
            y = y + x
            return self.d(self.pool(self.c(y)) + y)

    found = layers_of(Sums(), (2, 6, 6))
    assert {name: p.add for name, p in found.items()} == {
        **dict.fromkeys("acd"),
        "b": "add",
    }
    assert [found[name].source for name in "cd"] == [None, None]


def test_what_is_read_twice_has_no_follower() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y.relu()) + self.c(y)

    found = layers_of(Twice(), (2, 6, 6))
    assert not found["a"].relu
    assert [found[name].source for name in "bc"] == [None, "a"]


def test_residual_network() -> None:
    placed = layers_of(make_model("resnet18", 10, width=0.125), (3, 32, 32))
    assert len(placed) == 21  # 17 convolutions, 3 projections, the classifier
    assert placed["layer1.0.conv1"].source == "conv1"
    assert placed["layer1.0.conv2"].source == "layer1.0.conv1"
    assert placed["layer1.1.conv1"].source == "layer1.0.conv2"
    assert [p.relu for p in placed.values()].count(True) == 9  # the stem and the blocks' first
    adding = [name for name, p in placed.items() if p.add and p.add_relu]
    assert adding == [f"layer{i}.{j}.conv2" for i in range(1, 5) for j in range(2)]


def test_other_pools_and_those_of_other_layers_stand_alone() -> None:
    conv, wide = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 5, padding=2)
    ceil = nn.MaxPool2d(2, ceil_mode=True)
    for first, pool in ((conv, nn.MaxPool2d(3, 2, 1)), (conv, ceil), (wide, nn.MaxPool2d(2))):
        net = Network.of(nn.Sequential(first, pool, nn.Conv2d(2, 2, 1)), (2, 7, 7))
        placed, behind = layer_graph(net.graph).values()
        assert placed.pool is None
        assert behind.source is None
        assert lone_pools(net.graph) == ["1"]
        assert rounding(net.graph, "1") == ["0"]
    assert lone_pools(chain().graph) == []
    net = Network.of(nn.Sequential(conv, nn.AvgPool2d(2), nn.Conv2d(2, 2, 1)), (2, 7, 7))
    assert layer_graph(net.graph)["2"].source is None
    assert lone_pools(net.graph) == []


def test_a_pool_that_would_keep_a_rest_follows_where_there_is_none() -> None:
    pool = nn.MaxPool2d(2, ceil_mode=True)
    module = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), pool)
    assert layers_of(module, (2, 6, 8))["0"].pool == "1"
    assert layers_of(module, (2, 6, 7))["0"].pool is None
    assert layers_of(module, (2, 7, 8))["0"].pool is None


def test_layers_pools_and_averages_write_results_of_their_own() -> None:
    pool, mean = nn.MaxPool2d(3, 1), QuantAverage(8, relu=True, flat=False, log2_pixels=4)
    layers = nn.Conv2d(2, 2, 1), pool, mean, nn.Flatten(), nn.Linear(2, 3)
    graph = Network.of(nn.Sequential(*layers), (2, 6, 6)).graph
    assert lone_pools(graph) == ["1"]
    assert written_results(graph) == {name: name for name in "0412"}
    layers = nn.Conv2d(2, 2, 1), nn.ReLU(), mean, nn.Flatten(), nn.Linear(2, 3)
    graph = Network.of(nn.Sequential(*layers), (2, 4, 4)).graph
    assert layer_graph(graph)["0"].result == "2"
    assert written_results(graph) == {"0": "1", "4": "4", "2": "2"}


def test_a_pool_of_the_images_is_rounded_by_nothing() -> None:
    net = Network.of(nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 2, 1)), (2, 6, 6))
    assert lone_pools(net.graph) == ["0"]
    assert rounding(net.graph, "0") == []


@pytest.mark.parametrize("order", ["norm after relu", "norm after pool", "relu after pool"])
def test_steps_in_another_order_do_not_follow(order: str) -> None:
    steps = {"norm": nn.BatchNorm2d(2), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2)}
    last, first = (steps[name] for name in order.split(" after "))
    net = nn.Sequential(nn.Conv2d(2, 2, 1), first, last, nn.Conv2d(2, 2, 1))
    assert layers_of(net, (2, 8, 8))["3"].source is None


def test_layers_are_visited_with_what_earlier_visits_left() -> None:
    net = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Linear(2, 2)), (2, 1, 1))
    seen = []

    def double(layer: nn.Module, x: Tensor) -> None:
        seen.append(x.clone())
        with torch.no_grad():
            layer.weight.copy_(2 * torch.eye(2))
            layer.bias.zero_()

    visit_layers(net, list(net.layers().values()), torch.ones(1, 2, 1, 1), double)
    assert [x.tolist() for x in seen] == [[[1, 1]], [[2, 2]]]
    assert net.training
