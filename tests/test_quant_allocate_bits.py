# SPDX-License-Identifier: Apache-2.0
"""The width search: sensitivities, the integer program against brute force, impossible budgets."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from quant.allocate.bits import (
    WISHED_SHARE,
    Choice,
    bit_operations,
    choices_of,
    choose,
    cost_table,
    cycle_table,
    least_share,
    multiplications,
    share_of,
)
from quant.allocate.sizes import layer_keeps, layer_shapes
from quant.data import InputShape
from quant.models.library import network_of
from quant.network.calibrate import quantize_weight
from quant.network.network import Network, backbone
from quant.network.rewrite import tap_layers, to_winograd
from winnow.blocking import LayerShape, Op
from winnow.config import Config, ModelConfig, QuantizeConfig
from winnow.engine import EngineConfig
from winnow.errors import ConfigError
from winnow.window import Axis, Window

WIDTHS = (Choice(4, 8), Choice(8, 8))
SMALL = Config(model=ModelConfig(channels=(4, 8), pool_after=(1,), exit_after=(1,)))


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-12])
@pytest.mark.parametrize("most", [1000, 10**12])
@pytest.mark.parametrize("seed", range(20))
def test_choice_is_the_best_of_all(seed: int, most: int, size: float) -> None:
    """Sensitivities may be tiny, and of layers of very different ones; bit operations are many."""
    rng = np.random.default_rng(seed)
    sensitivity = np.sort(rng.random((6, 3)) * size * 10.0 ** rng.integers(-3, 1, (6, 1)))[:, ::-1]
    cost = np.sort(rng.integers(1, most, size=(6, 3)), axis=1)
    budget = 0.5 * (1 + cost[:, 0].sum() / cost[:, -1].sum())
    allowed = int(budget * cost[:, -1].sum())
    every = np.array(list(itertools.product(range(3), repeat=6)))
    rows = np.arange(6)
    feasible = every[cost[rows, every].sum(axis=1) <= allowed]
    best = sensitivity[rows, feasible].sum(axis=1).min()
    chosen = choose(sensitivity, cost, budget)
    assert cost[rows, chosen].sum() <= allowed
    assert sensitivity[rows, chosen].sum() == pytest.approx(best, rel=1e-9)


def test_of_choices_that_are_as_good_the_widest_is_taken() -> None:
    cost = np.array([[1, 2, 3], [1, 2, 3]])
    assert choose(np.array([[3.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), cost, 1.0) == [2, 2]
    assert choose(np.array([[3.0, 1.0, 1.0], [5.0, 1.0, 0.0]]), cost, 5 / 6) == [1, 2]


def test_the_cheapest_choices_are_found_even_where_costs_are_huge() -> None:
    cost = np.array([[10**15, 10**15 + 1], [10**15 + 1, 10**15 + 3]])
    least = cost[:, 0].sum() / cost[:, 1].sum()
    assert choose(np.array([[1.0, 0.0], [1.0, 0.0]]), cost, least) == [0, 0]


def test_budget_below_the_minimum_is_a_config_error() -> None:
    cycles = np.array([[500, 1000], [300, 1000]])
    match = (
        r"^quantize.budget_share must be at least 0\.400, the smallest share that "
        r"quantize.weight_bits and operand_bits can reach, got 0\.3$"
    )
    with pytest.raises(ConfigError, match=match):
        choose(np.zeros((2, 2)), cycles, 0.3)
    assert choose(np.zeros((2, 2)), cycles, 0.4) == [0, 0]


@pytest.mark.parametrize("seed", range(40))
def test_default_budget_can_be_met_by_ordinary_chains(seed: int) -> None:
    """The share of 0.92 that was the default refused most of them."""
    config = Config(model=ordinary_chain(seed))
    net = to_winograd(backbone(network_of(config.model, InputShape(3, 32, 10))), 2)
    cost = cost_table(config, net, layer_keeps(config, net))
    columns = choose(np.tile([1.0, 0.0], (len(cost), 1)), cost, config.quantize.budget_share)
    least = least_share(cost)
    assert least - 1e-9 <= share_of(cost, columns) <= max(WISHED_SHARE, least)


def ordinary_chain(seed: int) -> ModelConfig:
    """Return a VGG-style chain of 2 to 6 convolutions that widens, with a pool every two."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 7))
    widths = np.sort(rng.choice([8, 12, 16, 24, 32, 48, 64, 96], count))
    hidden = tuple(rng.choice([32, 64, 128], int(rng.integers(0, 2))).tolist())
    pools = tuple(range(2, count + 1, 2))
    return ModelConfig(
        channels=tuple(widths.tolist()), pool_after=pools, exit_after=(1,), hidden=hidden
    )


def test_some_ordinary_chains_cannot_reach_the_wished_share() -> None:
    cycles = np.array([[95, 100], [300, 300]])
    assert least_share(cycles) == 395 / 400
    assert choose(np.zeros((2, 2)), cycles, 0.0)[0] == 0


def test_full_budget_keeps_the_widest() -> None:
    cycles = np.array([[5, 9], [3, 3]])
    assert choose(np.zeros((2, 2)), cycles, 1.0) == [1, 1]
    assert share_of(cycles, [1, 1]) == 1.0
    assert share_of(cycles, [0, 1]) == 8 / 12


def winograd_of(config: Config) -> Network:
    return to_winograd(backbone(network_of(config.model, InputShape(1, 16, 10))), 2)


def digits_shapes() -> dict[str, LayerShape]:
    winograd = winograd_of(Config())
    keeps = layer_keeps(Config(), winograd)
    return layer_shapes(winograd, keeps, dict.fromkeys(tap_layers(winograd), 8))


def test_digits_budget_forces_two_widths() -> None:
    cycles = cycle_table(EngineConfig(), digits_shapes(), WIDTHS)
    columns = choose(np.tile([1e-3, 1e-6], (5, 1)), cycles, WISHED_SHARE)
    assert set(columns) == {0, 1}
    assert share_of(cycles, columns) <= WISHED_SHARE


def test_cycle_table_has_a_row_per_layer_and_grows_with_width() -> None:
    shapes = digits_shapes()
    assert [(s.op, s.in_channels, s.height, s.pool) for s in shapes.values()] == [
        (Op.WINOGRAD, 1, 16, False),
        (Op.WINOGRAD, 16, 16, True),
        (Op.WINOGRAD, 32, 8, False),
        (Op.WINOGRAD, 32, 8, True),
        (Op.DENSE, 64, 4, False),
    ]
    table = cycle_table(EngineConfig(), {**shapes, "other": None}, WIDTHS)
    assert table.shape == (6, 2)
    assert (table[:, 0] <= table[:, 1]).all()
    assert (table[:5, 0] < table[:5, 1]).any()
    assert (table[5] == 0).all()


def test_direct_layers_count_as_far_as_the_engine_has_them() -> None:
    convs = (
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 8),
        nn.Conv2d(8, 8, 1, 3),
    )
    net = to_winograd(Network.of(nn.Sequential(*convs), (3, 32, 32)), 2)
    names = list(tap_layers(net))
    shapes = layer_shapes(net, dict.fromkeys(names, 2), dict.fromkeys(names, 8))
    strided = Window(Axis(3, 2, 1, 1), Axis(3, 2, 1, 1))
    assert [shape.window for shape in shapes.values()] == [strided, Window()]
    assert list(shapes) == ["0", "1"]
    assert all(
        (cost_table(Config(), net, layer_keeps(Config(), net)) > 0).all(axis=1)
        == [True, True, False, False]
    )


def test_bit_operations_are_products_times_both_widths() -> None:
    net = winograd_of(SMALL)
    keeps = {"conv1": 1, "conv2": 2, "fc": 2}
    # taps x tiles x channels in x channels out, one or two of eight kept
    by_hand = [16 * 64 * 1 * 4 // 8, 16 * 16 * 4 * 8 * 2 // 8, 8 * 64 * 10 * 2 // 8]
    assert multiplications(net, keeps) == by_hand
    table = bit_operations(by_hand, (Choice(4, 6), Choice(8, 8)))
    assert table.tolist() == [[n * 24, n * 64] for n in by_hand]


def test_narrow_operands_pay_in_bit_operations_only() -> None:
    quantize = QuantizeConfig(weight_bits=(8,), operand_bits=(4, 8))
    config = replace(SMALL, quantize=quantize)
    net = winograd_of(config)
    cycles = cost_table(config, net, layer_keeps(config, net))
    assert (cycles[:, 0] == cycles[:, 1]).all()
    bops = cost_table(
        replace(config, quantize=replace(quantize, budget="bops")), net, layer_keeps(config, net)
    )
    assert (2 * bops[:, 0] == bops[:, 1]).all()
    assert choose(np.zeros((3, 2)), bops, 0.5) == [0, 0, 0]


def test_choices_are_all_pairs_the_widest_last() -> None:
    quantize = QuantizeConfig(weight_bits=(8, 4, 8), operand_bits=(8, 6))
    assert choices_of(Config(quantize=quantize)) == ((4, 6), (4, 8), (8, 6), (8, 8))


def test_quantized_weights_have_few_levels_and_keep_their_zeros() -> None:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(6, 8, 16, generator=generator)
    u[:, 2:] = 0
    coarse = quantize_weight(u, 3)
    assert all(len(coarse[:, :, tap].unique()) <= 7 for tap in range(16))
    assert bool((coarse[:, 2:] == 0).all())
