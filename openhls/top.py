# SPDX-License-Identifier: Apache-2.0
"""Write the top module: processes, FIFOs, banks, memories, AXI masters and the register file.

Netlist + Interface -> SystemVerilog text. The library modules it instantiates are in `rtl/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from openhls.errors import HlsError
from openhls.interface import FIRST_ARGUMENT, WORD_BYTES, Interface
from openhls.netlist import AxiPort, Netlist

HERE = Path(__file__).resolve().parent
LIBRARY = HERE / "rtl"
BANK_PORTS = ("w_acquire", "wr_req", "w_release", "r_acquire", "rd_req", "rd_resp", "r_release")
RAM_PORTS = ("rd_req", "rd_resp", "wr_req")
LITE_PINS = (
    *("AWADDR", "AWVALID", "AWREADY", "WDATA", "WSTRB", "WVALID", "WREADY"),
    *("BRESP", "BVALID", "BREADY", "ARADDR", "ARVALID", "ARREADY"),
    *("RDATA", "RRESP", "RVALID", "RREADY"),
)
REQUEST_BITS = 64
LEAST_WAIT_BITS = 96  # Verilator has one C++ type for all signals of more than 64 bits


@dataclass(frozen=True)
class Net:
    """A ready/valid net."""

    name: str
    width: int


@dataclass(frozen=True)
class Master:
    """An AXI master: its bundle, its port, and the argument word of its base address."""

    bundle: str
    port: AxiPort
    word: int


@dataclass(frozen=True)
class Scalar:
    """A scalar that the top function takes or gives: its name and its argument word."""

    name: str
    word: int
    bits: int


def all_nets(netlist: Netlist) -> list[Net]:
    """Return every ready/valid net of the top module, in a fixed order."""
    nets = [Net("control_start", 1), Net("control_done", 1)]
    for fifo in netlist.fifos:
        nets += [Net(f"{fifo.name}_in", fifo.width), Net(f"{fifo.name}_out", fifo.width)]
        nets += [Net(f"{fifo.name}_credit", 1)] if fifo.stages else []
    for bank in netlist.banks:
        widths = {"wr_req": bank.width + bank.address_bits, "rd_resp": bank.width}
        widths["rd_req"] = bank.address_bits
        nets += [Net(f"{bank.name}_{port}", widths.get(port, 1)) for port in BANK_PORTS]
    for memory in netlist.memories:
        widths = {"wr_req": memory.width + memory.address_bits, "rd_resp": memory.width}
        nets += [
            Net(f"{memory.name}_{port}", widths.get(port, memory.address_bits))
            for port in RAM_PORTS
        ]
    for axi in netlist.axi_ports:
        roles = {"aw": REQUEST_BITS, "w": axi.width, "b": 1}
        if not axi.writes:
            roles = {"ar": REQUEST_BITS, "r": axi.width}
        nets += [Net(f"{axi.name}_{role}", width) for role, width in roles.items()]
    nets += [Net(f"{port.name}_result", port.width) for port in netlist.results]
    nets += [Net(f"{port.name}_scalar", port.width) for port in netlist.scalars]
    return nets


# Registers that openhls adds behind the arguments, and their words. `watchdog` is for writing.
ADDED = (("axi_error", 1), ("ended_by", 1), ("engine_id", 2), ("cycles", 1), ("watchdog", 1))


def added_offsets(interface: Interface) -> dict[str, int]:
    """Return the offsets of the registers that openhls adds behind the arguments.

    `axi_error` has an error bit per AXI master. `ended_by` says what stopped the last run: bit 0
    the watchdog, bit 1 the host; bit 2 that the memory still owes answers. `engine_id` is the
    number of the pragma, `cycles` are those of the last run. `watchdog`, for writing, are the
    cycles without a beat on any master after which a run is stopped.
    """
    offsets, offset = dict[str, int](), interface.end_offset
    for name, words in ADDED:
        offsets[name] = offset
        offset += words * WORD_BYTES
    return offsets


def render_top(top: str, netlist: Netlist, interface: Interface) -> str:
    """Return the top module; raises HlsError when a port has no register, no user or no pragma."""
    words = {register.name: register.word for register in interface.registers}
    by_name = {port.name: port for port in netlist.axi_ports}
    unused = interface.masters.keys() - by_name.keys()
    if unused:
        raise HlsError(f"port '{min(unused)}' is used by no process")
    unnamed = by_name.keys() - interface.masters.keys()
    if unnamed:
        raise HlsError(f"port '{min(unnamed)}' must have an m_axi interface pragma")
    for kind, ports in (("result", netlist.results), ("scalar", netlist.scalars)):
        lost = [port.name for port in ports if port.name not in words]
        if lost:
            raise HlsError(f"{kind} '{lost[0]}' must have an s_axilite register")
    added = {
        name: (offset - FIRST_ARGUMENT) // WORD_BYTES
        for name, offset in added_offsets(interface).items()
    }
    num_words = max(added.values()) + 1
    taken = {words[name] + i for name in interface.masters for i in range(2)}
    taken |= {words[port.name] for port in netlist.scalars} | {added["watchdog"]}
    writable = "".join("1" if w in taken else "0" for w in reversed(range(num_words)))
    end = FIRST_ARGUMENT + WORD_BYTES * num_words
    nets = all_nets(netlist)
    context: dict[str, Any] = {
        "top": top,
        "netlist": netlist,
        "nets": nets,
        "bits": {net.name: bit for bit, net in enumerate(nets)},
        "wait_bits": max(LEAST_WAIT_BITS, len(nets)),
        "masters": [
            Master(bundle, by_name[name], words[name])
            for name, bundle in sorted(interface.masters.items(), key=lambda item: item[1])
        ],
        "results": [Scalar(port.name, words[port.name], port.width) for port in netlist.results],
        "scalars": [Scalar(port.name, words[port.name], port.width) for port in netlist.scalars],
        "words": num_words,
        "added": added,
        "design": interface.design,
        "writable": writable,
        "address_bits": (end - 1).bit_length(),
        "lite_pins": LITE_PINS,
        "bank_ports": BANK_PORTS,
        "ram_ports": RAM_PORTS,
    }
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("top.sv.j2").render(context)
