# SPDX-License-Identifier: Apache-2.0
"""Stages that are played: their records are current, their work was not done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from winnow.flow import BY_NAME, Build, Result, record_run

TRAINING = ("check", "train", "prune_channels", "prune", "bits", "qat")


def play(
    build: Build, name: str, files: Iterable[Path] = (), numbers: Mapping[str, Any] | None = None
) -> None:
    """Record a stage as if it had just made `files` and measured `numbers`."""
    result = Result(list(files), "played", numbers or {})
    record_run(BY_NAME[name], build, lambda _: result)


def play_all(build: Build, names: Iterable[str], numbers: Mapping[str, Mapping[str, Any]]) -> None:
    """Play several stages in order, with their numbers if there are any."""
    for name in names:
        play(build, name, (), numbers.get(name, {}))
