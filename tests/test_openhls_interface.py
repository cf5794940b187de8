# SPDX-License-Identifier: Apache-2.0
"""The interface pragmas of a top function: registers and AXI masters, and every refusal."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from codegen.abi import engine_signature
from codegen.emit import emit_engine
from codegen.ports import ADDED_REGISTERS, PORTS, REGISTERS
from openhls.errors import HlsError
from openhls.interface import FIRST_ARGUMENT, ArgumentRegister, Interface, parse_interface
from openhls.top import added_offsets
from winnow.config import TargetConfig
from winnow.engine import EngineConfig

PRAGMA = "#pragma HLS interface"
MASTER = f"{PRAGMA} mode = m_axi port = a bundle = gmem0 offset = slave\n"
BASE = f"{PRAGMA} mode = s_axilite port = a bundle = control offset = 0x10\n"
RESULT = f"{PRAGMA} mode = s_axilite port = status bundle = control offset = 0x1c\n"
RETURN = f"{PRAGMA} mode = s_axilite port = return bundle = control\n"


def test_masters_and_registers_are_read() -> None:
    interface = parse_interface("void f() {\n" + MASTER + BASE + RESULT + RETURN + "}\n")
    registers = (ArgumentRegister("a", 0x10, 64), ArgumentRegister("status", 0x1C, 32))
    assert interface == Interface({"a": "gmem0"}, registers)
    assert [(r.word, r.words) for r in registers] == [(0, 2), (3, 1)]


def test_registers_are_in_order_of_offset() -> None:
    interface = parse_interface(RESULT + BASE + MASTER)
    assert [register.name for register in interface.registers] == ["a", "status"]


def test_last_register_is_followed_by_a_reserved_word() -> None:
    assert parse_interface(RESULT).end_offset == 0x1C + 2 * 4
    assert parse_interface(MASTER + BASE).end_offset == 0x10 + 3 * 4


@pytest.mark.parametrize(
    "line",
    [
        "#pragma HLS INTERFACE mode=s_axilite port=n offset=16",
        "  #  pragma  HLS  interface  PORT = n  Mode = s_axilite  offset = 0x10",
        "#pragma hls interface offset=0x10 port=n mode=s_axilite bundle=control",
    ],
)
def test_spelling_is_free(line: str) -> None:
    assert parse_interface(f"{line}\n").registers == (ArgumentRegister("n", FIRST_ARGUMENT, 32),)


def test_other_pragmas_are_not_interfaces() -> None:
    source = "#pragma HLS dataflow\n// #pragma HLS interface mode = other\n" + RESULT
    assert [register.name for register in parse_interface(source).registers] == ["status"]


ILLEGAL = {
    f"{PRAGMA} mode = m_axi bundle = g\n": (
        f"{PRAGMA} mode = m_axi bundle = g: must have port = NAME and mode = m_axi or s_axilite"
    ),
    f"{PRAGMA} port = a\n": (
        f"{PRAGMA} port = a: must have port = NAME and mode = m_axi or s_axilite"
    ),
    f"{PRAGMA} mode = axis port = a\n": (
        f"{PRAGMA} mode = axis port = a: must have port = NAME and mode = m_axi or s_axilite"
    ),
    f"{PRAGMA} mode = m_axi port = a\n": (
        f"{PRAGMA} mode = m_axi port = a: an m_axi port must name its bundle"
    ),
    f"{PRAGMA} mode = s_axilite port = a\n": (
        f"{PRAGMA} mode = s_axilite port = a: a register must state its offset"
    ),
    MASTER + MASTER.replace("port = a", "port = b") + BASE: (
        "every m_axi port must have a bundle of its own"
    ),
    "": "the top function must have at least one s_axilite argument",
    RETURN: "the top function must have at least one s_axilite argument",
    MASTER + RESULT: "port 'a' must have an s_axilite offset for its base address",
}


@pytest.mark.parametrize("source", ILLEGAL)
def test_illegal_interface_is_refused(source: str) -> None:
    with pytest.raises(HlsError) as caught:
        parse_interface(source)
    assert str(caught.value) == ILLEGAL[source]


def test_engine_has_the_registers_of_the_abi() -> None:
    with tempfile.TemporaryDirectory() as folder:
        emit_engine(Path(folder), EngineConfig(), TargetConfig())
        interface = parse_interface((Path(folder) / "src" / "top.cpp").read_text(encoding="utf-8"))
    found = [(register.name, register.offset) for register in interface.registers]
    assert found == [(register.name, register.offset) for register in REGISTERS]
    assert added_offsets(interface) == {r.name: r.offset for r in ADDED_REGISTERS}
    assert interface.design == engine_signature(EngineConfig())
    assert interface.masters == {port.name: port.bundle for port in PORTS}
