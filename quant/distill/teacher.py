# SPDX-License-Identifier: Apache-2.0
"""The fp32 network of another build as a teacher, read from its folder alone.

The record of a training stage holds the configuration of its data and network. A teacher must have
been trained on the same data: with another split it could have seen our test images.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quant.distill.features import maps_of
from quant.models.chain import InputShape
from quant.models.library import network_of
from quant.train.checkpoint import load_model
from winnow.artefact import Record, sha256_file
from winnow.config import Config, DataConfig, DistillConfig, ModelConfig
from winnow.errors import ConfigError, WinnowError, shown
from winnow.fields import from_table

KEY = "distill.teacher"


def described(config: Config) -> dict[str, Any]:
    """Return what `read_teacher` must find in the record of a training stage."""
    return config.section("data", "model")


def read_teacher(folder: Path, data: DataConfig, shape: InputShape) -> nn.Module:
    """Read the fp32 network of the build in `folder`, trained on `data`, in evaluation mode.

    Raises ConfigError when the folder holds no trained network or one of other data.
    """
    record, made_by = folder / "train.json", f"python -m quant train --out {folder}"
    try:
        found = Record.load(record, made_by)
        parts = found.numbers.get("config", {})
        theirs = from_table(DataConfig, parts.get("data", {}), "data")
        model = from_table(ModelConfig, parts.get("model", {}), "model")
        _check_data(folder, asdict(theirs), asdict(data))
        net = network_of(model, shape)
        load_model(folder / "train.npz", net, made_by)
    except WinnowError as error:
        if str(error).startswith(KEY):
            raise
        raise ConfigError(f"{KEY} must be the folder of a trained build: {error}") from error
    if found.outputs.get("train.npz") != sha256_file(folder / "train.npz"):
        raise ConfigError(f"{KEY}: '{folder}/train.npz' is not the one of its record; train again")
    return net.eval()


def _check_data(folder: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for key, value in ours.items():
        if theirs[key] != value:
            raise ConfigError(
                f"{KEY} {shown(str(folder))} must be trained on the same data: its data.{key} is "
                f"{shown(theirs[key])}, ours {shown(value)}"
            )


@torch.no_grad()
def check_blocks(
    net: nn.Module, teacher: nn.Module, config: DistillConfig, x: torch.Tensor
) -> None:
    """Raise ConfigError if blocks must be compared and cannot be; x is one input [1, c, h, w].

    Attention maps need as many blocks as the teacher has, block-wise training maps of their size.
    """
    if not (config.feature or config.block_epochs):
        return
    key = "distill.block_epochs" if config.block_epochs else "distill.feature"
    ours, theirs = (_edges(n, x) for n in (net, teacher))
    same = ours == theirs if config.block_epochs else len(ours) == len(theirs)
    if not same:
        raise ConfigError(
            f"{key} must be 0 for this teacher: its blocks end with maps of "
            f"{_listed(theirs)} pixels, those of the network with {_listed(ours)}"
        )


def _edges(net: nn.Module, x: torch.Tensor) -> list[int]:
    was_training = net.training
    _, maps = maps_of(net, net.blocks(), lambda: net.eval()(x))
    net.train(was_training)
    return [int(value.shape[2]) for value in maps]


def _listed(edges: list[int]) -> str:
    return " ".join(f"{edge}x{edge}" for edge in edges) or "none"
