# SPDX-License-Identifier: Apache-2.0
"""Profiles: networks of one configuration for one engine, to choose among between two images.

    [profiles.fast]
    prune.keep = 1

    [profiles.exact]
    prune.keep = 4

A profile is the configuration with the values of its table. It is named FILE.toml:PROFILE wherever
a configuration file is; its build is in the folder profiles/PROFILE of the configuration's build.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.errors import SHOWN, ConfigError, shown

PROFILES = "profiles"  # the table of a configuration, and the folder of a build
SHARED = ("data", "engine", "target")  # sections that no profile may change
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{SHOWN - 1}}}")


def split_name(path: Path) -> tuple[Path, str]:
    """Return the file of FILE.toml:PROFILE and the profile; "" where a path names none."""
    file, _, profile = path.name.rpartition(":")
    if not profile or not file.endswith(".toml") or path.is_file():
        return path, ""
    return path.with_name(file), profile


def split_profiles(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the tables of a configuration without profiles, and those of every profile.

    Raises ConfigError for a profile whose images or engine would be others.
    """
    base = {key: value for key, value in content.items() if key != PROFILES}
    tables = content.get(PROFILES, {})
    if not isinstance(tables, Mapping):
        raise ConfigError(f"{PROFILES} must be tables [{PROFILES}.NAME], got {shown(tables)}")
    return base, {name: merge(base, _checked(name, table)) for name, table in tables.items()}


def _checked(name: str, table: Any) -> Mapping[str, Any]:
    """Return the table of a profile; ConfigError names the key that it may not have."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the name of a profile must be at most {SHOWN} letters, digits, _ and -, the first a "
            f"letter or digit, got {shown(name)}"
        )
    if not isinstance(table, Mapping):
        raise ConfigError(f"{PROFILES}.{name} must be a table, got {shown(table)}")
    for section in SHARED:
        if section in table:
            keys = table[section]
            key = next(iter(keys), "") if isinstance(keys, Mapping) else ""
            raise ConfigError(
                f"{PROFILES}.{name}.{section}{key and f'.{key}'}: all profiles read the same "
                f"images and run on one engine; set [{section}] once, outside the profiles"
            )
    return table


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
