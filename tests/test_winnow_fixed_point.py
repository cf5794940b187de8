# SPDX-License-Identifier: Apache-2.0
"""Integer arithmetic against Python's exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.fixed_point import int_range, requantize, rne_shift, signed_bits

WIDE = 2**62 - 1


@given(x=st.integers(-WIDE, WIDE), shift=st.integers(1, 62))
def test_right_shift_rounds_half_to_even(x: int, shift: int) -> None:
    assert int(rne_shift(x, shift)) == round(Fraction(x, 2**shift))


@given(whole=st.integers(-(2**20), 2**20), shift=st.integers(1, 40), off=st.integers(-1, 1))
def test_ties_and_their_neighbours(whole: int, shift: int, off: int) -> None:
    x = (whole << shift) + (1 << shift - 1) + off
    assert int(rne_shift(x, shift)) == round(Fraction(x, 2**shift))


@given(x=st.integers(-(2**30), 2**30), shift=st.integers(-32, 0))
def test_left_shift_is_exact(x: int, shift: int) -> None:
    assert int(rne_shift(x, shift)) == x * 2**-shift


def test_shift_broadcasts_over_taps() -> None:
    got = rne_shift(np.array([[6, 6, 6], [-5, -5, -5]]), np.array([2, 1, -1]))
    assert got.tolist() == [[2, 3, 12], [-1, -2, -10]]
    assert got.dtype == np.int64


def test_shift_rounds_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(-4096, 4097, dtype=torch.float64)
    for shift in (1, 3, 8):
        expected = torch.round(x / 2**shift).long().tolist()
        assert rne_shift(np.arange(-4096, 4097), shift).tolist() == expected


@given(x=st.integers(-WIDE, WIDE), shift=st.integers(0, 62), bits=st.integers(2, 32))
def test_requantize_stays_in_range(x: int, shift: int, bits: int) -> None:
    low, high = int_range(bits, signed=True)
    expected = max(low, min(high, round(Fraction(x, 2**shift))))
    assert int(requantize(x, shift, low, high)) == expected


@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "expected"),
    [
        (8, True, False, (-128, 127)),
        (8, True, True, (-127, 127)),
        (8, False, False, (0, 255)),
        (8, False, True, (0, 255)),
        (2, True, True, (-1, 1)),
        (32, True, False, (-(2**31), 2**31 - 1)),
    ],
)
def test_int_range(bits: int, signed: bool, narrow: bool, expected: tuple[int, int]) -> None:
    assert int_range(bits, signed=signed, narrow=narrow) == expected


@given(bound=st.integers(1, 2**70))
def test_signed_bits_is_the_smallest_that_holds(bound: int) -> None:
    bits = signed_bits(bound)
    assert bound <= int_range(bits, signed=True)[1]
    assert bound > int_range(bits - 1, signed=True)[1]
