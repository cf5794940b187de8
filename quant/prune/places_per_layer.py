# SPDX-License-Identifier: Apache-2.0
"""Pattern pruning with another number of weights in every layer's kernels.

All layers together take at most the storage of `pattern_keep` in each: what a layer stores for n
weights a kernel is `quant.prune.storage.spm_bits`. What it loses is measured as for a keep per
layer, with the kernels in the patterns that would be distilled from them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from quant.allocate.bits import choose_within
from quant.layers.winograd_layer import TapLayer
from quant.network.network import Network
from quant.prune.keep_per_layer import layer_losses
from quant.prune.pattern import distil, kernels_in, nearest, num_patterns, spatial_kernels
from quant.prune.storage import PIXELS, WEIGHT_BITS, spm_bits
from winnow.config import Config, PruneConfig

PLACES = range(1, PIXELS + 1)


def layer_bits(config: PruneConfig, layer: TapLayer, places: int) -> int:
    """Return what a layer stores with `places` weights of 8 bits a kernel."""
    kernels = len(layer.weight) * layer.in_channels
    return spm_bits(kernels, places, num_patterns(config, places), WEIGHT_BITS)


def chosen_places(
    config: Config, net: Network, layers: Mapping[str, TapLayer], x: Tensor
) -> dict[str, int]:
    """Return how many weights the kernels of each 3x3 convolution keep, of `layers` of a dense net.

    `x` are sample inputs [n, c, h, w].
    """
    layers = kernels_in(layers)
    cost = place_costs(config.prune, layers)
    lost = place_losses(config, net, list(layers), x)
    columns = choose_within(lost, cost, int(cost[:, config.prune.pattern_keep - 1].sum()))
    return {name: PLACES[column] for name, column in zip(layers, columns, strict=True)}


def place_costs(config: PruneConfig, layers: Mapping[str, TapLayer]) -> NDArray[np.int64]:
    """Return the bits stored [layers, places]."""
    rows = [[layer_bits(config, layer, places) for places in PLACES] for layer in layers.values()]
    return np.array(rows, dtype=np.int64)


def place_losses(config: Config, net: Network, names: list[str], x: Tensor) -> NDArray[np.float64]:
    """Return how far the outputs for x move [layers, places] when one layer alone is pruned."""

    def pruned(layer: TapLayer) -> list[Tensor]:
        exact, found = layer.u, []
        kernels = spatial_kernels(layer)
        for places in PLACES[:-1]:
            patterns = distil(kernels.flatten(0, 1), places, num_patterns(config.prune, places))
            left = kernels * nearest(kernels, patterns)
            layer.load_spatial(left.unflatten(2, (3, 3)))
            found.append(layer.u)
        layer.set_u(exact)
        return found

    return layer_losses(config, net, names, x, pruned)
