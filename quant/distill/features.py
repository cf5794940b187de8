# SPDX-License-Identifier: Apache-2.0
"""What the blocks of two networks see, compared as attention maps.

The attention map of a block is the energy of its channels at every pixel, scaled to length 1
(Zagoruyko & Komodakis, ICLR 2017, with p = 2). It has no channels, so student and teacher may
differ in width, and nothing must be trained to compare them. Both maps pass a ReLU first: a
quantized layer has it inside, the fp32 one behind it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
