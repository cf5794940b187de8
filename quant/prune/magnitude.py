# SPDX-License-Identifier: Apache-2.0
"""Gradual pruning by magnitude, without compensation: the baseline of the other methods."""

from __future__ import annotations

import torch

from quant.prune.target import Gradual


class Magnitude(Gradual):
    """A step drops the smallest weights of every sub-row; what is dropped stays dropped."""

    @torch.no_grad()
    def step(self, number: int) -> None:
        for target in self.task.targets:
            layer, u = target.layer, target.layer.u
            keeps = target.keeps_at(number, self.task.config.steps)
            layer.mask.copy_(target.mask(u, keeps))
            layer.set_u(u)
