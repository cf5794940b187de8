# SPDX-License-Identifier: Apache-2.0
"""The stages of `python -m quant`: each reads files of a build, writes its own and a record.

    train -> train.npz   shrink -> shrink.npz   prune -> prune.npz   bits -> bits.json
    qat -> qat.npz       golden -> golden.npz

A stage whose inputs have not changed is skipped; an interrupted one continues after its last
whole epoch. Records hold accuracies in percent and seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from quant.allocate.bits import check_budget as check_bits
from quant.allocate.bits import choices_of, choose, cost_table, share_of
from quant.allocate.layer_cost import cost_parts, total
from quant.allocate.sensitivity import sensitivities
from quant.allocate.sizes import measured_keeps, sparse_layers
from quant.build import (
    Build,
    compressed_network,
    load_compact,
    load_pruned,
    load_quantized,
    load_teacher,
    load_trained,
    new_network,
    other_teacher,
    quantized_network,
)
from quant.data import to_input
from quant.distill import distillation, self_distillation
from quant.distill.blockwise import train_blocks
from quant.distill.teacher import check_blocks, described
from quant.golden import golden_arrays, layer_name
from quant.layers.winograd_layer import WinogradConv2d
from quant.network.calibrate import calibrate
from quant.network.network import Network
from quant.network.network_file import save_network
from quant.network.rewrite import fold_norms, tap_layers, to_winograd
from quant.network.structure import channel_counts
from quant.prune.kernel import hold_pattern, release
from quant.prune.methods import check_pruning, new_pruner, storage
from quant.shrink.cascade import cascade
from quant.shrink.structure import structure
from quant.shrink.task import Task, check_budget
from quant.train.history import History
from quant.train.resume import Resume
from quant.train.training import fit
from winnow import flow
from winnow.artefact import save_arrays, sha256_value
from winnow.config import PATTERN
from winnow.flow import Result, Stage, stage_inputs, staleness

CHANNEL_METHODS = {"structure": structure, "cascade": cascade}
SAMPLE_IMAGES = 256  # training images that pruning, sensitivity and calibration look at


def run_stage(stage: Stage, build: Build) -> None:
    """Run a stage of quant/ unless it is current; print one line of what it measured.

    Processes that torchrun started beside the first one help to train and leave no file.
    """
    if not build.world.is_main:
        if stage.name in KINDS.values() and staleness(stage, build) is not None:
            WORK[stage.name](build, _resume(stage, build, stage_inputs(stage, build)))
        return

    def work(inputs: Mapping[str, str]) -> Result:
        return WORK[stage.name](build, _resume(stage, build, inputs))

    flow.run_stage(stage, build, work)
    _resume(stage, build, {}).clear()


def _resume(stage: Stage, build: Build, inputs: Mapping[str, str]) -> Resume:
    """Return where an interrupted run of a stage is kept."""
    key = sha256_value([inputs, build.device.type, torch.get_num_threads(), build.world.size])
    return Resume(build.out / f"{stage.name}.resume.npz", key, build.command(stage.name))


def train(build: Build, resume: Resume) -> Result:
    """Train the fp32 network with self-distillation."""
    config = build.config
    with torch.random.fork_rng(devices=[]):  # layers initialise from the global generator
        torch.manual_seed(config.seed)
        net = new_network(build)
    net.to(build.device)
    teacher = other_teacher(build)
    _check_recipe(build, net, teacher)
    plan = build.plan("train", config.train.epochs, config.train.learning_rate)
    split = build.split()
    numbers: dict[str, object] = {"config": described(config)}
    if teacher is not None and config.distill.block_epochs:
        blocks = replace(plan, epochs=config.distill.block_epochs)
        numbers["block_errors"] = train_blocks(
            net, teacher, split, blocks, resume=resume, samples=SAMPLE_IMAGES
        )
    loss = self_distillation(net, config.distill, teacher)
    history = fit(net, split, loss, plan, resume=resume)
    return _saved(build, net, "fp32", history, **numbers)


def _check_recipe(build: Build, net: Network, teacher: Network | None) -> None:
    """Raise ConfigError for what later stages could not do, before anything is trained."""
    config = build.config
    compressed = compressed_network(build, net)  # an exit that is not there
    check_blocks(net, teacher or net, config.distill)
    check_blocks(compressed, teacher or net, replace(config.distill, block_epochs=0))
    if config.shrink.method != "none":
        parts = cost_parts(compressed, config)
        check_budget(config, parts, compressed)
    tapped = to_winograd(compressed, config.engine.m)
    check_pruning(config.prune, sparse_layers(tapped, config.prune.skip))
    check_bits(cost_table(config, tapped), config.quantize.budget_share)


def shrink(build: Build, resume: Resume) -> Result:
    """Remove channels until the network is within its budget, and fine-tune it."""
    config, trained = build.config, load_trained(build)
    net = compressed_network(build, trained)
    if config.shrink.method == "none":
        numbers = {"channels": channel_counts(net), "share": 1.0}
        return _saved(build, net, "shrunk", History(), **numbers)
    parts = cost_parts(net, config)
    check_budget(config, parts, net)
    plan = build.plan("shrink", config.shrink.epochs, config.shrink.learning_rate)
    teacher = other_teacher(build) or trained
    task = Task(config, net, teacher, build.split(), parts, SAMPLE_IMAGES, plan, resume)
    found = CHANNEL_METHODS[config.shrink.method](task)
    counts = channel_counts(found.net)
    numbers = {"channels": counts, "share": total(parts, counts) / task.full, **found.numbers}
    return _saved(build, found.net, "shrunk", found.history, **numbers)


def prune(build: Build, resume: Resume) -> Result:
    """Prune by the configured method, fine-tune under the teacher, fold BatchNorm."""
    config, split, teacher = build.config, build.split(), load_teacher(build)
    net = to_winograd(load_compact(build), config.engine.m)
    x = to_input(split.train.images[:SAMPLE_IMAGES]).to(build.device)
    sparse = sparse_layers(net, config.prune.skip)
    pruner = new_pruner(config.prune, net, sparse, x)
    plan = build.plan("prune", config.prune.epochs, config.prune.learning_rate, config.prune.batch)
    loss = distillation(net, teacher, config.distill)
    history = fit(net, split, loss, plan, resume=resume, begin_epoch=pruner.begin_epoch)
    pruner.release()
    numbers = {"storage": storage(config.prune, sparse), **pruner.numbers()}
    folded = fold_norms(net)
    return _saved(build, folded, "pruned", history, keep=measured_keeps(folded), **numbers)


def choose_bits(build: Build, resume: Resume) -> Result:  # noqa: ARG001 (no training here)
    """Choose the widths of every layer under the budget."""
    config, net, samples = build.config, load_pruned(build), build.split().train
    x = to_input(samples.images[:SAMPLE_IMAGES]).to(build.device)
    labels = samples.labels[:SAMPLE_IMAGES].to(build.device)
    choices, names = choices_of(config), list(tap_layers(net))
    table = sensitivities(net, x, labels, choices, config.quantize.sensitivity)
    cost = cost_table(config, net)
    columns = choose(table, cost, config.quantize.budget_share)
    chosen = {name: choices[column] for name, column in zip(names, columns, strict=True)}
    share = share_of(cost, columns)
    numbers = {
        "bits": {name: choice.weight for name, choice in chosen.items()},
        "operand_bits": {name: choice.operand for name, choice in chosen.items()},
        "cost_share": share,
        "choices": choices,
        "sensitivity": dict(zip(names, table.tolist(), strict=True)),
        "cost": dict(zip(names, cost.tolist(), strict=True)),
    }
    text = " ".join(
        f"{name}={choice.weight}"
        + (f"x{choice.operand}" if len(config.quantize.operand_bits) > 1 else "")
        for name, choice in chosen.items()
    )
    return Result(
        [], f"{text}, {share:.3f} of the widest choice's {config.quantize.budget}", numbers
    )


def qat(build: Build, resume: Resume) -> Result:
    """Calibrate and fine-tune the Brevitas network under the fp32 teacher."""
    config, split, teacher = build.config, build.split(), load_teacher(build)
    pruned = load_pruned(build)
    net = quantized_network(build, pruned).to(build.device)
    x = to_input(split.train.images[:SAMPLE_IMAGES]).to(build.device)
    calibrate(net, x, clip=config.quantize.weight_scale == "mse")
    held = _pattern_layers(build, pruned, net)
    for layer in held:
        hold_pattern(layer, config.prune.pattern_keep)
    plan = build.plan(
        "qat", config.quantize.epochs, config.quantize.learning_rate, config.quantize.batch
    )
    loss = distillation(net, teacher, config.distill)
    history = fit(net, split, loss, plan, resume=resume)
    for layer in held:
        release(layer)
    return _saved(build, net, "quantized", history)


def _pattern_layers(build: Build, pruned: Network, net: Network) -> list[WinogradConv2d]:
    """Return the layers of `net` whose kernels are pattern-pruned but have no mask for it."""
    if build.config.prune.method != PATTERN:
        return []
    names = sparse_layers(pruned, build.config.prune.skip)
    layers = [net.get_submodule(name) for name in names]
    return [layer for layer in layers if isinstance(layer, WinogradConv2d)]


def golden(build: Build, resume: Resume) -> Result:  # noqa: ARG001 (no training here)
    """Write every layer's integers for the whole test set."""
    net = load_quantized(build)
    arrays = golden_arrays(net, build.split().test)
    path = build.out / "golden.npz"
    save_arrays(path, arrays)
    logits = arrays[f"layer.{layer_name(net.graph.head())}"][:, :, 0, 0]
    right = logits.argmax(1) == arrays["labels"]
    accuracy = 100 * float(right.mean())
    summary = f"integers of {len(right)} test images, accuracy {accuracy:.2f}%,"
    return Result([path], summary, {"images": len(right), "golden_accuracy": accuracy})


KINDS = {"fp32": "train", "shrunk": "shrink", "pruned": "prune", "quantized": "qat"}
# Networks -> their stage; of these reports compare three.
COMPARED = tuple((kind, KINDS[kind]) for kind in ("fp32", "pruned", "quantized"))


def _saved(build: Build, net: Network, kind: str, history: History, **numbers: object) -> Result:
    """Save a trained network and measure it: a quantized one in float64, which is exact."""
    path = build.out / f"{KINDS[kind]}.npz"
    files = save_network(path, net) if build.world.is_main else []
    accuracies = build.accuracies(kind, net.double() if kind == "quantized" else net)
    summary = f"{kind} test accuracy {accuracies[f'{kind}_accuracy']:.2f}%"
    return Result(files, summary, accuracies | {"history": history.table()} | numbers)


WORK: dict[str, Callable[[Build, Resume], Result]] = {
    "train": train,
    "shrink": shrink,
    "prune": prune,
    "bits": choose_bits,
    "qat": qat,
    "golden": golden,
}
STAGES = {stage.name: stage for stage in flow.STAGES if stage.folder == "quant"}
