# SPDX-License-Identifier: Apache-2.0
"""The generated colour set: the same bits everywhere, balanced; only the object tells."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from quant.data import colour, input_shape, load_split
from winnow.config import DataConfig

CONFIG = DataConfig(source="colour", image_size=32, train_images=300, test_images=100)


@pytest.mark.parametrize(
    ("key", "digest"),
    [
        ((0, 0), "21efc28b16afb36fcace8313684e45e0f409a3dd026679dda1ac7d9243e7b6a4"),
        ((7, 2), "2e9f7953455ba6fe52d084ce4049d3eabce93ec1c3cb0cdc7b6623f1bbe2c5b1"),
    ],
)
def test_images_are_the_same_on_every_machine(key: tuple[int, int], digest: str) -> None:
    images, labels = colour.generate(*key, 40)
    assert images.dtype == np.uint8
    assert labels.tolist() == [*range(10)] * 4
    assert hashlib.sha256(images.tobytes()).hexdigest() == digest


def test_an_image_depends_on_its_number_only(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = colour.generate(1, 0, 60)
    monkeypatch.setattr(colour, "CHUNK", 7)
    assert np.array_equal(colour.generate(1, 0, 41)[0], whole[:41])


def test_parts_and_seeds_share_no_image() -> None:
    keys = [(seed, part) for seed in (0, 1) for part in (0, 1, 2)]
    images = np.concatenate([colour.generate(*key, 50)[0] for key in keys])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == 300


def test_split_has_the_asked_sizes_and_all_classes() -> None:
    split = load_split(CONFIG)
    parts = (split.train, split.validation, split.test)
    assert [len(part) for part in parts] == [300, 50, 100]
    assert [part.images.shape for part in parts] == [(n, 3, 32, 32) for n in (300, 50, 100)]
    assert all(len(set(part.labels.bincount().tolist())) == 1 for part in parts)
    assert split.shape.image == (3, 32, 32)
    assert split.classes == 10
    assert input_shape(CONFIG).image == (3, 32, 32)
    assert split.augmentation.flip
    assert split.augmentation.crop == 0


def test_mirrored_shapes_stay_themselves() -> None:
    u, v = np.meshgrid(np.linspace(-1.3, 1.3, 27), np.linspace(-1.3, 1.3, 27))
    for outline in colour.OUTLINES:
        assert np.array_equal(outline(u, v), outline(-u, v))


def test_outlines_are_their_shapes() -> None:
    """Points inside (+) and outside (-) that tell each shape from the others."""
    points = np.array([[0.0, 0.0], [0.6, 0.6], [0.0, 1.0], [0.8, 0.1], [0.8, 0.8], [0.45, -0.5]])
    inside = {
        name: "".join("+" if outline(*point) < 0 else "-" for point in points)
        for name, outline in zip(colour.SHAPES, colour.OUTLINES, strict=True)
    }
    assert inside == {
        "disc": "++-+-+",
        "square": "++-+++",
        "triangle": "+-+--+",
        "cross": "+-++--",
        "ring": "-+++-+",
    }


def test_areas_of_the_shapes_are_alike() -> None:
    axis = np.linspace(-1.5, 1.5, 301)
    u, v = np.meshgrid(axis, axis)
    areas = [float((outline(u, v) < 0).mean()) * 9 for outline in colour.OUTLINES]
    assert min(areas) > 0.7 * max(areas)


def test_colour_alone_tells_nothing() -> None:
    """A linear classifier of each image's mean and spread per channel stays near chance."""
    images, labels = colour.generate(3, 0, 3000)
    flat = images.reshape(3000, 3, -1) / 255
    features = np.concatenate([flat.mean(2), flat.std(2), np.ones((3000, 1))], axis=1)
    weights, *_ = np.linalg.lstsq(features[:2000], np.eye(10)[labels[:2000]], rcond=None)
    right = (features[2000:] @ weights).argmax(1) == labels[2000:]
    assert right.mean() < 0.2


@pytest.mark.parametrize("shape", range(5), ids=colour.SHAPES)
def test_an_object_hides_what_is_below_and_nothing_else(shape: int) -> None:
    """A canvas of 9 shows where it was painted: all of the middle, nothing far away."""
    num, middle = 20, slice(15, 17)
    draws = colour.Draws(np.random.default_rng(0).random((num, colour.DRAWS)))
    pose = colour.Pose.draw(draws, reach=0, radius=(8.0, 8.0))
    shapes, fillings = np.full(num, shape), np.arange(num) % 2
    painted = colour.paint(np.full((num, 3, 32, 32), 9.0), draws, pose, shapes, fillings)
    y, x = np.mgrid[:32, :32] - 15.5
    far = x * x + y * y > 12.0**2
    assert (painted[:, :, far] == 9).all()
    hole = colour.SHAPES[shape] == "ring"
    assert ((painted[:, :, middle, middle] == 9) == hole).all()
    covered = (painted[:, 0] < 1.2).sum(axis=(1, 2))
    assert covered.min() > 0.55 * np.pi * 64
    assert covered.max() < 1.1 * np.pi * 64


def test_waves_run_along_one_axis_each_with_the_asked_period() -> None:
    draws = colour.Draws(np.full((1, colour.DRAWS), 0.5))  # half-way draws leave textures upright
    along, across = colour.waves(draws, (5.0, 5.0))
    assert np.array_equal(along[0], np.broadcast_to(along[0, :1], (32, 32)))
    assert np.array_equal(across[0], np.broadcast_to(across[0, :, :1], (32, 32)))
    assert np.abs(along[0, 0, 5:] - along[0, 0, :-5]).max() < 1e-9
    assert along.min() == -1
    assert along.max() == 1
