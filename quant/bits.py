# SPDX-License-Identifier: Apache-2.0
"""Choose the weight width of every layer: KL sensitivity, then an integer program.

The sensitivity of (layer, bits) is the KL divergence between the pruned network's outputs and the
outputs with only that layer's weights quantized to `bits`. The program picks one width per layer
with the least total divergence whose modelled cycles stay within the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

from quant.calibrate import quantize_weight
from quant.convert import tap_layers
from winnow.blocking import LayerShape
from winnow.config import Config
from winnow.cycles import layer_cycles
from winnow.engine import EngineConfig
from winnow.errors import ConfigError

TIE = 1e-6  # prefers wider weights among choices of equal divergence, in units of divergence


def widths_of(config: Config) -> tuple[int, ...]:
    """Return the widths to choose from, narrowest first, each once."""
    return tuple(sorted(set(config.quantize.weight_bits)))


@torch.no_grad()
def sensitivities(net: nn.Module, x: Tensor, widths: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the mean KL divergence [tap layers, widths] for inputs x [n, c, h, w]."""
    net.eval()
    reference = F.log_softmax(net(x), dim=1)
    layers = tap_layers(net)
    table = np.zeros((len(layers), len(widths)))
    for row, layer in enumerate(layers.values()):
        exact = layer.u
        for column, bits in enumerate(widths):
            layer.set_u(quantize_weight(exact, bits))
            changed = F.log_softmax(net(x), dim=1)
            divergence = F.kl_div(changed, reference, reduction="batchmean", log_target=True)
            table[row, column] = float(divergence)
        layer.set_u(exact)
    return table


def cycle_table(
    engine: EngineConfig, shapes: Sequence[LayerShape | None], widths: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return the modelled cycles [layers, widths] of an engine; 0 for what it cannot run (None).

    The widths in `shapes` do not count.
    """
    table = np.zeros((len(shapes), len(widths)), dtype=np.int64)
    for row, shape in enumerate(shapes):
        for column, bits in enumerate(widths):
            if shape is not None:
                narrowed = replace(shape, weight_bits=bits)
                table[row, column] = layer_cycles(engine, narrowed).total
    return table


def choose(divergence: NDArray[np.float64], cycles: NDArray[np.int64], budget: float) -> list[int]:
    """Return the column of the best width for every row of both tables [layers, widths].

    `budget` is the share of the cycles of the last column, the widest. Raises ConfigError when
    even the cheapest choice exceeds it.
    """
    layers, widths = cycles.shape
    widest = int(cycles[:, -1].sum())
    least = int(cycles.min(axis=1).sum())
    allowed = int(budget * widest)
    if least > allowed:
        share = np.ceil(1000 * least / widest) / 1000
        raise ConfigError(
            f"quantize.cycle_budget must be at least {share:.3f}, the smallest share that "
            f"quantize.weight_bits can reach, got {budget:g}"
        )
    cost = divergence + TIE * (widths - 1 - np.arange(widths))
    one_each = np.kron(np.eye(layers), np.ones(widths))
    solution = milp(
        cost.ravel(),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(cycles.reshape(1, -1), -np.inf, allowed),
        ],
        integrality=np.ones(cost.size),
        bounds=Bounds(0, 1),
    )
    assert solution.x is not None, solution.message  # feasible by the check above
    return [int(i) for i in solution.x.reshape(layers, widths).argmax(axis=1)]


def share_of(cycles: NDArray[np.int64], columns: Sequence[int]) -> float:
    """Return the cycles of the chosen columns as a share of those of the last ones."""
    used = sum(int(cycles[row, column]) for row, column in enumerate(columns))
    return used / max(1, int(cycles[:, -1].sum()))
