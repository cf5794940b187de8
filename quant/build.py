# SPDX-License-Identifier: Apache-2.0
"""A build as `quant` sees it: its configuration and folder, and the networks its files hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from quant.checkpoint import load_model
from quant.data import Split, load_split
from quant.model import QuantNet, SpatialNet, WinogradNet, folded_net, net_spec
from quant.training import Plan, accuracy
from winnow.artefact import Record
from winnow.config import Config
from winnow.errors import ArtefactError

SEEDS = {"train": 1, "prune": 2, "qat": 3}  # every stage draws from its own seed
WEIGHT_BITS = range(2, 9)


@dataclass(frozen=True)
class Build:
    """One build, and where to compute; `config_path` is for messages that print a command."""

    config: Config
    out: Path
    device: torch.device
    progress: bool = False
    config_path: str = "CONFIG"

    def command(self, verb: str) -> str:
        """Return the command that runs a stage of this build."""
        return f"python -m quant {verb} --config {self.config_path} --out {self.out}"

    def split(self) -> Split:
        """Read the data."""
        return load_split(self.config.data)

    def plan(self, stage: str, epochs: int, learning_rate: float) -> Plan:
        """Return how a stage trains."""
        train = self.config.train
        return Plan(
            stage,
            epochs,
            train.batch,
            learning_rate,
            train.weight_decay,
            self.config.seed * 8 + SEEDS[stage],
            self.device,
            self.progress,
        )

    def accuracies(self, name: str, net: nn.Module) -> dict[str, float]:
        """Return test and validation accuracy of `net` in percent, for a record."""
        split = self.split()
        return {
            f"{name}_accuracy": accuracy(net, split.test, self.device),
            "validation_accuracy": accuracy(net, split.validation, self.device),
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
        if all(width in WEIGHT_BITS for width in bits.values()):
            return bits
    raise ArtefactError(f"'{path}' belongs to another model; run: {made_by}")


def untrained(build: Build) -> QuantNet:
    """Return the Brevitas network of the chosen widths, without weights."""
    config = build.config
    return QuantNet(net_spec(config), config.engine.m, load_bits(build), config.quantize)


def load_quantized(config: Config, out: Path) -> QuantNet:
    """Read the trained Brevitas network of a build, in float64 and evaluation mode."""
    build = Build(config, out, torch.device("cpu"))
    net = untrained(build)
    load_model(out / "qat.npz", net, build.command("qat"))
    return net.double().eval()
