# SPDX-License-Identifier: Apache-2.0
"""The scripts for Vivado under stand-ins of its commands, on every board, and with mistakes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from codegen.ports import PORTS
from deploy.handoff import INSTANCE, handoff, register_rows
from deploy.vivado import SCRIPTS, write_scripts
from tests.conftest import ROOT
from winnow.boards import BOARDS, Board, Family

pytestmark = pytest.mark.skipif(shutil.which("tclsh") is None, reason="needs tclsh")
ALL = pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
STANDIN = ROOT / "tests" / "tcl" / "standin.tcl"


TOP = """// Top
module winnow_engine (
  input  logic        ap_clk,
  input  logic        ap_rst_n,
  /* verilator lint_off SYMRSVDWORD */
  output logic        interrupt,
  input  logic [6:0]  s_axi_control_AWADDR,
  output logic [63:0] m_axi_gmem0_ARADDR,
  input  logic        m_axi_gmem0_RVALID,
  output logic [63:0] m_axi_gmem3_AWADDR
);
  logic rst;
endmodule
"""


def scripts(folder: Path, board: Board = BOARDS["PYNQ-Z2"], mhz: float = 118.0) -> Path:
    (folder / "rtl").mkdir(exist_ok=True)
    (folder / "rtl" / "winnow_engine.sv").write_text(TOP)
    write_scripts(folder / "vivado", folder / "rtl", board, mhz)
    return folder / "vivado"


def play(folder: Path, name: str, slack: str = "0.1") -> tuple[str, list[str]]:
    """Run a script under the stand-ins; return its error, if any, and the calls."""
    log = folder / "calls.log"
    result = subprocess.run(
        ["tclsh", str(STANDIN), str(folder / name), str(log)],
        env={**os.environ, "STANDIN_SLACK": slack},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode == 0) == (result.stderr == "")
    return result.stderr, log.read_text().splitlines()


@ALL
def test_overlay_is_whole_on_every_board(board: Board, tmp_path: Path) -> None:
    error, calls = play(scripts(tmp_path, board), "overlay.tcl")
    assert error == ""
    assert "validate_bd_design" in calls
    text = "\n".join(calls)
    for port in board.memory_ports:
        assert f"/M00_AXI ps/{port}" in text
    for port in PORTS:
        assert text.count(f"connect_bd_intf_net engine/m_axi_{port.bundle} ") == 1
    assert f"-offset {board.base:#x} -range 65536 engine/s_axi_control/Reg" in text
    mhz = 111.111111 if board.family is Family.ZYNQ7 else 115.384615
    assert f"FREQMHZ {mhz}" in text
    assert ("PCW_S_AXI_HP3_DATA_WIDTH 64" in text) == (board.family is Family.ZYNQ7)


@ALL
def test_interrupts_and_addresses_are_those_of_the_simulated_design(
    board: Board, tmp_path: Path
) -> None:
    """pynq finds the way of the interrupt in the .hwh; a virtual board's must be Vivado's."""
    root = ET.fromstring(handoff(board, 100.0))
    cells = {f"{board.family.value}_0": "ps", INSTANCE: "engine", "intc": "intc"}
    wires = set()
    for module in root.iter("MODULE"):
        for port in module.iter("PORT"):
            assert port.get("SIGIS") == "INTERRUPT"
            own = f"{cells[str(module.get('INSTANCE'))]}/{port.get('NAME')}"
            (wire,) = port.iter("CONNECTION")
            other = f"{cells[str(wire.get('INSTANCE'))]}/{wire.get('PORT')}"
            wires.add((own, other) if port.get("DIR") == "O" else (other, own))
    assert wires == {("engine/interrupt", "intc/intr"), ("intc/irq", f"ps/{board.interrupt}")}
    windows = {
        cells[str(w.get("INSTANCE"))]: str(w.get("BASEVALUE")) for w in root.iter("MEMRANGE")
    }
    error, calls = play(scripts(tmp_path, board), "overlay.tcl")
    assert error == ""
    for source, sink in wires:
        assert f"connect_bd_net {source} {sink}" in calls
    for cell, segment in (("engine", "s_axi_control"), ("intc", "S_AXI")):
        (call,) = (call for call in calls if call.endswith(f" {cell}/{segment}/Reg"))
        assert int(call.split()[2], 0) == int(windows[cell], 16)


def test_package_has_the_registers_of_the_interface(tmp_path: Path) -> None:
    error, calls = play(scripts(tmp_path), "package.tcl")
    assert error == ""
    assert f"registers {len(list(register_rows()))}" in calls
    offsets = re.findall(r"set_property address_offset (0x\w+) (\w+)", "\n".join(calls))
    assert {(int(o, 16), n) for o, n in offsets} == {(r.offset, r.name) for r in register_rows()}
    assert any("-vendor winnow -library hls" in call for call in calls)


MISTAKES = [
    ("overlay.tcl", "bus $name/M00_AXI ps/$port", "", "'ps/S_AXI_HP0' is not connected"),
    ("overlay.tcl", "foreach pin $port_clocks { wire $clock ps/$pin }", "", "_ACLK' is not conn"),
    ("overlay.tcl", " engine/ap_rst_n\n", "\n", "'engine/ap_rst_n' is not connected"),
    ("overlay.tcl", "engine/ap_clk\n", "engine/ap_clk engine/ap_clk\n", "is driven by 'ps/FCLK"),
    ("overlay.tcl", "$base + $range", "$base + 4096", "addresses of 'intc/S_AXI/Reg' and 'engine"),
    ("overlay.tcl", "\nassign_bd_address\n", "\n", "the masters have no addresses"),
    ("overlay.tcl", "_DATA_WIDTH 64", "_DATA_WIDTH 32", "must be 64: pynq cannot set another"),
    ("overlay.tcl", "engine/interrupt intc", "engine/irq intc", "no pin 'engine/irq'"),
    ("overlay.tcl", "CONFIG.NUM_MI 2", "CONFIG.NUM_MI 1", "no intf 'control/M01_AXI'"),
    ("settings.tcl", "set version {0.1}", "set version {1.0}", "no block winnow:hls:winnow_engine"),
    ("settings.tcl", "m_axi_gmem4 S_AXI_HP0", "m_axi_gmem4 S_AXI_HP9", "'engine/m_axi_gmem4' is n"),
    ("registers.tcl", "status 0x40", "status 0x10", "two registers are at 16"),
    ("registers.tcl", "  status 0x40", "  cycles 0x40", "there is a register 'cycles' already"),
]


@pytest.mark.parametrize(("name", "before", "after", "text"), MISTAKES)
def test_mistakes_are_caught(name: str, before: str, after: str, text: str, tmp_path: Path) -> None:
    folder = scripts(tmp_path)
    content = (folder / name).read_text()
    assert before in content
    (folder / name).write_text(content.replace(before, after))
    error, _ = play(folder, "package.tcl" if name == "registers.tcl" else "overlay.tcl")
    assert text in error


def test_a_bitstream_that_misses_timing_is_refused(tmp_path: Path) -> None:
    folder = scripts(tmp_path)
    error, calls = play(folder, "overlay.tcl", slack="-0.25")
    assert error.startswith("error: timing is not met at 111.111111 MHz: slack -0.25 ns")
    assert not any("winnow.bit" in call for call in calls)


def test_properties_are_those_of_the_list(root: Path) -> None:
    """Each was seen in public scripts; the list in docs/deploy.md says of what."""
    used = {
        re.sub(r"\$\{?\w+\}?", "N", name)
        for name in re.findall(r"CONFIG\.[\w$.{}]+", (SCRIPTS / "overlay.tcl").read_text())
    }
    listed = set(re.findall(r"`(CONFIG\.[\w.]+)`", (root / "docs" / "deploy.md").read_text()))
    assert used == listed
