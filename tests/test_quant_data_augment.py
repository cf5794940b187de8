# SPDX-License-Identifier: Apache-2.0
"""Augmentation: on the input grid, repeatable, and only what was asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quant.data import Augmentation, augment, to_input
from quant.data.augment import DIGITS, PHOTOS, SCENES

SPECS = {
    "digits": DIGITS,
    "photos": PHOTOS,
    "scenes": SCENES,
    "crop": Augmentation(crop=4),
    "flip": Augmentation(flip=True),
    "cutout": Augmentation(cutout=6),
    "all": Augmentation(turn=5, crop=2, flip=True, cutout=4),
}


def inputs(n: int = 64, channels: int = 3, edge: int = 12) -> Tensor:
    """Return inputs without a black pixel."""
    generator = torch.Generator().manual_seed(1)
    shape = (n, channels, edge, edge)
    return to_input(torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator))


def varied(x: Tensor, spec: Augmentation, seed: int = 3) -> Tensor:
    return augment(x, torch.Generator().manual_seed(seed), spec)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_result_repeats_and_stays_on_the_grid(spec: Augmentation) -> None:
    x = inputs()
    result = varied(x, spec)
    assert result.shape == x.shape
    assert torch.equal(result, varied(x, spec))
    assert not torch.equal(result, varied(x, spec, seed=4))
    assert not torch.equal(result, x)
    levels = result * 256
    assert torch.equal(levels, levels.round())
    assert float(levels.min()) >= 0
    assert float(levels.max()) <= 255


def test_default_changes_nothing_and_draws_nothing() -> None:
    x, generator = inputs(), torch.Generator().manual_seed(3)
    assert torch.equal(augment(x, generator, Augmentation()), x)
    assert torch.equal(torch.rand(4, generator=generator), torch.rand(4, generator=seeded(3)))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crop_is_every_window_of_the_bordered_image_and_no_other() -> None:
    x = inputs(n=1).expand(400, -1, -1, -1)
    border = 1
    padded = torch.zeros(3, 14, 14)
    padded[:, 1:13, 1:13] = x[0]
    windows = [padded[:, top : top + 12, left : left + 12] for top in range(3) for left in range(3)]
    seen = [
        next(i for i, window in enumerate(windows) if torch.equal(window, image))
        for image in varied(x, Augmentation(crop=border))
    ]
    assert set(seen) == set(range(9))


def test_flip_mirrors_columns_of_about_half_the_images() -> None:
    x = inputs(n=400)
    result = varied(x, Augmentation(flip=True))
    mirrored = [torch.equal(image, row.flip(2)) for image, row in zip(result, x, strict=True)]
    kept = [torch.equal(image, row) for image, row in zip(result, x, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 160 < sum(mirrored) < 240


def test_cutout_blackens_one_square_that_may_cross_the_border() -> None:
    x = inputs(n=400)
    result = varied(x, Augmentation(cutout=4))
    areas = set()
    for image, row in zip(result, x, strict=True):
        black = image[0] == 0
        rows, columns = black.any(1).nonzero(), black.any(0).nonzero()
        height, width = (int(i.max() - i.min()) + 1 for i in (rows, columns))
        assert int(black.sum()) == height * width
        assert torch.equal(image == 0, black.expand(3, -1, -1))
        assert torch.equal(image[:, ~black], row[:, ~black])
        areas.add((height, width))
    assert areas <= {(h, w) for h in (2, 3, 4) for w in (2, 3, 4)}
    assert {(4, 4), (4, 2), (2, 4)} <= areas
