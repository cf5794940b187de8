# SPDX-License-Identifier: Apache-2.0
"""A build as `quant` sees it: its configuration and folder, and the networks its files hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from quant.allocate.bits import Choice
from quant.data import Split, input_shape, load_split
from quant.distill.teacher import read_teacher
from quant.layers.bit_widths import BitWidths
from quant.models.chain import ChainNet, InputShape, backbone, exit_network
from quant.models.library import network_of
from quant.network.channels import CompressibleNet, channel_counts, narrow
from quant.network.convert import fold_norms, tap_layers, to_quantized, to_winograd
from quant.network.sites import Site, find_sites
from quant.train.checkpoint import load_model
from quant.train.distributed import World
from quant.train.training import Plan, accuracy
from winnow import flow
from winnow.errors import ArtefactError

SEEDS = {"train": 1, "prune": 2, "qat": 3, "shrink": 4}  # every stage draws from its own seed
WIDTHS = range(2, 9)

_read_split = lru_cache(maxsize=2)(load_split)


@dataclass(frozen=True)
class Build(flow.Build):
    """A build, and where and how to compute."""

    device: torch.device = torch.device("cpu")
    progress: bool = False
    world: World = field(default=World())

    @property
    def shape(self) -> InputShape:
        """Size of the images, and how many classes there are."""
        return InputShape(*input_shape(self.config.data))

    def split(self) -> Split:
        """Read the data, once per process."""
        return _read_split(self.config.data)

    def sites(self, net: nn.Module) -> dict[str, Site]:
        """Return where the layers of one of this build's networks sit."""
        return find_sites(net, (self.shape.channels, self.shape.edge, self.shape.edge))

    def plan(self, stage: str, epochs: int, learning_rate: float, batch: int = 0) -> Plan:
        """Return how a stage trains; a batch of 0 is that of fp32 training."""
        train = self.config.train
        return Plan(
            stage,
            epochs,
            batch or train.batch,
            learning_rate,
            train.weight_decay,
            self.config.seed * 8 + SEEDS[stage],
            self.device,
            self.progress,
            train.ema,
            train.amp,
            train.validate_every,
            self.out / "logs",
            self.world,
        )

    def accuracies(self, name: str, net: nn.Module) -> dict[str, float]:
        """Return test and validation accuracy of `net` in percent, for a record."""
        split = self.split()
        return {
            f"{name}_accuracy": accuracy(net, split.test, self.device),
            "validation_accuracy": accuracy(net, split.validation, self.device),
        }


def new_network(build: Build) -> CompressibleNet:
    """Return the fp32 network of the configuration, as initialised by torch's generator."""
    return network_of(build.config.model, build.shape)


def compressed_network(build: Build, net: CompressibleNet) -> CompressibleNet:
    """Return the part of an fp32 network that is compressed: up to `model.exit`, no other exit."""
    number = build.config.model.exit
    if not isinstance(net, ChainNet):
        return net
    return exit_network(net, number) if number else backbone(net)


def load_trained(build: Build) -> CompressibleNet:
    """Read the fp32 network of this build."""
    net = new_network(build)
    load_model(build.out / "train.npz", net, build.command("train"))
    return net.to(build.device).eval()


def other_teacher(build: Build) -> nn.Module | None:
    """Read the fp32 network of the build that `distill.teacher` names; None if it names none."""
    folder = build.config.distill.teacher
    if not folder:
        return None
    return read_teacher(Path(folder), build.config.data, build.shape).to(build.device)


def load_teacher(build: Build) -> nn.Module:
    """Read the fp32 network that teaches: of `distill.teacher`, or of this build."""
    teacher = other_teacher(build) or load_trained(build)
    return teacher.to(memory_format=torch.channels_last)  # runs faster


def winograd_network(build: Build, net: nn.Module) -> nn.Module:
    """Return a copy of an fp32 network in the Winograd domain."""
    return to_winograd(net, build.config.engine.m, build.sites(net))


def load_counts(build: Build, net: CompressibleNet) -> dict[str, int]:
    """Read the channels per group that shrinking left `net`; ArtefactError if of another model."""
    path, made_by = build.out / "shrink.json", build.command("shrink")
    counts, full = build.record("shrink").numbers.get("channels"), channel_counts(net)
    if isinstance(counts, dict) and counts.keys() == full.keys():
        if all(isinstance(n, int) and 1 <= n <= full[name] for name, n in counts.items()):
            return counts
    raise ArtefactError(f"'{path}' belongs to another model; run: {made_by}")


def compact_network(build: Build) -> CompressibleNet:
    """Return the fp32 network as shrinking saves it, without its weights."""
    net = compressed_network(build, new_network(build))
    if build.config.shrink.method != "none":
        narrow(net, load_counts(build, net))
    return net


def load_compact(build: Build) -> CompressibleNet:
    """Read the shrunk fp32 network."""
    net = compact_network(build)
    load_model(build.out / "shrink.npz", net, build.command("shrink"))
    return net.to(build.device).eval()


def folded_network(build: Build) -> nn.Module:
    """Return the network as pruning saves it, without its weights."""
    net = winograd_network(build, compact_network(build))
    fold_norms(net, build.sites(net))
    return net


def load_pruned(build: Build) -> nn.Module:
    """Read the pruned network, BatchNorm folded."""
    net = folded_network(build)
    load_model(build.out / "prune.npz", net, build.command("prune"))
    return net.to(build.device).eval()


def load_bits(build: Build) -> dict[str, Choice]:
    """Read the chosen widths of every layer; ArtefactError if they are of another model."""
    path, made_by = build.out / "bits.json", build.command("bits")
    numbers = build.record("bits").numbers
    names = list(tap_layers(folded_network(build)))
    widths = []
    for key in ("bits", "operand_bits"):
        found = numbers.get(key)
        if not isinstance(found, dict) or sorted(found) != sorted(names):
            raise ArtefactError(f"'{path}' belongs to another model; run: {made_by}")
        widths.append([found[name] for name in names])
    if any(width not in WIDTHS for row in widths for width in row):
        raise ArtefactError(f"'{path}' belongs to another model; run: {made_by}")
    return {
        name: Choice(*pair) for name, pair in zip(names, zip(*widths, strict=True), strict=True)
    }


def quantized_network(build: Build, net: nn.Module) -> nn.Module:
    """Return the Brevitas copy of a folded network at the chosen widths, not calibrated.

    The last layer gives its accumulators; a layer that no ReLU follows has a signed output.
    """
    sites, bits = build.sites(net), load_bits(build)
    last, features = list(sites)[-1], build.config.quantize.activation_bits
    widths = {
        name: BitWidths(*bits[name], None if name == last else features, relu=sites[name].relu)
        for name in tap_layers(net)
    }
    return to_quantized(net, widths)


def load_quantized(build: Build) -> nn.Module:
    """Read the trained Brevitas network of a build, on the CPU, in float64, to evaluate."""
    net = quantized_network(build, folded_network(build))
    load_model(build.out / "qat.npz", net, build.command("qat"))
    return net.double().eval()
