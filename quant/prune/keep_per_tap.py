# SPDX-License-Identifier: Apache-2.0
"""Keep per tap: share a layer's non-zeros among its positions so that least saliency is lost.

Keeping k instead of k - 1 at a position saves the k-th largest saliency of all its sub-rows. These
gains fall with k, so taking the largest gains first is the best allocation.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from winnow.srbs import num_sub_rows


def gains(saliency: Tensor, sub_row: int) -> NDArray[np.float64]:
    """Return what keep 1, 2, ... saves at every position, [positions, sub_row].

    `saliency` is [oc, c, positions], not negative.
    """
    oc, channels, positions = saliency.shape
    pad = num_sub_rows(channels, sub_row) * sub_row - channels
    rows = F.pad(saliency, (0, 0, 0, pad)).reshape(oc, -1, sub_row, positions)
    ordered = rows.sort(dim=2, descending=True).values
    saved: NDArray[np.float64] = ordered.sum(dim=(0, 1)).t().double().cpu().numpy()
    return saved


def allocate(gain: NDArray[np.float64], keep: int) -> NDArray[np.int64]:
    """Return a keep per position, 1 at least, with mean `keep` and the largest sum of gains.

    allocate([[9, 1], [9, 5], [9, 2]], ...) with 5 to share -> [1, 2, 2]
    """
    positions, longest = gain.shape
    spare = positions * (keep - 1)
    falling = np.minimum.accumulate(gain[:, 1:], axis=1).ravel()  # rounding must not undo the order
    best = np.argsort(-falling, kind="stable")[:spare]
    taken = np.zeros(positions * (longest - 1), dtype=np.int64)
    taken[best] = 1
    total: NDArray[np.int64] = 1 + taken.reshape(positions, -1).sum(axis=1)
    return total
