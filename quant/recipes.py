# SPDX-License-Identifier: Apache-2.0
"""Recipes: named variations of one configuration, to be compared at equal training.

A file in configs/recipes/ names its base configuration and, per recipe, the keys that differ:

    base = "colour"
    version = 2
    frozen = "0123456789abcdef"

    [recipes.srbs-75]
    note = "2 of 8, mixed 4 and 8 bits"
    goal = 1.0
    prune.keep = 2

`goal` is how many points of accuracy it may lose against its dense twin, where that is promised.
`shapes` are channels of the chain, such as `[[16, 8, 16, 48]]`: further dense networks that it is
compared with, beside the one that is narrower everywhere; the best on validation images counts.
`version` and `frozen` are for tables that are published: `frozen` is a hash of the keys of data,
model and fp32 training, so that these cannot change under the same version.

All recipes are checked when the file is read, before anything trains.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from winnow.artefact import sha256_value
from winnow.config import CHAIN, LISTED, Config, ModelConfig, read_toml
from winnow.errors import SHOWN, ConfigError, shown, shown_text
from winnow.profiles import PROFILES, merge
from winnow.schema import from_table

NOTE, GOAL, SHAPES = "note", "goal", "shapes"
FROZEN = ("data", "model", "train")
HASH_DIGITS = 16


@dataclass(frozen=True)
class Recipe:
    """A named configuration; `note` says what it is, `goal` how much it may lose, in points.

    `table` names the file, and its version if it has one. `shapes` are the models of further dense
    networks to beat.
    """

    name: str
    note: str
    goal: float | None
    config: Config
    table: str = ""
    shapes: tuple[ModelConfig, ...] = ()

    def with_seed(self, seed: int) -> Recipe:
        """Return the recipe with another seed."""
        return replace(self, config=replace(self.config, seed=seed))


def load_recipes(paths: Sequence[Path], chosen: tuple[str, ...] = ()) -> tuple[Recipe, ...]:
    """Read files of recipes, or only the `chosen` ones; ConfigError names the recipe and key."""
    found: dict[str, Recipe] = {}
    for path in paths:
        for recipe in _read(path):
            if recipe.name in found:
                raise ConfigError(
                    f"{path}: recipe '{recipe.name}' is in another file too; rename it"
                )
            found[recipe.name] = recipe
    for name in chosen:
        if name not in found:
            files = ", ".join(map(str, paths))
            names = shown_text(", ".join(found), LISTED)
            raise ConfigError(f"recipe {shown(name)} is not in {files}, which has: {names}")
    return tuple(recipe for recipe in found.values() if not chosen or recipe.name in chosen)


def _read(path: Path) -> tuple[Recipe, ...]:
    content = read_toml(path)
    base, tables = content.get("base"), content.get("recipes")
    if not _is_name(base) or not isinstance(tables, Mapping) or not tables:
        raise ConfigError(
            f'{path}: a recipe file must have base = "<configuration>" and tables '
            f"[recipes.<name>], got {shown_text(', '.join(content)) or 'nothing'}"
        )
    start = read_toml(path.parent.parent / f"{base}.toml")
    start.pop(PROFILES, None)
    found = tuple(_recipe(path, name, table, start) for name, table in tables.items())
    version, frozen = content.get("version"), content.get("frozen")
    if version is None and frozen is None:
        return tuple(replace(recipe, table=path.stem) for recipe in found)
    for recipe in found:
        _require_frozen(path, recipe, version, frozen)
    return tuple(replace(recipe, table=f"{path.stem} version {version}") for recipe in found)


def _require_frozen(path: Path, recipe: Recipe, version: object, frozen: object) -> None:
    """Raise ConfigError unless data, model and fp32 training are those of the file's version."""
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ConfigError(f"{path}: version must be a whole number from 1 up, got {shown(version)}")
    now = sha256_value(_chosen(recipe.config))[:HASH_DIGITS]
    if frozen != now:
        raise ConfigError(
            f"{path}: recipe '{recipe.name}' has other keys of data, model or train than version "
            f'{version}; raise the version and set frozen = "{now}"'
        )


def _chosen(config: Config) -> dict[str, dict[str, Any]]:
    """Return the keys of the frozen sections that are not at their defaults.

    So a key that is new to all configurations changes no table.
    """
    ours, plain = config.section(*FROZEN), Config().section(*FROZEN)
    return {
        name: {key: value for key, value in keys.items() if value != plain[name][key]}
        for name, keys in ours.items()
    }


def _recipe(path: Path, name: str, table: Any, start: Mapping[str, Any]) -> Recipe:
    if not _is_name(name):
        raise ConfigError(
            f"{path}: the name of a recipe must be at most {SHOWN} letters, digits, dots and "
            f"dashes, got {shown(name)}"
        )
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: recipes.{name} must be a table, got {shown(table)}")
    goal = table.get(GOAL)
    is_number = isinstance(goal, (int, float)) and not isinstance(goal, bool)
    if goal is not None and not (is_number and 0 < goal <= 100):
        raise ConfigError(
            f"{path}: recipes.{name}.goal must be points, above 0 and up to 100, got {shown(goal)}"
        )
    if not isinstance(table.get(NOTE, ""), str):
        raise ConfigError(f"{path}: recipes.{name}.note must be text, got {shown(table[NOTE])}")
    own = (NOTE, GOAL, SHAPES)
    merged = merge(start, {key: value for key, value in table.items() if key not in own})
    try:
        config = from_table(Config, merged, "").beside(path.parent.parent)
        shapes = _shapes(config, merged, table.get(SHAPES, []))
        return Recipe(name, table.get(NOTE, ""), goal, config, shapes=shapes)
    except ConfigError as error:
        raise ConfigError(f"{path}: recipe '{name}': {error}") from error


def _shapes(config: Config, merged: Mapping[str, Any], channels: object) -> tuple[ModelConfig, ...]:
    """Return the recipe's model with other channels."""
    if not isinstance(channels, list):
        raise ConfigError(f"{SHAPES} must be a list of lists of channels, got {shown(channels)}")
    if channels and config.model.name != CHAIN:
        raise ConfigError(
            f"{SHAPES} are channels of model.name '{CHAIN}', and this is '{config.model.name}'"
        )
    changed = (merge(merged, {"model": {"channels": own}}) for own in channels)
    return tuple(from_table(Config, table, "").model for table in changed)


def _is_name(value: Any) -> bool:
    """Tell whether a value can name a file: runs of a recipe are in a folder of its name."""
    return isinstance(value, str) and bool(re.fullmatch(rf"\w[\w.-]{{0,{SHOWN - 1}}}", value))
