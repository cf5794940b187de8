# SPDX-License-Identifier: Apache-2.0
"""A run of the engine from start to end: its registers, and why a run failed."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Protocol

from .backend import Backend, Memory
from .bundle import Bundle
from .errors import BusError, BusyError, DriverError, EngineError, NotFoundError, RunTimeoutError
from .lock import Hold, hold, release

CONTROL, GLOBAL_INTERRUPT, INTERRUPT_ENABLE, INTERRUPT_STATUS = 0x00, 0x04, 0x08, 0x0C
START, DONE, IDLE, ABORT = 1 << 0, 1 << 1, 1 << 2, 1 << 16
CODE_MASK, LAYERS_SHIFT, LAYERS_MASK, IMAGES_SHIFT = 0xFF, 8, 0xFFFF, 24
HUNG = 255
NOBODY = 0xFFFFFFFF  # what a register reads where no engine answers: no power, no bitstream
WATCHDOG_CYCLES = 1 << 24  # without a beat; ends a run whose process is gone
STOP_SECONDS = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 1e-5, 1e-3  # seconds between looks at `control`
LONGEST_WAIT = 1e-2  # the same, where an interrupt ends it; one that was lost costs no more


class Loaded(Protocol):
    """A network whose files lie in `memories`, and registers with their sizes."""

    bundle: Bundle
    memories: dict[str, Memory]
    limits: dict[str, int]
    layers: slice  # of the bundle's, those that its program runs


class Runner:
    """An engine that this process alone uses."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._hold: Hold | None = hold(backend.name)

    def close(self) -> None:
        """Let other processes have the engine."""
        if self._hold is not None:
            release(self._hold)
            self._hold = None

    def forget(self, network: Loaded) -> None:
        """Take the addresses in the registers for gone if they are those of `network`."""
        if self._hold is not None and self._hold.network is network:
            self._hold.network = None

    def hold(self) -> Hold:
        """Return our hold of the engine; BusyError if we have none."""
        if self._hold is None:
            raise BusyError("the engine was closed; open the overlay again")
        if self._hold.pid != os.getpid():
            raise BusyError(f"process {self._hold.pid}, which started this one, uses the engine")
        return self._hold

    def run(self, network: Loaded, timeout_s: float) -> int | None:
        """Run a network on what is in its memory; return the cycles, if the engine counts them.

        Raises BusyError, NotFoundError, RunTimeoutError, BusError or EngineError.
        """
        held = self.hold()
        if not require_present(self.backend.read32(CONTROL)) & IDLE:
            raise BusyError("the engine still runs: end what started it, or load the overlay again")
        if held.network is not network:
            held.network = None  # until all addresses are those of one network
            self._point_at(network)
            held.network = network
        try:
            self._acknowledge()
            self.backend.write32(CONTROL, START)
            control = require_present(self._await(DONE, timeout_s))
            if not control & DONE:
                raise RunTimeoutError(self._stuck(network.bundle, timeout_s, control))
        except BaseException:  # Ctrl-C too
            self._stop()
            raise
        self._require_ok(network.bundle, network.layers.start)
        return self._added(network.bundle, "cycles")

    def _point_at(self, network: Loaded) -> None:
        """Write where a network's memories lie and how large they are."""
        bundle, write = network.bundle, self.backend.write32
        for port in bundle.ports:
            address = int(self.backend.address(network.memories[port.memory]))
            write(bundle.registers[port.register], address & 0xFFFFFFFF)
            write(bundle.registers[port.register] + 4, address >> 32)
        for name, limit in network.limits.items():
            write(bundle.registers[name], limit)
        if self.backend.has_added_registers:
            write(bundle.registers["watchdog"], WATCHDOG_CYCLES)
        for register in (GLOBAL_INTERRUPT, INTERRUPT_ENABLE):
            write(register, int(self.backend.has_interrupts))

    def _acknowledge(self) -> None:
        """Take the interrupt back, so that the next one is an edge; what is written toggles."""
        if self.backend.has_interrupts:
            self.backend.write32(INTERRUPT_STATUS, self.backend.read32(INTERRUPT_STATUS))

    def _await(self, bits: int, seconds: float) -> int:
        """Look at `control` until one of `bits` is set, but no longer than this; return it.

        Reading it clears DONE.
        """
        limit, pause = time.monotonic() + seconds, FIRST_PAUSE
        longest = LONGEST_WAIT if self.backend.has_interrupts else LONGEST_PAUSE
        while True:
            late = time.monotonic() > limit
            control = self.backend.read32(CONTROL)
            if control & bits or late:
                return control
            self.backend.pause(pause)
            self._acknowledge()
            pause = min(2 * pause, longest)

    def _stuck(self, bundle: Bundle, timeout_s: float, control: int) -> str:
        status = self.backend.read32(bundle.registers["status"])
        errors = self._added(bundle, "axi_error")
        axi = "not there" if errors is None else f"{errors:#x} {self._masters(bundle, errors)}"
        return (
            f"no result after {timeout_s:g} s: control {control:#x}, status {status:#x} (layers "
            f"that ran: {status >> LAYERS_SHIFT & LAYERS_MASK}), axi_error {axi.strip()}; load the "
            f"overlay again, or give timeout_s"
        )

    def _stop(self) -> None:
        """Abort a run, so that the next one finds an idle engine; Vitis' RTL cannot."""
        with contextlib.suppress(DriverError):  # why it is stopped says more
            if self.backend.has_added_registers:
                self.backend.write32(CONTROL, ABORT)
                self._await(DONE | IDLE, STOP_SECONDS)

    def _added(self, bundle: Bundle, name: str) -> int | None:
        """Return a register that openhls adds, None if there is none."""
        if not self.backend.has_added_registers:
            return None
        return self.backend.read32(bundle.registers[name])

    def _masters(self, bundle: Bundle, errors: int) -> str:
        return ", ".join(port.master for i, port in enumerate(bundle.ports) if errors >> i & 1)

    def _require_ok(self, bundle: Bundle, first: int) -> None:
        errors = self._added(bundle, "axi_error")
        if errors:
            require_present(errors)
            names = self._masters(bundle, errors)
            text = f"memory answered {names} with an error; was a buffer freed, an HP port off?"
            raise BusError(text, tuple(names.split(", ")))
        status = self.backend.read32(bundle.registers["status"])
        code = status & CODE_MASK
        if code:
            number = first + (status >> LAYERS_SHIFT & LAYERS_MASK)
            number = min(number, len(bundle.layers) - 1)
            layer = "" if code == HUNG else bundle.layers[number].name
            where = f" at layer '{layer}' of image {status >> IMAGES_SHIFT}" if layer else ""
            text = f"the engine stopped{where}: {bundle.status_text(code)}; load the bundle again"
            raise EngineError(text, code, layer)


def require_present(register: int) -> int:
    """Return what a register holds; NotFoundError if no engine answered."""
    if register == NOBODY:
        raise NotFoundError(
            "no engine answers, a register reads 0xffffffff: is the board on, its clock, its "
            "bitstream? load the overlay again"
        )
    return register
