# SPDX-License-Identifier: Apache-2.0
"""What all data sets share: exact inputs, stratified cuts, sizes; and the digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quant.data import Augmentation, InputShape, Samples, Split, input_shape, load_split, to_input
from quant.data.samples import cut
from winnow.config import DataConfig
from winnow.errors import ConfigError
from winnow.schema import from_table

# Taken from the loader of version 0.1.
DIGIT_LABELS = [1, 4, 8, 6, 5, 9, 9, 1, 3, 2, 2, 2, 0, 7, 4, 8]
DIGIT_SUM = 21421100
MOVED_SUM = 1242019


def test_digits_are_fixed_stratified_and_disjoint() -> None:
    first, second = load_split(DataConfig()), load_split(DataConfig())
    sizes = [len(part) for part in (first.train, first.validation, first.test)]
    assert sizes == [1077, 360, 360]
    assert torch.equal(first.test.images[:360], second.test.images[:360])
    for part in (first.train, first.validation, first.test):
        share = part.labels.bincount(minlength=10) / len(part)
        assert float((share - 0.1).abs().max()) < 0.01
    other = load_split(DataConfig(split_seed=1))
    assert not torch.equal(first.test.labels, other.test.labels)


def test_digits_have_the_asked_size_and_use_the_range() -> None:
    config = DataConfig(image_size=20)
    split = load_split(config)
    images = split.train.images[:1077]
    assert images.dtype == torch.uint8
    assert images.shape[1:] == (1, 20, 20)
    assert split.shape.image == (1, 20, 20)
    assert split.classes == 10
    assert input_shape(config).image == (1, 20, 20)
    assert int(images.min()) == 0
    assert int(images.max()) >= 240


def test_digits_are_those_of_the_published_results() -> None:
    split = load_split(DataConfig())
    assert split.test.labels[:16].tolist() == DIGIT_LABELS
    assert int(split.train.images[:1077].long().sum()) == DIGIT_SUM
    x = to_input(split.train.images[:64])
    moved = split.augment(x, torch.Generator().manual_seed(5))
    assert int((moved * 256).long().sum()) == MOVED_SUM


def test_input_is_exact() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_input(images) * 256, images.float())


def test_split_tells_channels_and_edge_apart() -> None:
    part = Samples(torch.zeros(2, 3, 24, 24, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    split = Split.of([part, part, part], 7, Augmentation())
    assert split.shape == InputShape(3, 24, 7, 24)
    assert len(split.train) == 2


@pytest.mark.parametrize(
    ("share", "held"), [(0.1, [1, 1, 4]), (0.5, [1, 4, 20]), (0.9, [1, 7, 36])]
)
def test_cut_holds_a_share_of_every_class_and_at_least_one(share: float, held: list[int]) -> None:
    labels = np.repeat(np.arange(3), [2, 8, 40])
    first, second = cut(labels, share, 0)
    assert np.bincount(labels[second]).tolist() == held
    assert sorted([*first, *second]) == list(range(50))
    assert np.array_equal(second, cut(labels, share, 0)[1])
    assert not np.array_equal(second, cut(labels, share, 1)[1])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"source": "folder"},
            "data.path must name the folder of the images for data.source 'folder', got ''; "
            "add it to [data]",
        ),
        (
            {"source": "cifar10", "path": "x", "image_size": 16},
            "data.image_size must be 32 for data.source 'cifar10', which is not resized, got 16",
        ),
        (
            {"source": "colour", "image_size": 64},
            "data.image_size must be 32 for data.source 'colour', which is not resized, got 64",
        ),
        (
            {"source": "cifar"},
            "data.source must be one of digits, colour, cifar10, folder, idx, npz, or "
            "FILE.py:FUNCTION; got 'cifar'",
        ),
    ],
)
def test_impossible_data_sections_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_table(DataConfig, table, "data")
    assert str(caught.value) == message
