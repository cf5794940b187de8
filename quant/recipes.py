# SPDX-License-Identifier: Apache-2.0
"""Recipes: named variations of one configuration, to be compared at equal training.

A file in configs/recipes/ names its base configuration and, per recipe, the keys that differ:

    base = "colour"

    [recipes.srbs-75]
    note = "2 of 8, mixed 4 and 8 bits"
    prune.keep = 2

All recipes are checked when the file is read, before anything trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from winnow.config import Config, read_toml
from winnow.errors import ConfigError
from winnow.fields import from_table

NOTE = "note"


@dataclass(frozen=True)
class Recipe:
    """A named configuration; `note` says what it is."""

    name: str
    note: str
    config: Config

    def with_seed(self, seed: int) -> Recipe:
        """Return the recipe with another seed."""
        return replace(self, config=replace(self.config, seed=seed))


def load_recipes(path: Path, chosen: tuple[str, ...] = ()) -> tuple[Recipe, ...]:
    """Read a file of recipes, or only the `chosen` ones; ConfigError names the recipe and key."""
    content = read_toml(path)
    base, tables = content.get("base"), content.get("recipes")
    if not isinstance(base, str) or not isinstance(tables, Mapping) or not tables:
        raise ConfigError(
            f'{path}: a recipe file must have base = "<configuration>" and tables '
            f"[recipes.<name>], got {', '.join(content) or 'nothing'}"
        )
    unknown = [name for name in chosen if name not in tables]
    if unknown:
        raise ConfigError(f"recipe '{unknown[0]}' is not in {path}, which has: {', '.join(tables)}")
    start = read_toml(path.parent.parent / f"{base}.toml")
    return tuple(
        _recipe(path, name, table, start)
        for name, table in tables.items()
        if not chosen or name in chosen
    )


def _recipe(path: Path, name: str, table: Any, start: Mapping[str, Any]) -> Recipe:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: recipes.{name} must be a table, got {table!r}")
    changes = {key: value for key, value in table.items() if key != NOTE}
    try:
        return Recipe(name, str(table.get(NOTE, "")), from_table(Config, merge(start, changes), ""))
    except ConfigError as error:
        raise ConfigError(f"{path}: recipe '{name}': {error}") from error


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables with the values of `changes` in place of those of `base`.

    merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) -> {"a": {"b": 3, "c": 2}}
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        is_table = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if is_table else value  # type: ignore[arg-type]
    return merged
