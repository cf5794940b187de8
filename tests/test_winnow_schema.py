# SPDX-License-Identifier: Apache-2.0
"""Configuration fields: every message, and what each kind of field accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from winnow.errors import ConfigError
from winnow.schema import choice, flag, from_table, integer, integers, real, table, text


@dataclass(frozen=True)
class Inner:
    count: int = integer(4, low=1, high=9)
    rate: float = real(0.5, low=0.0, high=1.0)


@dataclass(frozen=True)
class Outer:
    name: str = text("tiny")
    fast: bool = flag(False)
    tile: int = choice(2, (2, 4))
    kind: str = choice("digits", ("digits", "noise"))
    widths: tuple[int, ...] = integers((1, 2), low=1, high=8, at_least=1)
    inner: Inner = table(Inner)


def test_defaults_apply_when_keys_are_absent() -> None:
    assert from_table(Outer, {}, "") == Outer()
    assert Outer().inner == Inner(count=4, rate=0.5)


def test_values_are_taken_and_normalised() -> None:
    got = from_table(
        Outer,
        {"name": "x", "fast": True, "tile": 4, "kind": "noise", "widths": [8],
         "inner": {"count": 9, "rate": 1}},
        "",
    )  # fmt: skip
    assert got == Outer("x", True, 4, "noise", (8,), Inner(9, 1.0))
    assert type(got.inner.rate) is float
    assert type(got.widths) is tuple


RANGE = "must be an integer in 1..9, got"
UNIT = "must be a number in 0..1, got"
LINE = "name must be one line of at most 1000 characters, got"
LIST = "widths must be a list of at least 1 integers in 1..8, got"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": 3}, "name must be a string, got 3"),
        ({"fast": 1}, "fast must be true or false, got 1"),
        ({"fast": "yes"}, "fast must be true or false, got 'yes'"),
        ({"tile": 3}, "tile must be one of 2, 4; got 3"),
        ({"tile": True}, "tile must be one of 2, 4; got True"),
        ({"tile": 2.0}, "tile must be one of 2, 4; got 2.0"),
        ({"tile": [2]}, "tile must be one of 2, 4; got [2]"),
        ({"kind": "cats"}, "kind must be one of digits, noise; got 'cats'"),
        ({"widths": []}, f"{LIST} []"),
        ({"widths": [1, 9]}, f"{LIST} [1, 9]"),
        ({"widths": [1.0]}, f"{LIST} [1.0]"),
        ({"widths": [True]}, f"{LIST} [True]"),
        ({"widths": 4}, f"{LIST} 4"),
        ({"inner": {"count": 0}}, f"inner.count {RANGE} 0"),
        ({"inner": {"count": 10}}, f"inner.count {RANGE} 10"),
        ({"inner": {"count": 1.0}}, f"inner.count {RANGE} 1.0"),
        ({"inner": {"count": True}}, f"inner.count {RANGE} True"),
        ({"inner": {"count": "4"}}, f"inner.count {RANGE} '4'"),
        ({"inner": {"rate": -0.1}}, f"inner.rate {UNIT} -0.1"),
        ({"inner": {"rate": float("nan")}}, f"inner.rate {UNIT} nan"),
        ({"inner": {"rate": False}}, f"inner.rate {UNIT} False"),
        ({"inner": 3}, "inner must be a table ([inner]), got 3"),
        ({"name": "a" * 1001}, f"{LINE} '{'a' * 37}...{'a' * 18}'"),
        ({"name": "a\nb"}, rf"{LINE} 'a\nb'"),
        ({"inner": {"count": 10**5000}}, f"inner.count {RANGE} an int too long to show"),
        ({"tiles": 2}, "unknown key 'tiles'; the nearest valid one is 'tile'"),
        ({"inner": {"cuont": 2}},
         "unknown key 'inner.cuont'; the nearest valid one is 'inner.count'"),
    ],
)  # fmt: skip
def test_rejects(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_table(Outer, values, "")
    assert str(caught.value) == message


def test_a_key_without_default_must_be_given() -> None:
    @dataclass(frozen=True)
    class Strict:
        count: int

    with pytest.raises(ConfigError) as caught:
        from_table(Strict, {}, "a")
    assert str(caught.value) == "key 'a.count' is missing and has no default; add it"


def test_shared_defaults_are_our_own_bug() -> None:
    with pytest.raises(TypeError, match=r"^defaults are shared: use a tuple$"):
        choice([1], ([1],))
