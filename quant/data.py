# SPDX-License-Identifier: Apache-2.0
"""The images: scikit-learn's bundled handwritten digits, a fixed split, and augmentation.

Leaves uint8 images [n, 1, h, w] in 0..255 and int64 labels [n]. The network reads image * 2^-8, so
its input quantization is exact. Nothing is downloaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from winnow.config import DataConfig

INPUT_BITS = 8
INPUT_EXPONENT = -8
NUM_CLASSES = 10
SOURCE_LEVELS = 16  # the bundled digits are 8x8 counts in 0..16

MAX_TURN = 12 * math.pi / 180
MAX_ZOOM = 0.12
MAX_SHIFT = 0.14  # of half the image


@dataclass(frozen=True)
class Samples:
    """Images uint8 [n, c, h, w] and labels int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Split:
    """Disjoint, stratified parts: 60% train, 20% validation, 20% test."""

    train: Samples
    validation: Samples
    test: Samples


def load_split(config: DataConfig) -> Split:
    """Read, resize and split the digits; the same configuration gives the same split."""
    digits = load_digits()
    counts = torch.tensor(digits.images, dtype=torch.float64).unsqueeze(1)
    edge = config.image_size
    resized = F.interpolate(counts, (edge, edge), mode="bilinear", align_corners=False)
    images = (resized * (255 / SOURCE_LEVELS)).round().to(torch.uint8)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    rest, test = _part(np.arange(len(labels)), labels, 0.2, config.split_seed)
    train, validation = _part(rest, labels, 0.25, config.split_seed)
    return Split(*(Samples(images[i], labels[i]) for i in (train, validation, test)))


def _part(
    indices: np.ndarray, labels: Tensor, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut `indices` in two; the second part holds `share` of every class."""
    first, second = train_test_split(
        indices, test_size=share, random_state=seed, stratify=labels[indices].numpy()
    )
    return np.sort(first), np.sort(second)


def to_input(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uint8 images as network input: image * 2^-8, exact."""
    return images.to(dtype) * 2.0**INPUT_EXPONENT


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, zoom and shift network inputs a little, on the 2^-8 grid of the real input.

    `x` is [n, c, h, w]; `generator` lives on the CPU, so every device sees the same changes.
    """
    turn, zoom, shift_x, shift_y = (2 * torch.rand(4, len(x), generator=generator) - 1).unbind()
    angle = turn * MAX_TURN
    scale = 1 + zoom * MAX_ZOOM
    cos, sin = angle.cos() * scale, angle.sin() * scale
    top = torch.stack([cos, -sin, shift_x * MAX_SHIFT], dim=1)
    bottom = torch.stack([sin, cos, shift_y * MAX_SHIFT], dim=1)
    affine = torch.stack([top, bottom], dim=1).to(x.device)  # n, 2, 3
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, mode="bilinear", align_corners=False)
    return (moved * 2.0**-INPUT_EXPONENT).round().clamp(0, 255) * 2.0**INPUT_EXPONENT
