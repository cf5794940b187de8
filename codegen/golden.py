# SPDX-License-Identifier: Apache-2.0
"""The Brevitas model's integers, which every rung of the ladder must equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.fuse import LayerMaps
from winnow.artefact import load_arrays
from winnow.compare import require_equal
from winnow.errors import ArtefactError
from winnow.fixed_point import IntArray
from winnow.flow import Build


@dataclass(frozen=True, eq=False)
class Golden:
    """Images and every layer's map [n, c, h, w], labels: classes [n] or float values [n, k]."""

    images: IntArray
    labels: NDArray[Any]
    layers: LayerMaps

    def first(self, count: int) -> Golden:
        """Return the golden values of the first `count` images."""
        layers = {name: maps[:count] for name, maps in self.layers.items()}
        return Golden(self.images[:count], self.labels[:count], layers)


def load_golden(build: Build) -> Golden:
    """Read golden.npz; raises ArtefactError when it is missing, damaged or incomplete."""
    made_by = build.command("golden")
    arrays = load_arrays(build.out / "golden.npz", made_by)
    try:
        return golden_of(arrays)
    except ValueError as error:
        raise ArtefactError(f"'{build.out / 'golden.npz'}' {error}; run: {made_by}") from error


def golden_of(arrays: Mapping[str, NDArray[Any]]) -> Golden:
    """Return the golden values of what stage `golden` writes; ValueError if it is incomplete."""
    images, labels = arrays.get("images", np.empty(0)), arrays.get("labels", np.empty(0))
    if images.ndim != 4 or len(images) == 0 or labels.shape[:1] != (len(images),):
        raise ValueError("must hold images [n, c, h, w] and labels [n]")
    layers = {
        name.removeprefix("layer."): array.astype(np.int64)
        for name, array in arrays.items()
        if name.startswith("layer.")
    }
    return Golden(images.astype(np.int64), labels, layers)


def require_golden(actual: LayerMaps, golden: Golden) -> int:
    """Compare every layer with the golden values; return how many integers were compared."""
    require_equal(golden.layers, actual)
    return sum(m.size for m in golden.layers.values())
