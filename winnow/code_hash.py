# SPDX-License-Identifier: Apache-2.0
"""The code that decides a result: a module and everything of this project that it imports.

A hash of it sees what Python would run and nothing else: comments, docstrings, layout and files
that are not imported leave it alone. So do modules that only read settings, word errors or move
files: what they hand on is hashed itself (`PASSIVE`).

    lower.py imports check.py imports srbs.py -> closure(lower) = {lower, check, srbs}
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from winnow.artefact import sha256_bytes, sha256_file, sha256_value

ROOT = Path(__file__).resolve().parent.parent
# A new key, message or way of writing a file must not train a network again.
PASSIVE = frozenset({"winnow"}) | frozenset(
    f"winnow.{name}"
    for name in (
        *("artefact", "cli", "code_hash", "config", "data_config", "errors"),
        *("flow", "lock", "model_config", "own_code", "profiles", "schema"),
    )
)


@cache
def closure(module: str, root: Path = ROOT) -> frozenset[str]:
    """Return a module and all modules of the tree `root` that it reaches, packages included.

    Deferred imports count. Raises ValueError when the tree has no such module.
    """
    if _file(module, root) is None:
        raise ValueError(f"'{root}' has no module '{module}'")
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found | PASSIVE or _file(name, root) is None:
            continue
        found.add(name)
        waiting += _reached(name, root)
    return frozenset(found)


def code_hash(modules: Iterable[str], root: Path = ROOT) -> str:
    """Return the hash of what the closures of `modules` run."""
    names: set[str] = set().union(*(closure(module, root) for module in modules))
    return sha256_value({name: _behaviour(name, root) for name in names})


def files_hash(places: Iterable[str], root: Path = ROOT) -> str:
    """Return the hash of files, and of all files in folders, by relative name and content."""
    hashes = {}
    for place in places:
        path = root / place
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                hashes[file.relative_to(root).as_posix()] = sha256_file(file)
    return sha256_value(hashes)


def tool_versions(packages: Iterable[str]) -> str:
    """Return the installed versions of packages as one text; "missing" for one that is not."""
    return " ".join(f"{name}={_version(name)}" for name in packages)


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


@cache
def _file(module: str, root: Path) -> Path | None:
    """Return the file of a module of the tree, None for a module of elsewhere."""
    path = root.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _parsed(module: str, root: Path) -> ast.Module:
    file = _file(module, root)
    assert file is not None, module
    return ast.parse(file.read_bytes(), str(file))


@cache
def _behaviour(module: str, root: Path) -> str:
    """Return the hash of a module's syntax tree without docstrings."""
    tree = _parsed(module, root)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
    return sha256_bytes(ast.dump(tree).encode())


@cache
def _reached(module: str, root: Path) -> tuple[str, ...]:
    """Return the modules that one module imports, and the packages it lies in."""
    return tuple(dict.fromkeys((*_packages(module), *_imported(module, root))))


def _imported(module: str, root: Path) -> Iterator[str]:
    file = _file(module, root)
    assert file is not None, module
    here = module.split(".")
    package = here if file.name == "__init__.py" else here[:-1]
    for node in ast.walk(_parsed(module, root)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                yield from _packages(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            yield target
            yield from _packages(target)
            yield from (f"{target}.{alias.name}" for alias in node.names)


def _packages(module: str) -> Iterator[str]:
    parts = module.split(".")
    yield from (".".join(parts[:i]) for i in range(1, len(parts)))
