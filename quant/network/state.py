# SPDX-License-Identifier: Apache-2.0
"""A model's state as plain arrays, checked against the model on loading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from winnow.errors import ArtefactError


def arrays_of(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Return the model's state, name -> array."""
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def load_state(
    model: nn.Module, arrays: Mapping[str, NDArray[Any]], path: Path, made_by: str
) -> None:
    """Copy `arrays` into the model; raises ArtefactError unless names, shapes and kinds match."""
    state = model.state_dict()
    problem = _difference(
        {n: np.empty(v.shape, str(v.dtype)[6:]) for n, v in state.items()}, arrays
    )
    if problem:
        raise ArtefactError(f"'{path}' belongs to another model ({problem}); run: {made_by}")
    model.load_state_dict({name: torch.from_numpy(arrays[name].copy()) for name in state})


def _difference(
    expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]
) -> str | None:
    """Return the first difference in names, shapes or types, or None."""
    for name in expected.keys() | found.keys():
        if name not in found:
            return f"it lacks '{name}'"
        if name not in expected:
            return f"it has an unknown '{name}'"
    for name, array in expected.items():
        if array.shape != found[name].shape or array.dtype != found[name].dtype:
            return (
                f"'{name}' must be {array.dtype}{list(array.shape)}, "
                f"is {found[name].dtype}{list(found[name].shape)}"
            )
    return None
