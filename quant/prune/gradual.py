# SPDX-License-Identifier: Apache-2.0
"""Gradual pruning: when its steps happen, and the plainest method, by magnitude.

The first half of the epochs prunes, the second recovers.
"""

from __future__ import annotations

import torch

from quant.prune.target import Pruner


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


class Gradual(Pruner):
    """A method that prunes in steps, all in the first half of the epochs."""

    def begin_epoch(self, epoch: int) -> None:
        number = step_at(epoch, self.task.config.epochs, self.task.config.steps)
        if number is not None:
            self.step(number)

    def step(self, number: int) -> None:
        """Run a pruning step."""
        raise NotImplementedError


class Magnitude(Gradual):
    """A step drops the smallest weights of every sub-row; what is dropped stays dropped."""

    @torch.no_grad()
    def step(self, number: int) -> None:
        for target in self.task.targets:
            layer, u = target.layer, target.layer.u
            keeps = target.keeps_at(number, self.task.config.steps)
            layer.mask.copy_(target.mask(u, keeps))
            layer.set_u(u)
