# SPDX-License-Identifier: Apache-2.0
"""The pruning methods by name, and what each is asked to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from quant.layers.winograd_layer import TapLayer
from quant.network.layer_graph import visit_layers
from quant.network.network import Network
from quant.prune.admm import srbs_admm
from quant.prune.gradual import Magnitude
from quant.prune.keep_per_tap import allocate, gains
from quant.prune.pattern import PatternAdmm, kernels_in
from quant.prune.srbs import Compensated, layer_saliencies
from quant.prune.storage import PIXELS, spm_bits, srbs_bits
from quant.prune.straight_through import StraightThrough
from quant.prune.target import Pruner, PruningTask, Target
from quant.prune.whole_kernels import WholeKernels
from winnow.config import KERNELS, PATTERN, PruneConfig
from winnow.errors import ConfigError
from winnow.srbs import SUB_ROW

METHODS: dict[str, Callable[[PruningTask], Pruner]] = {
    "obs": Compensated,
    "magnitude": Magnitude,
    "admm": srbs_admm,
    "straight_through": StraightThrough,
    KERNELS: WholeKernels,
    PATTERN: PatternAdmm,
}
WEIGHT_BITS = 8  # of the weights whose storage is compared


def check_pruning(config: PruneConfig, layers: Mapping[str, TapLayer]) -> None:
    """Raise ConfigError if the method has nothing to prune among `layers`."""
    if config.method == PATTERN and not kernels_in(layers):
        raise ConfigError(
            "prune.method 'pattern' needs a 3x3 convolution after the first prune.skip layers, "
            f"of which there is none among the other {len(layers)}; lower prune.skip, now "
            f"{config.skip}"
        )


def storage(config: PruneConfig, layers: Mapping[str, TapLayer]) -> dict[str, float]:
    """Return the bits of all pruned 3x3 convolutions with 8-bit weights: dense and as stored.

    `rate` is the one by the other.
    """
    convolutions = kernels_in(layers).values()
    kernels = [len(layer.weight) * layer.in_channels for layer in convolutions]
    dense = sum(kernels) * PIXELS * WEIGHT_BITS
    if config.method == PATTERN:
        places = (config.pattern_keep, config.patterns)
        stored = sum(spm_bits(count, *places, WEIGHT_BITS) for count in kernels)
    else:
        left = sum(int(layer.mask.sum()) for layer in convolutions)
        stored = srbs_bits(left, config.sub_row, WEIGHT_BITS)
    return {"dense_bits": dense, "stored_bits": stored, "rate": dense / max(1, stored)}


def new_pruner(
    config: PruneConfig,
    net: Network,
    layers: Mapping[str, TapLayer],
    x: Tensor,
    keeps: Mapping[str, int] | None = None,
) -> Pruner:
    """Return the configured method for `layers` of a dense network, with sample inputs x.

    `keeps` are those of single layers, in the place of `config.keep`. The method may change how the
    network is parametrized until it is finished.
    """
    chosen = kernels_in(layers) if config.method == PATTERN else layers
    targets = srbs_targets(config, net, chosen, x, keeps or {})
    return METHODS[config.method](PruningTask(config, net, targets, x))


def srbs_targets(
    config: PruneConfig,
    net: Network,
    layers: Mapping[str, TapLayer],
    x: Tensor,
    chosen: Mapping[str, int],
) -> tuple[Target, ...]:
    """Return the SRBS patterns that layers shall have: `keep` of 8 in all, on the average per tap.

    Layers with a `chosen` keep have that. Keeps per tap follow from the OBS saliencies of the dense
    network, so that every method gets the same pattern.
    """
    length, keep = config.sub_row, config.keep * config.sub_row // SUB_ROW
    keeps: dict[TapLayer, NDArray[np.int64]] = {}

    def share(layer: TapLayer, value: Tensor) -> None:
        keeps[layer] = allocate(gains(layer_saliencies(layer, value, length), length), keep)

    if config.per_tap:
        visit_layers(net, list(layers.values()), x, share)
    return tuple(
        Target(name, layer, keeps.get(layer, _uniform(layer, chosen.get(name, keep))), length)
        for name, layer in layers.items()
    )


def _uniform(layer: TapLayer, keep: int) -> NDArray[np.int64]:
    positions = layer.by_channel(layer.mask).shape[2]
    return np.full(positions, keep, dtype=np.int64)
