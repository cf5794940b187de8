# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's bundled handwritten digits: 1,797 images of 8x8 pixels, in ten classes.

60% train, 20% validation, 20% test, stratified. Nothing is downloaded.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.datasets import load_digits as load_bundled
from sklearn.model_selection import train_test_split
from torch import Tensor

from quant.data.augment import DIGITS
from quant.data.samples import Samples, Split
from winnow.config import DataConfig

NUM_CLASSES = 10
SOURCE_LEVELS = 16  # the bundled digits are counts in 0..16


def load_digits(config: DataConfig) -> Split:
    """Read, resize and split the digits; the same configuration gives the same split."""
    digits = load_bundled()
    counts = torch.tensor(digits.images, dtype=torch.float64).unsqueeze(1)
    edge = config.image_size
    resized = F.interpolate(counts, (edge, edge), mode="bilinear", align_corners=False)
    images = (resized * (255 / SOURCE_LEVELS)).round().to(torch.uint8)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    rest, test = _cut(np.arange(len(labels)), labels, 0.2, config.split_seed)
    train, validation = _cut(rest, labels, 0.25, config.split_seed)
    parts = [Samples(images[i], labels[i]) for i in (train, validation, test)]
    return Split.of(parts, NUM_CLASSES, DIGITS)


def _cut(
    indices: NDArray[np.int64], labels: Tensor, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut `indices` in two; the second part holds `share` of every class.

    scikit-learn's cut, unlike `samples.cut`: the results in the README are of this split.
    """
    first, second = train_test_split(
        indices, test_size=share, random_state=seed, stratify=labels[indices].numpy()
    )
    return np.sort(first), np.sort(second)
