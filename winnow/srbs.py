# SPDX-License-Identifier: Apache-2.0
"""Sub-row-balanced sparsity (SRBS): the pattern, its mask and its check.

For every (output channel, tap) the row over input channels is cut into *sub-rows* of `SUB_ROW`
consecutive channels, the last one padded with zeros. Each sub-row holds at most `keep` non-zeros.
Balance is what lets every tap lane spend exactly `keep` steps on a sub-row. The idea is from
BISWSRBS (ACM TRETS 2021); the axis and the length of 8 are our definition.

Pruning may also balance longer sub-rows, or keep another number at every tap; the engine then runs
a layer with the largest number that any of its sub-rows of `SUB_ROW` holds (`max_keep`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SUB_ROW = 8


def num_sub_rows(channels: int, length: int = SUB_ROW) -> int:
    """Return the sub-rows of `length` that cover `channels` input channels."""
    return -(-channels // length)


def to_sub_rows(weight: NDArray[np.generic], length: int = SUB_ROW) -> NDArray[np.generic]:
    """Cut [oc, ic, ...] into sub-rows: [oc, ceil(ic/length), length, ...], zero-padded."""
    oc, ic = weight.shape[:2]
    pad = num_sub_rows(ic, length) * length - ic
    padded = np.pad(weight, [(0, 0), (0, pad)] + [(0, 0)] * (weight.ndim - 2))
    return padded.reshape(oc, -1, length, *weight.shape[2:])


def srbs_mask(
    score: NDArray[np.floating], keep: int | NDArray[np.int64], length: int = SUB_ROW
) -> NDArray[np.bool_]:
    """Return the mask that keeps the `keep` highest scores of every sub-row of `length`.

    `score` is [oc, ic, taps], any real numbers (magnitudes, saliencies); ties keep the lower
    channel. `keep` is one number or one per tap, [taps]. The mask has the shape of the scores.
    Raises ValueError unless 1 <= keep <= length.
    """
    if not (np.all(np.greater_equal(keep, 1)) and np.all(np.less_equal(keep, length))):
        raise ValueError(f"keep must be 1..{length}, got {keep}")
    oc, ic, taps = score.shape
    pad = num_sub_rows(ic, length) * length - ic
    padded = np.pad(score, ((0, 0), (0, pad), (0, 0)), constant_values=-np.inf)
    rows = padded.reshape(oc, -1, length, taps)
    order = np.argsort(-rows, axis=2, kind="stable")
    rank = np.argsort(order, axis=2, kind="stable")
    return (rank < keep).reshape(oc, -1, taps)[:, :ic]


def without_groups(weight: NDArray[Any], groups: int) -> NDArray[Any]:
    """Return weights [oc, ic, ...] that compute what [oc, ic / groups, ...] do in groups.

    Those between an output channel and another group's input channels are 0. Two groups:
    [[1], [2]] -> [[1, 0], [0, 2]]
    """
    if groups == 1:
        return weight
    apart = weight.reshape(groups, -1, *weight.shape[1:])
    _, outputs, inputs = apart.shape[:3]
    whole = np.zeros((groups, outputs, groups, inputs, *weight.shape[2:]), dtype=weight.dtype)
    each = np.arange(groups)
    whole[each, :, each] = apart
    return whole.reshape(groups * outputs, groups * inputs, *weight.shape[2:])


def max_keep(weight: NDArray[np.generic]) -> int:
    """Return the largest number of non-zeros in any sub-row of [oc, ic, ...], at least 1."""
    return max(1, int((to_sub_rows(weight) != 0).sum(axis=2).max(initial=0)))
