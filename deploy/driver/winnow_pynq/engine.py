# SPDX-License-Identifier: Apache-2.0
"""The engine of a board, and the networks that take turns on it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from .backend import Backend
from .bundle import Bundle, load_bundle
from .errors import MismatchError
from .network import Network
from .profiles import profile_folders
from .runner import Runner, require_present

CLOCK_SLACK = 1.001


class Engine:
    """An engine that this process alone uses. A context manager, or call close()."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._runner = Runner(backend)
        self._networks: list[Network] = []

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory of all networks and let other processes have the engine."""
        try:
            while self._networks:
                self._networks.pop().close()
        finally:
            self._runner.close()

    def load(
        self, folder: Any, *, timeout_s: float | None = None, batch: int | None = None
    ) -> Network:
        """Bring a network to the board's memory; others stay there, and take turns.

        `timeout_s` is for an image: by default 20 times what the model says, at least a second.
        A start runs up to `batch` images, each with memory of its own for all its maps: by default
        16, or as many as take 1 MiB.
        Raises NotFoundError, MismatchError for files, engine or clock, BusyError and
        MemoryFullError.
        """
        self._runner.hold()
        bundle = load_bundle(folder)
        self._require_engine(bundle)
        self._require_clock(bundle)
        self._networks.append(Network(self._runner, bundle, timeout_s, batch))
        return self._networks[-1]

    def load_profiles(self, folder: Any, **options: Any) -> dict[str, Network]:
        """Load all networks of a folder of profiles, to choose among between two images.

        Returns them by name; a bundle gives one. `options` and errors are those of `load`; after
        one none is loaded.
        """
        places = profile_folders(folder)
        with ExitStack() as opened:
            loaded = {n: opened.enter_context(self.load(p, **options)) for n, p in places.items()}
            opened.pop_all()
        return loaded

    def _require_engine(self, bundle: Bundle) -> None:
        if not self.backend.has_added_registers:
            return  # the engine compares the program's signature itself
        offset = bundle.registers["engine_id"]
        found = self.backend.read32(offset) | self.backend.read32(offset + 4) << 32
        if found != bundle.engine_id:
            require_present(found >> 32)
            raise MismatchError(
                f"the board holds engine {found:016x}, '{bundle.folder}' is for "
                f"{bundle.engine_id:016x}; load the overlay of the same build"
            )

    def _require_clock(self, bundle: Bundle) -> None:
        found, limit = self.backend.clock_mhz(), bundle.clock_mhz
        if found is not None and limit is not None and found > limit * CLOCK_SLACK:
            raise MismatchError(
                f"the engine's clock is {found:.3f} MHz, timing closed at {limit:g} MHz; lower it "
                f"first: pynq.Clocks.fclk0_mhz = {limit:g}"
            )
