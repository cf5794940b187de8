# SPDX-License-Identifier: Apache-2.0
"""Costs at smaller channel counts equal those of the network that really has them."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from quant.allocate.flops import flops, parameters
from quant.allocate.layer_cost import cost_terms, layer_costs, total
from quant.allocate.sizes import layer_keeps, layer_shapes
from quant.data import InputShape
from quant.models.library import make_model, network_of
from quant.network.network import Network
from quant.network.rewrite import tap_layers, to_winograd
from quant.network.structure import channel_counts
from tests.library_nets import narrow
from winnow.config import ChannelPruningConfig, Config, ModelConfig
from winnow.cycles import layer_cycles

SHAPE = (3, 32, 32)
CONFIG = Config(
    model=ModelConfig(channels=(16, 24), pool_after=(1, 2), exit_after=(), hidden=(20,))
)


def net_of(name: str) -> Network:
    torch.manual_seed(0)
    if name == "chain":
        return network_of(CONFIG.model, InputShape(3, 32, 10))
    return Network.of(make_model(name, 10, width=0.25), SHAPE)


def narrower(net: Network) -> tuple[Network, dict[str, int]]:
    """Return a copy whose groups lost different numbers of channels, and its counts."""
    counts = {n: c // 2 - i % 3 for i, (n, c) in enumerate(channel_counts(net).items())}
    copied = copy.deepcopy(net)
    narrow(copied, counts)
    return copied, counts


def cycles(net: Network) -> int:
    """Return the modelled cycles of a network from its own shapes."""
    tapped = to_winograd(net, CONFIG.engine.m)
    bits = dict.fromkeys(tap_layers(tapped), 8)
    shapes = layer_shapes(tapped, layer_keeps(CONFIG, tapped), bits)
    return sum(layer_cycles(CONFIG.engine, shape).total for shape in shapes.values())


MEASURES = {"flops": lambda net: flops(net, SHAPE), "parameters": parameters, "cycles": cycles}


@pytest.mark.parametrize("name", ["chain", "vgg16", "vgg_nagadomi_bn", "resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("budget", MEASURES)
def test_cost_is_that_of_the_narrower_network(name: str, budget: str) -> None:
    net = net_of(name)
    terms = cost_terms(net, replace(CONFIG, prune_channels=ChannelPruningConfig(budget=budget)))
    assert total(terms, channel_counts(net)) == MEASURES[budget](net)
    smaller, counts = narrower(net)
    assert total(terms, counts) == MEASURES[budget](smaller)
    assert total(terms, counts) < total(terms, channel_counts(net))


def test_layer_costs_are_the_cycles_of_each_layer() -> None:
    net = net_of("chain")
    costs = layer_costs(net, CONFIG)
    assert list(costs) == ["conv1", "conv2", "fc1", "fc"]
    assert sum(costs.values()) == cycles(net)
