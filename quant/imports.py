# SPDX-License-Identifier: Apache-2.0
"""Users' Python files beside a configuration: run so that what lies beside them can be imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXIT = "os._exit"


@contextmanager
def exiting_told() -> Iterator[None]:
    """Make an error of `os._exit` within the context, which would end us without a word.

    Processes that users' code forks end by it as ever.
    """
    end, pid = os._exit, os.getpid()

    def told(status: int) -> None:
        if os.getpid() != pid:
            end(status)
        raise SystemExit(f"{EXIT}({status}) ends all without a word; raise an error instead")

    os._exit = told  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = end


_theirs: dict[str, Path] = {}  # module -> the folder it was imported from


@contextmanager
def importing(folder: Path) -> Iterator[None]:
    """Look up imports in `folder` first, within the context; afterwards it comes last.

    So an import inside a function is found later too, but shadows nothing of ours. A module that
    code of another folder imported is not taken for one of the same name here. A change of the
    working directory is undone.
    """
    place = str(folder)
    for name, other in [*_theirs.items()]:
        top = name.partition(".")[0]
        is_here = (folder / f"{top}.py").is_file() or (folder / top).is_dir()
        if other != folder and is_here:
            sys.modules.pop(name, None)
            del _theirs[name]
    before = set(sys.modules)
    sys.path.insert(0, place)
    where = Path.cwd()
    try:
        with exiting_told():
            yield
    finally:
        os.chdir(where)
        sys.path.remove(place)
        if place not in sys.path:
            sys.path.append(place)
        for name in set(sys.modules) - before:
            if _lies_in(sys.modules[name], folder):
                _theirs[name] = folder


def _lies_in(module: object, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and folder.absolute() in Path(file).absolute().parents
