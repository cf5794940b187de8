# SPDX-License-Identifier: Apache-2.0
"""What the data of a configuration are, and how to get those that are not there."""

from __future__ import annotations

from quant.data.load import load_split
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown

_FASHION = "/usr/share/datasets/fashion-mnist"
HOW_TO_GET = {
    "cifar10": "get CIFAR-10's binary or Python version from "
    "https://www.cs.toronto.edu/~kriz/cifar.html and unpack it there",
    "idx": "for Fashion-MNIST install Debian's or Ubuntu's package dataset-fashion-mnist (31 MB), "
    f"which puts the files into {_FASHION}, or get them from "
    "https://github.com/zalandoresearch/fashion-mnist",
}


def describe(config: DataConfig) -> str:
    """Return in two lines where the images come from, how many there are, and what they are.

    Raises ConfigError, with how to get them if they are published ones, if they cannot be read.
    """
    try:
        split = load_split(config)
    except ConfigError as error:
        if config.source not in HOW_TO_GET:
            raise
        raise ConfigError(f"{error}. Nothing is downloaded: {HOW_TO_GET[config.source]}") from error
    channels, height, width = split.train.images.shape[1:]
    kind = "values" if config.has_values else "classes"
    place = f", data.path {shown(str(config.place))}" if config.path else ""
    counts = (len(split.train), len(split.validation), len(split.test))
    constant = ", the last channel constant" if split.constant else ""
    return (
        f"data.source {shown(config.source)}{place}\n"
        "{:,} training, {:,} validation and {:,} test images".format(*counts)
        + f" of {channels} x {height} x {width}{constant}; {split.classes} {kind}"
    )
