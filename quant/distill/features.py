# SPDX-License-Identifier: Apache-2.0
"""What the blocks of two networks see: maps taken by hooks, compared as attention.

The attention map of a block is the energy of its channels at every pixel, scaled to length 1
(Zagoruyko & Komodakis, ICLR 2017, with p = 2). It has no channels, so student and teacher may
differ in width, and nothing must be trained to compare them. Both maps pass a ReLU first: a
quantized layer has it inside, the fp32 one behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")


def maps_of(net: nn.Module, names: Sequence[str], run: Callable[[], T]) -> tuple[T, list[Tensor]]:
    """Return what `run()` returns and the outputs [n, c, h, w] of the modules called `names`."""
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001 (torch's)
            maps[name] = output

        return hook

    handles = [net.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    return result, [maps[name] for name in names]


def attention(x: Tensor) -> Tensor:
    """Return the attention maps [n, h, w] of maps [n, c, h, w], each of length 1."""
    energy = F.relu(x).square().mean(1)
    return F.normalize(energy.flatten(1), dim=1).view_as(energy)


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of two attention maps, mean over the batch: 0..4.

    A larger map is averaged down to the size of the smaller one.
    """
    edge = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    ours, theirs = (F.adaptive_avg_pool2d(attention(x), edge) for x in (student, teacher))
    ours, theirs = (F.normalize(x.flatten(1), dim=1) for x in (ours, theirs))
    return (ours - theirs).square().sum(1).mean()
