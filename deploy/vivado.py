# SPDX-License-Identifier: Apache-2.0
"""Scripts that make a bitstream with Vivado: packaging of the RTL, and a block design per board.

rtl/, board -> vivado/BOARD/package.tcl, overlay.tcl, settings.tcl, registers.tcl, a Verilog top

The first two are copied as they are; the other two hold every number and name, from
`codegen/ports.py` and `winnow/boards.py`. No Vivado was ever at hand: the scripts are checked with
a model of a block design (tests/tcl/standin.tcl), which cannot know what Vivado calls a property.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from codegen.ports import PORTS, TOP
from deploy.bus import REGISTER_RANGE
from deploy.driver.winnow_pynq.bundle import VLNV
from deploy.handoff import port_of, register_rows
from deploy.wrapper import SUFFIX, write_wrapper
from winnow.artefact import write_bytes, write_text
from winnow.boards import Board, Family

SCRIPTS = Path(__file__).resolve().parent / "tcl"
COPIED = ("package.tcl", "overlay.tcl")


def write_scripts(folder: Path, rtl: Path, board: Board, mhz: float) -> list[Path]:
    """Write the scripts of a board into `folder`; its clock is the fastest not above `mhz`."""
    for name in COPIED:
        write_bytes(folder / name, (SCRIPTS / name).read_bytes())
    write_text(folder / "settings.tcl", settings(rtl, board, mhz))
    write_text(folder / "registers.tcl", registers())
    top = f"{TOP}{SUFFIX}.v"
    write_text(folder / top, write_wrapper(rtl, TOP))
    return [folder / name for name in (*COPIED, "settings.tcl", "registers.tcl", top)]


def registers() -> str:
    """Return the list `registers`: name, offset, access, fields of every 32-bit register."""
    lines = []
    for row in register_rows():
        fields = " ".join(f"{name} {low} {bits} {access}" for name, low, bits, access in row.fields)
        lines.append(f"  {row.name} {row.offset:#x} {row.access} {{{fields}}}")
    return "# Generated. name, offset, access, {field, lowest bit, bits, access ...}\n" + (
        "set registers {\n" + "\n".join(lines) + "\n}\n"
    )


def settings(rtl: Path, board: Board, mhz: float) -> str:
    """Return the names and numbers that the scripts read."""
    vendor, library, top, version = VLNV.split(":")
    masters = [f"m_axi_{port.bundle}" for port in PORTS]
    shared = [f"{master} {port_of(board, i)}" for i, master in enumerate(masters)]
    values = {
        "top": top,
        "wrapper": f"{TOP}{SUFFIX}",
        "vendor": vendor,
        "library": library,
        "version": version,
        "rtl": str(rtl.resolve()),
        "board": board.name,
        "part": board.part,
        "board_part": board.board_part,
        "family": board.family.value,
        "base": f"{board.base:#x}",
        "range": str(REGISTER_RANGE),
        "mhz": f"{board.clock_mhz(mhz):.6f}",
        "control": board.control,
        "masters": " ".join(masters),
        "ports": " ".join(board.memory_ports),
        "port_of": " ".join(shared),
        "port_clocks": " ".join(_port_clocks(board)),
    }
    lines = (f"set {name} {{{value}}}" for name, value in values.items())
    return "# Generated: what package.tcl and overlay.tcl read.\n" + "\n".join(lines) + "\n"


def _port_clocks(board: Board) -> Iterable[str]:
    """Return the clock pins of the processor's ports that are used."""
    ports = (board.control, *board.memory_ports)
    if board.family is Family.ZYNQ7:
        return [f"{port}_ACLK" for port in ports]
    return [f"{port.replace('_AXI_', 'axi').lower()}_aclk" for port in ports]
