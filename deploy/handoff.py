# SPDX-License-Identifier: Apache-2.0
"""The two files that `pynq.Overlay` loads, for a design that exists only in simulation.

    write_overlay(folder, board, digest) -> winnow_HASH.hwh   processor, engine, registers, clocks
                                            winnow_HASH.bit   a header, and the hash of the RTL

The .hwh holds what pynqmetadata reads (0.1.2 and 0.2.0) and nothing else. The names hold a hash of
the content: pynq keeps what it parsed under the name of a .bit, and a board keeps the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from codegen.ports import ADDED_REGISTERS, CONTROL_REGISTERS, INPUTS, PORTS, REGISTERS, TOP
from codegen.ports import Register as PortRegister
from deploy.bus import REGISTER_RANGE
from deploy.driver.winnow_pynq.bundle import VLNV
from winnow.artefact import sha256_bytes, write_bytes
from winnow.boards import Board, Family

INSTANCE = f"{TOP}_0"
CONTROLLER = "intc"
CONTROL_SLAVE, CONTROLLER_SLAVE = "s_axi_control", "s_axi"
WRITABLE = {port.name for port in PORTS} | {argument.name for argument in INPUTS} | {"watchdog"}
# As Vitis HLS names the first four, with their fields: name, lowest bit, bits, access.
_CONTROL_NAMES = ("CTRL", "GIER", "IP_IER", "IP_ISR")
_CONTROL_FIELDS: tuple[tuple[tuple[str, int, int, str], ...], ...] = (
    (
        ("AP_START", 0, 1, "read-write"),
        ("AP_DONE", 1, 1, "read-only"),
        ("AP_IDLE", 2, 1, "read-only"),
        ("AP_READY", 3, 1, "read-only"),
        ("AUTO_RESTART", 7, 1, "read-write"),
    ),
    (("Enable", 0, 1, "read-write"),),
    (("CHAN0_INT_EN", 0, 1, "read-write"), ("CHAN1_INT_EN", 1, 1, "read-write")),
    (("CHAN0_INT_ST", 0, 1, "read-write"), ("CHAN1_INT_ST", 1, 1, "read-write")),
)


@dataclass(frozen=True)
class Row:
    """A 32-bit register as the .hwh lists it."""

    name: str
    offset: int
    access: str
    fields: tuple[tuple[str, int, int, str], ...]


def register_rows() -> Iterator[Row]:
    """Yield every 32-bit register; 64 bits `a` are the two registers `a_1` (low half) and `a_2`."""
    for register, name, fields in zip(
        CONTROL_REGISTERS, _CONTROL_NAMES, _CONTROL_FIELDS, strict=True
    ):
        yield Row(name, register.offset, "read-write", fields)
    for register in (*REGISTERS, *ADDED_REGISTERS):
        yield from _words(register)


def _words(register: PortRegister) -> Iterator[Row]:
    access = "read-write" if register.name in WRITABLE else "read-only"
    count = register.bits // 32
    for word in range(count):
        name = f"{register.name}_{word + 1}" if count > 1 else register.name
        yield Row(name, register.offset + 4 * word, access, ((register.name, 0, 32, access),))


def write_overlay(folder: Path, board: Board, digest: bytes, mhz: float = 100.0) -> Path:
    """Write a .hwh and a .bit whose virtual board must hold the RTL `digest`; return the .bit."""
    text = handoff(board, mhz)
    bits = bitstream(board, digest)
    path = folder / f"winnow_{sha256_bytes(text + bits)[:8]}.bit"
    write_bytes(path.with_suffix(".hwh"), text)
    write_bytes(path, bits)
    return path


def bitstream(board: Board, digest: bytes) -> bytes:
    """Return a .bit whose header pynq accepts; it configures nothing."""

    def field(key: int, text: str) -> bytes:
        content = text.encode() + b"\0"
        return struct.pack(">BH", key, len(content)) + content

    payload = b"\xff" * 32 + bytes.fromhex("AA995566") + b"WINNOWSIM\0\0\0" + digest
    return b"".join(
        [
            struct.pack(">H", 9) + bytes.fromhex("0ff00ff00ff00ff000") + struct.pack(">H", 1),
            field(0x61, "winnow;UserID=0XFFFFFFFF;Version=2024.1"),
            field(0x62, _device(board)) + field(0x63, "2026/01/01") + field(0x64, "00:00:00"),
            b"\x65" + struct.pack(">i", len(payload)) + payload,
        ]
    )


def handoff(board: Board, mhz: float) -> bytes:
    """Return the text of the .hwh; clock 0 is the fastest one that is not above `mhz`."""
    root = ET.Element("EDKSYSTEM", EDWVERSION="1.2", TIMESTAMP="0", VIVADOVERSION="2024.1")
    arch = "zynq" if board.family is Family.ZYNQ7 else "zynquplus"
    _add(root, "SYSTEMINFO", {"ARCH": arch, "DEVICE": _device(board), "NAME": "winnow"})
    _add(root, "EXTERNALPORTS")
    _add(root, "EXTERNALINTERFACES")
    modules = _add(root, "MODULES")
    _add_processor(modules, board, mhz)
    _add_engine(modules, board)
    _add_controller(modules, board)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
    return text


def _device(board: Board) -> str:
    return board.part.removeprefix("xc").partition("-")[0]


def _add(
    parent: ET.Element, tag: str, attributes: Mapping[str, object] | None = None
) -> ET.Element:
    return ET.SubElement(parent, tag, {k: str(v) for k, v in (attributes or {}).items()})


def _add_module(parent: ET.Element, instance: str, vlnv: str, kind: str) -> ET.Element:
    shared = {"IPTYPE": "PERIPHERAL", "IS_ENABLE": 1, "MODCLASS": "PERIPHERAL", "MODTYPE": kind}
    place = {"FULLNAME": f"/{instance}", "HWVERSION": vlnv.split(":")[3], "INSTANCE": instance}
    return _add(parent, "MODULE", {**place, **shared, "VLNV": vlnv})


def _add_bus(parent: ET.Element, name: str, kind: str, bus: str, bits: int) -> None:
    vlnv = "xilinx.com:interface:aximm:1.0"
    _add(
        parent,
        "BUSINTERFACE",
        {"BUSNAME": bus, "DATAWIDTH": bits, "NAME": name, "TYPE": kind, "VLNV": vlnv},
    )


def _add_pin(module: ET.Element, name: str, direction: str, instance: str, pin: str) -> None:
    """Add a pin for an interrupt, connected to a pin of another block."""
    ports = module.find("PORTS")
    port = {"DIR": direction, "NAME": name, "SIGIS": "INTERRUPT"}
    wires = _add(
        _add(_add(module, "PORTS") if ports is None else ports, "PORT", port), "CONNECTIONS"
    )
    _add(wires, "CONNECTION", {"INSTANCE": instance, "PORT": pin})


def port_of(board: Board, master: int) -> str:
    """Return the processor's port of a memory master: those beyond the ports share the first."""
    return board.memory_ports[master if master < len(board.memory_ports) else 0]


def _add_processor(modules: ET.Element, board: Board, mhz: float) -> None:
    kind = board.family.value
    module = _add_module(modules, f"{kind}_0", f"xilinx.com:ip:{kind}:{board.ps_version}", kind)
    module.set("IS_PL", "FALSE")  # how pynqmetadata before 0.2.0 finds the processor
    parameters = _add(module, "PARAMETERS")
    for name, value in _clocks(board, mhz).items():
        _add(parameters, "PARAMETER", {"NAME": name, "VALUE": value})
    _add_pin(module, board.interrupt, "I", CONTROLLER, "irq")
    buses = _add(module, "BUSINTERFACES")
    _add_bus(buses, board.control, "MASTER", "control", 32)
    for port in board.memory_ports:
        _add_bus(buses, port, "SLAVE", port.lower(), 64)
    slaves = _add(module, "MEMORYMAP")
    for number, (instance, slave) in enumerate(
        ((INSTANCE, CONTROL_SLAVE), (CONTROLLER, CONTROLLER_SLAVE))
    ):
        base = board.base + number * REGISTER_RANGE
        window = {
            "ADDRESSBLOCK": "Reg",
            "BASENAME": "C_BASEADDR",
            "BASEVALUE": f"0x{base:08X}",
            "HIGHNAME": "C_HIGHADDR",
            "HIGHVALUE": f"0x{base + REGISTER_RANGE - 1:08X}",
            "INSTANCE": instance,
            "IS_DATA": "TRUE",
            "IS_INSTRUCTION": "TRUE",
            "MASTERBUSINTERFACE": board.control,
            "MEMTYPE": "REGISTER",
            "SLAVEBUSINTERFACE": slave,
        }
        _add(slaves, "MEMRANGE", window)


def _clocks(board: Board, mhz: float) -> dict[str, object]:
    """Return the clocks as pynq reads them when it loads an overlay.

    pynq 3.x takes the dividers; 4.0.0 takes ACT_FREQMHZ, under the name of the MPSoC on both.
    """
    found: dict[str, object] = {}
    divisor, exact = board.divisor(mhz), round(board.clock_mhz(mhz), 6)
    for i in range(4):
        clock = f"PSU__CRL_APB__PL{i}_REF_CTRL__"
        found[f"{clock}ACT_FREQMHZ"] = exact
        if board.family is Family.ZYNQ7:
            found[f"PCW_FPGA_FCLK{i}_ENABLE"] = int(i == 0)
            found[f"PCW_FCLK{i}_PERIPHERAL_DIVISOR0"] = divisor
            found[f"PCW_FCLK{i}_PERIPHERAL_DIVISOR1"] = 1
            found[f"PCW_FCLK{i}_PERIPHERAL_CLKSRC"] = "IO PLL"
        else:
            found[f"PSU__FPGA_PL{i}_ENABLE"] = int(i == 0)
            found |= {f"{clock}DIVISOR0": divisor, f"{clock}DIVISOR1": 1, f"{clock}SRCSEL": "IOPLL"}
            found[f"C_SAXIGP{2 + i}_DATA_WIDTH"] = 64  # of HP port i; pynq sets it up
    return found


def _add_engine(modules: ET.Element, board: Board) -> None:
    module = _add_module(modules, INSTANCE, VLNV, VLNV.split(":")[2])
    block = {
        "ACCESS": "read-write",
        "INTERFACE": CONTROL_SLAVE,
        "NAME": "Reg",
        "RANGE": REGISTER_RANGE,
        "USAGE": "register",
    }
    table = _add(_add(_add(module, "ADDRESSBLOCKS"), "ADDRESSBLOCK", block), "REGISTERS")
    for row in register_rows():
        _add_register(table, row)
    _add(module, "PARAMETERS")
    _add_pin(module, "interrupt", "O", CONTROLLER, "intr")
    buses = _add(module, "BUSINTERFACES")
    _add_bus(buses, CONTROL_SLAVE, "SLAVE", "control", 32)
    for number, port in enumerate(PORTS):
        _add_bus(buses, f"m_axi_{port.bundle}", "MASTER", port_of(board, number).lower(), 64)
    _add(module, "MEMORYMAP")


def _add_controller(modules: ET.Element, board: Board) -> None:
    """Add the controller between the engine's interrupt and the processor."""
    module = _add_module(modules, CONTROLLER, "xilinx.com:ip:axi_intc:4.1", "axi_intc")
    kinds = _add(module, "PARAMETERS")
    _add(kinds, "PARAMETER", {"NAME": "C_KIND_OF_INTR", "VALUE": "0xFFFFFFFF"})  # edges
    _add_pin(module, "intr", "I", INSTANCE, "interrupt")
    _add_pin(module, "irq", "O", f"{board.family.value}_0", board.interrupt)
    _add_bus(_add(module, "BUSINTERFACES"), CONTROLLER_SLAVE, "SLAVE", "control", 32)
    _add(module, "MEMORYMAP")


def _add_register(table: ET.Element, row: Row) -> None:
    register = _add(table, "REGISTER", {"NAME": row.name})
    values = {"DESCRIPTION": row.name, "ADDRESS_OFFSET": row.offset, "SIZE": 32}
    _add_properties(register, {**values, "ACCESS": row.access, "IS_ENABLED": "true"})
    cells = _add(register, "FIELDS")
    for name, low, bits, access in row.fields:
        values = {"DESCRIPTION": name, "ADDRESS_OFFSET": low, "ACCESS": access}
        cell = _add(cells, "FIELD", {"NAME": name})
        _add_properties(cell, {**values, "BIT_OFFSET": low, "BIT_WIDTH": bits})


def _add_properties(parent: ET.Element, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        _add(parent, "PROPERTY", {"NAME": name, "VALUE": value})
