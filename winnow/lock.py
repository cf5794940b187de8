# SPDX-License-Identifier: Apache-2.0
"""One process at a time in a folder: the others wait, and say for whom."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from winnow.errors import ArtefactError

LOCK_FILE = ".lock"


@contextmanager
def folder_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if it is missing; wait with one line on stderr.

    A process that the holder has started works under its parent's lock. `what` names the folder's
    use in the message. Raises ArtefactError when the folder cannot hold a lock.
    """
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise ArtefactError(f"cannot lock '{folder}': {error.strerror}") from error
    with file:
        if _acquire(file, folder, what):
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield


def _acquire(file: TextIO, folder: Path, what: str) -> bool:
    """Take the lock and return True; False if this process's parent holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        holder = _holder(file)
    if holder == os.getppid():
        return False
    who = f"process {holder}" if holder else "another process"
    print(f"waiting: {who} works in {what} '{folder}'", file=sys.stderr, flush=True)
    fcntl.flock(file, fcntl.LOCK_EX)
    return True


def _holder(file: TextIO) -> int | None:
    """Return the number of the process that wrote itself into the lock file."""
    file.seek(0)
    text = file.read().strip()
    return int(text) if text.isascii() and text.isdecimal() else None
