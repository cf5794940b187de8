# SPDX-License-Identifier: Apache-2.0
"""What pruning is asked for, and the interface that all methods share.

A method is a `Pruner`: it acts before epochs, may change gradients in between, and leaves plain
layers with exact masks. Whatever it remembers from one epoch to the next is a buffer or a parameter
of the network, or follows from the epoch, so that an interrupted run resumes bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from quant.layers.winograd_layer import TapLayer
from winnow.config import PruneConfig
from winnow.srbs import num_sub_rows


def keep_at(keeps: NDArray[np.int64], step: int, steps: int, dense: int) -> NDArray[np.int64]:
    """Return the keeps after a step, counted from 0: evenly down from `dense` to `keeps`.

    keep_at([2], 0, 3, 8) -> [6];  keep_at([2], 2, 3, 8) -> [2]
    """
    return np.rint(dense + (keeps - dense) * (step + 1) / steps).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Target:
    """A layer and its pattern: `keeps[p]` of every `sub_row` channels at position p."""

    name: str
    layer: TapLayer
    keeps: NDArray[np.int64]
    sub_row: int

    def keeps_at(self, step: int, steps: int) -> NDArray[np.int64]:
        """Return the keeps after one of `steps` pruning steps."""
        return keep_at(self.keeps, step, steps, self.sub_row)

    def mask(self, weight: Tensor, keeps: NDArray[np.int64]) -> Tensor:
        """Return the SRBS mask of the largest entries of a weight shaped like the layer's."""
        score = self.layer.by_channel(weight.detach()).abs()
        return best_mask(score, keeps, self.sub_row).view_as(weight)


RANKED_AT_ONCE = 1 << 24  # weights, whose ranks take many times their own memory


@torch.no_grad()
def best_mask(score: Tensor, keeps: NDArray[np.int64], sub_row: int) -> Tensor:
    """Return `winnow.srbs.srbs_mask` of a score [oc, c, positions] on the score's device."""
    rows = max(1, RANKED_AT_ONCE // max(1, score[0].numel()))
    return torch.cat([_best_of(part, keeps, sub_row) for part in score.split(rows)])


def _best_of(score: Tensor, keeps: NDArray[np.int64], sub_row: int) -> Tensor:
    oc, channels, positions = score.shape
    pad = num_sub_rows(channels, sub_row) * sub_row - channels
    padded = F.pad(score, (0, 0, 0, pad), value=-torch.inf)
    rows = padded.view(oc, -1, sub_row, positions)
    order = rows.argsort(dim=2, descending=True, stable=True)
    rank = order.argsort(dim=2, stable=True)
    kept = rank < torch.from_numpy(keeps).to(score.device)
    return kept.reshape(oc, -1, positions)[:, :channels].to(score.dtype)


@dataclass(frozen=True, eq=False)
class PruningTask:
    """A network to prune, its targets as they run, and sample inputs x [n, c, h, w].

    `places` are the weights that each target's 3x3 kernels keep, for the method "pattern".
    """

    config: PruneConfig
    net: nn.Module
    targets: tuple[Target, ...]
    x: Tensor
    places: Mapping[str, int] = field(default_factory=dict)


class Pruner:
    """A pruning method at work on a task."""

    def __init__(self, task: PruningTask) -> None:
        self.task = task

    def begin_epoch(self, epoch: int) -> None:
        """Do what is due before an epoch, counted from 0."""
        raise NotImplementedError

    def release(self) -> None:
        """Leave plain layers with exact masks."""

    def numbers(self) -> dict[str, Any]:
        """Return what the record says beside accuracies, after `release`."""
        return {}
