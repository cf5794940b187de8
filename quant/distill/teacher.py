# SPDX-License-Identifier: Apache-2.0
"""The fp32 network of another build as a teacher, read from its folder alone.

The record of a training stage holds the configuration of its data and network. A teacher must have
been trained on the same data: with another split it could have seen our test images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quant.network.network import Network, backbone
from quant.network.network_file import load_network
from quant.network.structure import block_ends
from winnow.artefact import Record, sha256_file
from winnow.config import Config, DataConfig, DistillConfig
from winnow.errors import ConfigError, WinnowError, shown
from winnow.schema import from_table, plain

KEY = "distill.teacher"


def described(config: Config) -> dict[str, Any]:
    """Return what `read_teacher` must find in the record of a training stage."""
    return config.section("data", "model")


def read_teacher(folder: Path, data: DataConfig) -> Network:
    """Read the fp32 network of the build in `folder`, trained on `data`, in evaluation mode.

    Raises ConfigError when the folder holds no trained network or one of other data.
    """
    record, made_by = folder / "train.json", f"python -m quant train --out {folder}"
    try:
        found = Record.load(record, made_by)
        parts = found.numbers.get("config", {})
        theirs = from_table(DataConfig, parts.get("data", {}), "data")
        _check_data(folder, plain(theirs), plain(data))
        net = load_network(folder / "train.npz", made_by)
    except WinnowError as error:
        if str(error).startswith(KEY):
            raise
        raise ConfigError(f"{KEY} must be the folder of a trained build: {error}") from error
    if found.outputs.get("train.npz") != sha256_file(folder / "train.npz"):
        raise ConfigError(f"{KEY}: '{folder}/train.npz' is not the one of its record; train again")
    return backbone(net)


def _check_data(folder: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for key, value in ours.items():
        if theirs[key] != value:
            raise ConfigError(
                f"{KEY} {shown(str(folder))} must be trained on the same data: its data.{key} is "
                f"{shown(theirs[key])}, ours {shown(value)}"
            )


def check_blocks(net: Network, teacher: Network, config: DistillConfig) -> None:
    """Raise ConfigError if blocks must be compared and cannot be.

    Attention maps need as many blocks as the teacher has, block-wise training maps of their size.
    """
    if not (config.feature or config.block_epochs):
        return
    key = "distill.block_epochs" if config.block_epochs else "distill.feature"
    ours, theirs = (_edges(n) for n in (net, teacher))
    same = ours == theirs if config.block_epochs else len(ours) == len(theirs)
    if not same:
        raise ConfigError(
            f"{key} must be 0 for this teacher: its blocks end with maps of "
            f"{_listed(theirs)} pixels, those of the network with {_listed(ours)}"
        )


def _edges(net: Network) -> list[int]:
    return [net.graph.shape_of(name)[1] for name in block_ends(net.graph)]


def _listed(edges: list[int]) -> str:
    return " ".join(f"{edge}x{edge}" for edge in edges) or "none"
