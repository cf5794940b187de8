# SPDX-License-Identifier: Apache-2.0
"""Integer arithmetic of the contract in `docs/numerics.md`: ranges and round-half-even shifts.

A number is `integer * 2^exponent`. Everything here is exact int64; nothing touches a float.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]


def int_range(bits: int, *, signed: bool, narrow: bool = False) -> tuple[int, int]:
    """Return (lowest, highest) of a two's complement or unsigned number of `bits` bits.

    `narrow` drops the most negative code so that the range is symmetric, as the packed product
    of the engine needs.
    """
    if not signed:
        return 0, (1 << bits) - 1
    highest = (1 << (bits - 1)) - 1
    return (-highest if narrow else -highest - 1), highest


def rne_shift(x: ArrayLike, shift: ArrayLike) -> IntArray:
    """Return x / 2^shift rounded half to even; shift <= 0 is an exact left shift.

    `x` and `shift` broadcast. This is IEEE 754 roundTiesToEven, the rounding of torch.round.
    """
    x = np.asarray(x, dtype=np.int64)
    shift = np.asarray(shift, dtype=np.int64)
    right = np.maximum(shift, 0)
    x = x << np.maximum(-shift, 0)
    floor = x >> right
    remainder = x - (floor << right)
    one = np.int64(1) << right
    round_up = (2 * remainder > one) | ((2 * remainder == one) & (floor & 1 == 1))
    rounded: IntArray = floor + (round_up & (right > 0))
    return rounded


def requantize(x: ArrayLike, shift: ArrayLike, low: int, high: int) -> IntArray:
    """Return clamp(rne_shift(x, shift), low, high)."""
    return np.clip(rne_shift(x, shift), low, high)


def signed_bits(bound: int) -> int:
    """Return the bits of the smallest two's complement number that holds -bound..bound."""
    return int(bound).bit_length() + 1
