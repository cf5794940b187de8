# SPDX-License-Identifier: Apache-2.0
"""Files of a user's Python code, found by reading alone: nothing is imported or run.

net.py says `from blocks import Block`  ->  net.py, blocks.py of its folder
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")


def files_of(file: Path, module: str = "") -> tuple[Path, ...]:
    """Return a file and all files beside it that it imports, sorted; itself if it is missing.

    `module` is its dotted name, by default that of a file that is no part of a package. Of an
    installed package only its own files count.
    """
    name = module or file.stem
    root = file.parents[name.count(".") + (file.name == "__init__.py")]
    top = name.partition(".")[0]
    found, waiting = {name: file}, [name]
    while waiting:
        name = waiting.pop()
        for other in _imported(found[name], name):
            place = _file(other, root)
            is_ours = root.name not in INSTALLED or other.partition(".")[0] == top
            if place is not None and is_ours and other not in found:
                found[other] = place
                waiting.append(other)
    return tuple(sorted(set(found.values())))


def file_of_module(module: str, folder: Path) -> Path | None:
    """Return the file of a module, looked up in `folder`, then where Python does; None if none."""
    path: list[str] | None = [str(folder), *sys.path]
    found = None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, path) if path else None
        if spec is None:
            return None
        found = spec.origin
        path = list(spec.submodule_search_locations or ())
    return Path(found) if found and found.endswith(".py") else None


def _file(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    places = (path / "__init__.py", path.with_suffix(".py"))
    return next((place for place in places if place.is_file()), None)


def _imported(file: Path, module: str) -> Iterator[str]:
    """Yield all dotted names that the imports of a file may mean; none if it is no Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    here = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _prefixes(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            if target:
                yield from _prefixes(target)
            yield from (".".join(filter(None, (target, a.name))) for a in node.names)


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
