# SPDX-License-Identifier: Apache-2.0
"""What recipes cost to run: core-minutes of a seed, estimated before anything trains.

A recipe trains its own network, its dense twin and a narrow rival. An image of an epoch costs a
number of forward passes that depends on the stage, and a core does so many products a second; both
were taken from the records of the recipes of `colour`, within a factor of two. Networks as small as
that of digits take longer, as does another machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from quant.allocate.flops import flops
from quant.build import Build, new_network
from quant.data import given_shape
from quant.network.network import backbone
from quant.recipes import Recipe
from winnow.artefact import sha256_value
from winnow.config import Config
from winnow.errors import WinnowError

SOURCES = {"digits": 1077, "cifar10": 45000, "colour": 0}  # training images; colour has a key
PASSES = {"train": 3.0, "prune_channels": 5.0, "prune": 7.5, "qat": 15.0}
RIVAL = 0.5  # a narrow network's products, of the recipe's
JUDGED, JUDGES = 10_000, 4  # images on which a recipe's networks are judged, and how many networks
PRODUCTS_PER_MINUTE = 46e9 * 60  # of one core, in float32


def price(recipes: Sequence[Recipe]) -> list[float | None]:
    """Return what each recipe adds, in core-minutes of a seed; None where the data are not known.

    What recipes share, which is fp32 training, counts for the first of them.
    """
    paid = set[str]()
    return [_price(recipe.config, paid) for recipe in recipes]


def _price(config: Config, paid: set[str]) -> float | None:
    images = config.data.train_images if config.data.source == "colour" else 0
    images = images or SOURCES.get(config.data.source, 0)
    if not images:
        return None
    with torch.random.fork_rng(devices=[]):
        net = backbone(new_network(Build(config, Path("nowhere"))))
    one = flops(net, given_shape(config.data).image)
    epochs = {"prune": config.prune.epochs, "qat": config.quantize.epochs}
    if config.prune_channels.method != "none":
        epochs["prune_channels"] = config.prune_channels.epochs
    own = sum(count * PASSES[stage] for stage, count in epochs.items())
    twin = sum(epochs.values()) * PASSES["train"]
    fp32 = config.train.epochs * PASSES["train"]
    passes = images * (own + twin + RIVAL * (fp32 + own)) + JUDGED * JUDGES
    key = sha256_value(config.section("seed", "data", "model", "train", "distill"))
    if key not in paid:
        passes += images * fp32
        paid.add(key)
    return passes * one / PRODUCTS_PER_MINUTE


def priced(recipes: Sequence[Recipe]) -> str:
    """Return the recipes with their notes and prices, and the price of all."""
    try:
        prices = price(recipes)
    except WinnowError:  # data or networks that are not here
        prices = [None] * len(recipes)
    lines = [
        f"{recipe.name:<20}{'?' if cost is None else f'{cost:.1f}':>8}  {recipe.note}"
        for recipe, cost in zip(recipes, prices, strict=True)
    ]
    known = [cost for cost in prices if cost is not None]
    whole = f"{sum(known):.1f}" if known else "?"
    lines.append(f"{'all':<20}{whole:>8}  core-minutes of a seed, estimated, fp32 training shared")
    return "\n".join(lines)
