# SPDX-License-Identifier: Apache-2.0
"""Keep per layer: as many modelled cycles as one keep for all, spent where it helps most.

What a layer loses by keeping k of 8 is how far the network's outputs move when this layer alone is
pruned so: the KL divergence, or the mean square for a network that gives values. BatchNorm takes
its statistics from the sample, as retraining would. One integer program takes the keeps of least
total loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quant.allocate.bits import choose_within
from quant.allocate.layer_cost import NORMS, WEIGHT_BITS
from quant.allocate.sensitivity import divergence, outputs
from quant.allocate.sizes import asked_keep, layer_keeps, layer_shapes
from quant.layers.winograd_layer import DirectConv2d, TapLayer, WinogradConv2d
from quant.network.network import Network
from quant.network.rewrite import tap_layers
from quant.prune.kernel import nearest_kernel
from quant.prune.target import best_mask
from winnow.config import KERNELS, Config
from winnow.cycles import layer_cycles
from winnow.progress import steps
from winnow.srbs import SUB_ROW

KEEPS = range(1, SUB_ROW + 1)


def chosen_keeps(
    config: Config, net: Network, layers: Mapping[str, TapLayer], x: Tensor
) -> dict[str, int]:
    """Return the keep of every layer, for a dense network and sample inputs x [n, c, h, w].

    All layers together take at most the cycles of `prune.keep` in each (of `prune.first_keep` in
    an unrolled one), at 8-bit weights.
    """
    if not layers:  # prune.skip leaves none
        return {}
    cost, allowed = keep_costs(config, net, list(layers))
    lost = keep_losses(config, net, list(layers), x)
    columns = choose_within(lost, cost, allowed)
    return {name: KEEPS[column] for name, column in zip(layers, columns, strict=True)}


def keep_costs(config: Config, net: Network, names: list[str]) -> tuple[NDArray[np.int64], int]:
    """Return modelled cycles [layers, keeps], and what `prune.keep` takes in all of them.

    Layers without an operation of the engine cost nothing. Raises ScheduleError for one that the
    engine cannot hold.
    """
    keeps = layer_keeps(config, net)
    shapes = layer_shapes(net, keeps, dict.fromkeys(tap_layers(net), WEIGHT_BITS))
    cost = np.zeros((len(names), SUB_ROW), dtype=np.int64)
    for row, name in enumerate(names):
        for column, keep in enumerate(KEEPS):
            if name in shapes:
                shape = replace(shapes[name], keep=min(keep, shapes[name].in_channels))
                cost[row, column] = layer_cycles(config.engine, shape, name).total
    layers = tap_layers(net)
    asked = [asked_keep(config.prune, layers[name]) for name in names]
    return cost, sum(int(row[keep - 1]) for row, keep in zip(cost, asked, strict=True))


def keep_losses(config: Config, net: Network, names: list[str], x: Tensor) -> NDArray[np.float64]:
    """Return how far the outputs for x move [layers, keeps] when one layer alone is pruned."""

    def pruned(layer: TapLayer) -> list[Tensor]:
        u, score = layer.u, _score(layer, kernels=config.prune.method == KERNELS)
        masks = [best_mask(score, np.full(score.shape[2], k), SUB_ROW) for k in KEEPS[:-1]]
        return [(layer.by_channel(u) * mask).view_as(u) for mask in masks]

    return layer_losses(config, net, names, x, pruned)


@torch.no_grad()
def layer_losses(
    config: Config,
    net: Network,
    names: list[str],
    x: Tensor,
    pruned: Callable[[TapLayer], list[Tensor]],
) -> NDArray[np.float64]:
    """Return how far the outputs for x move [layers, choices] when one layer alone is pruned.

    `pruned(layer)` gives its weights U for every choice but the last, which is the layer as it is.
    """
    net, values = copy.deepcopy(net).eval(), config.data.has_values
    for module in net.modules():
        if isinstance(module, NORMS):
            module.train()
    layers = tap_layers(net)
    reference = outputs(net, x, values=values)
    lost = []
    for layer in steps("measuring pruned layers", [layers[name] for name in names]):
        exact, row = layer.u, []
        for u in pruned(layer):
            layer.set_u(u)
            row.append(divergence(net, x, reference, values=values))
        layer.set_u(exact)
        lost.append([*row, 0.0])
    return np.array(lost)


def _score(layer: TapLayer, *, kernels: bool) -> Tensor:
    """Return the size of the weights [oc, ic, positions], or [oc, ic, 1] of whole kernels."""
    if kernels and isinstance(layer, WinogradConv2d):
        return nearest_kernel(layer).flatten(2).norm(dim=2, keepdim=True)
    u = layer.by_channel(layer.u)
    if kernels and isinstance(layer, DirectConv2d):
        return u.norm(dim=2, keepdim=True)
    return u.abs()
