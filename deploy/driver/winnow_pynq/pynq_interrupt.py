# SPDX-License-Identifier: Apache-2.0
"""Waiting for pynq's interrupts without an event loop.

`await interrupt.wait()` of pynq needs the loop that was there when the overlay was loaded, and a
notebook's loop runs already: it waits for the cell that calls us. So the line's own file is waited
for, and what pynq's loop would do then is done here; where the loop was faster, it did it.
"""

from __future__ import annotations

import os
import select
from typing import Any


class InterruptLine:
    """The way of an interrupt to the processor: a chain of controllers that ends at a UIO file."""

    def __init__(self, interrupt: Any) -> None:
        self._parent, self._number = interrupt.parent(), interrupt.number
        self._root = self._parent
        while hasattr(self._root, "parent"):
            self._root = self._root.parent
        os.set_blocking(self._root.uio.fileno(), False)  # a loop in another thread may read it
        self._is_armed = False

    def set(self) -> None:
        """Take note of an interrupt; called by pynq, as it would an event of asyncio's."""
        self._is_armed = False

    def wait(self, seconds: float) -> None:
        """Wait for the interrupt, but no longer than this."""
        if not self._is_armed:
            self._is_armed = True
            self._parent.add_event(self, self._number)
        if select.select([self._root.uio], [], [], seconds)[0] and self._root.uio.read(4):
            events, self._root.wait_events = self._root.wait_events, []
            for event in events:
                event.set()


def line_of(ip: Any) -> InterruptLine | None:
    """Return the way of an engine's interrupt; None where none is wired, or pynq is remote."""
    interrupt = getattr(ip, "interrupt", None)
    return InterruptLine(interrupt) if hasattr(interrupt, "parent") else None
