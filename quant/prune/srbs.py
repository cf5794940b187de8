# SPDX-License-Identifier: Apache-2.0
"""SRBS pruning of all layers, with closed-form compensation.

The output of a layer is linear in its sums M, so changing the weights U by dU costs dU^T H dU with

    H = G o E[V V^T]        o element-wise, G = `gram` of the layer: KA^T KA with KA = output_kron

over the (channel, position) pairs of a sub-row: the optimal-brain-surgeon quadratic form (Hassibi &
Stork 1993) of the layer's output error. A position is a tap of a Winograd layer and a pixel of a
dense one. Weights are chosen by their OBS saliency u^2 / [H^-1]_uu; those that stay then move to
the minimum of the form. The channels of a sub-row are compensated on their own, over up to
`POSITIONS` positions together, so the cost is one solve of at most 288 unknowns (576 for sub-rows
of 16) for each of them and each output channel.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from quant.prune.target import Gradual, Target
from quant.sites import visit_layers
from quant.winograd_layer import TapLayer
from winnow.srbs import SUB_ROW, num_sub_rows, srbs_mask

POSITIONS = 36  # compensated together: all taps of F(4,3); larger maps of a dense layer are cut
DAMPING = 1e-4  # of H's mean diagonal: keeps the solve stable for taps that are seldom used


@torch.no_grad()
def hessian(
    layer: TapLayer, x: Tensor, part: slice = slice(None), sub_row: int = SUB_ROW
) -> Tensor:
    """Return H of every sub-row for inputs x [n, c, ...], at the positions of `part`.

    H is [sub_rows, sub_row * positions, sub_row * positions] float64. Rows are (channel, position)
    with the position fastest; padded channels are zero but for the damping.
    """
    channels = layer.in_channels
    v = layer.lift(x)  # taps, k, p
    tiles = v.shape[2]
    v = v.transpose(0, 1).reshape(channels, -1, tiles)[:, part]  # c, positions, p
    pad = num_sub_rows(channels, sub_row) * sub_row - channels
    rows = F.pad(v, (0, 0, 0, 0, 0, pad)).reshape(-1, sub_row * v.shape[1], tiles)
    energy = torch.bmm(rows, rows.transpose(1, 2)).double() / tiles
    gram = layer.gram.double()  # taps, taps
    times = rows.shape[1] // len(gram)
    form = energy * gram.repeat(times, times)
    damping = DAMPING * form.diagonal(dim1=1, dim2=2).mean().clamp(min=1e-12)
    return form + damping * torch.eye(rows.shape[1], dtype=form.dtype, device=form.device)


def to_rows(u: Tensor, sub_row: int) -> Tensor:
    """Return U [oc, c, positions] as float64 [sub_rows, oc, sub_row * positions], zero-padded."""
    oc, channels, positions = u.shape
    pad = num_sub_rows(channels, sub_row) * sub_row - channels
    rows = F.pad(u.double(), (0, 0, 0, pad)).reshape(oc, -1, sub_row * positions)
    return rows.transpose(0, 1)


def from_rows(rows: Tensor, channels: int, sub_row: int) -> Tensor:
    """Undo `to_rows`."""
    sub_rows, oc, width = rows.shape
    u = rows.transpose(0, 1).reshape(oc, sub_rows * sub_row, width // sub_row)
    return u[:, :channels]


def _sub_row(u: Tensor, form: Tensor) -> int:
    """Return the length of the sub-rows that `form` is of."""
    return form.shape[1] // u.shape[2]


@torch.no_grad()
def saliencies(u: Tensor, form: Tensor) -> Tensor:
    """Return the OBS saliency of every weight of U [oc, c, positions], in the same shape."""
    sub_row = _sub_row(u, form)
    spread = torch.linalg.inv(form).diagonal(dim1=1, dim2=2)  # sub_rows, sub_row * positions
    return from_rows(to_rows(u, sub_row).square() / spread[:, None], u.shape[1], sub_row)


@torch.no_grad()
def select(u: Tensor, form: Tensor, keep: int | NDArray[np.int64]) -> Tensor:
    """Return the SRBS mask [oc, c, positions] of the most salient weights of each sub-row."""
    mask = srbs_mask(saliencies(u, form).cpu().numpy(), keep, _sub_row(u, form))
    return torch.from_numpy(mask).to(u)


@torch.no_grad()
def compensate(u: Tensor, mask: Tensor, form: Tensor) -> Tensor:
    """Return the masked weights nearest to U [oc, c, positions] in output error.

    Minimises (w - u)^T H (w - u) over w that vanish outside the mask: for the kept part K and the
    dropped part D, w_K = u_K + H_KK^-1 H_KD u_D.
    """
    sub_row = _sub_row(u, form)
    rows, kept = to_rows(u, sub_row), to_rows(mask, sub_row)  # sub_rows, oc, sub_row * positions
    dropped = 1 - kept
    result = torch.empty_like(rows)
    for i, h in enumerate(form):
        k = kept[i]
        system = k[:, :, None] * h * k[:, None, :] + torch.diag_embed(dropped[i])
        right = k * ((dropped[i] * rows[i]) @ h)
        result[i] = k * (rows[i] + torch.linalg.solve(system, right))
    return from_rows(result, u.shape[1], sub_row).to(u.dtype)


def parts(positions: int) -> list[slice]:
    """Return the positions that are compensated together."""
    return [slice(start, start + POSITIONS) for start in range(0, positions, POSITIONS)]


@torch.no_grad()
def layer_saliencies(layer: TapLayer, x: Tensor, sub_row: int) -> Tensor:
    """Return the OBS saliencies [oc, c, positions] of a layer, given its inputs x [n, c, ...]."""
    u = layer.by_channel(layer.u)
    cut = parts(u.shape[2])
    return torch.cat(
        [saliencies(u[:, :, part], hessian(layer, x, part, sub_row)) for part in cut], dim=2
    )


@torch.no_grad()
def prune_layer(
    layer: TapLayer, x: Tensor, keep: int | NDArray[np.int64], sub_row: int = SUB_ROW
) -> None:
    """Prune a layer to `keep` of `sub_row` and compensate, given its inputs x [n, c, ...].

    `keep` is one number or one per position.
    """
    u = layer.by_channel(layer.u)
    keeps = np.broadcast_to(keep, u.shape[2])
    mask = torch.empty_like(u)
    for part in parts(u.shape[2]):
        form = hessian(layer, x, part, sub_row)
        mask[:, :, part] = select(u[:, :, part], form, keeps[part])
        u[:, :, part] = compensate(u[:, :, part], mask[:, :, part], form)
    layer.mask.copy_(mask.view_as(layer.mask))
    layer.set_u(u.view_as(layer.weight))


class Compensated(Gradual):
    """Gradual pruning by OBS: a step visits every layer in order, on its current input."""

    def step(self, number: int) -> None:
        targets: dict[TapLayer, Target] = {t.layer: t for t in self.task.targets}

        def visit(layer: TapLayer, x: Tensor) -> None:
            target = targets[layer]
            keeps = target.keeps_at(number, self.task.config.steps)
            prune_layer(layer, x, keeps, target.sub_row)

        visit_layers(self.task.net, list(targets), self.task.x, visit)
