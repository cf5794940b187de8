# SPDX-License-Identifier: Apache-2.0
"""PCNN (Tan et al., DAC 2020): the 3x3 kernels of a layer keep n weights, in one of few shapes.

1. Distil: of all C(9, n) patterns, each layer gets the `patterns` that together keep most of its
   kernels' energy. They are chosen one by one, each time the one that adds most, which keeps at
   least 1 - 1/e of what the best set would (Nemhauser et al. 1978); then exchanged one at a time
   while that gains.
2. ADMM towards kernels with one of these patterns, then retraining with the pattern fixed.

The kernels are spatial: a Winograd layer trains through its kernel meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import comb
from typing import Any

import torch
from torch import Tensor

from quant.layers.winograd_layer import DirectConv2d, TapLayer, WinogradConv2d
from quant.prune.admm import Admm, Constraint
from quant.prune.kernel import kernel_of, nearest_kernel, release, through_kernel
from quant.prune.storage import PIXELS
from quant.prune.target import PruningTask, Target
from winnow.config import PruneConfig

EXCHANGES = 10  # passes over the chosen patterns at most; two or three suffice in practice


def all_patterns(keep: int) -> Tensor:
    """Return all patterns with `keep` of 9 places, [patterns, 9], of zeros and ones."""
    places = torch.tensor(list(combinations(range(PIXELS), keep)))
    return torch.zeros(len(places), PIXELS).scatter_(1, places, 1.0)


def kept_energy(kernels: Tensor, patterns: Tensor) -> Tensor:
    """Return the squared size that each pattern keeps of each kernel [n, 9], [n, patterns]."""
    return kernels.square() @ patterns.to(kernels).t()


@torch.no_grad()
def distil(kernels: Tensor, keep: int, count: int) -> Tensor:
    """Return the `count` patterns [count, 9] chosen for kernels [n, 9]."""
    candidates = all_patterns(keep)
    energy = kept_energy(kernels, candidates)
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(_best_beside(energy, chosen))
    for _ in range(EXCHANGES):
        before = list(chosen)
        for place in range(count):
            others = chosen[:place] + chosen[place + 1 :]
            chosen[place] = _best_beside(energy, others, chosen[place])
        if chosen == before:
            break
    return candidates[chosen]


def _best_beside(energy: Tensor, others: list[int], own: int | None = None) -> int:
    """Return the pattern that adds most energy [n, patterns] to `others`, or `own` if no less."""
    held = (
        energy[:, others].amax(dim=1, keepdim=True) if others else torch.zeros_like(energy[:, :1])
    )
    gain = (energy - held).clamp(min=0).sum(dim=0)
    gain[others] = -1.0
    best = int(gain.argmax())
    return best if own is None or gain[best] > gain[own] else own


@torch.no_grad()
def nearest(kernels: Tensor, patterns: Tensor) -> Tensor:
    """Return for kernels [..., 9] the masks of the patterns that keep most of each."""
    patterns = patterns.to(kernels)
    best = kept_energy(kernels.reshape(-1, PIXELS), patterns).argmax(dim=1)
    return patterns[best].view_as(kernels)


def kernels_in(layers: Mapping[str, TapLayer]) -> dict[str, TapLayer]:
    """Return the layers that have 3x3 kernels."""
    return {
        name: layer
        for name, layer in layers.items()
        if isinstance(layer, WinogradConv2d)
        or (isinstance(layer, DirectConv2d) and layer.window.kernel == (3, 3))
    }


def num_patterns(config: PruneConfig, keep: int) -> int:
    """Return how many patterns a layer has: those configured, or all that there are if fewer."""
    return min(config.patterns, comb(PIXELS, keep))


def spatial_kernels(layer: TapLayer) -> Tensor:
    """Return the kernels [oc, ic, 9] of a layer as they are."""
    if isinstance(layer, WinogradConv2d):
        return nearest_kernel(layer).flatten(2)
    return layer.by_channel(layer.u.detach())


class PatternAdmm(Admm):
    """ADMM towards the distilled patterns of every target."""

    def __init__(self, task: PruningTask) -> None:
        self.patterns: dict[str, Tensor] = {}
        constraints = []
        for target in task.targets:
            kernels = _kernels(target.layer)
            keep = task.places[target.name]
            patterns = distil(kernels.flatten(0, 1), keep, num_patterns(task.config, keep))
            self.patterns[target.name] = patterns
            constraints.append(_constraint(target, patterns))
        super().__init__(task, constraints)

    def release(self) -> None:
        super().release()
        for target in self.task.targets:
            if isinstance(target.layer, WinogradConv2d):
                release(target.layer)

    def numbers(self) -> dict[str, Any]:
        # A pattern in the record is its nine places row by row, as in "010100001".
        texts = {
            name: ["".join(str(int(place)) for place in pattern) for pattern in patterns]
            for name, patterns in self.patterns.items()
        }
        return {"patterns": texts, "pattern_keep": dict(self.task.places), **super().numbers()}


def _kernels(layer: TapLayer) -> Tensor:
    """Return the kernels [oc, ic, 9] of a layer; a Winograd layer trains through them from now."""
    if isinstance(layer, WinogradConv2d):
        through_kernel(layer)
        return kernel_of(layer).detach()
    return layer.by_channel(layer.weight.detach())


def _constraint(target: Target, patterns: Tensor) -> Constraint:
    """Return the constraint that every kernel of a layer has one of the patterns."""
    layer = target.layer
    is_winograd = isinstance(layer, WinogradConv2d)
    parameter = kernel_of(layer) if is_winograd else layer.weight
    mask = layer.parametrizations.weight[0].pattern if is_winograd else layer.mask

    def project(weight: Tensor) -> Tensor:
        kernels = weight.reshape(len(weight), layer.in_channels, PIXELS)
        return nearest(kernels, patterns).view_as(weight)

    def impose(found: Tensor) -> None:
        mask.copy_(found)

    return Constraint(layer, parameter, project, impose)
