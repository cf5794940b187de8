# SPDX-License-Identifier: Apache-2.0
"""The data of a configuration: which source reads it, and what size of network it asks for."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch

from quant.data import arrays, cifar10, colour, digits, folder, idx, own
from quant.data.augment import NAMED, SCENES
from quant.data.samples import InputShape, Samples, Split
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown


def load_split(config: DataConfig) -> Split:
    """Read the data; the same configuration and files give the same split.

    Raises ConfigError for a folder or file that is missing or not what its format says.
    """
    split = LOADERS[config.source](config) if config.function is None else own.load_own(config)
    _require_light(split, config)
    if config.augment != "auto":
        split = replace(split, augmentation=NAMED[config.augment])
    return split.with_constant() if config.has_constant else split


def read_split(config: DataConfig) -> Split:
    """Read the data as `load_split`, once per process while their files stay what they are."""
    places = tuple(place.stat() for place in config.places if place.exists())
    return _kept(config, tuple((found.st_mtime_ns, found.st_size) for found in places))


@lru_cache(maxsize=2)
def _kept(config: DataConfig, _: tuple[tuple[int, int], ...]) -> Split:
    return load_split(config)


def input_shape(config: DataConfig) -> InputShape:
    """Return the size of an image and the number of classes; images are read only if need be.

    A constant channel counts. Raises ConfigError if what tells the size is missing.
    """
    shape = given_shape(config)
    return replace(shape, channels=shape.channels + config.has_constant)


def given_shape(config: DataConfig) -> InputShape:
    """Return the same without the constant channel: what a network of normalised images reads."""
    if config.source == "digits":
        return InputShape(1, config.image_size, digits.NUM_CLASSES)
    if config.source == "folder":
        return folder.shape_of(config)
    if config.source in ("colour", "cifar10"):
        return InputShape(colour.CHANNELS, config.image_size, colour.NUM_CLASSES)
    shape = read_split(config).shape
    channels = shape.channels - config.has_constant
    return replace(shape, channels=channels, kind=config.labels)


def _require_light(split: Split, config: DataConfig) -> None:
    """Raise ConfigError if training images that are in memory are all black."""
    images = split.train.images
    if isinstance(images, torch.Tensor) and not bool(images.any()):
        raise ConfigError(
            f"data.source {shown(config.source)}: training images are all black (0); pixels must "
            "be in 0..255"
        )


def load_colour(config: DataConfig) -> Split:
    """Generate the colour set: `train_images`, `test_images`, and half as many for validation."""
    counts = (config.train_images, config.test_images // 2, config.test_images)
    parts = []
    for part, count in enumerate(counts):
        images, labels = colour.generate(config.split_seed, part, count)
        parts.append(Samples(torch.from_numpy(images), torch.from_numpy(labels)))
    return Split.of(parts, colour.NUM_CLASSES, SCENES)


LOADERS = {
    "digits": digits.load_digits,
    "colour": load_colour,
    "cifar10": cifar10.load_cifar10,
    "folder": folder.load_folder,
    "idx": idx.load_idx,
    "npz": arrays.load_npz,
}
