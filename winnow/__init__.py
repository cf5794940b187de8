# SPDX-License-Identifier: Apache-2.0
"""Winnow from Python: `winnow.build`, `prune`, `quantize`, `on_bytes`, `with_constant`, `to_input`,
`layer` (docs/python.md).

Each is found when it is asked for, by the name of its module: importing `winnow` costs nothing, and
this folder, which all others build upon, imports none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "build": "sim.api",
    "layer": "sim.api",
    "prune": "quant.api",
    "quantize": "quant.api",
    "on_bytes": "quant.api",
    "with_constant": "quant.api",
    "to_input": "quant.data",
    "format_trace": "quant.trace",
    "draw_trace": "quant.trace",
    "WinnowError": "winnow.errors",
}


def __getattr__(name: str) -> Any:
    """Return a function of the Python interface; AttributeError for any other name."""
    if name not in _PLACES:
        raise AttributeError(f"module 'winnow' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    """Return the names of the Python interface beside the module's own."""
    return sorted({*globals(), *_PLACES})
