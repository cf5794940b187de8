# SPDX-License-Identifier: Apache-2.0
"""Choose the weight width of every layer: KL sensitivity, then an integer program.

The sensitivity of (layer, bits) is the KL divergence between the pruned network's outputs and the
outputs with only that layer's weights quantized to `bits`. The program picks one width per layer
with the least total divergence whose modelled cycles stay within the budget.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from quant.calibrate import quantize_weight
from quant.model import WinogradNet, layer_shapes, net_spec
from winnow.config import Config
from winnow.cycles import layer_cycles
from winnow.errors import ConfigError

TIE = 1e-6  # prefers wider weights among choices of equal divergence, in units of divergence


def widths_of(config: Config) -> tuple[int, ...]:
    """Return the widths to choose from, narrowest first, each once."""
    return tuple(sorted(set(config.quantize.weight_bits)))


@torch.no_grad()
def sensitivities(net: WinogradNet, x: Tensor, widths: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the mean KL divergence [layers, widths] for inputs x [n, c, h, w]."""
    net.eval()
    reference = F.log_softmax(net(x), dim=1)
    table = np.zeros((len(net.layers), len(widths)))
    for row, layer in enumerate(net.layers.values()):
        exact = layer.u
        for column, bits in enumerate(widths):
            layer.set_u(quantize_weight(exact, bits))
            changed = F.log_softmax(net(x), dim=1)
            divergence = F.kl_div(changed, reference, reduction="batchmean", log_target=True)
            table[row, column] = float(divergence)
        layer.set_u(exact)
    return table


def cycle_table(config: Config) -> NDArray[np.int64]:
    """Return the modelled cycles [layers, widths] of the configured engine."""
    columns = []
    names = net_spec(config).pools
    for bits in widths_of(config):
        shapes = layer_shapes(config, dict.fromkeys(names, bits))
        columns.append([layer_cycles(config.engine, s, n).total for n, s in shapes.items()])
    return np.array(columns, dtype=np.int64).T


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


def search(config: Config, divergence: NDArray[np.float64]) -> tuple[dict[str, int], float]:
    """Return the chosen bits by layer name, and their share of the widest choice's cycles."""
    widths = widths_of(config)
    cycles = cycle_table(config)
    columns = choose(divergence, cycles, config.quantize.cycle_budget)
    names = net_spec(config).pools
    bits = {name: widths[column] for name, column in zip(names, columns, strict=True)}
    used = sum(int(cycles[row, column]) for row, column in enumerate(columns))
    return bits, used / int(cycles[:, -1].sum())
