# SPDX-License-Identifier: Apache-2.0
"""Files that stages hand to each other: written whole or not at all, and known by their hash.

A stage writes its outputs through `write_atomic` and ends with `Record.save`: a small JSON that
holds the hash of its inputs, the hash of its outputs and the numbers it measured. A stage is
current when that record matches, so a rerun does only what changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from winnow.errors import ArtefactError

# What zipfile and numpy raise on damaged archives, found by flipping bits.
_DAMAGE = (ValueError, EOFError, KeyError, RuntimeError, BadZipFile, zlib.error)

PARTIAL = ".partial"  # how temporary files end


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file; raises ArtefactError if it cannot be read."""
    return sha256_bytes(_read(path))


def _read(path: Path) -> bytes:
    """Return the content of a file; raises ArtefactError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"cannot read '{path}': {error.strerror}") from error


def sha256_value(value: object) -> str:
    """Return the SHA-256 of a JSON-like value; key order does not matter."""
    return sha256_bytes(json.dumps(value, sort_keys=True, default=str).encode())


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write `path` through a temporary file beside it, so that it is never half-written.

    Any number of writers may write one path at once: the last one to finish wins, whole. Raises
    OSError that names `path`, which is then as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of our own and mode 666, which the umask narrows as for any new file; mkstemp's
        # mode is 600. Not made of the file's name, which may be as long as names can be.
        partial = path.with_name(f".{secrets.token_hex(8)}{PARTIAL}")
        try:
            with partial.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    write_atomic(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a .npz of plain arrays (no pickle) atomically."""
    for name, array in arrays.items():
        if array.dtype == object:
            raise TypeError(f"array '{name}' holds Python objects and would need pickle")
    write_atomic(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def load_arrays(path: Path, made_by: str) -> dict[str, NDArray[Any]]:
    """Read a .npz written by `save_arrays`.

    `made_by` is the command that makes the file, for the message. Raises ArtefactError when the
    file is missing or damaged.
    """
    if not path.is_file():
        raise ArtefactError(f"'{path}' is missing; make it with: {made_by}")
    content = io.BytesIO(_read(path))  # np.load leaks its file when it fails
    try:
        with ZipFile(content) as archive:  # checks every CRC before numpy parses anything
            damaged = archive.testzip()
        if damaged is not None:
            raise BadZipFile(f"bad checksum of {damaged}")
        content.seek(0)
        with np.load(content, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _DAMAGE as error:
        raise ArtefactError(
            f"'{path}' is damaged ({type(error).__name__}); delete it and run: {made_by}"
        ) from error


def listing_hash(place: Path) -> str:
    """Return the hash of a file's content, or of a folder's listing; "missing" for neither.

    Folders may hold a million images, so of each file only name, size and time of change count.
    """
    if place.is_file():
        return sha256_file(place)
    if not place.is_dir():
        return "missing"
    files = ((p, p.stat()) for p in sorted(place.rglob("*")) if p.is_file())
    return sha256_value([[str(p.relative_to(place)), s.st_size, s.st_mtime_ns] for p, s in files])


@dataclass(frozen=True)
class Record:
    """What a stage did: hashes of what it read and wrote, and the numbers it measured."""

    stage: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    numbers: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the record as JSON, keys sorted, with a hash of itself."""
        content = {**asdict(self), "seal": self._seal()}
        write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, path: Path, made_by: str) -> Record:
        """Read a record; raises ArtefactError when it is missing, damaged or was edited."""
        if not path.is_file():
            raise ArtefactError(f"'{path}' is missing; make it with: {made_by}")
        try:
            content = json.loads(_read(path))
            seal = content.pop("seal")
            record = cls(**content)
            if not all(
                isinstance(part, dict) for part in (record.inputs, record.outputs, record.numbers)
            ):
                raise TypeError("inputs, outputs and numbers must be tables")
            if seal != record._seal():
                raise ValueError("the content is not what was written")
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise ArtefactError(f"'{path}' is damaged; delete it and run: {made_by}") from error
        return record

    def result_hash(self) -> str:
        """Return the hash of what later stages read: the files, or the numbers if there are none.

        How long the stage took is no result.
        """
        numbers = {key: value for key, value in self.numbers.items() if key != "seconds"}
        return sha256_value(self.outputs or numbers)

    def _seal(self) -> str:
        return sha256_value(asdict(self))
