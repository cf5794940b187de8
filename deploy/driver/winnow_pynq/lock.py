# SPDX-License-Identifier: Apache-2.0
"""One process at a time drives an engine: a lock file per engine, held by the operating system."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BusyError


@dataclass
class Hold:
    """This process's hold of an engine.

    Members: `users` of this process `pid`; `lock` for its threads; `network` whose addresses are in
    the registers, None after somebody may have loaded the overlay again.
    """

    name: str
    file: int
    users: int = 1
    network: Any = None
    pid: int = field(default_factory=os.getpid)
    lock: AbstractContextManager[bool] = field(default_factory=threading.RLock)


_held: dict[str, Hold] = {}


def hold(name: str) -> Hold:
    """Take an engine for this process; BusyError if another one has it."""
    found = _held.get(name)
    if found is not None:
        found.users, found.network = found.users + 1, None
        return found
    path = Path(tempfile.gettempdir()) / f"winnow-{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.lock"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise BusyError(f"cannot lock '{path}': {error.strerror}; run as its owner") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(file, 32).decode(errors="replace").strip() or "unknown"
        os.close(file)
        raise BusyError(
            f"process {owner} uses engine '{name}'; end it (a notebook's kernel, too)"
        ) from error
    os.ftruncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    return _held.setdefault(name, Hold(name, file))


def release(held: Hold) -> None:
    """Give an engine back; the last user of this process unlocks it."""
    held.users -= 1
    if held.users == 0:
        os.close(held.file)
        del _held[held.name]
