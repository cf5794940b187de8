# SPDX-License-Identifier: Apache-2.0
"""The whole chain from network to golden values with untrained weights, in seconds.

What a stage would refuse after hours of training is refused here first.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from quant.allocate.bits import choices_of
from quant.allocate.sizes import layer_keeps, sparse_layers
from quant.build import Build, compressed_network, new_network, quantized_network
from quant.check import check_recipe
from quant.data import Samples, to_input
from quant.golden import golden_arrays
from quant.network.calibrate import calibrate
from quant.network.network import Network
from quant.network.rewrite import fold_norms, tap_layers, to_winograd
from quant.prune.target import best_mask
from winnow.errors import NetworkError
from winnow.srbs import SUB_ROW

CALIBRATION_IMAGES, GOLDEN_IMAGES = 16, 2
TOLERANCE = 1e-4  # of the largest output, in float64


def rehearse(build: Build) -> Network:
    """Return a calibrated Brevitas network with untrained weights.

    The weights have the sparsity that pruning will leave and the widest widths that may be chosen.
    Raises the errors of the stages; NetworkError if the network in the form that is trained does
    not compute what the network of the configuration does.
    """
    check_recipe(build)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(build.config.seed)
        net = compressed_network(build, new_network(build)).eval()
    x = to_input(build.split().train.images[:CALIBRATION_IMAGES])
    tapped = to_winograd(net, build.config.engine.m)
    _require_same(net, fold_norms(tapped), x)
    _prune(build, tapped)
    folded = fold_norms(tapped)
    widest = max(choices_of(build.config))
    quantized = quantized_network(build, folded, dict.fromkeys(tap_layers(folded), widest))
    calibrate(quantized, x, clip=build.config.quantize.weight_scale == "mse")
    return quantized


def rehearsed_golden(build: Build, quantized: Network) -> dict[str, NDArray[Any]]:
    """Return the golden arrays of a few test images."""
    test = build.split().test
    return golden_arrays(
        quantized, Samples(test.images[:GOLDEN_IMAGES], test.labels[:GOLDEN_IMAGES])
    )


@torch.no_grad()
def _require_same(net: Network, rewritten: Network, x: torch.Tensor) -> None:
    want, got = (n.double()(x.double()) for n in (net, rewritten))
    off = float((want - got).abs().max() / want.abs().max().clamp(min=1e-30))
    if not off <= TOLERANCE:
        raise NetworkError(
            f"the network in the Winograd domain with BatchNorm folded differs from the one that "
            f"was given by {off:.2g} of its largest output, at most {TOLERANCE:g} is rounding; "
            "please report this network"
        )
    for n in (net, rewritten):
        n.float()


def _prune(build: Build, net: Network) -> None:
    """Keep the largest weights of every sub-row, as many as pruning will keep."""
    keeps = layer_keeps(build.config, net)
    for name, layer in sparse_layers(net, build.config.prune.skip).items():
        u = layer.by_channel(layer.u.detach())
        mask = best_mask(u.abs(), torch.full((u.shape[2],), keeps[name]).numpy(), SUB_ROW)
        layer.mask.copy_(mask.view_as(layer.mask))
