# SPDX-License-Identifier: Apache-2.0
"""The .hwh and .bit of a simulated design, and the boards they are written for."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from codegen.emit import emit_engine
from codegen.ports import ALL_REGISTERS, OFFSETS, PORTS
from deploy.bus import REGISTER_RANGE, Bus
from deploy.device import DeviceError
from deploy.driver.winnow_pynq.bundle import VLNV
from deploy.handoff import handoff, port_of, register_rows, write_overlay
from winnow.boards import BOARDS, Board, Family, find_board
from winnow.config import TargetConfig
from winnow.engine import EngineConfig
from winnow.errors import ConfigError
from winnow.parts import find_part

DIGEST = bytes(range(32))
ALL = pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))


def test_rows_are_the_words_of_the_interface() -> None:
    rows = {row.offset: row for row in register_rows()}
    words = {r.offset + 4 * i for r in ALL_REGISTERS for i in range(r.bits // 32)}
    assert set(rows) == words
    assert rows[OFFSETS["program"]].name == "program_1"
    assert rows[OFFSETS["program"] + 4].name == "program_2"
    assert rows[OFFSETS["status"]].access == "read-only"
    assert rows[OFFSETS["feature_words"]].access == "read-write"
    assert rows[OFFSETS["engine_id"] + 4].access == "read-only"
    assert rows[OFFSETS["watchdog"]].access == "read-write"
    assert all(access != "write-only" for row in rows.values() for *_, access in row.fields)


@ALL
def test_handoff_has_the_processor_the_engine_and_its_registers(board: Board) -> None:
    root = ET.fromstring(handoff(board, 120.0))
    processor, engine, controller = root.findall("MODULES/MODULE")
    assert processor.get("IS_PL") == "FALSE"
    assert str(processor.get("VLNV")).split(":")[2] == board.family.value
    assert engine.get("VLNV") == VLNV
    windows = processor.findall("MEMORYMAP/MEMRANGE")
    bases = (board.base, board.base + REGISTER_RANGE)
    for window, base, block in zip(windows, bases, (engine, controller), strict=True):
        assert window.get("BASEVALUE") == f"0x{base:08X}"
        assert window.get("INSTANCE") == block.get("INSTANCE")
    table = {
        register.get("NAME"): {p.get("NAME"): p.get("VALUE") for p in register.findall("PROPERTY")}
        for register in engine.iter("REGISTER")
    }
    found = {name: int(str(values["ADDRESS_OFFSET"])) for name, values in table.items()}
    assert found == {row.name: row.offset for row in register_rows()}
    masters = [bus for bus in engine.iter("BUSINTERFACE") if bus.get("TYPE") == "MASTER"]
    assert [bus.get("NAME") for bus in masters] == [f"m_axi_{port.bundle}" for port in PORTS]


@ALL
def test_clock_is_the_fastest_that_is_not_above(board: Board) -> None:
    parameters = {
        str(p.get("NAME")): str(p.get("VALUE"))
        for p in ET.fromstring(handoff(board, 150.0)).iter("PARAMETER")
    }
    exact = float(parameters["PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ"])
    zynq7 = board.family is Family.ZYNQ7
    name = "PCW_FCLK0_PERIPHERAL_" if zynq7 else "PSU__CRL_APB__PL0_REF_CTRL__"
    divisors = [int(parameters[f"{name}DIVISOR{i}"]) for i in (0, 1)]
    assert board.pll_mhz / divisors[0] / divisors[1] == pytest.approx(exact)
    assert exact == pytest.approx(142.857143 if zynq7 else 150.0)
    for mhz in (100.0, 118.0, 33.3):
        assert board.clock_mhz(mhz) <= mhz < board.pll_mhz / (board.divisor(mhz) - 1)


@ALL
def test_masters_have_a_port_each_and_the_rest_share_the_first(board: Board) -> None:
    ports = [port_of(board, number) for number in range(len(PORTS))]
    assert ports[:4] == list(board.memory_ports)
    assert set(ports[4:]) == {board.memory_ports[0]}


@ALL
def test_boards_are_named_whole(board: Board) -> None:
    assert len(board.board_part.split(":")) == 4 or board.name == "KV260"
    assert find_board(board.name.upper()) is board
    assert board.arch == ("armv7l" if board.family is Family.ZYNQ7 else "aarch64")


def test_the_zynq7_boards_hold_the_default_part() -> None:
    assert find_part(BOARDS["PYNQ-Z2"].part).device is find_part(TargetConfig().part).device


def test_an_unknown_board_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"one of PYNQ-Z1, PYNQ-Z2, Ultra96-V2, .*, got 'Zybo'"):
        find_board("Zybo")


def test_overlay_changes_its_name_with_its_content(tmp_path: Path) -> None:
    board = BOARDS["PYNQ-Z2"]
    names = {
        write_overlay(tmp_path, board, digest, mhz).name
        for digest in (DIGEST, DIGEST[::-1])
        for mhz in (100.0, 50.0)
    }
    assert len(names) == 4
    assert {path.stem for path in tmp_path.glob("*.hwh")} == {Path(n).stem for n in names}


def test_bitstream_is_known_by_its_hash_in_either_byte_order(tmp_path: Path) -> None:
    class Device:
        def configure(self) -> None:
            pass

    bit = write_overlay(tmp_path, BOARDS["KV260"], DIGEST).read_bytes()
    bus = Bus(Device(), DIGEST)  # type: ignore[arg-type]
    bus.configure(bit)
    at = bit.index(DIGEST)
    words = [bit[i : i + 4][::-1] for i in range(at % 4, len(bit), 4)]
    bus.configure(b"".join(words))
    with pytest.raises(DeviceError, match="another build"):
        bus.configure(bit.replace(DIGEST, DIGEST[::-1]))


def test_vitis_would_export_the_same_block(tmp_path: Path) -> None:
    emit_engine(tmp_path, EngineConfig(), TargetConfig())
    script = (tmp_path / "csynth.tcl").read_text()
    vendor, library, top, version = VLNV.split(":")
    assert f"-vendor {vendor} -library {library} -version {version}" in script
    assert f"set_top {top}" in script
