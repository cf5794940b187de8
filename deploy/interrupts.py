# SPDX-License-Identifier: Apache-2.0
"""How an interrupt of a virtual board reaches the processor: a controller, and Linux' UIO file.

The block design of deploy/tcl/overlay.tcl has the same way: engine, axi_intc on edges, processor.
"""

from __future__ import annotations

import os
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from deploy.bus import Bus

ISR, IPR, IER, IAR, SIE, CIE, MER = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x1C  # of an axi_intc
_OUTPUT, _INPUTS = 1, 2  # bits of MER
LOOK_SECONDS = 1e-3


class InterruptController:
    """An axi_intc with one input, that takes rising edges and puts out a level."""

    def __init__(self) -> None:
        self._pending = self._enabled = self._master = 0
        self._line = False
        self._lock = threading.Lock()  # the engine's side and the processor's are two threads

    @property
    def output(self) -> bool:
        """Return the level at the processor."""
        return bool(self._master & _OUTPUT and self._pending & self._enabled)

    def sample(self, line: bool) -> None:
        """Look at the input."""
        with self._lock:
            if line and not self._line and self._master & _INPUTS:
                self._pending |= 1
            self._line = line

    def read(self, offset: int) -> int:
        """Read a register; those that are written only are 0."""
        pending, enabled = self._pending, self._enabled
        return {ISR: pending, IPR: pending & enabled, IER: enabled, MER: self._master}.get(
            offset, 0
        )

    def write(self, offset: int, value: int) -> None:
        """Write a register."""
        with self._lock:
            if offset == IER:
                self._enabled = value
            elif offset == SIE:
                self._enabled |= value
            elif offset == CIE:
                self._enabled &= ~value
            elif offset == IAR:
                self._pending &= ~value
            elif offset == MER:
                self._master = value | self._master & _INPUTS  # which stays on until a reset


class UioFile:
    """What Linux makes of an interrupt: a file, `path`. A write lets one through, a read waits."""

    def __init__(self) -> None:
        self._kernel, self._device = os.openpty()
        tty.setraw(self._device)
        os.set_blocking(self._kernel, False)
        self.path = os.ttyname(self._device)
        self._is_open, self._count = False, 0

    def look(self, level: bool) -> None:
        """Take what was written, and tell an interrupt if one may pass."""
        with suppress(BlockingIOError):
            while os.read(self._kernel, 4):
                self._is_open = True
        if level and self._is_open:
            self._is_open = False
            self._count += 1
            os.write(self._kernel, self._count.to_bytes(4, "little"))

    def close(self) -> None:
        """Close both ends."""
        os.close(self._kernel)
        os.close(self._device)


@contextmanager
def interrupts(bus: Bus, controller: InterruptController) -> Iterator[str]:
    """Let the engine's interrupts through, in a thread; yields the path of the UIO file.

    The controller is one that watches the bus (deploy/processor.py).
    """
    file, ended = UioFile(), threading.Event()

    def work() -> None:
        while not ended.wait(LOOK_SECONDS):
            bus.look()
            file.look(controller.output)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield file.path
    finally:
        ended.set()
        thread.join()
        file.close()
