# SPDX-License-Identifier: Apache-2.0
"""Pruning by ADMM (Zhang et al., ECCV 2018), then retraining under the mask.

Training minimises loss(W) for W in a set S of sparse weights. ADMM gives the constraint a copy Z of
its own and a scaled dual U, and repeats:

    W   minimises  loss(W) + rho/2 |W - Z + U|^2     an epoch of training
    Z = the point of S nearest to W + U              keep the largest, drop the rest
    U = U + W - Z

So the weights drift to the pattern while the loss still pushes back, and a weight that the loss
needs can win its place. `rho` grows over the first half of the epochs, U shrinking in step (Boyd et
al. 2011, 3.4.1). Then the pattern is imposed for the second half. `cut` in the record is the share
of each layer's norm that this still took away: 0 if W had come to S.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from quant.prune.gradual import pruning_epochs
from quant.prune.target import Pruner, PruningTask, Target

GROWTH = 100.0  # of rho, from the first epoch of ADMM to the last


@dataclass(frozen=True, eq=False)
class Constraint:
    """A parameter that shall become sparse.

    Members:
        owner: module that holds Z and U as buffers while training lasts.
        project: mask of the allowed point nearest to a tensor like the parameter.
        impose: makes that mask the module's for good.
    """

    owner: nn.Module
    parameter: nn.Parameter
    project: Callable[[Tensor], Tensor]
    impose: Callable[[Tensor], None]

    def start(self) -> None:
        """Add Z, U and what is cut to the owner."""
        self.owner.register_buffer("admm_z", torch.zeros_like(self.parameter.detach()))
        self.owner.register_buffer("admm_dual", torch.zeros_like(self.parameter.detach()))
        self.owner.register_buffer("admm_cut", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def split(self) -> None:
        """Set Z to the allowed point nearest to W + U."""
        point = self.parameter + self.owner.admm_dual
        self.owner.admm_z.copy_(point * self.project(point))

    @torch.no_grad()
    def update(self, shrink: float) -> None:
        """Set Z, then U; `shrink` is the old rho by the new one."""
        self.split()
        dual = self.owner.admm_dual
        dual.add_(self.parameter - self.owner.admm_z).mul_(shrink)

    def pull(self) -> Tensor:
        """Return W - Z + U: the gradient of the penalty for rho 1."""
        return self.parameter.detach() - self.owner.admm_z + self.owner.admm_dual

    @torch.no_grad()
    def hold(self) -> None:
        """Impose the pattern nearest to W for good, and note the share of W's norm that it cuts."""
        weight = self.parameter.detach()
        mask = self.project(weight)
        left = (weight * (1 - mask)).double().norm() / weight.double().norm().clamp(min=1e-30)
        self.owner.admm_cut.fill_(float(left))
        self.impose(mask)

    def end(self) -> float:
        """Remove what was added; return the share of W's norm that the pattern cut."""
        cut = float(self.owner.admm_cut)
        del self.owner.admm_z, self.owner.admm_dual, self.owner.admm_cut
        return cut


class Admm(Pruner):
    """ADMM under any constraints, in the first half of the epochs; they hold in the second."""

    def __init__(self, task: PruningTask, constraints: Sequence[Constraint]) -> None:
        super().__init__(task)
        self.constraints = tuple(constraints)
        self.rho = 0.0
        self.cut: list[float] = []
        self.handles = []
        for constraint in self.constraints:
            constraint.start()
            hook = partial(self._with_penalty, constraint)
            self.handles.append(constraint.parameter.register_hook(hook))

    def _with_penalty(self, constraint: Constraint, gradient: Tensor) -> Tensor:
        if not self.rho:
            return gradient
        return gradient + self.rho * constraint.pull().to(gradient)

    def rho_at(self, epoch: int) -> float:
        """Return rho of an epoch of the first half."""
        last = max(1, pruning_epochs(self.task.config.epochs) - 1)
        return float(self.task.config.rho * GROWTH ** (epoch / last))

    def begin_epoch(self, epoch: int) -> None:
        first_half = pruning_epochs(self.task.config.epochs)
        self.rho = self.rho_at(epoch) if epoch < first_half else 0.0
        for constraint in self.constraints:
            if epoch == 0:
                constraint.split()
            elif epoch < first_half:
                constraint.update(self.rho_at(epoch - 1) / self.rho)
            elif epoch == first_half:
                constraint.hold()

    def release(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.cut = [constraint.end() for constraint in self.constraints]

    def numbers(self) -> dict[str, Any]:
        names = [target.name for target in self.task.targets]
        return {"cut": dict(zip(names, self.cut, strict=True))}


def srbs_constraint(target: Target) -> Constraint:
    """Return the constraint that a layer has its SRBS pattern."""
    layer = target.layer

    def project(weight: Tensor) -> Tensor:
        return target.mask(weight, target.keeps)

    def impose(mask: Tensor) -> None:
        layer.mask.copy_(mask)

    return Constraint(layer, layer.weight, project, impose)


def srbs_admm(task: PruningTask) -> Admm:
    """Return ADMM towards the SRBS pattern of every target."""
    return Admm(task, [srbs_constraint(target) for target in task.targets])
