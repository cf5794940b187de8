# SPDX-License-Identifier: Apache-2.0
"""Data that a user's function makes: data.source = "FILE.py:FUNCTION".

    def make_data():                    def make_data(path):  # where data.path is given
        return images, labels               return {"images": ..., "labels": ..., "split": ...}

It returns images and labels, or a dict of the arrays that `quant.data.arrays` knows.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quant.data.arrays import named_arrays, split_of
from quant.data.samples import Split
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown, shown_text


def load_own(config: DataConfig) -> Split:
    """Call the user's function; ConfigError for what it raises or returns wrongly."""
    assert config.function is not None  # it is why this source was chosen
    file, name = config.function
    function = _function(file, name)
    try:
        made = function(str(config.place)) if config.path else function()
    except Exception as error:
        raise ConfigError(f"data.source '{config.source}' failed: {_told(error, file)}") from error
    place = f"data.source '{config.source}'"
    return split_of(named_arrays(made, place), config, place)


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
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"'{file}' cannot be imported: {_told(error, file)}") from error
    finally:
        sys.path.remove(str(file.parent))
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"'{file}' must define the function {shown(name)}, and does not")
    made: Callable[..., Any] = function
    return made


def _told(error: Exception, file: Path) -> str:
    """Return an error of the user's code with its line in their file."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    at = f" at {file.name}:{lines[-1]}" if lines else ""
    return f"{type(error).__name__}{at}: {shown_text(str(error))}"
