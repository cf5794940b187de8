# SPDX-License-Identifier: Apache-2.0
"""Data that a user's function makes: data.source = "FILE.py:FUNCTION".

    def make_data():                    def make_data(path):  # where data.path is given
        return images, labels               return {"images": ..., "labels": ..., "split": ...}

It returns images and labels, or a dict of the arrays that `quant.data.arrays` knows.
"""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from quant.data.arrays import named_arrays, split_of
from quant.data.samples import Split
from quant.imports import importing
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown, shown_text


def load_own(config: DataConfig) -> Split:
    """Call the user's function; ConfigError for what it raises or returns wrongly."""
    assert config.function is not None  # it is why this source was chosen
    file, name = config.function
    function = _function(file, name)
    try:
        with importing(file.parent):
            made = function(str(config.place)) if config.path else function()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"data.source '{config.source}' failed: {_told(error, file)}") from error
    place = f"data.source '{config.source}'"
    return split_of(named_arrays(made, place), config, place)


def require_repeatable(config: DataConfig) -> None:
    """Raise ConfigError if a function gives other data when it is called again.

    Every stage calls it, so test images of one would be training images of another.
    """
    if config.function is None:
        return
    first, second = (load_own(config) for _ in range(2))
    for part in ("train", "validation", "test"):
        one, two = getattr(first, part), getattr(second, part)
        pairs = ((one.images[: len(one)], two.images[: len(two)]), (one.labels, two.labels))
        if not all(torch.equal(a, b) for a, b in pairs):
            raise ConfigError(
                f"data.source '{config.source}' must give the same data whenever it is called, "
                "and does not; seed its random numbers, and sort files that it lists"
            )


def _function(file: Path, name: str) -> Callable[..., Any]:
    """Import the file, its folder on the path meanwhile, and return its function."""
    if not file.is_file():
        raise ConfigError(
            f"data.source names the file '{file}', which is missing; it is relative to the "
            "configuration file"
        )
    spec = importlib.util.spec_from_file_location(f"winnow_data_{file.stem}", file)
    assert spec is not None  # it ends with .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        with importing(file.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"'{file}' cannot be imported: {_told(error, file)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"'{file}' must define the function {shown(name)}, and does not")
    made: Callable[..., Any] = function
    return made


def _told(error: BaseException, file: Path) -> str:
    """Return an error of the user's code with its line in their file."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    at = f" at {file.name}:{lines[-1]}" if lines else ""
    return f"{type(error).__name__}{at}: {shown_text(str(error))}"
