# SPDX-License-Identifier: Apache-2.0
"""A network in a board's memory: run it on images, several per start, and look at its maps."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from .backend import Memory
from .bundle import Bundle
from .errors import BusyError, InputError
from .exits import classify_early, parts_of
from .layout import Array, Region, as_array, pack, quantized, require_images, unpack
from .runner import Runner

LEAST_SECONDS, TIMES_MODELLED = 1.0, 20
USUAL_BATCH, USUAL_WORDS = 16, 1 << 17  # images per start, and words for their maps: 1 MiB
SLOWEST_MHZ = 10.0  # assumed where nobody can tell the clock


class Network:
    """A network on an engine. A context manager, or call close().

    Members: `batch` images run per start; `timeout_s` is for each of them; `limits` are how much of
    each memory the engine may access, by register; `layers` are those that a start runs.
    """

    def __init__(
        self, runner: Runner, bundle: Bundle, timeout_s: float | None, batch: int | None
    ) -> None:
        most, words = bundle.content["header"]["most_images"], bundle.content["feature_words"]
        batch = max(1, min(USUAL_BATCH, USUAL_WORDS // words)) if batch is None else batch
        _require_count("batch", batch, most)
        self.bundle, self.batch, self._runner = bundle, int(batch), runner
        self.timeout_s = self._modelled_timeout() if timeout_s is None else timeout_s
        if not (isinstance(self.timeout_s, (int, float, np.number)) and self.timeout_s >= 0):
            raise InputError(f"timeout_s must be 0 or more, got {timeout_s}")
        self.memories: dict[str, Memory] = {}
        self.layers, self._count = slice(0, len(bundle.layers)), 1  # of the program as it is
        self.limits = {n: bundle.content[n] for n in ("program_words", "weight_beats")}
        self.limits["feature_words"] = self.batch * words
        try:
            self._bring("program", np.frombuffer(bundle.program, np.uint8))
            self._bring("weights", np.frombuffer(bundle.weights, np.uint8))
            self._bring("features", np.zeros(8 * self.limits["feature_words"], np.uint8))
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
        return self._maps(self.images(images), (last,))[last.name]

    def classify(self, images: Any) -> tuple[Array, Array]:
        """Return labels [n] and scores [n, classes] of images [n, c, h, w], in the model's scale.

        Images are floats as the model reads them, or bytes where these are its integers.
        """
        last = self.bundle.layers[-1]
        if last.shape[1:] != (1, 1):
            raise InputError(f"layer '{last.name}' gives a map of {last.shape}, not classes")
        integers = self.run(quantized(images, self.bundle.input))
        scores = integers.reshape(integers.shape[:2]) * 2.0**last.exponent
        return scores.argmax(axis=1), scores

    def classify_early(
        self, images: Any, threshold: float | None = None
    ) -> tuple[Array, Array, Array]:
        """Return labels [n], scores [n, classes] and exits taken [n] of a network with exits.

        Images are those of `classify`. One leaves at the first exit whose largest softmax
        probability reaches `threshold`, by default the one chosen on validation images; exits are
        numbered as in `exit_names`.
        """
        return classify_early(self, self.images(quantized(images, self.bundle.input)), threshold)

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Return the names of the exits, the end's last."""
        return tuple(name for name, _ in parts_of(self.bundle))

    def maps(self, images: Any, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the maps [n, c, h, w] of the layers `names`, or of all, as integers."""
        bundle = self.bundle
        regions = bundle.layers if names is None else [bundle.layer(name) for name in names]
        return self._maps(self.images(images), regions)

    def images(self, given: Any) -> Array:
        """Return integer images, with the constant channel of a network of normalised ones."""
        images, constant = as_array(given), self.bundle.content.get("constant")
        channels = self.bundle.input.shape[0]
        if constant is not None and images.ndim == 4 and images.shape[1] == channels - 1:
            added = np.full_like(images[:, :1], constant)
            images = np.concatenate([images, added], axis=1)
        return require_images(images, self.bundle.input)

    def chunks(self, images: Array) -> Iterable[tuple[int, Array]]:
        """Yield what one start after the other runs: the first one's number, up to `batch`."""
        for first in range(0, len(images), self.batch):
            yield first, images[first : first + self.batch]

    def put(self, images: Array, layers: slice | int | None = None) -> None:
        """Write the images of a start, and which, or how many, layers run; by default all of them.

        Whole buffers are synced: parts of one are synced to a wrong place by pynq.
        """
        images, slots = self.images(images), self._slots()
        layers = len(self.bundle.layers) if layers is None else layers
        _require_count("images of a start", len(images), self.batch)
        if not isinstance(layers, slice):
            _require_count("layers of a start", layers, len(self.bundle.layers))
            layers = slice(0, layers)
        self._cut(layers, len(images))
        for slot, image in zip(slots, images):  # noqa: B905 (there may be more slots)
            slot[self.bundle.input.place] = pack(image, self.bundle.input)
        self._runner.backend.to_device(self.memories["features"])

    def go_on(self, images: Array, layers: slice) -> None:
        """Let some of the images that ran, by their numbers, run other layers on their maps."""
        slots = self._slots()
        self._cut(layers, len(images))
        slots[: len(images)] = slots[images]  # as `take` brought them
        self._runner.backend.to_device(self.memories["features"])

    def alone(self) -> AbstractContextManager[bool]:
        """Return a context for put, start and take in which no other thread has the engine."""
        return self._runner.hold().lock

    def start(self) -> int | None:
        """Run what was put; return the engine's cycles, None if it does not count them."""
        self._slots()
        return self._runner.run(self, self.timeout_s * self._count)

    def take(self, regions: Iterable[Region]) -> list[Array]:
        """Return the maps [n, c, h, w] of the images that ran."""
        ran = self._slots()[: self._count]
        self._runner.backend.from_device(self.memories["features"])
        return [np.stack([unpack(slot, region) for slot in ran]) for region in regions]

    def _slots(self) -> Array:
        """Return feature memory by image, [batch, bytes]; BusyError if it was freed."""
        if not self.memories:
            raise BusyError("the network was closed; load it again")
        return np.asarray(self.memories["features"]).reshape(self.batch, -1)

    def _modelled_timeout(self) -> float:
        mhz = self._runner.backend.clock_mhz() or self.bundle.clock_mhz or SLOWEST_MHZ
        cycles = sum(layer.cycles for layer in self.bundle.layers)
        return max(LEAST_SECONDS, TIMES_MODELLED * cycles / (mhz * 1e6))

    def _maps(self, images: Array, regions: Iterable[Region]) -> dict[str, Array]:
        regions = tuple(regions)
        found = {r.name: np.zeros((len(images), *r.shape), r.dtype) for r in regions}
        for first, chunk in self.chunks(images):
            with self.alone():
                self.put(chunk)
                self.start()
                taken = self.take(regions)
            for region, maps in zip(regions, taken, strict=True):
                found[region.name][first : first + len(chunk)] = maps
        return found

    def _bring(self, name: str, content: Array) -> None:
        self.memories[name] = self._runner.backend.allocate(content.size)
        self._write(name, content)

    def _write(self, name: str, content: Array) -> None:
        self.memories[name][:] = content
        self._runner.backend.to_device(self.memories[name])

    def _cut(self, layers: slice, images: int) -> None:
        """Bring the program of some layers for some images: its header's counts and checksum."""
        if (layers, images) == (self.layers, self._count):
            return
        header = self.bundle.content["header"]
        program, start = bytearray(self.bundle.program), header["bytes"]
        size = (len(program) - start) // len(self.bundle.layers)
        program[start:] = program[start + layers.start * size :].ljust(len(program) - start, b"\0")
        struct.pack_into("<H", program, header["layers_at"], layers.stop - layers.start)
        struct.pack_into("<B", program, header["images_at"], images)
        struct.pack_into("<Q", program, start - 8, zlib.crc32(program[: start - 8]))
        self._count = 0  # of no program, until it is written whole
        self._write("program", np.frombuffer(program, np.uint8))
        self.layers, self._count = layers, images


def _require_count(what: str, count: Any, most: int) -> None:
    if not isinstance(count, (int, np.integer)) or not 1 <= count <= most:
        raise InputError(f"{what} must be 1..{most}, got {count!r}")
