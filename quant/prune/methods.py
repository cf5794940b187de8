# SPDX-License-Identifier: Apache-2.0
"""The pruning methods by name, and what each is asked to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from quant.allocate.sizes import asked_keep
from quant.layers.winograd_layer import TapLayer
from quant.network.layer_graph import visit_layers
from quant.network.network import Network
from quant.prune.admm import srbs_admm
from quant.prune.gradual import Magnitude
from quant.prune.keep_per_layer import chosen_keeps
from quant.prune.keep_per_tap import allocate, gains
from quant.prune.pattern import PatternAdmm, kernels_in
from quant.prune.places_per_layer import chosen_places, layer_bits
from quant.prune.srbs import Compensated, layer_saliencies
from quant.prune.storage import PIXELS, WEIGHT_BITS, srbs_bits
from quant.prune.straight_through import StraightThrough
from quant.prune.target import Pruner, PruningTask, Target
from quant.prune.whole_kernels import WholeKernels
from winnow.config import KERNELS, PATTERN, Config, PruneConfig
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


def check_pruning(config: PruneConfig, layers: Mapping[str, TapLayer]) -> None:
    """Raise ConfigError if the method has nothing to prune among `layers`."""
    if config.method == PATTERN and not kernels_in(layers):
        raise ConfigError(
            "prune.method 'pattern' needs a 3x3 convolution without groups after the first "
            f"prune.skip layers, of which there is none among the other {len(layers)}; lower "
            f"prune.skip, now {config.skip}"
        )


def chosen_per_layer(
    config: Config, net: Network, layers: Mapping[str, TapLayer], x: Tensor
) -> dict[str, int]:
    """Return the keep of every layer of a dense network if `prune.per_layer` asks for that.

    Of "pattern" it is the weights of a kernel. `x` are sample inputs.
    """
    if not config.prune.per_layer:
        return {}
    choose = chosen_places if config.prune.method == PATTERN else chosen_keeps
    return choose(config, net, layers, x)


def places_of(
    config: PruneConfig, layers: Mapping[str, TapLayer], chosen: Mapping[str, int]
) -> dict[str, int]:
    """Return how many weights the kernels of each 3x3 convolution keep under "pattern"."""
    return {name: chosen.get(name, config.pattern_keep) for name in kernels_in(layers)}


def storage(
    config: PruneConfig, layers: Mapping[str, TapLayer], chosen: Mapping[str, int]
) -> dict[str, float]:
    """Return the bits of all pruned 3x3 convolutions with 8-bit weights: dense and as stored.

    `rate` is the one by the other; `chosen` the keeps of single layers.
    """
    convolutions = kernels_in(layers)
    kernels = [len(layer.weight) * layer.in_channels for layer in convolutions.values()]
    dense = sum(kernels) * PIXELS * WEIGHT_BITS
    if config.method == PATTERN:
        places = places_of(config, layers, chosen)
        stored = sum(layer_bits(config, convolutions[name], n) for name, n in places.items())
    else:
        left = sum(int(layer.mask.sum()) for layer in convolutions.values())
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

    `keeps` are those of single layers, in the place of `config.keep` or `pattern_keep`. The method
    may change how the network is parametrized until it is finished.
    """
    if config.method != PATTERN:
        targets = srbs_targets(config, net, layers, x, keeps or {})
        return METHODS[config.method](PruningTask(config, net, targets, x))
    targets = srbs_targets(config, net, kernels_in(layers), x, {})
    places = places_of(config, layers, keeps or {})
    return METHODS[config.method](PruningTask(config, net, targets, x, places))


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
    length = config.sub_row

    def keep_of(layer: TapLayer) -> int:
        return asked_keep(config, layer) * length // SUB_ROW

    keeps: dict[TapLayer, NDArray[np.int64]] = {}

    def share(layer: TapLayer, value: Tensor) -> None:
        keeps[layer] = allocate(
            gains(layer_saliencies(layer, value, length), length), keep_of(layer)
        )

    if config.per_tap:
        visit_layers(net, list(layers.values()), x, share)
    return tuple(
        Target(
            name,
            layer,
            keeps.get(layer, _uniform(layer, chosen.get(name, keep_of(layer)))),
            length,
        )
        for name, layer in layers.items()
    )


def _uniform(layer: TapLayer, keep: int) -> NDArray[np.int64]:
    positions = layer.by_channel(layer.mask).shape[2]
    return np.full(positions, keep, dtype=np.int64)
