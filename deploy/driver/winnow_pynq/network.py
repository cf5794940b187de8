# SPDX-License-Identifier: Apache-2.0
"""A network in a board's memory: run it, look at its maps, measure and check it."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import Memory
from .bundle import Bundle
from .errors import BusyError, InputError, MismatchError
from .layout import Array, Region, pack, quantized, require_images, unpack
from .runner import Runner

LEAST_SECONDS, TIMES_MODELLED = 1.0, 20
SLOWEST_MHZ = 10.0  # assumed where nobody can tell the clock


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


class Network:
    """A network on an engine. A context manager, or call close()."""

    def __init__(self, runner: Runner, bundle: Bundle, timeout_s: float | None) -> None:
        self.bundle, self._runner = bundle, runner
        self.timeout_s = timeout_s if timeout_s is not None else self._modelled_timeout()
        self.memories: dict[str, Memory] = {}
        try:
            self._bring("program", np.frombuffer(bundle.program, np.uint8))
            self._bring("weights", np.frombuffer(bundle.weights, np.uint8))
            self._bring("features", np.zeros(bundle.content["feature_words"] * 8, np.uint8))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the network's memory; a closed network cannot run."""
        while self.memories:
            self._runner.backend.free(self.memories.popitem()[1])
        self._runner.forget(self)

    def run(self, images: Any) -> Array:
        """Return the last layer's map of integer images [n, c, h, w], as integers.

        A channel that is constant for a network of normalised images may be left out, everywhere.
        """
        last = self.bundle.layers[-1]
        return self._maps(self._images(images), (last,))[last.name]

    def classify(self, images: Any) -> tuple[Array, Array]:
        """Return labels [n] and scores [n, classes] of images [n, c, h, w], in the model's scale.

        Images are floats as the model reads them, or bytes where these are its integers.
        """
        last = self.bundle.layers[-1]
        if last.shape[1:] != (1, 1):
            raise InputError(f"layer '{last.name}' gives a map of {last.shape}, not classes")
        integers = self.run(quantized(images, self.bundle.input))
        scores = integers.reshape(len(integers), -1) * 2.0**last.exponent
        return scores.argmax(axis=1), scores

    def maps(self, images: Any, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the maps [n, c, h, w] of the layers `names`, or of all, as integers."""
        bundle = self.bundle
        regions = bundle.layers if names is None else [bundle.layer(name) for name in names]
        return self._maps(self._images(images), regions)

    def profile(self, image: Any) -> list[LayerTime]:
        """Return what each layer of an integer image [c, h, w] takes: of one layer, of two, ...

        The program is cut after every layer in turn, so the engine needs nothing for this.
        """
        (image,) = self._images(np.asarray(image)[None])
        found, before = [], (0.0, 0)
        try:
            for number, layer in enumerate(self.bundle.layers, 1):
                self._write("program", np.frombuffer(self._prefix(number), np.uint8))
                self._put(image)
                started = time.perf_counter()
                cycles = self._runner.run(self, self.timeout_s)
                after = (time.perf_counter() - started, cycles or 0)
                own = None if cycles is None else cycles - before[1]
                found.append(LayerTime(layer.name, after[0] - before[0], own, layer.cycles))
                before = after
        finally:
            self._write("program", np.frombuffer(self.bundle.program, np.uint8))
        return found

    def selftest(self) -> int:
        """Run the bundle's golden images; return how many integers were compared.

        Raises MismatchError that names the first one that differs.
        """
        golden = self.bundle.golden()
        images, compared = golden.pop("images"), 0
        for name, found in self.maps(images, golden).items():
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

    def throughput(self, images: Any) -> Throughput:
        """Run integer images [n, c, h, w] and tell how long they took."""
        images = self._images(images)
        transfer = busy = 0.0
        for image in images:
            started = time.perf_counter()
            self._put(image)
            put = time.perf_counter()
            self._runner.run(self, self.timeout_s)
            ran = time.perf_counter()
            self._take(self.bundle.layers[-1:])
            transfer += put - started + time.perf_counter() - ran
            busy += ran - put
        return Throughput(len(images), transfer, busy)

    def _modelled_timeout(self) -> float:
        mhz = self._runner.backend.clock_mhz() or self.bundle.clock_mhz or SLOWEST_MHZ
        return max(LEAST_SECONDS, TIMES_MODELLED * self.bundle.cycles / (mhz * 1e6))

    def _images(self, given: Any) -> Array:
        """Return integer images, with the constant channel of a network of normalised ones."""
        images, constant = np.asarray(given), self.bundle.content.get("constant")
        channels = self.bundle.input.shape[0]
        if constant is not None and images.ndim == 4 and images.shape[1] == channels - 1:
            added = np.full_like(images[:, :1], constant)
            images = np.concatenate([images, added], axis=1)
        return require_images(images, self.bundle.input)

    def _maps(self, images: Array, regions: Iterable[Region]) -> dict[str, Array]:
        regions = tuple(regions)
        found = {r.name: np.zeros((len(images), *r.shape), r.dtype) for r in regions}
        for number, image in enumerate(images):
            self._put(image)
            self._runner.run(self, self.timeout_s)
            for region, value in zip(regions, self._take(regions), strict=True):
                found[region.name][number] = value
        return found

    def _bring(self, name: str, content: Array) -> None:
        self.memories[name] = self._runner.backend.allocate(content.size)
        self._write(name, content)

    def _write(self, name: str, content: Array) -> None:
        self.memories[name][:] = content
        self._runner.backend.to_device(self.memories[name])

    def _put(self, image: Array) -> None:
        """Write an image, whole buffers only: parts of one are synced to a wrong place by pynq."""
        if not self.memories:
            raise BusyError("the network was closed; load it again")
        memory = self.memories["features"]
        memory[self.bundle.input.place] = pack(image, self.bundle.input)
        self._runner.backend.to_device(memory)

    def _take(self, regions: Iterable[Region]) -> list[Array]:
        memory = self.memories["features"]
        self._runner.backend.from_device(memory)
        return [unpack(memory, region) for region in regions]

    def _prefix(self, layers: int) -> bytes:
        """Return the program cut after some layers: another count, and the header's checksum."""
        header = self.bundle.content["header"]
        program, last = bytearray(self.bundle.program), header["bytes"] - 8
        struct.pack_into("<H", program, header["layers_at"], layers)
        struct.pack_into("<Q", program, last, zlib.crc32(program[:last]))
        return bytes(program)
