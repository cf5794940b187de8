# SPDX-License-Identifier: Apache-2.0
"""The stages of `python -m quant`: each reads files of a build, writes its own and a record.

    train -> train.npz   prune -> prune.npz   bits -> bits.json   qat -> qat.npz
    golden -> golden.npz

A stage whose inputs have not changed is skipped; an interrupted one continues after its last
whole epoch. Records hold accuracies in percent and seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quant.bits import cycle_table, search, sensitivities, widths_of
from quant.calibrate import calibrate
from quant.checkpoint import load_model, save_model
from quant.data import Split, load_split, to_input
from quant.distill import distillation, self_distillation
from quant.golden import golden_arrays
from quant.model import QuantNet, SpatialNet, WinogradNet, folded_net, net_spec
from quant.prune import keep_schedule, pruning_steps, step_at
from quant.training import Plan, Resume, accuracy, fit
from winnow.artefact import Record, is_current, save_arrays, sha256_file, sha256_value
from winnow.config import Config
from winnow.errors import ArtefactError
from winnow.srbs import max_keep

CODE_VERSION = "1"  # raise when a stage's result changes for the same inputs
SAMPLE_IMAGES = 256  # training images that pruning, sensitivity and calibration look at

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Build:
    """One run of a stage: configuration, folder of the build, and where to compute.

    `config_path` is only for messages that print a command.
    """

    config: Config
    out: Path
    device: torch.device
    progress: bool = False
    config_path: str = "CONFIG"

    def command(self, verb: str) -> str:
        """Return the command that runs a stage of this build."""
        return f"python -m quant {verb} --config {self.config_path} --out {self.out}"

    def plan(self, name: str, epochs: int, learning_rate: float) -> Plan:
        """Return how a stage trains; every stage draws from its own seed."""
        train = self.config.train
        offset = {"train": 1, "prune": 2, "qat": 3}[name]
        return Plan(
            name,
            epochs,
            train.batch,
            learning_rate,
            train.weight_decay,
            self.config.seed * 8 + offset,
            self.device,
            self.progress,
        )

    def resume(self, stage: Stage) -> Resume:
        """Return the resume file of a stage, keyed by the stage's inputs."""
        return Resume(
            self.out / f"{stage.name}.resume.npz",
            sha256_value([stage.inputs(self), self.device.type, torch.get_num_threads()]),
            self.command(stage.name),
        )


@dataclass(frozen=True)
class Stage:
    """A stage: what it depends on, what it writes, and the function that does it."""

    name: str
    sections: tuple[str, ...]
    files: tuple[str, ...]
    outputs: tuple[str, ...]
    summary: str
    work: Callable[[Build, Stage], Numbers]

    def inputs(self, build: Build) -> dict[str, str]:
        """Return the hashes that make the stage's result; ArtefactError if a file is missing."""
        hashes = {
            "config": sha256_value(build.config.section("seed", "data", "model", *self.sections)),
            "code": CODE_VERSION,
        }
        for name in self.files:
            path = build.out / name
            made_by = build.command(path.stem)
            if not path.is_file():
                raise ArtefactError(f"'{path}' is missing; make it with: {made_by}")
            hashes[name] = _content_hash(path, made_by)
        return hashes


def _require_current(stage: Stage, build: Build) -> None:
    """Raise ArtefactError if a file the stage reads was made from something else."""
    for name in stage.files:
        maker = STAGES[Path(name).stem]
        _require_current(maker, build)
        if not is_current(build.out / f"{maker.name}.json", maker.inputs(build)):
            raise ArtefactError(
                f"'{build.out / name}' is damaged, unfinished or of another configuration; "
                f"run: {build.command(maker.name)}"
            )


def _content_hash(path: Path, made_by: str) -> str:
    """Hash a file; of a record only the choice that later stages read, not its timings."""
    if path.suffix != ".json":
        return sha256_file(path)
    return sha256_value(Record.load(path, made_by).numbers.get("bits"))


def run_stage(stage: Stage, build: Build) -> None:
    """Run a stage unless it is up to date; print one line of what it measured."""
    inputs = stage.inputs(build)
    _require_current(stage, build)
    record_path = build.out / f"{stage.name}.json"
    if is_current(record_path, inputs):
        print(f"{stage.name}: up to date")
        return
    started = time.monotonic()
    numbers = stage.work(build, stage)
    numbers["seconds"] = round(time.monotonic() - started, 1)
    outputs = {name: sha256_file(build.out / name) for name in stage.outputs}
    Record(stage.name, inputs, outputs, numbers).save(record_path)
    (build.out / f"{stage.name}.resume.npz").unlink(missing_ok=True)
    print(f"{stage.name}: {stage.summary.format(**numbers)} in {numbers['seconds']:.0f} s")


def train(build: Build, stage: Stage) -> Numbers:
    """Train the fp32 network with self-distillation."""
    config, split = build.config, load_split(build.config.data)
    with torch.random.fork_rng(devices=[]):  # layers initialise from the global generator
        torch.manual_seed(config.seed)
        net = SpatialNet(net_spec(config), config.model.exit_after)
    net.to(build.device)
    plan = build.plan("train", config.train.epochs, config.train.learning_rate)
    fit(net, split.train, self_distillation(net, config.distill), plan, resume=build.resume(stage))
    save_model(build.out / "train.npz", net)
    return _accuracies("fp32", net, split, build)


def prune(build: Build, stage: Stage) -> Numbers:
    """Prune in the Winograd domain step by step, fine-tune under the teacher, fold BatchNorm."""
    config, split, teacher = build.config, load_split(build.config.data), load_teacher(build)
    net = WinogradNet(net_spec(config), config.engine.m).to(build.device)
    net.load_spatial(teacher)
    sparse = [net.layers[c.name] for c in net.spec.convs[config.prune.skip :]]
    x = to_input(split.train.images[:SAMPLE_IMAGES]).to(build.device)
    keeps = keep_schedule(config.prune.keep, config.prune.steps)
    prune_step = pruning_steps(net, sparse, x, keeps)

    def begin_epoch(epoch: int) -> None:
        step = step_at(epoch, config.prune.epochs, config.prune.steps)
        if step is not None:
            prune_step(step)

    plan = build.plan("prune", config.prune.epochs, config.prune.learning_rate)
    loss = distillation(net, teacher, config.distill)
    fit(net, split.train, loss, plan, resume=build.resume(stage), begin_epoch=begin_epoch)
    net.fold()
    save_model(build.out / "prune.npz", net)
    keep = {n: max_keep(layer.u.detach().cpu().numpy()) for n, layer in net.layers.items()}
    return _accuracies("pruned", net, split, build) | {"keep": keep}


def choose_bits(build: Build, stage: Stage) -> Numbers:  # noqa: ARG001 (stages have one signature)
    """Choose the weight width of every layer under the cycle budget."""
    config, split = build.config, load_split(build.config.data)
    net = load_pruned(build)
    x = to_input(split.train.images[:SAMPLE_IMAGES]).to(build.device)
    divergence = sensitivities(net, x, widths_of(config))
    bits, share = search(config, divergence)
    names = list(bits)
    return {
        "bits": bits,
        "chosen": " ".join(f"{name}={bits[name]}" for name in names),
        "cycle_share": share,
        "widths": list(widths_of(config)),
        "divergence": dict(zip(names, divergence.tolist(), strict=True)),
        "cycles": dict(zip(names, cycle_table(config).tolist(), strict=True)),
    }


def qat(build: Build, stage: Stage) -> Numbers:
    """Calibrate and fine-tune the Brevitas network under the fp32 teacher."""
    config, split, teacher = build.config, load_split(build.config.data), load_teacher(build)
    net = quantized_net(config, load_bits(build)).to(build.device)
    net.load_folded(load_pruned(build))
    x = to_input(split.train.images[:SAMPLE_IMAGES]).to(build.device)
    calibrate(net, x)
    plan = build.plan("qat", config.quantize.epochs, config.quantize.learning_rate)
    loss = distillation(net, teacher, config.distill)
    fit(net, split.train, loss, plan, resume=build.resume(stage))
    save_model(build.out / "qat.npz", net)
    return _accuracies("quantized", net.double(), split, build)


def golden(build: Build, stage: Stage) -> Numbers:  # noqa: ARG001 (stages have one signature)
    """Write every layer's integers for the whole test set."""
    split = load_split(build.config.data)
    net = quantized_net(build.config, load_bits(build))
    load_model(build.out / "qat.npz", net, build.command("qat"))
    arrays = golden_arrays(net, split.test)
    save_arrays(build.out / "golden.npz", arrays)
    right = arrays["layer.fc"][:, :, 0, 0].argmax(1) == arrays["labels"]
    return {"images": len(right), "golden_accuracy": 100 * float(right.mean())}


def _accuracies(name: str, net: torch.nn.Module, split: Split, build: Build) -> Numbers:
    return {
        f"{name}_accuracy": accuracy(net, split.test, build.device),
        "validation_accuracy": accuracy(net, split.validation, build.device),
    }


def load_teacher(build: Build) -> SpatialNet:
    """Read the fp32 network."""
    config = build.config
    net = SpatialNet(net_spec(config), config.model.exit_after)
    load_model(build.out / "train.npz", net, build.command("train"))
    return net.to(build.device).eval()


def load_pruned(build: Build) -> WinogradNet:
    """Read the pruned network, BatchNorm folded."""
    net = folded_net(net_spec(build.config), build.config.engine.m)
    load_model(build.out / "prune.npz", net, build.command("prune"))
    return net.to(build.device).eval()


def load_bits(build: Build) -> dict[str, int]:
    """Read the chosen weight width of every layer; ArtefactError if it is of another model."""
    path, made_by = build.out / "bits.json", build.command("bits")
    bits = Record.load(path, made_by).numbers.get("bits")
    names = list(net_spec(build.config).pools)
    if isinstance(bits, dict) and sorted(bits) == sorted(names):
        if all(width in range(2, 9) for width in bits.values()):
            return bits
    raise ArtefactError(f"'{path}' belongs to another model; run: {made_by}")


def quantized_net(config: Config, bits: dict[str, int]) -> QuantNet:
    """Return the untrained Brevitas network of a configuration."""
    return QuantNet(net_spec(config), config.engine.m, bits, config.quantize)


def load_quantized(config: Config, out: Path) -> QuantNet:
    """Read the trained Brevitas network of a build, in float64 and evaluation mode."""
    build = Build(config, out, torch.device("cpu"))
    net = quantized_net(config, load_bits(build))
    load_model(out / "qat.npz", net, build.command("qat"))
    return net.double().eval()


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "train",
            ("train", "distill"),
            (),
            ("train.npz",),
            "fp32 test accuracy {fp32_accuracy:.2f}%",
            train,
        ),
        Stage(
            "prune",
            ("train", "distill", "prune", "engine"),
            ("train.npz",),
            ("prune.npz",),
            "pruned test accuracy {pruned_accuracy:.2f}%",
            prune,
        ),
        Stage(
            "bits",
            ("prune", "quantize", "engine"),
            ("prune.npz",),
            (),
            "{chosen}, {cycle_share:.3f} of the widest choice's modelled cycles",
            choose_bits,
        ),
        Stage(
            "qat",
            ("train", "distill", "quantize", "engine"),
            ("train.npz", "prune.npz", "bits.json"),
            ("qat.npz",),
            "quantized test accuracy {quantized_accuracy:.2f}%",
            qat,
        ),
        Stage(
            "golden",
            ("quantize", "engine"),
            ("bits.json", "qat.npz"),
            ("golden.npz",),
            "integers of {images} test images, accuracy {golden_accuracy:.2f}%,",
            golden,
        ),
    )
}
