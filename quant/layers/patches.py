# SPDX-License-Identifier: Apache-2.0
"""The overlapping patches that a Winograd transform reads, in one copy, and their gradient.

An input [n, c, h, w], padded by zeros, gives alpha x alpha patches in steps of m, one row per
place in the patch: [alpha^2, n * rows * columns * c].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from winnow.winograd import KERNEL


def patches(x: Tensor, m: int) -> Tensor:
    """Return the patches of x [n, c, h, w], in the type that matrix products want them."""
    if torch.jit.is_tracing():  # an export knows these operations only
        return _gathered(x, m)
    device = x.device.type
    is_mixed = torch.is_autocast_enabled(device) and x.dtype == torch.float32
    dtype = torch.get_autocast_dtype(device) if is_mixed else x.dtype
    return _Patches.apply(x, m, dtype)


def _gathered(x: Tensor, m: int) -> Tensor:
    _, _, height, width = (int(edge) for edge in x.shape)  # tensors in an export
    rows, columns = -(-height // m), -(-width // m)
    bottom, right = rows * m + 1 - height, columns * m + 1 - width
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, bottom))
    alpha = m + KERNEL - 1
    taps = [
        padded[:, i : i + rows * m : m, j : j + columns * m : m]
        for i in range(alpha)
        for j in range(alpha)
    ]
    return torch.stack(taps).flatten(1)


class _Patches(torch.autograd.Function):
    """Rounds to a shorter type before the copy, and adds gradients up in the longer one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, m: int, dtype: torch.dtype) -> Tensor:
        ctx.m, ctx.shape, ctx.dtype = m, x.shape, x.dtype
        return _gathered(x.to(dtype), m)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        m, alpha = ctx.m, ctx.m + KERNEL - 1
        n, channels, height, width = ctx.shape
        rows, columns = -(-height // m), -(-width // m)
        places = grad.reshape(alpha, alpha, n, rows, columns, channels)
        high, wide = rows * m + KERNEL - 1, columns * m + KERNEL - 1
        strips = grad.new_zeros((alpha, n, high, columns, channels), dtype=ctx.dtype)
        for i in range(alpha):
            strips[:, :, i : i + rows * m : m] += places[i]
        padded = strips.new_zeros((n, high, wide, channels))
        for j in range(alpha):
            padded[:, :, j : j + columns * m : m] += strips[j]
        return padded[:, 1 : 1 + height, 1 : 1 + width].permute(0, 3, 1, 2), None, None
