# SPDX-License-Identifier: Apache-2.0
"""Calibrate and fine-tune the Brevitas network: train.npz, prune.npz, bits.json -> qat.npz."""

from __future__ import annotations

from quant.allocate.sizes import sparse_layers
from quant.build import Build, load_bits, load_pruned, load_teacher, quantized_network
from quant.data import to_input
from quant.distill import distillation
from quant.layers.winograd_layer import WinogradConv2d
from quant.network.calibrate import calibrate
from quant.network.network import Network
from quant.network.rewrite import tap_layers, without_dropout
from quant.prune.kernel import hold_pattern, release, through_kernel
from quant.results import SAMPLE_IMAGES, saved
from quant.train.resume import Resume
from quant.train.training import fit
from winnow.config import KERNELS, PATTERN
from winnow.flow import Result


def run(build: Build, resume: Resume) -> Result:
    """Calibrate and fine-tune the Brevitas network under the fp32 teacher."""
    config, split, teacher = build.config, build.split(), load_teacher(build)
    pruned = load_pruned(build)
    net = quantized_network(build, pruned, load_bits(build)).to(build.device)
    x = to_input(split.train.images[:SAMPLE_IMAGES]).to(build.device)
    calibrate(net, x, clip=config.quantize.weight_scale == "mse")
    held = _held_layers(build, pruned, net)
    plan = build.plan(
        "qat", config.quantize.epochs, config.quantize.learning_rate, config.quantize.batch
    )
    loss = distillation(net, teacher, config.distill)
    history = fit(net, split, loss, plan, resume=resume)
    for layer in held:
        release(layer)
    return saved(build, without_dropout(net), "quantized", history)


def _held_layers(build: Build, pruned: Network, net: Network) -> list[WinogradConv2d]:
    """Make the kernels the parameters of those layers of `net` that pruning left convolutions.

    Of whole kernels the mask of the layer says which there are; those of patterns have no mask.
    """
    layers = {n: layer for n, layer in tap_layers(net).items() if isinstance(layer, WinogradConv2d)}
    prune = build.config.prune
    if prune.method == KERNELS:
        for layer in layers.values():
            through_kernel(layer)
        return list(layers.values())
    if prune.method != PATTERN:
        return []
    keeps = build.record("prune").numbers["pattern_keep"]
    held = [name for name in sparse_layers(pruned, prune.skip) if name in layers]
    for name in held:
        hold_pattern(layers[name], keeps[name])
    return [layers[name] for name in held]
