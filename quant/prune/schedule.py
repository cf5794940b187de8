# SPDX-License-Identifier: Apache-2.0
"""When pruning steps happen and how far each goes: the first half prunes, the second recovers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def keep_at(keeps: NDArray[np.int64], step: int, steps: int, dense: int) -> NDArray[np.int64]:
    """Return the keeps after a step, counted from 0: evenly down from `dense` to `keeps`.

    keep_at([2], 0, 3, 8) -> [6];  keep_at([2], 2, 3, 8) -> [2]
    """
    return np.rint(dense + (keeps - dense) * (step + 1) / steps).astype(np.int64)


def pruning_epochs(epochs: int) -> int:
    """Return how many epochs prune; the others only recover."""
    return max(1, epochs // 2)


def step_at(epoch: int, epochs: int, steps: int) -> int | None:
    """Return the pruning step due before `epoch`, or None: steps fill the first half evenly."""
    due = [s for s in range(steps) if s * pruning_epochs(epochs) // steps == epoch]
    return due[-1] if due else None


def last_step(epoch: int, epochs: int, steps: int) -> int:
    """Return the latest pruning step due before `epoch` or any epoch before it."""
    return max(s for s in range(steps) if s * pruning_epochs(epochs) // steps <= epoch)
