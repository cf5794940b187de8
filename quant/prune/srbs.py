# SPDX-License-Identifier: Apache-2.0
"""SRBS pruning of all layers, with closed-form compensation.

The output of a layer is linear in its sums M, so changing the weights U by dU costs dU^T H dU with

    H = G o E[V V^T]        o element-wise, G = `gram` of the layer: KA^T KA with KA = output_kron

over the (channel, position) pairs of a block: the optimal-brain-surgeon quadratic form (Hassibi &
Stork 1993) of the layer's output error. A position is a tap of a Winograd layer and a pixel of a
dense one. Weights go by their OBS saliency u^2 / [H^-1]_uu, at most a quarter of a sub-row at once;
after that those that stay, K, move to the minimum of the form, and H is that of K alone.

A block is many sub-rows, because the channels of a map tell much about each other: compensated one
by one, sub-rows lose 1.3 to 1.8 times as much (docs/compression.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quant.layers.winograd_layer import TapLayer
from quant.network.layer_graph import visit_layers
from quant.prune.gradual import Gradual
from quant.prune.target import Target, best_mask
from winnow.srbs import SUB_ROW, num_sub_rows

UNKNOWNS = 1152  # weights of an output channel that move together: time grows with their cube
OBSERVATIONS = 2  # outputs of the sample that there must be for each of them
DAMPING = 1e-4  # of H's mean diagonal: keeps the solve stable for taps that are seldom used


@dataclass(frozen=True)
class WeightBlock:
    """Channels and positions whose weights are compensated together."""

    channels: slice
    positions: slice


def blocks(channels: int, positions: int, sub_row: int, limit: int = UNKNOWNS) -> list[WeightBlock]:
    """Cut weights [channels, positions] into even blocks of whole sub-rows, `limit` weights each.

    One sub-row at one position is the least.
    """
    wide = min(positions, max(1, limit // sub_row))
    sub_rows = num_sub_rows(channels, sub_row)
    count = -(-sub_rows // max(1, limit // (sub_row * wide)))
    edges = [sub_row * (i * sub_rows // count) for i in range(count)] + [channels]
    return [
        WeightBlock(slice(edges[i], edges[i + 1]), slice(start, min(positions, start + wide)))
        for i in range(count)
        for start in range(0, positions, wide)
    ]


class Hessian:
    """The quadratic forms of a layer's output error for inputs x [n, c, ...]."""

    def __init__(self, layer: TapLayer, x: Tensor, sub_row: int = SUB_ROW) -> None:
        v = layer.input_transform(x.detach())  # taps, k, p
        self.gram = layer.gram.double()
        self.rows = v.transpose(0, 1).reshape(layer.row_length, -1, v.shape[2])
        outputs = int(torch.linalg.matrix_rank(self.gram)) * v.shape[2]
        channels, positions = self.rows.shape[:2]
        self.blocks = blocks(channels, positions, sub_row, min(UNKNOWNS, outputs // OBSERVATIONS))

    def of(self, block: WeightBlock) -> Tensor:
        """Return H [unknowns, unknowns] of a block, (channel, position), the position fastest."""
        rows = self.rows[block.channels, block.positions].flatten(0, 1)
        energy = (rows @ rows.t()).double() / rows.shape[1]
        # With one tap the positions are pixels, which all have that tap's gram.
        gram = self.gram[block.positions, block.positions] if len(self.gram) > 1 else self.gram
        times = len(rows) // len(gram)
        form = energy * gram.repeat(times, times)
        damping = DAMPING * form.diagonal().mean().clamp(min=1e-12)
        return form + damping * torch.eye(len(form), dtype=form.dtype, device=form.device)


@torch.no_grad()
def saliencies(u: Tensor, mask: Tensor, form: Tensor) -> Tensor:
    """Return the OBS saliency of the weights in the mask of U [oc, c, positions]; others: -1."""
    rows, kept = u.double().flatten(1), mask.flatten(1).bool()
    result = torch.full_like(rows, -1)
    if bool(kept.all()):
        return (rows.square() / _inverse_diagonal(form)).view_as(u)
    for out, row, keep in zip(result, rows, kept, strict=True):
        out[keep] = row[keep].square() / _inverse_diagonal(form[keep][:, keep])
    return result.view_as(u)


def _inverse_diagonal(form: Tensor) -> Tensor:
    return torch.cholesky_inverse(torch.linalg.cholesky(form)).diagonal()


@torch.no_grad()
def compensate(u: Tensor, mask: Tensor, form: Tensor) -> Tensor:
    """Return the masked weights nearest to U [oc, c, positions] in output error, in float64.

    Minimises (w - u)^T H (w - u) over w that vanish outside the mask: w_K = H_KK^-1 (H u)_K.
    """
    rows, kept = u.double().flatten(1), mask.flatten(1).bool()
    wanted, result = rows @ form, torch.zeros_like(rows)
    for out, row, keep in zip(result, wanted, kept, strict=True):
        factor = torch.linalg.cholesky(form[keep][:, keep])
        out[keep] = torch.cholesky_solve(row[keep, None], factor)[:, 0]
    return result.view_as(u)


def fewer(kept: NDArray[np.int64], keeps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the next keeps on the way from `kept` to `keeps`: a quarter less, or one.

    8 -> 6 -> 5 -> 4 -> 3 -> 2 -> 1
    """
    return np.maximum(keeps, kept - np.maximum(1, kept // 4))


@torch.no_grad()
def thin(
    u: Tensor, form: Tensor, keeps: NDArray[np.int64], sub_row: int = SUB_ROW
) -> tuple[Tensor, Tensor]:
    """Return U [oc, c, positions] pruned to `keeps` of a sub-row, compensated, and its mask.

    `keeps` has one number per position. What the weights may do is match the U given, so every
    compensation starts from it.
    """
    mask, best = torch.ones_like(u, dtype=torch.float64), u.double()
    kept = np.full_like(keeps, sub_row)
    while (kept > keeps).any():
        kept = fewer(kept, keeps)
        mask = best_mask(saliencies(best, mask, form), kept, sub_row)
        best = compensate(u, mask, form)
    return best, mask


@torch.no_grad()
def layer_saliencies(layer: TapLayer, x: Tensor, sub_row: int) -> Tensor:
    """Return the OBS saliencies [oc, c, positions] of a layer, given its inputs x [n, c, ...]."""
    u, form = layer.by_channel(layer.u).double(), Hessian(layer, x, sub_row)
    found = torch.empty_like(u)
    for block in form.blocks:
        part = u[:, block.channels, block.positions]
        found[:, block.channels, block.positions] = saliencies(
            part, torch.ones_like(part), form.of(block)
        )
    return found


@torch.no_grad()
def prune_layer(
    layer: TapLayer, x: Tensor, keep: int | NDArray[np.int64], sub_row: int = SUB_ROW
) -> None:
    """Prune a layer to `keep` of `sub_row` and compensate, given its inputs x [n, c, ...].

    `keep` is one number or one per position.
    """
    u, form = layer.by_channel(layer.u), Hessian(layer, x, sub_row)
    keeps = np.broadcast_to(np.asarray(keep, dtype=np.int64), u.shape[2])
    mask = torch.empty_like(u)
    for block in form.blocks:
        place = (slice(None), block.channels, block.positions)
        best, kept = thin(u[place], form.of(block), keeps[block.positions], sub_row)
        u[place], mask[place] = best.to(u.dtype), kept.to(u.dtype)
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
