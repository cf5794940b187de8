# SPDX-License-Identifier: Apache-2.0
"""The configuration file of a build whose network and data are Python objects.

write_given("out", {}, {"train": {"epochs": 5}, "prune.keep": 1})  ->  out/config.toml
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.artefact import write_text
from winnow.config import Config
from winnow.errors import ConfigError, shown
from winnow.schema import from_table

FILE = "config.toml"


def write_given(folder: Path, given: Mapping[str, Any], options: Mapping[str, Any]) -> Path:
    """Write the configuration of `options` and of the keys `given`, which win; return its path.

    Both are nested or have dotted names. Raises ConfigError for a key or value that is wrong.
    """
    table: dict[str, Any] = {}
    for key, value in (*options.items(), *given.items()):
        _merge(table, key.split("."), value)
    from_table(Config, table, "").beside(folder)  # so that nothing wrong is written
    path = folder / FILE
    write_text(path, format_toml(table))
    return path


def _merge(table: dict[str, Any], path: list[str], value: Any) -> None:
    """Put a value at a dotted path, the keys of a table one by one."""
    *sections, name = path
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"key '{section}' is given as a value and as a section")
    if isinstance(value, Mapping) and not isinstance(table.get(name, {}), Mapping):
        raise ConfigError(f"key '{name}' is given as a value and as a section")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _merge(table.setdefault(name, {}), str(key).split("."), item)
    else:
        table[name] = value


def format_toml(table: Mapping[str, Any]) -> str:
    """Return a table of values and tables as TOML: values first, then a section for each table."""
    lines = [f"{_key(name)} = {_value(v)}" for name, v in table.items() if not _is_table(v)]
    for name, section in table.items():
        if _is_table(section):
            lines += ["", f"[{_key(name)}]"]
            lines += [f"{_key(key)} = {_value(value)}" for key, value in section.items()]
    return "\n".join(lines).strip() + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _key(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() else json.dumps(name)


def _value(value: Any) -> str:
    if _is_table(value):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, bool | int | float | str):
        raise ConfigError(f"options must be numbers, text, flags or lists, got {shown(value)}")
    return json.dumps(value, ensure_ascii=False)
