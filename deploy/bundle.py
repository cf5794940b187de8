# SPDX-License-Identifier: Apache-2.0
"""A network as a board gets it: program, weights, memory map, and golden images to test with.

hls/data of a build, golden values -> folder of program.bin, weights.bin, memory.json, golden.npz
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.emit import sealed_json
from codegen.golden import Golden
from codegen.split import part_maps
from winnow.artefact import sha256_bytes, write_bytes
from winnow.errors import ArtefactError

PROGRAM, WEIGHTS, MEMORY, GOLDEN = "program.bin", "weights.bin", "memory.json", "golden.npz"
FILES = (PROGRAM, WEIGHTS, GOLDEN, MEMORY)
IMAGES = 4  # golden ones in a bundle


def write_bundle(
    folder: Path,
    data: Path,
    golden: Golden,
    *,
    name: str,
    clock_mhz: float | None = None,
    constant: int | None = None,
) -> list[Path]:
    """Write a bundle of what `data` (hls/data of a build) holds and of some golden images.

    `clock_mhz` is the clock at which timing closed, None if it never did; `constant` what the last
    channel of all images holds, None if that is a channel like others. Returns the files.
    """
    try:
        content = {n: (data / n).read_bytes() for n in (PROGRAM, WEIGHTS)}
        memory = json.loads((data / MEMORY).read_bytes())
    except (OSError, ValueError) as error:
        raise ArtefactError(f"'{data}' holds no program ({error}); run: make hls") from error
    memory.pop("seal")
    content[GOLDEN] = _arrays(golden.first(IMAGES), memory)
    hashes = {n: sha256_bytes(part) for n, part in content.items()}
    given = {"name": name, "clock_mhz": clock_mhz, "constant": constant}
    described = {**memory, **given, "sha256": hashes}
    content[MEMORY] = sealed_json(described)
    for part, written in content.items():
        write_bytes(folder / part, written)
    return [folder / part for part in content]


def _arrays(golden: Golden, memory: Mapping[str, Any]) -> bytes:
    """Return a .npz of the images and of every layer's maps, in the types of the driver."""
    arrays: dict[str, NDArray[Any]] = {"images": _narrow(golden.images)}
    channels = {name: region["shape"][0] for name, region in memory["layers"].items()}
    maps = part_maps(golden.layers, channels)
    arrays |= {name: _narrow(values) for name, values in maps.items()}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Return integers in the smallest type that holds them."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for kind in (np.uint8, np.int8):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values.astype(np.int32)
