# SPDX-License-Identifier: Apache-2.0
"""What a message repeats of a user's value: short, and in one line."""

from __future__ import annotations

from typing import Any

import pytest

from winnow.errors import SHOWN, one_line, shown, shown_text


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("a", "'a'"),
        ([1, 2.5], "[1, 2.5]"),
        ("a\nb\x1b[31m", r"'a\nb\x1b[31m'"),
        ("x" * 58, f"'{'x' * 58}'"),
    ],
)
def test_value_is_shown_as_python_writes_it(value: object, text: str) -> None:
    assert shown(value) == text


def test_value_that_python_does_not_write_is_named() -> None:
    assert shown(10**5000) == "an int too long to show"
    value = deep()
    assert shown(value) == "a list too long to show"
    while value:  # one by one: freeing it at once would recurse as deeply
        value = value.pop()


@pytest.mark.parametrize(
    "value",
    ["x" * 59, "x" * 100_000, "\x00" * 50, "\n" * 10**6, [0] * 10**6],
    ids=range(5),
)
def test_long_value_is_cut_in_the_middle(value: object) -> None:
    text = shown(value)
    assert len(text) == SHOWN
    assert text.isprintable()
    assert "..." in text
    assert (text[0], text[-1]) == (repr(value)[0], repr(value)[-1])


def test_text_keeps_both_ends() -> None:
    assert shown_text("abc") == "abc"
    assert shown_text("a" * 50 + "b" * 50, 20) == "a" * 12 + "..." + "b" * 5
    assert shown_text("\n" * 20, 20) == r"\n\n\n\n\n\n" + "..." + r"n\n\n"


def test_line_has_no_control_characters() -> None:
    assert one_line("µ ok") == "µ ok"
    assert one_line("a\r\nb\t\x00\x85\u2028\ud800") == r"a\r\nb\t\x00\x85\u2028\ud800"
