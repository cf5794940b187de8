# SPDX-License-Identifier: Apache-2.0
"""Compact structure: which widths are tried, what they cost together, and the best path."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from quant.allocate.layer_cost import CostTerm, cost_terms, total
from quant.data import InputShape
from quant.models.library import make_model, network_of
from quant.network.network import Network
from quant.prune_channels.structure import (
    BlockWidth,
    candidates,
    choose_path,
    group_blocks,
    pair_costs,
)
from quant.prune_channels.task import width_choices
from winnow.config import ChannelPruningConfig, Config, ModelConfig

SHAPE = (3, 32, 32)
PERCENTS = (25, 50, 75)
CHAIN = ModelConfig(channels=(16, 32, 64), pool_after=(2, 3), exit_after=())


def net_of(name: str) -> Network:
    torch.manual_seed(0)
    if name == "chain":
        return network_of(CHAIN, InputShape(3, 32, 10))
    return Network.of(make_model(name, 10, width=0.25), SHAPE)


def test_widths_are_the_nearest_multiples() -> None:
    assert width_choices(64, PERCENTS, 8) == [16, 32, 48, 64]
    assert width_choices(20, (10, 50, 90), 8) == [8, 8, 16, 20]
    assert width_choices(10, (10, 55), 1) == [1, 6, 10]
    assert width_choices(4, PERCENTS, 8) == [4, 4, 4, 4]


def test_all_groups_of_a_block_are_narrowed_together() -> None:
    net = net_of("chain")
    assert group_blocks(net) == {"conv1": 0, "conv2": 0, "conv3": 1}
    first, second, head = candidates(net, PERCENTS, 8)
    assert [choice.counts for choice in first] == [
        {"conv1": 8, "conv2": 8},
        {"conv1": 8, "conv2": 16},
        {"conv1": 16, "conv2": 24},
        {"conv1": 16, "conv2": 32},
    ]
    assert [choice.counts["conv3"] for choice in second] == [16, 32, 48, 64]
    assert head == [BlockWidth({})]


@pytest.mark.parametrize("name", ["chain", "vgg16_bn", "resnet18", "mobilenet_v2"])
def test_pairs_of_neighbours_add_up_to_the_cost_of_every_combination(name: str) -> None:
    net = net_of(name)
    terms = cost_terms(net, Config(prune_channels=ChannelPruningConfig(budget="flops")))
    table = candidates(net, PERCENTS, 8)
    fixed, costs = pair_costs(terms, group_blocks(net), table)
    assert [cost.shape[1] for cost in costs] == [len(choices) for choices in table]
    generator = np.random.default_rng(0)
    for _ in range(20):
        path = [int(generator.integers(len(choices))) for choices in table]
        counts: dict[str, int] = {}
        for choices, taken in zip(table, path, strict=True):
            counts |= choices[taken].counts
        before = [0, *path]
        pairs = sum(int(c[before[b], path[b]]) for b, c in enumerate(costs))
        assert fixed + pairs == total(terms, counts)


def test_a_layer_that_joins_distant_blocks_is_refused() -> None:
    term = CostTerm("far", "a", "c", (1, 1), lambda read, written: read * written)
    table = [[BlockWidth({name: 1})] for name in "abc"]
    with pytest.raises(ValueError, match="'far' joins blocks 1 and 3"):
        pair_costs([term], {"a": 0, "b": 1, "c": 2}, table)


@pytest.mark.parametrize("scale", [1.0, 1e-7])
@pytest.mark.parametrize("seed", range(12))
def test_chosen_path_is_the_best_of_all(seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    sizes = [1, *generator.integers(1, 5, size=4).tolist()]
    costs = [generator.integers(1, 50, size=pair) for pair in itertools.pairwise(sizes)]
    errors = [(scale * generator.random(size)).tolist() for size in sizes[1:]]
    paths = list(itertools.product(*(range(size) for size in sizes[1:])))

    def cost_of(path: tuple[int, ...]) -> int:
        return sum(
            int(c[i, j]) for c, (i, j) in zip(costs, itertools.pairwise((0, *path)), strict=True)
        )

    def error_of(path: tuple[int, ...]) -> float:
        return sum(e[j] for e, j in zip(errors, path, strict=True))

    all_costs = sorted(map(cost_of, paths))
    for limit in (all_costs[0], all_costs[len(paths) // 3], all_costs[-1]):
        best = min(error_of(path) for path in paths if cost_of(path) <= limit)
        chosen = tuple(choose_path(errors, costs, limit))
        assert cost_of(chosen) <= limit
        assert error_of(chosen) == pytest.approx(best, rel=1e-9, abs=0)
