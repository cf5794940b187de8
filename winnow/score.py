# SPDX-License-Identifier: Apache-2.0
"""How good a network is, in records and in words: accuracy of classes, or error of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

ACCURACY, ERROR = "accuracy", "error"  # percent; mean squared


def score_of(outputs: NDArray[Any], labels: NDArray[Any], scale: float) -> dict[str, float]:
    """Return {kind: number} of integer outputs [n, k] times `scale`.

    `labels` are classes [n] or values [n, k].
    """
    if labels.ndim == 1:
        return {ACCURACY: 100 * float((outputs.argmax(1) == labels).mean())}
    off = outputs.astype(np.float64) * scale - labels.astype(np.float64)
    return {ERROR: float(np.square(off).mean())}


def score_in(numbers: Mapping[str, Any], name: str = "") -> tuple[str, float]:
    """Return the kind and number of `name`'s score in a record: `fp32_accuracy` or `fp32_error`."""
    for kind in (ACCURACY, ERROR):
        key = f"{name}_{kind}" if name else kind
        if key in numbers:
            return kind, float(numbers[key])
    raise KeyError(name)


def score_text(kind: str, number: float) -> str:
    """Return a score in words: "accuracy 99.44%", "mean squared error 0.0123"."""
    return f"accuracy {number:.2f}%" if kind == ACCURACY else f"mean squared error {number:.4g}"
