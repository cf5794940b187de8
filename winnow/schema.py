# SPDX-License-Identifier: Apache-2.0
"""The schema of a configuration: dataclass fields with a default, a range and a clear error.

`from_table` turns a parsed TOML table into a frozen dataclass. It rejects unknown keys (naming the
nearest valid one), wrong types and values out of range.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, field, fields
from typing import Any, TypeVar

from winnow.errors import SHOWN, ConfigError, shown, shown_text

Check = Callable[[str, Any], Any]
T = TypeVar("T")
LONGEST = 1000  # characters of a string


def _field(default: Any, check: Check) -> Any:
    metadata = {"check": check}
    if isinstance(default, list | dict):
        raise TypeError("defaults are shared: use a tuple")
    return field(default=default, metadata=metadata)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def integer(default: int, *, low: int, high: int) -> Any:
    """Declare an integer in low..high."""

    def check(name: str, value: Any) -> int:
        if not _is_integer(value) or not low <= value <= high:
            raise ConfigError(f"{name} must be an integer in {low}..{high}, got {shown(value)}")
        return int(value)

    return _field(default, check)


def real(default: float, *, low: float, high: float) -> Any:
    """Declare a real number in low..high."""

    def check(name: str, value: Any) -> float:
        is_number = isinstance(value, float) or _is_integer(value)
        if not is_number or not low <= value <= high:
            raise ConfigError(f"{name} must be a number in {low:g}..{high:g}, got {shown(value)}")
        return float(value)

    return _field(default, check)


def text(default: str) -> Any:
    """Declare a string of one line."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be a string, got {shown(value)}")
        if len(value) > LONGEST or not value.isprintable():
            raise ConfigError(
                f"{name} must be one line of at most {LONGEST} characters, got {shown(value)}"
            )
        return value

    return _field(default, check)


def flag(default: bool) -> Any:
    """Declare a boolean."""

    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be true or false, got {shown(value)}")
        return value

    return _field(default, check)


def choice(default: Any, choices: Sequence[Any]) -> Any:
    """Declare one of a few values."""

    def check(name: str, value: Any) -> Any:
        # 2.0 and True equal an integer choice but are not one.
        if not any(type(value) is type(c) and value == c for c in choices):
            names = ", ".join(str(c) for c in choices)
            raise ConfigError(f"{name} must be one of {names}; got {shown(value)}")
        return value

    return _field(default, check)


def integers(default: tuple[int, ...], *, low: int, high: int, at_least: int = 0) -> Any:
    """Declare a list of integers in low..high with `at_least` entries."""

    def check(name: str, value: Any) -> tuple[int, ...]:
        is_list = isinstance(value, list | tuple) and all(_is_integer(v) for v in value)
        if not is_list or not all(low <= v <= high for v in value) or len(value) < at_least:
            raise ConfigError(
                f"{name} must be a list of at least {at_least} integers in {low}..{high}, "
                f"got {shown(value)}"
            )
        return tuple(value)

    return _field(default, check)


def reals(default: tuple[float, ...], *, low: float, high: float) -> Any:
    """Declare a list of real numbers in low..high."""

    def check(name: str, value: Any) -> tuple[float, ...]:
        is_list = isinstance(value, list | tuple)
        are_real = is_list and all(isinstance(v, float) or _is_integer(v) for v in value)
        if not are_real or not all(low <= v <= high for v in value):
            raise ConfigError(
                f"{name} must be a list of numbers in {low:g}..{high:g}, got {shown(value)}"
            )
        return tuple(float(v) for v in value)

    return _field(default, check)


def keys(kind: Any) -> dict[str, Field[Any]]:
    """Return the members of a dataclass, or of one of it, that a file may set."""
    return {f.name: f for f in fields(kind) if f.metadata.get("key", True)}


def plain(section: Any) -> dict[str, Any]:
    """Return the keys of a section of a configuration and their plain values."""
    found = asdict(section)
    return {name: found[name] for name in keys(section)}


Arguments = tuple[tuple[str, Any], ...]  # names and values: numbers, strings, flags, tuples


def arguments() -> Any:
    """Declare a table of arguments of a function: numbers, strings, flags and lists of them."""

    def check(name: str, value: Any) -> Arguments:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a table ([{name}]), got {shown(value)}")
        return tuple((key, argument(f"{name}.{key}", item)) for key, item in value.items())

    def argument(name: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(argument(name, item) for item in value)
        if not isinstance(value, bool | int | float | str):
            raise ConfigError(
                f"{name} must be a number, string, true, false or a list of them, got "
                f"{shown(value)}"
            )
        return value

    return _field((), check)


def _unknown(name: str, key: str, known: Sequence[str]) -> ConfigError:
    near = difflib.get_close_matches(key[:SHOWN], known, n=1, cutoff=0.0)
    return ConfigError(
        f"unknown key '{name}{shown_text(key)}'; the nearest valid one is '{name}{near[0]}'"
    )


def from_table(kind: type[T], table: Any, name: str) -> T:
    """Build dataclass `kind` from a TOML table; `name` is its dotted path, "" for the file."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{name} must be a table ([{name}]), got {shown(table)}")
    prefix = f"{name}." if name else ""
    known = keys(kind)
    values: dict[str, Any] = {}
    former = {f.metadata["formerly"]: key for key, f in known.items() if f.metadata.get("formerly")}
    for given, value in table.items():
        key = str(former.get(given, given))
        if key not in known:
            raise _unknown(prefix, key, list(known))
        if key in values:
            former_name = known[key].metadata["formerly"]
            raise ConfigError(
                f"'{prefix}{former_name}' is the former name of '{prefix}{key}'; give it once"
            )
        values[key] = _parse(known[key], prefix + key, value)
    for key, known_field in known.items():
        if key not in values and known_field.default is MISSING:
            if known_field.default_factory is MISSING:
                raise ConfigError(f"key '{prefix}{key}' is missing and has no default; add it")
    return kind(**values)


def _parse(known_field: Field[Any], name: str, value: Any) -> Any:
    if "check" in known_field.metadata:
        return known_field.metadata["check"](name, value)
    return from_table(known_field.metadata["table"], value, name)


def table(kind: type[Any], formerly: str = "") -> Any:
    """Declare a nested table of dataclass `kind`, all defaults when absent.

    Files may also call it by its former name.
    """
    return field(default_factory=kind, metadata={"table": kind, "formerly": formerly})
