# SPDX-License-Identifier: Apache-2.0
"""What a network on a board does and takes: compared with golden images, layer by layer, per image.

They use the driver as anybody could; running a network needs none of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError, MismatchError
from .layout import as_array
from .network import Network


@dataclass(frozen=True)
class LayerTime:
    """What a layer took: seconds by the processor's clock, cycles by the engine's register.

    `cycles` is None for an engine that does not count them.
    """

    name: str
    seconds: float
    cycles: int | None
    modelled_cycles: int


@dataclass(frozen=True)
class Throughput:
    """Images per second, and where the seconds of all images went."""

    images: int
    transfer_seconds: float
    engine_seconds: float

    @property
    def images_per_second(self) -> float:
        """Return how many images came out per second, transfers included."""
        return self.images / (self.transfer_seconds + self.engine_seconds)


def selftest(network: Network) -> int:
    """Run the bundle's golden images; return how many integers were compared.

    Raises MismatchError that names the first one that differs.
    """
    golden = network.bundle.golden()
    images, compared = golden.pop("images"), 0
    for name, found in network.maps(images, golden).items():
        expected = golden[name]
        wrong = np.argwhere(found != expected)
        if len(wrong):
            at = tuple(int(index) for index in wrong[0])
            raise MismatchError(
                f"layer '{name}', image {at[0]}, channel {at[1]}, y {at[2]}, x {at[3]}: the "
                f"board gives {found[at]}, the model {expected[at]}"
            )
        compared += found.size
    return compared


def profile(network: Network, image: Any) -> list[LayerTime]:
    """Return what each layer of an integer image [c, h, w] takes: of one layer, of two, ...

    The program is cut after every layer in turn, so the engine needs nothing for this.
    """
    images = network.images(as_array(image)[None])
    found, before = [], (0.0, 0)
    for number, layer in enumerate(network.bundle.layers, 1):
        with network.alone():
            network.put(images, layers=number)
            started = time.perf_counter()
            cycles = network.start()
            after = (time.perf_counter() - started, cycles or 0)
        own = None if cycles is None else cycles - before[1]
        found.append(LayerTime(layer.name, after[0] - before[0], own, layer.cycles))
        before = after
    return found


def throughput(network: Network, images: Any) -> Throughput:
    """Run integer images [n, c, h, w], `network.batch` per start, and tell how long they took."""
    images = network.images(images)
    if not len(images):
        raise InputError("throughput needs an image or more, got none")
    transfer = busy = 0.0
    for _, chunk in network.chunks(images):
        with network.alone():
            started = time.perf_counter()
            network.put(chunk)
            put = time.perf_counter()
            network.start()
            ran = time.perf_counter()
            network.take(network.bundle.layers[-1:])
        transfer += put - started + time.perf_counter() - ran
        busy += ran - put
    return Throughput(len(images), transfer, busy)
