# SPDX-License-Identifier: Apache-2.0
"""Early exits: a network runs in parts, and images leave between them once an exit is sure.

How sure is decided in integers, so that images leave a board where they leave the model; the flow
has the same in `winnow/confidence.py`.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Any

import numpy as np

from .bundle import Bundle
from .errors import InputError, MismatchError
from .layout import Array

FRACTION, WHOLE = 30, 5  # bits of a difference; from 2^5 on it counts nothing
ONE, FAR = 1 << FRACTION, (1 << FRACTION + WHOLE) - 1
_exactly = Context(prec=80)
FACTORS = tuple(  # exp(-2^(bit - 30)), as steps of 2^-30
    int(_exactly.multiply(_exactly.exp(_exactly.divide(Decimal(-(1 << bit)), ONE)), ONE))
    for bit in range(FRACTION + WHOLE)
)


def parts_of(bundle: Bundle) -> tuple[tuple[str, slice], ...]:
    """Return the exits' names, the end's last, and which layers run up to each."""
    given = bundle.content.get("exits")
    if given is None:
        raise InputError("the network has no early exits; its bundle is that of: make exits")
    try:
        parts = [(p["exit"], slice(p["first"], p["first"] + p["layers"])) for p in given["parts"]]
        bounds = [0, *(layers.stop for _, layers in parts)]
        is_whole = bounds[-1] == len(bundle.layers) and bounds == sorted(set(bounds))
        if not is_whole or [layers.start for _, layers in parts] != bounds[:-1]:
            raise ValueError("its parts are not all layers in a row")
    except (KeyError, TypeError, ValueError) as error:
        text = f"'{bundle.folder}' lacks something ({error}); copy the bundle again"
        raise MismatchError(text) from error
    return tuple(parts)


def classify_early(
    network: Any, images: Array, threshold: float | None
) -> tuple[Array, Array, Array]:
    """Return labels [n], scores [n, classes], exits taken [n] of integer images [n, c, h, w].

    An image leaves at the first exit that is as sure as `threshold`, a softmax probability; by
    default the bundle's. Exits are numbered as `parts_of` has them.
    """
    parts = parts_of(network.bundle)
    least = network.bundle.content["exits"].get("threshold") if threshold is None else threshold
    if not (isinstance(least, (int, float, np.number)) and least >= 0):
        raise InputError(f"threshold must be a probability, got {least!r}")
    scores = np.zeros((len(images), network.bundle.layers[-1].shape[0]))
    exits = np.zeros(len(images), np.int64)
    for first, chunk in network.chunks(images):
        inside = np.arange(first, first + len(chunk))
        with network.alone():
            network.put(chunk, parts[0][1])
            for number, (_, layers) in enumerate(parts):
                network.start()
                region = network.bundle.layers[layers.stop - 1]
                results = network.take([region])[0].reshape(len(inside), -1).astype(np.int64)
                scores[inside], exits[inside] = results * 2.0**region.exponent, number
                stay = np.flatnonzero(confidence(results, region.exponent) < least)
                if not len(stay) or number == len(parts) - 1:
                    break
                inside = inside[stay]
                network.go_on(stay, parts[number + 1][1])
    return scores.argmax(axis=1), scores, exits


def confidence(results: Array, exponent: int) -> Array:
    """Return the largest softmax probability [n] of integers [n, classes] times 2^`exponent`."""
    behind = results.max(axis=1, keepdims=True) - results
    shift = FRACTION + exponent
    if shift < 0:
        behind = np.minimum(behind >> min(-shift, 63), FAR)
    else:
        near = FAR >> min(shift, 63)
        behind = np.where(behind > near, FAR, np.minimum(behind, near) << min(shift, 62))
    shares = np.full(behind.shape, ONE)
    for bit, factor in enumerate(FACTORS):
        shares = np.where(behind >> bit & 1, shares * factor >> FRACTION, shares)
    return np.asarray(ONE / shares.sum(axis=1))
