# SPDX-License-Identifier: Apache-2.0
"""What the processor of a virtual board finds at its addresses.

The engine, the interrupt controller behind it, and the processor's own clocks.
"""

from __future__ import annotations

from deploy.bus import REGISTER_RANGE, Bus
from deploy.interrupts import InterruptController
from winnow.boards import Board, Family


def clock_registers(board: Board) -> dict[int, int]:
    """Return the clock registers that pynq reads: feedback of the PLLs, dividers of the clocks."""
    found: dict[int, int] = {}
    if board.family is Family.ZYNQ7:
        found |= {0xF8000100 + 4 * i: feedback << 12 for i, feedback in enumerate((26, 21, 20))}
        found[0xF8000120] = 0x1F000200
        found |= {0xF8000170 + 0x10 * i: 1 << 20 | 10 << 8 for i in range(4)}
    else:
        plls = (0xFF5E0020, 0xFF5E0030, 0xFD1A0020, 0xFD1A002C, 0xFD1A0038)
        found |= dict.fromkeys(plls, 90 << 8 | 1 << 16)
        found |= {0xFF5E00C0 + 4 * i: 1 << 24 | 1 << 16 | 15 << 8 for i in range(4)}
    return found


class Addresses:
    """A board's addresses; its other registers hold what was written, 0 before."""

    def __init__(self, board: Board, bus: Bus) -> None:
        self._engine, self._bus = range(board.base, board.base + REGISTER_RANGE), bus
        self._interrupts = range(self._engine.stop, self._engine.stop + REGISTER_RANGE)
        self._clocks = clock_registers(board)
        self.controller = InterruptController()
        bus.watch(self.controller.sample)

    def read(self, address: int, num_bytes: int) -> int:
        """Read a register; DeviceError where the engine does not have one."""
        if address in self._engine:
            return self._bus.read(address - self._engine.start, num_bytes)
        if address in self._interrupts:
            return self.controller.read(address - self._interrupts.start)
        return self._clocks.get(address, 0)

    def write(self, address: int, content: bytes) -> None:
        """Write a register, lowest byte first; DeviceError where the engine does not have one."""
        value = int.from_bytes(content, "little")
        if address in self._engine:
            self._bus.write(address - self._engine.start, content)
        elif address in self._interrupts:
            self.controller.write(address - self._interrupts.start, value)
        else:
            self._clocks[address] = value
