# SPDX-License-Identifier: Apache-2.0
"""SRBS pruning of all layers, with closed-form compensation.

The output of a layer is linear in its sums M, so changing the weights U by dU costs dU^T H dU with

    H = G o E[V V^T]        o element-wise, G = `gram` of the layer: KA^T KA with KA = output_kron

over the (channel, position) pairs of a sub-row: the optimal-brain-surgeon quadratic form (Hassibi &
Stork 1993) of the layer's output error. A position is a tap of a Winograd layer and a pixel of a
dense one. Weights are chosen by their OBS saliency u^2 / [H^-1]_uu; those that stay then move to
the minimum of the form. The 8 channels of a sub-row are compensated on their own, over up to
`POSITIONS` positions together, so the cost is one solve of at most 288 unknowns for each of them
and each output channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.sites import visit_layers
from quant.winograd_layer import TapLayer
from winnow.srbs import SUB_ROW, num_sub_rows, srbs_mask

POSITIONS = 36  # compensated together: all taps of F(4,3); larger maps of a dense layer are cut
DAMPING = 1e-4  # of H's mean diagonal: keeps the solve stable for taps that are seldom used


def keep_schedule(keep: int, steps: int) -> list[int]:
    """Return the `keep` of each step, from just below dense down to the target.

    keep_schedule(2, 3) -> [6, 4, 2]
    """
    return [round(SUB_ROW + (keep - SUB_ROW) * step / steps) for step in range(1, steps + 1)]


def step_at(epoch: int, epochs: int, steps: int) -> int | None:
    """Return the pruning step due before `epoch`, or None: steps fill the first half evenly."""
    first_half = max(1, epochs // 2)
    due = [s for s in range(steps) if s * first_half // steps == epoch]
    return due[-1] if due else None


@torch.no_grad()
def hessian(layer: TapLayer, x: Tensor, part: slice = slice(None)) -> Tensor:
    """Return H of every 8 channels for inputs x [n, c, ...], at the positions of `part`.

    H is [sub_rows, 8 * positions, 8 * positions] float64. Rows are (channel, position) with the
    position fastest; padded channels are zero but for the damping.
    """
    channels = layer.in_channels
    v = layer.lift(x)  # taps, k, p
    tiles = v.shape[2]
    v = v.transpose(0, 1).reshape(channels, -1, tiles)[:, part]  # c, positions, p
    pad = num_sub_rows(channels) * SUB_ROW - channels
    rows = F.pad(v, (0, 0, 0, 0, 0, pad)).reshape(-1, SUB_ROW * v.shape[1], tiles)
    energy = torch.bmm(rows, rows.transpose(1, 2)).double() / tiles
    gram = layer.gram.double()  # taps, taps
    times = rows.shape[1] // len(gram)
    form = energy * gram.repeat(times, times)
    damping = DAMPING * form.diagonal(dim1=1, dim2=2).mean().clamp(min=1e-12)
    return form + damping * torch.eye(rows.shape[1], dtype=form.dtype, device=form.device)


def to_rows(u: Tensor) -> Tensor:
    """Return U [oc, c, positions] as float64 [sub_rows, oc, 8 * positions], zero-padded."""
    oc, channels, positions = u.shape
    pad = num_sub_rows(channels) * SUB_ROW - channels
    rows = F.pad(u.double(), (0, 0, 0, pad)).reshape(oc, -1, SUB_ROW * positions)
    return rows.transpose(0, 1)


def from_rows(rows: Tensor, channels: int) -> Tensor:
    """Undo `to_rows`."""
    sub_rows, oc, width = rows.shape
    u = rows.transpose(0, 1).reshape(oc, sub_rows * SUB_ROW, width // SUB_ROW)
    return u[:, :channels]


@torch.no_grad()
def select(u: Tensor, form: Tensor, keep: int) -> Tensor:
    """Return the SRBS mask [oc, c, positions] of the most salient weights of each sub-row."""
    spread = torch.linalg.inv(form).diagonal(dim1=1, dim2=2)  # sub_rows, 8 * positions
    saliency = from_rows(to_rows(u).square() / spread[:, None], u.shape[1])
    mask = srbs_mask(saliency.cpu().numpy(), keep)
    return torch.from_numpy(mask).to(u)


@torch.no_grad()
def compensate(u: Tensor, mask: Tensor, form: Tensor) -> Tensor:
    """Return the masked weights nearest to U [oc, c, positions] in output error.

    Minimises (w - u)^T H (w - u) over w that vanish outside the mask: for the kept part K and the
    dropped part D, w_K = u_K + H_KK^-1 H_KD u_D.
    """
    rows, kept = to_rows(u), to_rows(mask)  # sub_rows, oc, 8 * positions
    dropped = 1 - kept
    result = torch.empty_like(rows)
    for i, h in enumerate(form):
        k = kept[i]
        system = k[:, :, None] * h * k[:, None, :] + torch.diag_embed(dropped[i])
        right = k * ((dropped[i] * rows[i]) @ h)
        result[i] = k * (rows[i] + torch.linalg.solve(system, right))
    return from_rows(result, u.shape[1]).to(u.dtype)


@torch.no_grad()
def prune_layer(layer: TapLayer, x: Tensor, keep: int) -> None:
    """Prune a layer to `keep` of 8 and compensate, given its inputs x [n, c, ...]."""
    u = layer.by_channel(layer.u)
    mask = torch.empty_like(u)
    for start in range(0, u.shape[2], POSITIONS):
        part = slice(start, start + POSITIONS)
        form = hessian(layer, x, part)
        mask[:, :, part] = select(u[:, :, part], form, keep)
        u[:, :, part] = compensate(u[:, :, part], mask[:, :, part], form)
    layer.mask.copy_(mask.view_as(layer.mask))
    layer.set_u(u.view_as(layer.weight))


def pruning_steps(
    net: nn.Module, layers: Sequence[TapLayer], x: Tensor, keeps: Sequence[int]
) -> Callable[[int], None]:
    """Return a function that runs pruning step i: every layer in order, on its current input."""

    def run(step: int) -> None:
        visit_layers(net, layers, x, lambda layer, value: prune_layer(layer, value, keeps[step]))

    return run
