# SPDX-License-Identifier: Apache-2.0
"""Train the fp32 network with self-distillation: the data -> train.npz."""

from __future__ import annotations

from dataclasses import replace

import torch

from quant.build import Build, new_network, other_teacher
from quant.distill import self_distillation
from quant.distill.blockwise import train_blocks
from quant.distill.teacher import described
from quant.network.network import Network
from quant.network.quantization import Quantization
from quant.results import SAMPLE_IMAGES, print_quantization, saved, warn_of_chance
from quant.train.history import History
from quant.train.resume import Resume
from quant.train.training import fit
from winnow.flow import Result


def run(build: Build, resume: Resume) -> Result:
    """Train the fp32 network with self-distillation."""
    config = build.config
    with torch.random.fork_rng(devices=[]):  # layers initialise from the global generator
        torch.manual_seed(config.seed)
        net = new_network(build)
    net.to(build.device)
    if net.quantization is not None:
        return _kept(build, net, net.quantization)
    teacher = other_teacher(build)
    plan = build.plan("train", config.train.epochs, config.train.learning_rate)
    split = build.split()
    numbers: dict[str, object] = {"config": described(config)}
    if teacher is not None and config.distill.block_epochs:
        blocks = replace(plan, epochs=config.distill.block_epochs)
        numbers["block_errors"] = train_blocks(
            net, teacher, split, blocks, resume=resume, samples=SAMPLE_IMAGES
        )
    history = History()
    if config.train.epochs:
        loss = self_distillation(net, config.distill, teacher)
        history = fit(net, split, loss, plan, resume=resume)
    result = saved(build, net, "fp32", history, **numbers)
    warn_of_chance("train", result.numbers, split.classes)
    return result


def _kept(build: Build, net: Network, given: Quantization) -> Result:
    """Keep the float weights of a quantized file: they were trained for its widths."""
    print_quantization("train", given)
    print("train: its weights are kept, whatever train.epochs is; qat trains them on")
    result = saved(build, net, "fp32", History(), config=described(build.config))
    warn_of_chance("train", result.numbers, build.split().classes)
    return result
