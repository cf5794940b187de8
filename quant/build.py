# SPDX-License-Identifier: Apache-2.0
"""A build as `quant` sees it: its configuration and folder, and the networks its files hold."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from quant.allocate.bits import Choice
from quant.data import InputShape, Split, given_shape, input_shape, read_split
from quant.distill.teacher import read_teacher
from quant.layers.bit_widths import BitWidths
from quant.models.library import network_of
from quant.models.own import quantization_in
from quant.network.graph import Dense, TapNode
from quant.network.layer_graph import layer_graph
from quant.network.network import Network, backbone, exit_network
from quant.network.network_file import load_graph, load_network
from quant.network.normalise import Normal, on_bytes
from quant.network.quantization import Quantization
from quant.network.rewrite import tap_layers, to_quantized
from quant.train.distributed import World
from quant.train.training import Plan, score
from winnow import flow
from winnow.errors import ArtefactError, ConfigError, NetworkError

# Every stage draws from its own seed.
SEEDS = {"train": 1, "prune": 2, "qat": 3, "prune_channels": 4}
WIDTHS = range(2, 9)


@dataclass(frozen=True)
class Build(flow.Build):
    """A build, and where and how to compute."""

    device: torch.device = torch.device("cpu")
    progress: bool = False
    world: World = field(default=World())

    @property
    def shape(self) -> InputShape:
        """Size of the images, and how many classes there are."""
        return input_shape(self.config.data)

    def split(self) -> Split:
        """Read the data, once per process."""
        return read_split(self.config.data)

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
        """Return test and validation accuracy of `net` in percent, for a record.

        Of a network that gives values the mean squared errors, under other names.
        """
        split, found = self.split(), dict[str, float]()
        for part, samples in ((name, split.test), ("validation", split.validation)):
            kind, number = score(net, samples, self.device)
            found[f"{part}_{kind}"] = number
        return found

    def require_classes(self, verb: str) -> None:
        """Raise ConfigError if labels are values, which `verb` cannot show."""
        if self.config.data.has_values:
            raise ConfigError(f"{verb} needs data.labels 'classes', got 'values'")


def new_network(build: Build, load: Callable[[Network], object] | None = None) -> Network:
    """Return the fp32 network of the configuration, as initialised by torch's generator.

    `load` may give it weights. Where data.mean or data.std is set it is the one of bytes.
    """
    data = build.config.data
    shape = given_shape(data)
    net = network_of(build.config.model, shape, load)
    if data.has_values and net.on_host:
        raise NetworkError(
            f"{net.on_host[0]} ends the network, which gives the values of data.labels 'values' "
            "without it; remove it, and train on what it reads"
        )
    if net.quantization is not None and data.is_normalised:
        _require_signed_images(net.quantization)
    return on_bytes(net, Normal.of(data, shape.channels)) if data.is_normalised else net


def _require_signed_images(given: Quantization) -> None:
    """Raise NetworkError if a file clamps normalised images at 0."""
    for found in given.images:
        if not found.signed:
            raise NetworkError(
                f"'{given.file}': node '{found.node}' (Quant) has no sign and reads the images, "
                "which data.mean makes negative; train it with a signed quantizer there"
            )


def given_quantization(build: Build) -> Quantization | None:
    """Return what the file of the network says of widths; None if it is not quantized."""
    own = build.config.model.own
    if own is None or not own.is_onnx or own.file is None:
        return None
    return quantization_in(own.file, given_shape(build.config.data).image)


def compressed_network(build: Build, net: Network) -> Network:
    """Return a copy of the part of an fp32 network that is compressed: up to `model.exit`.

    Raises ConfigError when there is no such exit.
    """
    number, exits = build.config.model.exit, dict(net.graph.exits)
    if not number:
        return copy.deepcopy(backbone(net))
    name = build.config.model.exit_names.get(number, "")
    if name not in exits:
        known = ", ".join(re.sub(r"\D", "", known) for known in exits) or "none"
        raise ConfigError(
            f"model.exit must be 0 (the whole network) or one of model.exit_after ({known}), "
            f"got {number}"
        )
    return copy.deepcopy(exit_network(net, name))


def load_stage(build: Build, stage: str) -> Network:
    """Read the network that a stage saved, in evaluation mode."""
    net = load_network(build.out / f"{stage}.npz", build.command(stage))
    found, wanted = net.graph.input, build.shape.image
    if found != wanted:
        raise ArtefactError(
            f"'{build.out / stage}.npz' reads images of {list(found)}, those of data.source are "
            f"{list(wanted)}; run: {build.command(stage)}"
        )
    return net.to(build.device).eval()


def load_trained(build: Build) -> Network:
    """Read the fp32 network of this build, with its exits."""
    return load_stage(build, "train")


def other_teacher(build: Build) -> Network | None:
    """Read the fp32 network of the build that `distill.teacher` names; None if it names none."""
    folder = build.config.distill.teacher
    if not folder:
        return None
    return read_teacher(Path(folder), build.config.data).to(build.device)


def load_teacher(build: Build) -> Network:
    """Read the fp32 network that teaches: of `distill.teacher`, or of this build."""
    teacher = other_teacher(build) or load_trained(build)
    return teacher.to(memory_format=torch.channels_last)  # runs faster


def load_compact(build: Build) -> Network:
    """Read the narrowed fp32 network."""
    return load_stage(build, "prune_channels")


def load_pruned(build: Build) -> Network:
    """Read the pruned network, BatchNorm folded."""
    return load_stage(build, "prune")


def load_bits(build: Build) -> dict[str, Choice]:
    """Read the chosen widths of every layer; ArtefactError if they are of another model."""
    path, made_by = build.out / "bits.json", build.command("bits")
    numbers = build.record("bits").numbers
    graph = load_graph(build.out / "prune.npz", build.command("prune"))
    names = [node.name for node in graph.nodes if isinstance(node, TapNode)]
    widths = []
    for key in ("bits", "operand_bits"):
        found = numbers.get(key)
        if not isinstance(found, dict) or found.keys() != set(names):
            raise ArtefactError(f"'{path}' belongs to another model; run: {made_by}")
        widths.append(found)
    if any(width not in WIDTHS for table in widths for width in table.values()):
        raise ArtefactError(f"'{path}' belongs to another model; run: {made_by}")
    return {name: Choice(widths[0][name], widths[1][name]) for name in names}


def quantized_network(build: Build, net: Network, bits: Mapping[str, Choice]) -> Network:
    """Return the Brevitas copy of a folded network at the widths `bits`, not calibrated."""
    return with_widths(net, bits, build.config.quantize.activation_bits)


def with_widths(net: Network, bits: Mapping[str, Choice], features: int) -> Network:
    """Return the Brevitas copy of a folded network, not calibrated, its maps `features` bits wide.

    A layer at the end gives its accumulators if it is a fully connected one without ReLU: other
    accumulators the engine cannot write. A layer that no ReLU follows has a signed output.
    """
    placed, last = layer_graph(net.graph), net.graph.head()
    is_bare = not placed[last].relu and placed[last].add is None
    is_raw = isinstance(net.graph.by_name[last], Dense) and is_bare
    widths = {
        name: BitWidths(
            *bits[name],
            None if is_raw and name == last else features,
            relu=placed[name].relu,
        )
        for name in tap_layers(net)
    }
    return to_quantized(net, widths, features)


def load_quantized(build: Build) -> Network:
    """Read the trained Brevitas network of a build, on the CPU, in float64, to evaluate."""
    return load_stage(build, "qat").cpu().double().eval()
