# SPDX-License-Identifier: Apache-2.0
"""The comparison of two rungs names the first value that differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.compare import first_mismatch, require_equal
from winnow.errors import MismatchError

MAP = np.arange(24, dtype=np.int64).reshape(1, 2, 3, 4) - 12


def test_equal_maps_pass_whatever_their_width() -> None:
    assert first_mismatch("conv1", MAP, MAP.astype(np.int8)) is None
    require_equal({"conv1": MAP, "fc": MAP}, {"fc": MAP.astype(np.int16), "conv1": MAP})


@given(
    position=st.tuples(*(st.integers(0, n - 1) for n in (3, 2, 4, 5))),
    error=st.integers(-300, 300).filter(bool),
)
def test_a_single_error_is_located(position: tuple[int, int, int, int], error: int) -> None:
    expected = np.zeros((3, 2, 4, 5), dtype=np.int64)
    actual = expected.copy()
    actual[position] = error
    n, c, y, x = position
    assert first_mismatch("conv1", expected, actual) == (
        f"layer 'conv1': image {n}, channel {c}, y {y}, x {x} must be 0, got {error}; "
        f"1 of 120 values differ"
    )


def test_the_first_of_several_errors_is_reported() -> None:
    actual = MAP.copy()
    actual[0, 0, 2, 3] = 99
    actual[0, 1] = 98
    assert first_mismatch("fc", MAP, actual) == (
        "layer 'fc': image 0, channel 0, y 2, x 3 must be -1, got 99; 13 of 24 values differ"
    )


def test_unsigned_and_signed_values_do_not_wrap_into_each_other() -> None:
    message = first_mismatch("a", np.full((1, 1, 1, 1), -1), np.full((1, 1, 1, 1), 255, dtype="u1"))
    assert message is not None
    assert "must be -1, got 255" in message


def rejected(expected: dict[str, np.ndarray], actual: dict[str, np.ndarray]) -> str:
    with pytest.raises(MismatchError) as caught:
        require_equal(expected, actual)
    return str(caught.value)


def test_the_first_layer_of_the_graph_is_reported() -> None:
    message = rejected({"conv1": MAP, "conv2": MAP}, {"conv2": MAP + 1, "conv1": MAP + 1})
    assert message.startswith("layer 'conv1': image 0, channel 0, y 0, x 0 must be -12, got -11;")


def test_shapes_must_agree() -> None:
    assert (
        rejected({"a": MAP}, {"a": MAP[:, :1]}) == "layer 'a': shape must be 1x2x3x4, got 1x1x3x4"
    )
    assert rejected({"a": MAP}, {"a": MAP[0]}) == "layer 'a': shape must be 1x2x3x4, got 2x3x4"
    assert rejected({"a": MAP}, {"a": np.array(1)}) == (
        "layer 'a': shape must be 1x2x3x4, got a scalar"
    )
    assert rejected({"a": MAP[0]}, {"a": MAP[0]}) == (
        "layer 'a': shape must be four axes (n, c, h, w), got 2x3x4"
    )


def test_layers_must_agree() -> None:
    assert rejected({"a": MAP, "b": MAP}, {"a": MAP}) == (
        "layer 'b' must have an actual output, got a"
    )
    assert rejected({"a": MAP}, {}) == "layer 'a' must have an actual output, got none"
    assert rejected({"a": MAP}, {"a": MAP, "b": MAP}) == (
        "layer 'b' must have an expected output, got a"
    )


def test_comparing_nothing_is_no_proof() -> None:
    assert rejected({}, {}) == "there must be at least one layer to compare, got none"
