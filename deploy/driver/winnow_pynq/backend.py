# SPDX-License-Identifier: Apache-2.0
"""What the driver needs of a board; everything else is the same on all of them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Memory = NDArray[np.uint8]  # [bytes], contiguous; of a class of the backend


class Backend(Protocol):
    """An engine's registers, and memory that processor and engine see.

    Members:
        name: tells engines of a machine apart; names the lock file.
        has_added_registers: whether the engine has the registers that openhls adds, from
            `axi_error` on.
        has_interrupts: whether `pause` ends at one.
    """

    name: str
    has_added_registers: bool
    has_interrupts: bool

    def clock_mhz(self) -> float | None:
        """Return the clock that the engine runs at; None where nobody can tell."""

    def read32(self, offset: int) -> int:
        """Read a register."""

    def write32(self, offset: int, value: int) -> None:
        """Write a register; both are plain integers."""

    def pause(self, seconds: float) -> None:
        """Wait for an interrupt of the engine, where there are any, but no longer than this.

        The driver enables them in the engine, acknowledges them there, and looks at `control`.
        """

    def allocate(self, num_bytes: int) -> Memory:
        """Return contiguous memory, its content unknown; raises MemoryFullError."""

    def free(self, memory: Any) -> None:
        """Give memory back."""

    def address(self, memory: Any) -> int:
        """Return where the engine sees memory."""

    def to_device(self, memory: Any) -> None:
        """Let the engine see what the processor wrote, all of it."""

    def from_device(self, memory: Any) -> None:
        """Let the processor see what the engine wrote, all of it."""
