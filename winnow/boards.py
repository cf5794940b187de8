# SPDX-License-Identifier: Apache-2.0
"""The boards that scripts and handoffs are written for: part, processor, its ports and clocks.

From public board files and scripts; none of these boards was ever at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from winnow.errors import ConfigError, shown


class Family(Enum):
    """A processor system, by the name of its block in Vivado."""

    ZYNQ7 = "processing_system7"
    MPSOC = "zynq_ultra_ps_e"


@dataclass(frozen=True)
class Board:
    """A board.

    Members:
        part: the device, whole.
        board_part: Vivado's name of the board; empty where its version must be asked for.
        pynq_name: what the board calls itself in /proc/device-tree/chosen/pynq_board.
    """

    name: str
    family: Family
    part: str
    board_part: str
    pynq_name: str

    @property
    def arch(self) -> str:
        """Return what Linux calls the processor."""
        return "armv7l" if self.family is Family.ZYNQ7 else "aarch64"

    @property
    def ps_version(self) -> str:
        """Return the version of the processor's block."""
        return "5.5" if self.family is Family.ZYNQ7 else "3.5"

    @property
    def control(self) -> str:
        """Return the master that reaches the engine's registers."""
        return "M_AXI_GP0" if self.family is Family.ZYNQ7 else "M_AXI_HPM0_FPD"

    @property
    def interrupt(self) -> str:
        """Return the processor's pin for interrupts."""
        return "IRQ_F2P" if self.family is Family.ZYNQ7 else "pl_ps_irq0"

    @property
    def base(self) -> int:
        """Return the address of the engine's registers."""
        return 0x4000_0000 if self.family is Family.ZYNQ7 else 0xA000_0000

    @property
    def memory_ports(self) -> tuple[str, ...]:
        """Return the high-performance slaves, 64 bits wide on a Zynq-7000 whatever pynq does."""
        tail = "" if self.family is Family.ZYNQ7 else "_FPD"
        return tuple(f"S_AXI_HP{i}{tail}" for i in range(4))

    @property
    def pll_mhz(self) -> int:
        """Return the clock that the divider of PL clock 0 divides."""
        return 1000 if self.family is Family.ZYNQ7 else 1500

    def divisor(self, mhz: float) -> int:
        """Return the divider of the fastest clock that is not above `mhz`.

        1000 MHz has no divider that gives 150: 7 gives 142.857.
        """
        return max(1, -int(-self.pll_mhz // mhz))

    def clock_mhz(self, mhz: float) -> float:
        """Return the fastest clock that the board has at or below `mhz`."""
        return self.pll_mhz / self.divisor(mhz)


BOARDS = {
    board.name: board
    for board in (
        Board(
            "PYNQ-Z1",
            Family.ZYNQ7,
            "xc7z020clg400-1",
            "www.digilentinc.com:pynq-z1:part0:1.0",
            "Pynq-Z1",
        ),
        Board(
            "PYNQ-Z2", Family.ZYNQ7, "xc7z020clg400-1", "tul.com.tw:pynq-z2:part0:1.0", "Pynq-Z2"
        ),
        Board(
            "Ultra96-V2",
            Family.MPSOC,
            "xczu3eg-sbva484-1-i",
            "avnet.com:ultra96v2:part0:1.1",
            "Ultra96",
        ),
        Board(
            "ZCU104", Family.MPSOC, "xczu7ev-ffvc1156-2-e", "xilinx.com:zcu104:part0:1.1", "ZCU104"
        ),
        Board("KV260", Family.MPSOC, "xck26-sfvc784-2LV-c", "", "KV260"),
    )
}


def find_board(name: str) -> Board:
    """Return a board by its name, in any case; ConfigError lists those there are."""
    for board in BOARDS.values():
        if board.name.lower() == name.lower():
            return board
    raise ConfigError(f"board must be one of {', '.join(BOARDS)}, got {shown(name)}")
