# SPDX-License-Identifier: Apache-2.0
"""Straight-through re-selection (SR-STE; Zhou et al., ICLR 2021).

All weights stay. Every forward pass multiplies with the largest ones of each sub-row only; the
gradient goes to all of them as if there were no mask, plus `decay` times those that are dropped, so
that these fade unless the loss asks for them and weights do not change places for ever. The number
kept falls step by step in the first half of the epochs. The last selection is the mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quant.prune.gradual import last_step
from quant.prune.target import Pruner, PruningTask, Target, best_mask


class _Masked(torch.autograd.Function):
    """weight * mask, with the gradient of SR-STE (eq. 8 of the paper)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, mask = ctx.saved_tensors
        return gradient + ctx.decay * (1 - mask) * weight, None, None


class Reselected(nn.Module):
    """Parametrization of a layer's weight: the largest entries of every sub-row, selected anew."""

    def __init__(self, target: Target, decay: float) -> None:
        super().__init__()
        self.channels, self.sub_row = target.layer.row_length, target.sub_row
        self.keeps: NDArray[np.int64] = np.full_like(target.keeps, target.sub_row)
        self.decay = decay

    def mask(self, weight: Tensor) -> Tensor:
        """Return the mask [oc, k, taps] of a weight."""
        score = weight.detach().abs().reshape(len(weight), self.channels, -1)
        return best_mask(score, self.keeps, self.sub_row).view_as(weight)

    def forward(self, weight: Tensor) -> Tensor:
        return _Masked.apply(weight, self.mask(weight), self.decay)


class StraightThrough(Pruner):
    """SR-STE on every target, with a falling number of kept weights."""

    def __init__(self, task: PruningTask) -> None:
        super().__init__(task)
        self.selections = [Reselected(target, task.config.decay) for target in task.targets]
        for target, selection in zip(task.targets, self.selections, strict=True):
            parametrize.register_parametrization(target.layer, "weight", selection)

    def begin_epoch(self, epoch: int) -> None:
        config = self.task.config
        step = last_step(epoch, config.epochs, config.steps)
        for target, selection in zip(self.task.targets, self.selections, strict=True):
            selection.keeps = target.keeps_at(step, config.steps)

    @torch.no_grad()
    def release(self) -> None:
        for target, selection in zip(self.task.targets, self.selections, strict=True):
            layer, selection.keeps = target.layer, target.keeps
            layer.mask.copy_(selection.mask(layer.parametrizations.weight.original))
            parametrize.remove_parametrizations(layer, "weight")
