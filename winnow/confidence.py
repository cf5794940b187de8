# SPDX-License-Identifier: Apache-2.0
"""How sure a network is of an image: its largest softmax probability, the same on every machine.

The largest probability is 1 over the sum of exp(-d) of all classes, d being how far a class lies
behind the best one. Logits are whole multiples of a power of two, so d is a number of bits, and
exp(-d) the product of a constant for each of them: integers all the way, cut to 2^-30. A library's
exp rounds otherwise on other processors, and an image could leave a network elsewhere.
`winnow_pynq/exits.py` does the same for a board; a test compares them.
"""

from __future__ import annotations

from decimal import Context, Decimal

import numpy as np
from numpy.typing import NDArray

from winnow.fixed_point import IntArray

FRACTION, WHOLE = 30, 5  # bits of a difference; from 2^5 on it counts nothing
ONE, FAR = 1 << FRACTION, (1 << FRACTION + WHOLE) - 1
_exactly = Context(prec=80)
FACTORS = tuple(  # exp(-2^(bit - 30)), as steps of 2^-30
    int(_exactly.multiply(_exactly.exp(_exactly.divide(Decimal(-(1 << bit)), ONE)), ONE))
    for bit in range(FRACTION + WHOLE)
)


def confidence(results: IntArray, exponent: int) -> NDArray[np.float64]:
    """Return the largest probability [n] of integer logits [n, classes] times 2^`exponent`."""
    behind = results.max(axis=1, keepdims=True) - results
    shift = FRACTION + exponent
    if shift < 0:
        return _largest(np.minimum(behind >> min(-shift, 63), FAR))
    near = FAR >> min(shift, 63)
    return _largest(np.where(behind > near, FAR, np.minimum(behind, near) << min(shift, 62)))


def confidence_of(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same of logits [n, classes] that are such multiples, as floats."""
    behind = logits.max(axis=1, keepdims=True) - logits
    return _largest(np.floor(np.minimum(behind * ONE, FAR)).astype(np.int64))


def _largest(behind: IntArray) -> NDArray[np.float64]:
    """Return the largest probability from how far classes lie behind, in steps of 2^-30."""
    shares = np.full(behind.shape, ONE)
    for bit, factor in enumerate(FACTORS):
        shares = np.where(behind >> bit & 1, shares * factor >> FRACTION, shares)
    return np.asarray(ONE / shares.sum(axis=1))
