# SPDX-License-Identifier: Apache-2.0
"""The cocotb bench: its AXI models against pins moved by hand, and the bench on the RTL."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from codegen.emit import emit_data, emit_engine
from codegen.interpret import interpret
from codegen.schedule import schedule
from openhls.project import compile_design, openhls_hash
from sim import rtl
from sim.axi import (
    DECERR,
    MAX_OUTSTANDING,
    OKAY,
    SLVERR,
    AxiError,
    Memory,
    ReadSlave,
    Region,
    Stall,
    WriteSlave,
)
from sim.verilator import BuildLock, content_hash
from tests.engines import CACHE, chain_case
from tests.ladder import random_images
from winnow.config import TargetConfig
from winnow.engine import EngineConfig
from winnow.errors import ArtefactError, MismatchError, ToolError

BASE, SIZE = 0x1000, 0x2000


class Pin:
    """A pin of a design that is not there."""

    def __init__(self, width: int) -> None:
        self.width, self.value = width, 0

    def __len__(self) -> int:
        return self.width


def make_dut() -> SimpleNamespace:
    """Return the pins of a 64-bit master `bus`; its requests are legal bursts."""
    widths = {"DATA": 64, "ADDR": 64, "LEN": 8, "STRB": 8, "SIZE": 3, "BURST": 2, "RESP": 2}
    names = [f"{c}{n}" for c in ("AR", "AW") for n in ("VALID", "READY", *list(widths)[1:])]
    names += [f"{c}{n}" for c in "RW" for n in ("VALID", "READY", "DATA", "STRB", "RESP", "LAST")]
    names += ["BVALID", "BREADY", "BRESP"]
    dut = SimpleNamespace()
    for name in names:
        part = next((part for part in widths if name.endswith(part)), "")
        setattr(dut, f"m_axi_bus_{name}", Pin(widths.get(part, 1)))
    for channel in ("AR", "AW"):
        drive(dut, **{f"{channel}SIZE": 3, f"{channel}BURST": 1})
    return dut


def drive(dut: SimpleNamespace, **values: int) -> None:
    for name, value in values.items():
        getattr(dut, f"m_axi_bus_{name}").value = value


def see(dut: SimpleNamespace, name: str) -> int:
    return int(getattr(dut, f"m_axi_bus_{name}").value)


def make_memory() -> Memory:
    return Memory([Region(BASE, bytearray(i % 251 for i in range(SIZE)))])


def word(memory: Memory, address: int) -> int:
    return memory.read(address, 8)[0]


# --- memory and stalls ------------------------------------------------------------------------


def test_memory_is_little_endian_and_honours_strobes() -> None:
    memory = make_memory()
    assert memory.read(BASE, 8) == (0x0706050403020100, OKAY)
    assert memory.write(BASE, 0xFFEEDDCCBBAA9988, 0b10000101, 8) == OKAY
    assert word(memory, BASE) == 0xFF06050403AA0188


@pytest.mark.parametrize("address", [BASE - 1, BASE + SIZE - 7, 0])
def test_access_outside_of_memory_answers_decerr(address: int) -> None:
    memory = make_memory()
    assert memory.read(address, 8) == (0, DECERR)
    assert memory.write(address, 0, 0xFF, 8) == DECERR


def test_region_answers_with_its_error() -> None:
    memory = make_memory()
    memory.regions[0].error = SLVERR
    assert memory.read(BASE, 8)[1] == SLVERR
    assert memory.write(BASE, 0, 0xFF, 8) == SLVERR


def test_stalls_follow_percent_and_seed() -> None:
    stall, again, other = Stall(30, 1), Stall(30, 1), Stall(30, 2)
    stalls = [stall() for _ in range(10_000)]
    assert 0.28 < np.mean(stalls) < 0.32
    assert stalls == [again() for _ in stalls] != [other() for _ in stalls]
    assert not Stall(0, 1)()


# --- reads ------------------------------------------------------------------------------------


def read_bursts(requests: list[tuple[int, int]], percent: int) -> tuple[list[int], int]:
    """Read (address, beats) bursts as a master that is always ready; return words and cycles."""
    dut, left, words, cycles = make_dut(), list(requests), list[int](), 0
    slave = ReadSlave(dut, "bus", make_memory(), Stall(percent, 3))
    drive(dut, RREADY=1)
    ends = set(np.cumsum([beats for _, beats in requests]).tolist())
    while len(words) < max(ends):
        drive(dut, ARVALID=bool(left))
        if left:
            drive(dut, ARADDR=left[0][0], ARLEN=left[0][1] - 1)
        accepted = left and see(dut, "ARREADY")
        if see(dut, "RVALID"):
            words.append(see(dut, "RDATA"))
            assert see(dut, "RLAST") == (len(words) in ends)
            assert see(dut, "RRESP") == OKAY
        slave.step()
        if accepted:
            left.pop(0)
        cycles += 1
    assert slave.beats == len(words)
    assert slave.address.addresses == [address for address, _ in requests]
    return words, cycles


@pytest.mark.parametrize("percent", [0, 30, 90])
def test_reads_deliver_every_word_in_order(percent: int) -> None:
    requests = [(BASE, 16), (BASE + 0x800, 1), (BASE + 0x1000, 256)]
    words, _ = read_bursts(requests, percent)
    memory = make_memory()
    assert words == [word(memory, a + 8 * i) for a, beats in requests for i in range(beats)]


def test_stalls_of_reads_take_their_share() -> None:
    requests = [(BASE, 256), (BASE + 0x1000, 256)]
    assert read_bursts(requests, 0)[1] < 512 + 8
    assert 512 / 0.75 < read_bursts(requests, 30)[1] < 512 / 0.65


def test_outstanding_reads_are_bounded() -> None:
    dut = make_dut()
    slave = ReadSlave(dut, "bus", make_memory(), Stall(0, 0))
    drive(dut, ARVALID=1, ARADDR=BASE)
    for _ in range(50):
        slave.step()
    assert len(slave.bursts) == MAX_OUTSTANDING
    assert not see(dut, "ARREADY")


# --- writes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0, 30, 90])
def test_writes_reach_memory(percent: int) -> None:
    dut, memory, beats = make_dut(), make_memory(), 5
    slave = WriteSlave(dut, "bus", memory, Stall(percent, 3))
    before = word(memory, BASE + 8 * beats)
    drive(dut, AWVALID=1, AWADDR=BASE, AWLEN=beats - 1, WVALID=1, WSTRB=0xFF, BREADY=1)
    sent = responses = 0
    while not responses:
        drive(dut, WDATA=0x100 + sent, WLAST=sent == beats - 1)
        address, data = see(dut, "AWREADY"), see(dut, "WREADY")
        responses += see(dut, "BVALID")
        slave.step()
        if address:
            drive(dut, AWVALID=0)
        sent += data
        drive(dut, WVALID=sent < beats)
    assert see(dut, "BRESP") == OKAY
    assert [word(memory, BASE + 8 * i) for i in range(beats)] == [0x100 + i for i in range(beats)]
    assert word(memory, BASE + 8 * beats) == before


def test_one_bad_beat_makes_the_whole_response_bad() -> None:
    dut, last = make_dut(), BASE + SIZE - 8
    slave = WriteSlave(dut, "bus", make_memory(), Stall(0, 0))
    slave.bursts.append(SimpleNamespace(address=last, beats=2, response=OKAY))
    for beat in range(2):
        slave._take_beat(0, 0xFF, beat == 1)
    slave.step()
    assert (see(dut, "BVALID"), see(dut, "BRESP")) == (1, DECERR)


# --- rules ------------------------------------------------------------------------------------

BAD_REQUESTS = (
    ({"ADDR": BASE + 4}, "bus: address 0x1004 is not aligned to 8 bytes"),
    ({"ADDR": BASE + 0xFF8, "LEN": 1}, "bus: burst at 0x1ff8 of 2 beats crosses 4 KiB"),
    ({"ADDR": BASE, "SIZE": 2}, "bus: size 2, burst 1 is not one full word after one"),
    ({"ADDR": BASE, "BURST": 0}, "bus: size 3, burst 0 is not one full word after one"),
)


@pytest.mark.parametrize(("slave_class", "channel"), [(ReadSlave, "AR"), (WriteSlave, "AW")])
@pytest.mark.parametrize(("request_", "message"), BAD_REQUESTS)
def test_bad_request_is_named(
    slave_class: type[ReadSlave | WriteSlave], channel: str, request_: dict[str, int], message: str
) -> None:
    dut = make_dut()
    slave = slave_class(dut, "bus", make_memory(), Stall(0, 0))
    slave.step()  # raises READY
    drive(dut, **{f"{channel}{name}": value for name, value in request_.items()})
    drive(dut, **{f"{channel}VALID": 1})
    with pytest.raises(AxiError, match=re.escape(message)):
        slave.step()


@pytest.mark.parametrize(
    ("slave_class", "channel", "payload"),
    [(ReadSlave, "AR", "ADDR"), (WriteSlave, "AW", "LEN"), (WriteSlave, "W", "DATA")],
)
def test_valid_and_payload_hold_until_ready(
    slave_class: type[ReadSlave | WriteSlave], channel: str, payload: str
) -> None:
    for change, message in (
        ({f"{channel}VALID": 0}, f"bus: {channel}VALID was withdrawn before {channel}READY"),
        ({f"{channel}{payload}": 8}, f"bus: {channel} changed before {channel}READY"),
    ):
        dut = make_dut()
        slave = slave_class(dut, "bus", make_memory(), Stall(100, 0))
        drive(dut, **{f"{channel}VALID": 1})
        slave.step()
        slave.step()
        drive(dut, **change)
        with pytest.raises(AxiError, match=message):
            slave.step()


@pytest.mark.parametrize(("beats", "last"), [(1, 0), (2, 1)])
def test_wlast_on_the_wrong_beat_is_named(beats: int, last: int) -> None:
    slave = WriteSlave(make_dut(), "bus", make_memory(), Stall(0, 0))
    slave.bursts.append(SimpleNamespace(address=BASE, beats=beats, response=OKAY))
    with pytest.raises(AxiError, match="bus: WLAST on the wrong beat"):
        slave._take_beat(0, 0xFF, last)


# --- the bench on the RTL ---------------------------------------------------------------------


@cache
def rtl_folder() -> Path:
    """Return the SystemVerilog of the default engine, cached by content."""
    with tempfile.TemporaryDirectory() as work:
        project = Path(work)
        files = emit_engine(project, EngineConfig(), TargetConfig())
        tools = [version("ziglang"), version("xls-python")]
        templates = sorted((Path(rtl.HERE.parent) / "openhls" / "templates").iterdir())
        key = content_hash([*files, *templates], openhls_hash(), *tools)
        folder = CACHE / f"rtl-{key}"
        with BuildLock(folder):
            if not (folder / "report.json").is_file():  # written last
                top, include = project / "src" / "top.cpp", project / "include"
                compile_design(top, [include], rtl.TOP, folder, CACHE / "openhls")
    return folder


def make_job(folder: Path, stall: int) -> rtl.CocotbJob:
    """Return a job of one image through a random chain of three layers."""
    graph = chain_case(3, 3)
    images = random_images(graph, 1, 1)
    emit_data(folder, schedule(graph, EngineConfig()))
    layers = {f"layer.{name}": maps for name, maps in interpret(graph, images).items()}
    np.savez(folder / "golden.npz", images=images, **layers)
    return rtl.CocotbJob(folder, folder / "golden.npz", images=1, stall=stall)


@pytest.mark.slow
def test_all_tests_pass_with_stalls_and_leave_the_environment_alone(tmp_path: Path) -> None:
    before = dict(os.environ)
    result = rtl.run_cocotb(rtl_folder(), make_job(tmp_path, 30), CACHE, tmp_path)
    assert result.passed == (
        "network_equals_the_model",
        "reset_in_mid_run_recovers",
        "start_while_busy_is_harmless",
        "corrupt_program_ends_with_its_status",
        "memory_errors_are_reported",
    )
    assert len(result.cycles) == 1
    assert result.cycles_per_second >= 5000
    assert dict(os.environ) == before


@pytest.mark.slow
def test_mismatch_is_one_line(tmp_path: Path) -> None:
    job = replace(make_job(tmp_path, 0), tests=("network_equals_the_model",))
    with np.load(job.golden) as arrays:
        damaged = dict(arrays)
    name = [name for name in damaged if name.startswith("layer.")][1]
    damaged[name][0, 1, 0, 0] ^= 1
    np.savez(job.golden, **damaged)
    with pytest.raises(MismatchError) as caught:
        rtl.run_cocotb(rtl_folder(), job, CACHE, tmp_path)
    assert re.fullmatch(
        rf"cocotb: network_equals_the_model failed: layer '{name[6:]}': image 0, channel 1, y 0, "
        rf"x 0 must be -?\d+, got -?\d+; 1 of \d+ values differ; see '.*cocotb\.log'",
        str(caught.value),
    )


def test_missing_files_are_named(tmp_path: Path) -> None:
    job = rtl.CocotbJob(tmp_path, tmp_path / "golden.npz", 1, 0)
    with pytest.raises(ToolError, match="holds no RTL"):
        rtl.run_cocotb(tmp_path, job, CACHE, tmp_path)
    (tmp_path / "top.sv").write_text("")
    with pytest.raises(ArtefactError, match=r"program\.bin' is missing; make it with: make hls"):
        rtl.run_cocotb(tmp_path, job, CACHE, tmp_path)


def test_log_without_results_is_a_failure(tmp_path: Path) -> None:
    log = tmp_path / "cocotb.log"
    log.write_text("ModuleNotFoundError: No module named 'x'\n")
    with pytest.raises(MismatchError, match="the bench failed: No module named 'x'"):
        rtl._cocotb_result(log, tmp_path / "none.json")
    log.write_text("** sim.engine_bench.first  PASS\n** sim.engine_bench.second  FAIL\n")
    with pytest.raises(MismatchError, match="cocotb: second failed: "):
        rtl._cocotb_result(log, tmp_path / "none.json")
    log.write_text("** sim.engine_bench.first  PASS\n")
    numbers = tmp_path / "cycles.json"
    numbers.write_text(json.dumps({"cycles": [5], "cycles_per_second": 9}))
    assert rtl._cocotb_result(log, numbers) == rtl.CocotbResult(("first",), [5], 9, log)
