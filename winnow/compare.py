# SPDX-License-Identifier: Apache-2.0
"""Exact comparison of two rungs of the ladder: the first differing value, or nothing.

Enter two dicts of layer outputs [n, c, h, w]; leaves nothing, or raises MismatchError whose one
line says where the rungs part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winnow.errors import MismatchError

AXES = ("image", "channel", "y", "x")


def first_mismatch(layer_name: str, expected: NDArray[Any], actual: NDArray[Any]) -> str | None:
    """Return one line on the first difference of two [n, c, h, w] arrays; None when equal."""
    if expected.ndim != len(AXES) or expected.shape != actual.shape:
        want = _text(expected.shape) if expected.ndim == len(AXES) else "four axes (n, c, h, w)"
        return f"layer '{layer_name}': shape must be {want}, got {_text(actual.shape)}"
    differs = expected != actual
    count = int(differs.sum())
    if count == 0:
        return None
    at = tuple(int(index) for index in np.argwhere(differs)[0])
    where = ", ".join(f"{axis} {index}" for axis, index in zip(AXES, at, strict=True))
    return (
        f"layer '{layer_name}': {where} must be {expected[at]}, got {actual[at]}; "
        f"{count} of {expected.size} values differ"
    )


def require_equal(expected: Mapping[str, NDArray[Any]], actual: Mapping[str, NDArray[Any]]) -> None:
    """Raise MismatchError on the first layer, in the order of `expected`, that differs.

    Both sides must hold the same layers, at least one: a layer that nobody compares is no proof.
    """
    if not expected:
        raise MismatchError("there must be at least one layer to compare, got none")
    for name, values in expected.items():
        if name not in actual:
            raise MismatchError(f"layer '{name}' must have an actual output, got {_names(actual)}")
        message = first_mismatch(name, np.asarray(values), np.asarray(actual[name]))
        if message:
            raise MismatchError(message)
    for name in actual:
        if name not in expected:
            raise MismatchError(
                f"layer '{name}' must have an expected output, got {_names(expected)}"
            )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in shape) or "a scalar"


def _names(maps: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(maps) or "none"
