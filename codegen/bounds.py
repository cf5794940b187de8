# SPDX-License-Identifier: Apache-2.0
"""The largest sums that any input can cause: the one proof behind every word length.

The checker asks whether they fit what the graph allows, the scheduler whether they fit an engine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.ir import Multiply, Winograd
from winnow.fixed_point import int_range
from winnow.winograd import winograd


def worst_case_sums(
    node: Multiply, lane_weights: NDArray[np.signedinteger[Any]] | None = None
) -> tuple[int, int]:
    """Return the largest |M| and |Y| any input can cause, from sum |U| and vmax.

    `lane_weights` [oc, k, lanes] are the node's weights as an engine deals them to its lanes: each
    lane has a sum M of its own then. Without them there is one sum per tap.

    The bound of Y also holds for every value inside the output transform: each shifted sum enters
    some output with a factor of at least one.
    """
    _, vmax = int_range(node.v_bits, signed=True, narrow=True)
    weight = node.weight if lane_weights is None else lane_weights
    taps = len(node.v_exponent) if lane_weights is None else weight.shape[2]
    weight = np.abs(weight.reshape(len(weight), -1, taps))
    # Python integers from here on, so that a wide shift cannot wrap while it is being judged.
    sums = weight.sum(axis=1).astype(object) * vmax  # [oc, taps or lanes]
    exponents = node.v_exponent.astype(object) + node.weight_exponent.astype(object)
    shifted = sums * 2 ** (exponents - node.acc_exponent)
    if isinstance(node, Winograd):
        mixed = shifted @ np.abs(winograd(node.m).output_kron).T.astype(object)
    else:
        mixed = shifted.sum(axis=1, keepdims=True)
    totals = mixed.max(axis=1) + np.abs(node.bias.astype(object))
    return int(sums.max()), int(totals.max())
