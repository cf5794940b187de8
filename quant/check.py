# SPDX-License-Identifier: Apache-2.0
"""What later stages would refuse, found before anything is trained."""

from __future__ import annotations

from dataclasses import replace

import torch

from quant.allocate.bits import check_budget as check_bits
from quant.allocate.bits import cost_table
from quant.allocate.given_bits import given_choices
from quant.allocate.layer_cost import cost_terms
from quant.allocate.sizes import layer_keeps, sparse_layers
from quant.build import Build, compressed_network, new_network, other_teacher
from quant.distill.teacher import check_blocks
from quant.network.rewrite import tap_layers, to_winograd
from quant.prune.methods import check_pruning
from quant.prune_channels.task import check_task
from winnow.errors import ConfigError


def check_recipe(build: Build) -> None:
    """Raise ConfigError for what later stages could not do, before anything is trained."""
    config, teacher = build.config, other_teacher(build)
    with torch.random.fork_rng(devices=[]):  # layers initialise from the global generator
        net = new_network(build)
    trains = config.train.epochs and net.quantization is None
    if trains and not any(p.requires_grad for p in net.parameters()):
        raise ConfigError(
            "train.epochs must be 0 for a network whose weights are all frozen, got "
            f"{config.train.epochs}; or set requires_grad to True"
        )
    compressed = compressed_network(build, net)  # an exit that is not there
    check_blocks(net, teacher or net, config.distill)
    check_blocks(compressed, teacher or net, replace(config.distill, block_epochs=0))
    if config.prune_channels.method != "none":
        terms = cost_terms(compressed, config)
        check_task(config, terms, compressed)
    tapped = to_winograd(compressed, config.engine.m, unroll=config.prune.unrolls)
    check_pruning(config.prune, sparse_layers(tapped, config.prune.skip))
    if net.quantization is not None:
        given_choices(config, net.quantization, list(tap_layers(tapped)))
    else:
        cost = cost_table(config, tapped, layer_keeps(config, tapped))
        check_bits(cost, config.quantize.budget_share)
