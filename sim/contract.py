# SPDX-License-Identifier: Apache-2.0
"""What the benches ask of an RTL folder, whoever made it: files, the top module and its pins.

openhls and Vitis HLS give the same pins their names. A tool may add others: Vitis has IDs, users,
locks, and both directions of every master; inputs that nobody drives are 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from codegen.ports import CONTROL_BUNDLE, PORTS, Direction
from winnow.errors import ToolError

SLAVE = f"s_axi_{CONTROL_BUNDLE}"
LITE_PINS = (
    *("AWADDR", "AWVALID", "AWREADY", "WDATA", "WSTRB", "WVALID", "WREADY"),
    *("BVALID", "BREADY", "BRESP", "ARADDR", "ARVALID", "ARREADY"),
    *("RDATA", "RVALID", "RREADY", "RRESP"),
)
_ADDRESS = ("VALID", "READY", "ADDR", "LEN", "SIZE", "BURST")
PORT_CHANNELS = {Direction.READ: ("AR", "R"), Direction.WRITE: ("AW", "W", "B")}
CHANNELS = {
    "AR": _ADDRESS,
    "R": ("VALID", "READY", "DATA", "RESP", "LAST"),
    "AW": _ADDRESS,
    "W": ("VALID", "READY", "DATA", "STRB", "LAST"),
    "B": ("VALID", "READY", "RESP"),
}


def required_pins() -> Iterator[str]:
    """Yield the pins of the top module that the benches use."""
    yield from ("ap_clk", "ap_rst_n", "interrupt")
    yield from (f"{SLAVE}_{pin}" for pin in LITE_PINS)
    for port in PORTS:
        for channel in PORT_CHANNELS[port.direction]:
            yield from (f"m_axi_{port.bundle}_{channel}{pin}" for pin in CHANNELS[channel])


def require_top(folder: Path, sources: Sequence[Path], top: str) -> None:
    """Check that a folder's sources hold the top module with all its pins, or raise ToolError."""
    pattern = re.compile(rf"^\s*module\s+{top}\b.*?^\s*endmodule\b", re.MULTILINE | re.DOTALL)
    for path in sources:
        found = pattern.search(path.read_text(encoding="utf-8", errors="replace"))
        if found is None:
            continue
        words = set(re.findall(r"\w+", found.group()))
        missing = [pin for pin in required_pins() if pin not in words]
        if missing:
            names = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
            raise ToolError(f"module '{top}' of '{path}' lacks {len(missing)} pins: {names}")
        return
    raise ToolError(f"'{folder}' has no module '{top}': the top function must keep its name")


def axi_error_ports(bits: int) -> str:
    """Return the masters named by the bits of register axi_error."""
    return ", ".join(f"m_axi_{port.bundle}" for i, port in enumerate(PORTS) if bits >> i & 1)
