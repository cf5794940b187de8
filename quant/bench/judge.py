# SPDX-License-Identifier: Apache-2.0
"""How well a network does on images that no training and no choice has seen.

The colour set makes as many as are asked for. Other data have their test images for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from quant.build import Build
from quant.data import Samples
from quant.data.colour import generate
from quant.data.load import read_split
from quant.train.training import hits
from winnow.artefact import load_arrays, save_arrays, sha256_value
from winnow.config import DataConfig
from winnow.errors import ArtefactError

FRESH_PART, FRESH_IMAGES = 11, 10_000  # training, validation and test images are parts 0 to 2

Hits = NDArray[np.bool_]  # of one network, by image


@dataclass(frozen=True)
class Judged:
    """One trained network.

    Members:
        hits: which of the judging images it classifies rightly.
        validation, test: accuracy on the images of the build in percent.
    """

    hits: Hits
    validation: float
    test: float


@dataclass(frozen=True)
class Difference:
    """Points of accuracy between two networks, and their standard error."""

    points: float
    error: float


def is_fresh(config: DataConfig) -> bool:
    """Whether judging images are generated, so that nothing was ever chosen on them."""
    return config.source == "colour" and config.function is None


@lru_cache(maxsize=2)
def judging_images(config: DataConfig) -> Samples:
    """Return the images that networks are compared on."""
    if not is_fresh(config):
        return read_split(config).test
    images, labels = generate(config.split_seed, FRESH_PART, FRESH_IMAGES)
    return Samples(torch.from_numpy(images), torch.from_numpy(labels))


def judge(build: Build, stage: str, kind: str, net: nn.Module) -> Judged:
    """Judge the network that a stage left; what was found is kept beside it."""
    record = build.record(stage)
    key = sha256_value([dict(record.outputs), build.config.section("data"), FRESH_IMAGES])
    path = build.out / f"{stage}.hits.npz"
    found = _kept(build, stage, key)
    if found is None:
        found = hits(net, judging_images(build.config.data), build.device).numpy()
        save_arrays(path, {"hits": found, "key": np.array(key)})
    numbers = record.numbers
    return Judged(found, numbers["validation_accuracy"], numbers[f"{kind}_accuracy"])


def _kept(build: Build, stage: str, key: str) -> Hits | None:
    try:
        arrays = load_arrays(build.out / f"{stage}.hits.npz", "")
    except ArtefactError:
        return None
    return arrays["hits"] if str(arrays.get("key")) == key else None


def accuracy(networks: Sequence[Judged]) -> float:
    """Return the mean accuracy of networks on the judging images, in percent."""
    return float(np.mean([100 * float(net.hits.mean()) for net in networks]))


def difference(first: Sequence[Judged], second: Sequence[Judged]) -> Difference:
    """Return by how many points the first networks are better, seed by seed on the same images.

    The error is the larger of two: of the images, by their paired differences, and of the seeds.
    """
    pairs = [a.hits.astype(float) - b.hits for a, b in zip(first, second, strict=True)]
    means = [100 * float(pair.mean()) for pair in pairs]
    of_images = [100 * float(pair.std(ddof=1)) / math.sqrt(len(pair)) for pair in pairs]
    errors = [math.hypot(*of_images) / len(pairs)]
    if len(pairs) > 1:
        errors.append(float(np.std(means, ddof=1)) / math.sqrt(len(means)))
    return Difference(float(np.mean(means)), max(errors))
