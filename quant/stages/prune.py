# SPDX-License-Identifier: Apache-2.0
"""Prune by the configured method, fold BatchNorm: train.npz, prune_channels.npz -> prune.npz.

Method "pattern" also writes prune.spm.
"""

from __future__ import annotations

from dataclasses import replace

from quant.allocate.sizes import measured_keeps, sparse_layers
from quant.build import Build, load_compact, load_teacher
from quant.data import to_input
from quant.distill import distillation
from quant.network.network import Network
from quant.network.rewrite import fold_norms, to_winograd
from quant.prune.methods import chosen_per_layer, new_pruner, storage
from quant.prune.spm_file import SPM_FILE, quantized_layers, write_spm
from quant.results import SAMPLE_IMAGES, saved
from quant.train.resume import Resume
from quant.train.training import fit
from winnow.config import PATTERN
from winnow.flow import Result


def run(build: Build, resume: Resume) -> Result:
    """Prune by the configured method, fine-tune under the teacher, fold BatchNorm."""
    config, split, teacher = build.config, build.split(), load_teacher(build)
    net = to_winograd(load_compact(build), config.engine.m, unroll=config.prune.unrolls)
    x = to_input(split.train.images[:SAMPLE_IMAGES]).to(build.device)
    sparse = sparse_layers(net, config.prune.skip)
    keeps = chosen_per_layer(config, net, sparse, x)
    pruner = new_pruner(config.prune, net, sparse, x, keeps)
    plan = build.plan("prune", config.prune.epochs, config.prune.learning_rate, config.prune.batch)
    loss = distillation(net, teacher, config.distill)
    history = fit(net, split, loss, plan, resume=resume, begin_epoch=pruner.begin_epoch)
    pruner.release()
    numbers = {"storage": storage(config.prune, sparse, keeps), **pruner.numbers()}
    folded = fold_norms(net)
    result = saved(build, folded, "pruned", history, keep=measured_keeps(folded), **numbers)
    return with_spm(build, folded, result) if build.world.is_main else result


def with_spm(build: Build, net: Network, result: Result) -> Result:
    """Return the result with the file of packed kernels, if the method is "pattern"."""
    path = build.out / SPM_FILE
    path.unlink(missing_ok=True)  # another method leaves none
    if build.config.prune.method != PATTERN:
        return result
    write_spm(path, quantized_layers(net, result.numbers["patterns"]))
    return replace(result, outputs=[*result.outputs, path])
