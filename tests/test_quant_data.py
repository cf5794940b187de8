# SPDX-License-Identifier: Apache-2.0
"""The digits: a fixed, stratified, disjoint split; augmentation stays on the input grid."""

from __future__ import annotations

import torch

from quant.data import augment, load_split, to_input
from winnow.config import DataConfig


def test_split_is_fixed_stratified_and_disjoint() -> None:
    first, second = load_split(DataConfig()), load_split(DataConfig())
    sizes = [len(part) for part in (first.train, first.validation, first.test)]
    assert sizes == [1077, 360, 360]
    assert torch.equal(first.test.images, second.test.images)
    for part in (first.train, first.validation, first.test):
        share = part.labels.bincount(minlength=10) / len(part)
        assert float((share - 0.1).abs().max()) < 0.01
    other = load_split(DataConfig(split_seed=1))
    assert not torch.equal(first.test.labels, other.test.labels)


def test_images_are_uint8_of_the_asked_size_and_use_the_range() -> None:
    images = load_split(DataConfig(image_size=20)).train.images
    assert images.dtype == torch.uint8
    assert images.shape[1:] == (1, 20, 20)
    assert int(images.min()) == 0
    assert int(images.max()) >= 240


def test_input_is_exact() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_input(images) * 256, images.float())


def test_augmentation_repeats_and_stays_on_the_grid() -> None:
    x = to_input(load_split(DataConfig()).train.images[:32])
    first = augment(x, torch.Generator().manual_seed(3))
    again = augment(x, torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert not torch.equal(first, x)
    steps = first * 256
    assert torch.equal(steps, steps.round())
    assert float(steps.min()) >= 0
    assert float(steps.max()) <= 255
