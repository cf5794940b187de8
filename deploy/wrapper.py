# SPDX-License-Identifier: Apache-2.0
"""A top in plain Verilog around the engine's SystemVerilog, with Vivado's interface attributes.

rtl/winnow_engine.sv -> vivado/BOARD/winnow_engine_ip.v

Vivado takes no SystemVerilog file as the top of a module reference in a block design. The pins are
read from the engine's own module, so that widths agree; bundles, directions and bursts come from
`codegen/ports.py`. Never read by Vivado here: the attributes are those that UG994 documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from codegen.ports import CONTROL_BUNDLE, PORTS, Direction, Port
from winnow.errors import ToolError

SUFFIX = "_ip"
_PIN = re.compile(r"^\s*(input|output)\s+logic\s+(\[[^\]]+\])?\s*(\w+),?\s*$", re.MULTILINE)


class Pin(NamedTuple):
    """A pin of the engine: `input` or `output`, its range (empty for a bit), its name."""

    direction: str
    bits: str
    name: str


def pins_of(text: str, top: str) -> list[Pin]:
    """Return the pins of module `top` in SystemVerilog that openhls wrote; ToolError if none."""
    head = re.search(rf"^module {top} \((.*?)^\);", text, re.MULTILINE | re.DOTALL)
    found = [Pin(*pin) for pin in _PIN.findall(head[1])] if head else []
    if not found:
        raise ToolError(f"the RTL has no module '{top}' with pins as openhls writes them")
    return found


def wrapper(text: str, top: str) -> str:
    """Return the wrapper of module `top`, whose SystemVerilog is `text`."""
    pins = pins_of(text, top)
    lines = [
        "// SPDX-License-Identifier: Apache-2.0",
        "// Generated: the engine for block designs.",
    ]
    lines.append(f"module {top}{SUFFIX} (")
    for pin in pins:
        lines += [f'  (* {key} = "{value}" *)' for key, value in _attributes(pin.name)]
        bits = f" {pin.bits}" if pin.bits else ""
        lines.append(f"  {pin.direction} wire{bits} {pin.name}" + ("" if pin is pins[-1] else ","))
    lines += [");", f"  {top} inner ("]
    lines += [f"    .{pin.name}({pin.name})" + ("" if pin is pins[-1] else ",") for pin in pins]
    return "\n".join([*lines, "  );", "endmodule", ""])


def _buses() -> Iterator[tuple[str, str]]:
    """Yield every bus and the parameters that its first pin carries."""
    yield f"s_axi_{CONTROL_BUNDLE}", "PROTOCOL AXI4LITE, DATA_WIDTH 32"
    for port in PORTS:
        yield f"m_axi_{port.bundle}", _master(port)


def _master(port: Port) -> str:
    kind = port.direction.value.upper()
    return (
        f"PROTOCOL AXI4, ADDR_WIDTH 64, READ_WRITE_MODE {kind}_ONLY, SUPPORTS_NARROW_BURST 0, "
        f"NUM_{kind}_OUTSTANDING {port.outstanding}, MAX_BURST_LENGTH {port.burst}"
    )


def _attributes(name: str) -> Iterator[tuple[str, str]]:
    buses = dict(_buses())
    if name == "ap_clk":
        yield "X_INTERFACE_INFO", "xilinx.com:signal:clock:1.0 ap_clk CLK"
        yield (
            "X_INTERFACE_PARAMETER",
            f"ASSOCIATED_BUSIF {':'.join(buses)}, ASSOCIATED_RESET ap_rst_n",
        )
    elif name == "ap_rst_n":
        yield "X_INTERFACE_INFO", "xilinx.com:signal:reset:1.0 ap_rst_n RST"
        yield "X_INTERFACE_PARAMETER", "POLARITY ACTIVE_LOW"
    elif name == "interrupt":
        yield "X_INTERFACE_INFO", "xilinx.com:signal:interrupt:1.0 interrupt INTERRUPT"
        yield "X_INTERFACE_PARAMETER", "SENSITIVITY LEVEL_HIGH"
    else:
        bus, _, pin = name.rpartition("_")
        yield "X_INTERFACE_INFO", f"xilinx.com:interface:aximm:1.0 {bus} {pin}"
        first = "AWADDR" if bus.startswith("s_axi") or _writes(bus) else "ARADDR"
        if pin == first:
            yield "X_INTERFACE_PARAMETER", buses[bus]


def _writes(bus: str) -> bool:
    return any(f"m_axi_{p.bundle}" == bus and p.direction is Direction.WRITE for p in PORTS)


def write_wrapper(rtl: Path, top: str) -> str:
    """Return the wrapper of the RTL in a folder; ToolError if it has no such top."""
    path = rtl / f"{top}.sv"
    if not path.is_file():
        raise ToolError(f"'{rtl}' has no {top}.sv: Vivado's wrapper is made of it")
    return wrapper(path.read_text(encoding="utf-8"), top)
