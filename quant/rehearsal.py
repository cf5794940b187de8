# SPDX-License-Identifier: Apache-2.0
"""The whole chain from network to golden values with untrained weights, in seconds.

What a stage would refuse after hours of training is refused here first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quant.allocate.bits import choices_of
from quant.allocate.given_bits import given_choices
from quant.allocate.sizes import layer_keeps, sparse_layers
from quant.build import Build, compressed_network, new_network, quantized_network
from quant.check import check_recipe
from quant.data import Samples, to_input
from quant.data.own import require_repeatable
from quant.golden import golden_arrays
from quant.network.calibrate import calibrate
from quant.network.layer_graph import visit_layers
from quant.network.network import Network
from quant.network.rewrite import fold_norms, tap_layers, to_winograd, without_dropout
from quant.network.same import random_images, require_same, result, with_statistics
from quant.prune.target import best_mask
from quant.results import print_quantization
from winnow.config import Config
from winnow.srbs import SUB_ROW

CALIBRATION_IMAGES, GOLDEN_IMAGES = 16, 2
CALIBRATION_PIXELS = 1 << 18  # of large images fewer are enough, which bounds the memory


def rehearse(build: Build) -> Network:
    """Return a calibrated Brevitas network with untrained weights, or those of a checkpoint.

    The weights have the sparsity that pruning will leave and the widest widths that may be chosen,
    or those of a quantized file.
    Raises the errors of the stages; NetworkError if the network in the form that is trained does
    not compute what the network of the configuration does.
    """
    require_repeatable(build.config.data)
    check_recipe(build)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(build.config.seed)
        given = new_network(build)
    for step in given.on_host:
        print(f"check: {step} at the end runs on the host: the label is the same without it")
    if given.quantization is not None:
        print_quantization("check", given.quantization)
    net, quantization = compressed_network(build, given).eval(), given.quantization
    x = to_input(build.split().train.images[: calibration_images(net.graph.input)])
    _check_rewrites(net, build.config)
    _set_statistics(net, x)
    tapped = _in_taps(net, build.config)
    del given, net  # every copy of a VGG16 takes a gigabyte
    _prune(build, tapped)
    folded = fold_norms(tapped)
    del tapped
    names = list(tap_layers(folded))
    widths = dict.fromkeys(names, max(choices_of(build.config)))
    if quantization is not None:
        widths = given_choices(build.config, quantization, names)
    quantized = quantized_network(build, folded, widths)
    calibrate(quantized, x, clip=build.config.quantize.weight_scale == "mse")
    return quantized


def calibration_images(shape: tuple[int, int, int]) -> int:
    """Return how many images of a shape [c, h, w] scales are chosen from."""
    fit = CALIBRATION_PIXELS // (shape[1] * shape[2])
    return min(CALIBRATION_IMAGES, max(2, fit))


def rehearsed_golden(build: Build, quantized: Network) -> dict[str, NDArray[Any]]:
    """Return the golden arrays of a few test images."""
    test = build.split().test
    return golden_arrays(
        quantized, Samples(test.images[:GOLDEN_IMAGES], test.labels[:GOLDEN_IMAGES])
    )


def _in_taps(net: Network, config: Config) -> Network:
    return to_winograd(net, config.engine.m, unroll=config.prune.unrolls)


def _check_rewrites(net: Network, config: Config) -> None:
    """Raise NetworkError unless every rewriting pass leaves what the network computes as it is."""
    passes: tuple[tuple[str, Callable[[Network], Network]], ...] = (
        ("the network in the Winograd domain", lambda made: _in_taps(made, config)),
        ("the network with BatchNorm folded", fold_norms),
        ("the network without dropout", without_dropout),
    )
    made, x = with_statistics(net), random_images(net.graph.input)
    want = result(made, x)
    for what, rewritten in passes:
        made = rewritten(made)  # one copy at a time: they are large
        require_same(want, result(made, x), what)


@torch.no_grad()
def _set_statistics(net: Network, x: Tensor) -> None:
    """Give BatchNorms that have seen no image, in place, the statistics of x.

    With fresh ones the values of a deep network vanish, which training would not let happen.
    """

    def visit(norm: nn.BatchNorm2d, values: Tensor) -> None:
        axes = [axis for axis in range(values.dim()) if axis != 1]
        norm.running_mean.copy_(values.mean(axes))
        norm.running_var.copy_(values.var(axes, unbiased=False))

    norms = [m for m in net.layers().values() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    fresh = [m for m in norms if bool((m.running_mean == 0).all() and (m.running_var == 1).all())]
    visit_layers(net, fresh, x, visit)


def _prune(build: Build, net: Network) -> None:
    """Keep the largest weights of every sub-row, as many as pruning will keep."""
    keeps = layer_keeps(build.config, net)
    for name, layer in sparse_layers(net, build.config.prune.skip).items():
        u = layer.by_channel(layer.u.detach())
        mask = best_mask(u.abs(), torch.full((u.shape[2],), keeps[name]).numpy(), SUB_ROW)
        layer.mask.copy_(mask.view_as(layer.mask))
