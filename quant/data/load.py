# SPDX-License-Identifier: Apache-2.0
"""The data of a configuration: which source reads it, and what size of network it asks for."""

from __future__ import annotations

import torch

from quant.data import cifar10, colour, digits, folder
from quant.data.augment import SCENES
from quant.data.samples import Samples, Split
from winnow.config import DataConfig


def load_split(config: DataConfig) -> Split:
    """Read the data; the same configuration and files give the same split.

    Raises ConfigError for a folder or file that is missing or not what its format says.
    """
    return LOADERS[config.source](config)


def input_shape(config: DataConfig) -> tuple[int, int, int]:
    """Return channels and edge of an image and the number of classes, without reading images.

    Raises ConfigError if the folder that names the classes is missing.
    """
    if config.source == "digits":
        return 1, config.image_size, digits.NUM_CLASSES
    if config.source == "folder":
        return folder.CHANNELS, config.image_size, len(folder.class_names(config))
    return colour.CHANNELS, config.image_size, colour.NUM_CLASSES


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
}
