# SPDX-License-Identifier: Apache-2.0
"""IDX files as of MNIST, Fashion-MNIST and their like, plain or gzipped: LeCun's own format.

    train-images-idx3-ubyte  train-labels-idx1-ubyte  t10k-images-idx3-ubyte  t10k-labels-idx1-ubyte

A file is two zero bytes, 8 for bytes, the number of axes, each axis as a big-endian 32-bit number,
then the bytes. A dot may stand before `idx`; `.gz` may follow. The t10k files are the test part.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.data.arrays import Part, checked, finished
from quant.data.samples import Split
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown

BYTES = 8  # the type code of unsigned bytes
STEMS = {"train": "train", "test": "t10k"}


def load_idx(config: DataConfig) -> Split:
    """Read the four files below `data.path`; ConfigError names one that is missing or damaged."""
    found = {part: _part(config.place, stem) for part, stem in STEMS.items()}
    return finished(found, config, f"data.path {shown(str(config.place))}")


def _part(folder: Path, stem: str) -> Part:
    images = _find(folder, f"{stem}-images", "idx3-ubyte")
    labels = _find(folder, f"{stem}-labels", "idx1-ubyte")
    return checked(read_idx(images, 3), read_idx(labels, 1), f"'{images}' and its labels: ")


def _find(folder: Path, name: str, kind: str) -> Path:
    names = [f"{name}{dot}{kind}{end}" for dot in "-." for end in ("", ".gz")]
    for file in names:
        if (folder / file).is_file():
            return folder / file
    raise ConfigError(
        f"data.path {shown(str(folder))} must hold the IDX file {names[0]} (or .gz), and has "
        "none; it is relative to the configuration file"
    )


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Return the bytes of an IDX file with so many axes; ConfigError if it is none."""
    content = _content(path)
    start = 4 + 4 * axes
    if len(content) < start or content[:4] != bytes((0, 0, BYTES, axes)):
        raise ConfigError(
            f"'{path}' must be an IDX file of bytes with {axes} axes, and begins with "
            f"{content[:4].hex() or 'nothing'}; replace it"
        )
    shape = tuple(int(edge) for edge in np.frombuffer(content[4:start], ">u4"))
    wanted = int(np.prod(shape, dtype=object))
    if len(content) - start != wanted:
        raise ConfigError(
            f"'{path}' must hold {wanted} bytes after its header, got {len(content) - start}; "
            "replace it"
        )
    return np.frombuffer(content[start:], np.uint8).reshape(shape)


def _content(path: Path) -> bytes:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content: bytes = file.read()
            return content
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"'{path}' cannot be read ({error}); replace it") from error
