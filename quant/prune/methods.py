# SPDX-License-Identifier: Apache-2.0
"""The pruning methods by name, and what each is asked to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from quant.prune.admm import srbs_admm
from quant.prune.allocate import allocate, gains
from quant.prune.magnitude import Magnitude
from quant.prune.srbs import Compensated, layer_saliencies
from quant.prune.straight_through import StraightThrough
from quant.prune.target import Pruner, Target, Task
from quant.sites import visit_layers
from quant.winograd_layer import TapLayer
from winnow.config import PruneConfig
from winnow.srbs import SUB_ROW

METHODS: dict[str, Callable[[Task], Pruner]] = {
    "obs": Compensated,
    "magnitude": Magnitude,
    "admm": srbs_admm,
    "straight_through": StraightThrough,
}


def new_pruner(
    config: PruneConfig, net: nn.Module, layers: Mapping[str, TapLayer], x: Tensor
) -> Pruner:
    """Return the configured method for `layers` of a dense network, with sample inputs x.

    It may change how the network is parametrized until it is finished.
    """
    targets = srbs_targets(config, net, layers, x)
    return METHODS[config.method](Task(config, net, targets, x))


def srbs_targets(
    config: PruneConfig, net: nn.Module, layers: Mapping[str, TapLayer], x: Tensor
) -> tuple[Target, ...]:
    """Return the patterns that the layers shall have: `keep` of 8 in all, on the average per tap.

    Keeps per tap follow from the OBS saliencies of the dense network, so that every method gets
    the same pattern.
    """
    length, keep = config.sub_row, config.keep * config.sub_row // SUB_ROW
    keeps: dict[TapLayer, NDArray[np.int64]] = {}

    def share(layer: TapLayer, value: Tensor) -> None:
        keeps[layer] = allocate(gains(layer_saliencies(layer, value, length), length), keep)

    if config.per_tap:
        visit_layers(net, list(layers.values()), x, share)
    return tuple(
        Target(name, layer, keeps.get(layer, _uniform(layer, keep)), length)
        for name, layer in layers.items()
    )


def _uniform(layer: TapLayer, keep: int) -> NDArray[np.int64]:
    positions = layer.by_channel(layer.mask).shape[2]
    return np.full(positions, keep, dtype=np.int64)
