# SPDX-License-Identifier: Apache-2.0
"""Choose the widths of every layer's weights and operands: an integer program under a budget.

Every (layer, choice of widths) has a sensitivity (`quant.allocate.sensitivity`) and a cost:
modelled cycles of the engine, or bit operations (multiplications times both widths). The program
takes one choice per layer with the least total sensitivity whose cost stays within the budget.

The cycle model knows no gain from narrow operands, so under that budget they stay wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint

from quant.allocate.integer_program import solve
from quant.allocate.sizes import layer_shapes
from quant.network.layer_graph import layer_graph
from quant.network.network import Network
from quant.network.rewrite import tap_layers
from winnow.blocking import LayerShape
from winnow.config import Config
from winnow.cycles import layer_cycles
from winnow.engine import EngineConfig
from winnow.errors import ConfigError
from winnow.srbs import SUB_ROW

WISHED_SHARE = 0.92  # what quantize.budget_share = 0 asks for where it can be met


class Choice(NamedTuple):
    """BitWidths of a layer's weights and of its operands V, in bits."""

    weight: int
    operand: int


def choices_of(config: Config) -> tuple[Choice, ...]:
    """Return the pairs of widths to choose from, each once, the widest last."""
    quantize = config.quantize
    weights, operands = sorted(set(quantize.weight_bits)), sorted(set(quantize.operand_bits))
    return tuple(Choice(weight, operand) for weight in weights for operand in operands)


def cycle_table(
    engine: EngineConfig, shapes: Mapping[str, LayerShape | None], choices: Sequence[Choice]
) -> NDArray[np.int64]:
    """Return the modelled cycles [layers, choices]; 0 for what the engine cannot run (None).

    The widths in `shapes` do not count. Raises ScheduleError naming a layer that does not fit.
    """
    table = np.zeros((len(shapes), len(choices)), dtype=np.int64)
    for row, (name, shape) in enumerate(shapes.items()):
        for column, choice in enumerate(choices):
            if shape is not None:
                narrowed = replace(shape, weight_bits=choice.weight)
                table[row, column] = layer_cycles(engine, narrowed, name).total
    return table


def bit_operations(multiplications: Sequence[int], choices: Sequence[Choice]) -> NDArray[np.int64]:
    """Return multiplications x weight bits x operand bits, [layers, choices]."""
    widths = [choice.weight * choice.operand for choice in choices]
    return np.outer(multiplications, widths).astype(np.int64)


@torch.no_grad()
def multiplications(net: Network, keeps: Mapping[str, int]) -> list[int]:
    """Return how many products each tap layer needs per image with `keeps` of 8 weights."""
    counts, placed = [], layer_graph(net.graph)
    for name, layer in tap_layers(net).items():
        place, like = placed[name], layer.weight
        size = (1, place.in_channels, place.height, place.width)
        columns = layer.input_transform(
            torch.zeros(size, dtype=like.dtype, device=like.device)
        ).shape[2]
        # Of a group of fewer channels all weights are there, though no sub-row has 8 of them.
        each = SUB_ROW if layer.groups == 1 else min(SUB_ROW, layer.row_length)
        counts.append(layer.weight.numel() * columns * keeps[name] // each)
    return counts


def cost_table(config: Config, net: Network, keeps: Mapping[str, int]) -> NDArray[np.int64]:
    """Return what the configured budget counts, [tap layers, choices], with `keeps` of 8."""
    choices = choices_of(config)
    if config.quantize.budget == "bops":
        return bit_operations(multiplications(net, keeps), choices)
    names = list(tap_layers(net))
    shapes = layer_shapes(net, keeps, dict.fromkeys(names, choices[-1].weight))
    return cycle_table(config.engine, {name: shapes.get(name) for name in names}, choices)


def check_budget(cost: NDArray[np.int64], share: float) -> int:
    """Return the cost allowed: `share` of that of the last choice, the widest.

    A share of 0 asks for `WISHED_SHARE`, or for the least there is. Raises ConfigError when even
    the cheapest choice exceeds any other share.
    """
    widest, least = int(cost[:, -1].sum()), int(cost.min(axis=1).sum())
    if not share:
        return max(least, int(WISHED_SHARE * widest))
    allowed = int(share * widest)
    if least > allowed:
        smallest = np.ceil(1000 * least / widest) / 1000
        raise ConfigError(
            f"quantize.budget_share must be at least {smallest:.3f}, the smallest share that "
            f"quantize.weight_bits and operand_bits can reach, got {share:g}"
        )
    return allowed


def choose(sensitivity: NDArray[np.float64], cost: NDArray[np.int64], share: float) -> list[int]:
    """Return the column of the best choice for every row of both tables [layers, choices].

    Of choices that are as good the last, widest one is taken. Raises ConfigError as `check_budget`.
    """
    return choose_within(sensitivity, cost, check_budget(cost, share))


def choose_within(
    sensitivity: NDArray[np.float64], cost: NDArray[np.int64], allowed: int
) -> list[int]:
    """Return the same for a budget that the cheapest choices can reach."""
    spare = 0
    while True:
        columns = _solve(sensitivity, cost, allowed - spare)
        if columns is None:  # only the cheapest choices are within the budget
            columns = cost.argmin(axis=1)
        over = _used(cost, columns) - allowed
        if over <= 0:
            return _widened(sensitivity, cost, columns, allowed)
        spare = max(over, 2 * spare)  # costs so large that the solver's tolerance is above one


def _solve(
    sensitivity: NDArray[np.float64], cost: NDArray[np.int64], limit: int
) -> NDArray[np.int64] | None:
    layers, choices = cost.shape
    one_each = np.kron(np.eye(layers), np.ones(choices))
    scale = max(1, int(cost.max()))
    rules = [
        LinearConstraint(one_each, 1, 1),
        LinearConstraint(cost.reshape(1, -1) / scale, -np.inf, limit / scale),
    ]
    taken = solve(sensitivity.ravel(), rules)
    return None if taken is None else taken.reshape(layers, choices).argmax(axis=1)


def _widened(
    sensitivity: NDArray[np.float64],
    cost: NDArray[np.int64],
    columns: NDArray[np.int64],
    allowed: int,
) -> list[int]:
    """Return the last choices that are no worse and within the budget, row by row."""
    widened = [int(column) for column in columns]
    for row, column in enumerate(widened):
        left = allowed - _used(cost, widened) + cost[row, column]
        good = (sensitivity[row] <= sensitivity[row, column]) & (cost[row] <= left)
        widened[row] = int(np.flatnonzero(good)[-1])
    return widened


def _used(cost: NDArray[np.int64], columns: Sequence[int] | NDArray[np.int64]) -> int:
    return sum(int(cost[row, column]) for row, column in enumerate(columns))


def share_of(cost: NDArray[np.int64], columns: Sequence[int]) -> float:
    """Return the cost of the chosen columns as a share of that of the last ones."""
    return _used(cost, columns) / max(1, int(cost[:, -1].sum()))


def least_share(cost: NDArray[np.int64]) -> float:
    """Return the cost of the cheapest choices as a share of that of the widest."""
    return share_of(cost, [int(column) for column in cost.argmin(axis=1)])
