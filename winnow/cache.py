# SPDX-License-Identifier: Apache-2.0
"""Caches of computed things: an entry is the right one and whole, or it is not there.

Every entry carries its key and a hash of both, so an entry that is damaged, cut, emptied, of
another key or of another program is a miss: the thing is computed again. Values are JSON; programs
lie in a folder of their own beside their seal.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from winnow.artefact import sha256_value, write_text

SEAL = ".sha256"  # what the name of a program's seal ends in
LOCK = ".lock"


def read_entry(folder: Path, key: str) -> Any:
    """Return the value kept in `folder` under `key`; None when there is none to trust."""
    try:
        entry = json.loads((folder / f"{key}.json").read_bytes())
        value = entry["value"]
        return value if entry["sha256"] == sha256_value([key, value]) else None
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def write_entry(folder: Path, key: str, value: Any) -> None:
    """Keep a JSON value other than None in `folder` under `key`."""
    entry = {"sha256": sha256_value([key, value]), "value": value}
    write_text(folder / f"{key}.json", json.dumps(entry))


def is_sealed(program: Path, key: str) -> bool:
    """Tell whether a program is the one that was sealed under `key`, byte for byte."""
    try:
        return _seal_path(program).read_text(encoding="ascii") == _seal(program, key)
    except (OSError, ValueError):
        return False


def seal(program: Path, key: str) -> None:
    """Vouch for a program that has just been made from what `key` is the hash of."""
    write_text(_seal_path(program), _seal(program, key))


def _seal_path(program: Path) -> Path:
    return program.with_name(program.name + SEAL)


def _seal(program: Path, key: str) -> str:
    digest = hashlib.sha256(f"{key}\n".encode())
    digest.update(program.read_bytes())
    return digest.hexdigest() + "\n"


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold an entry's folder: only one process makes it, the others wait and find its result."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
