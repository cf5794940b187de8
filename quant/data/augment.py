# SPDX-License-Identifier: Apache-2.0
"""Augmentation: training images varied in ways that keep their class.

Inputs [n, c, h, w] are on the grid k * 2^-8, k in 0..255, and stay there. Every random number is
drawn on the CPU, so all devices see the same changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256  # input = level / 256


@dataclass(frozen=True)
class Augmentation:
    """Which changes are drawn for every image; the default changes nothing.

    Members:
        turn: largest angle in degrees.
        zoom: largest relative change of size.
        shift: largest shift, as a share of half the image.
        crop: pixels of black border to cut a window of the same size from.
        flip: mirror left and right, half of the time.
        cutout: edge in pixels of a black square; near the border less of it is inside.
    """

    turn: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    crop: int = 0
    flip: bool = False
    cutout: int = 0


DIGITS = Augmentation(turn=12, zoom=0.12, shift=0.14)
PHOTOS = Augmentation(crop=4, flip=True)
SCENES = Augmentation(flip=True)  # objects lie anywhere already
NAMED = {  # data.augment -> what it does
    "none": Augmentation(),
    "flip": SCENES,
    "crop": PHOTOS,
    "move": DIGITS,
}


def augment(x: Tensor, generator: torch.Generator, spec: Augmentation) -> Tensor:
    """Return `x` [n, c, h, w] varied as `spec` says; `generator` lives on the CPU."""
    if spec.turn or spec.zoom or spec.shift:
        x = _move(x, generator, spec)
    if spec.flip:
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(mirrored.to(x.device)[:, None, None, None], x.flip(3), x)
    if spec.crop:
        x = _crop(x, generator, spec.crop)
    if spec.cutout:
        x = _cut_out(x, generator, spec.cutout)
    return x


def _move(x: Tensor, generator: torch.Generator, spec: Augmentation) -> Tensor:
    """Turn, zoom and shift; interpolated values are rounded back to the grid."""
    turn, zoom, shift_x, shift_y = (2 * torch.rand(4, len(x), generator=generator) - 1).unbind()
    angle = turn * (spec.turn * math.pi / 180)
    scale = 1 + zoom * spec.zoom
    cos, sin = angle.cos() * scale, angle.sin() * scale
    top = torch.stack([cos, -sin, shift_x * spec.shift], dim=1)
    bottom = torch.stack([sin, cos, shift_y * spec.shift], dim=1)
    affine = torch.stack([top, bottom], dim=1).to(x.device)  # n, 2, 3
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, mode="bilinear", align_corners=False)
    return (moved * LEVELS).round().clamp(0, LEVELS - 1) / LEVELS


def _crop(x: Tensor, generator: torch.Generator, border: int) -> Tensor:
    """Cut a window of the image's own size, per image, out of the image in a black border."""
    n, _, h, w = x.shape
    top, left = torch.randint(0, 2 * border + 1, (2, n), generator=generator).to(x.device)
    rows = top[:, None] + torch.arange(h, device=x.device)
    columns = left[:, None] + torch.arange(w, device=x.device)
    image = torch.arange(n, device=x.device)[:, None, None]
    padded = F.pad(x, [border] * 4).permute(0, 2, 3, 1)  # n, h, w, c: whole pixels are gathered
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _cut_out(x: Tensor, generator: torch.Generator, edge: int) -> Tensor:
    """Blacken a square around a random pixel (DeVries & Taylor 2017)."""
    n, _, h, w = x.shape
    row = torch.randint(0, h, (n, 1), generator=generator)
    column = torch.randint(0, w, (n, 1), generator=generator)
    first_row, first_column = row - edge // 2, column - edge // 2
    y, across = torch.arange(h), torch.arange(w)
    inside_rows = (y >= first_row) & (y < first_row + edge)  # n, h
    inside_columns = (across >= first_column) & (across < first_column + edge)  # n, w
    hidden = inside_rows[:, :, None] & inside_columns[:, None, :]
    return x.masked_fill(hidden[:, None].to(x.device), 0)
