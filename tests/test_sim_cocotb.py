# SPDX-License-Identifier: Apache-2.0
"""The cocotb bench: its AXI models against pins moved by hand, and the bench on the RTL."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from codegen.emit import emit_data, emit_engine
from codegen.ir import Graph
from codegen.layout import pack_features
from codegen.schedule import schedule
from openhls.project import compile_design
from sim import rtl
from sim.axi import (
    DECERR,
    MAX_OUTSTANDING,
    OKAY,
    SLVERR,
    AddressRange,
    AxiError,
    Memory,
    ReadSlave,
    Stall,
    WriteSlave,
)
from sim.contract import CHANNELS, LITE_PINS, require_top
from sim.verilator import content_hash
from tests.engines import CACHE, chain_case, expected_maps
from tests.ladder import random_images
from tests.test_sim_rtl import losing_a_beat
from winnow.cache import lock
from winnow.code_hash import code_hash, files_hash
from winnow.config import TargetConfig
from winnow.engine import EngineConfig
from winnow.errors import ArtefactError, MismatchError, ToolError

OPENHLS = code_hash(["openhls.project"]) + files_hash(["openhls/include", "openhls/rtl"])

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
    return Memory([AddressRange(BASE, bytearray(i % 251 for i in range(SIZE)))])


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
        key = content_hash([*files, *templates], OPENHLS, *tools)
        folder = CACHE / f"rtl-{key}"
        with lock(folder):
            if not (folder / "report.json").is_file():  # written last
                top, include = project / "src" / "top.cpp", project / "include"
                compile_design(top, [include], rtl.TOP, folder, CACHE / "openhls")
    return folder


def make_job(folder: Path, stall: int, graph: Graph | None = None) -> rtl.CocotbJob:
    """Return a job of one image through a graph or a random chain of 3 layers; two are there."""
    graph = graph or chain_case(3, 3)
    images = random_images(graph, 1, 2)
    emit_data(folder, schedule(graph, EngineConfig()))
    layers = {f"layer.{name}": maps for name, maps in expected_maps(graph, images).items()}
    np.savez(folder / "golden.npz", images=images, **layers)
    return rtl.CocotbJob(folder, folder / "golden.npz", images=1, stall=stall)


@pytest.mark.slow
def test_all_tests_pass_with_stalls_and_leave_the_environment_alone(tmp_path: Path) -> None:
    before = dict(os.environ)
    result = rtl.run_cocotb(rtl_folder(), make_job(tmp_path, 30), CACHE, tmp_path)
    assert result.passed == (
        "network_equals_the_model",
        "one_start_runs_several_images",
        "reset_in_mid_run_recovers",
        "start_while_busy_is_harmless",
        "registers_take_address_and_data_in_any_order",
        "corrupt_program_ends_with_its_status",
        "memory_errors_are_reported",
        "engine_is_identified",
        "abort_ends_a_run",
        "run_without_end_is_stopped",
    )
    assert len(result.cycles) == 1
    assert result.cycles_per_second > 0
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


@pytest.mark.slow
def test_hang_names_who_waits_for_whom(tmp_path: Path) -> None:
    """A beat of weights gets lost on its way."""
    job = replace(make_job(tmp_path, 0), tests=("network_equals_the_model",))
    broken = losing_a_beat(rtl_folder(), tmp_path / "rtl")
    with pytest.raises(MismatchError) as caught:
        rtl.run_cocotb(broken, job, CACHE, tmp_path)
    assert re.fullmatch(
        r"cocotb: network_equals_the_model failed: "
        r"the engine hangs \(no AXI beat for 50000 cycles\): cyclic wait: "
        r"'configure' waits for data on stream 'descriptor' \(empty\); "
        r"'read_weights' waits for data on stream 'read_weights_config' \(empty\); "
        r"'unpack_weights' waits for data on stream 'beats' \(empty\); .*"
        r"'control' waits for data on stream 'write_bursts_done' \(empty\); see '.*'",
        str(caught.value),
    )


@pytest.mark.slow
def test_error_response_is_one_line(tmp_path: Path) -> None:
    """A layer whose weights lie outside of all memory."""
    job = replace(make_job(tmp_path, 0), tests=("network_equals_the_model",))
    plan = schedule(chain_case(3, 3), EngineConfig())
    layers = list(plan.layers)
    layers[1] = replace(layers[1], values=layers[1].values | {"weight_base": 1 << 24})
    emit_data(tmp_path, replace(plan, layers=tuple(layers)))
    message = r"failed: the engine saw an error response on m_axi_gmem1; see"
    with pytest.raises(MismatchError, match=message):
        rtl.run_cocotb(rtl_folder(), job, CACHE, tmp_path)


# --- RTL of another tool ----------------------------------------------------------------------

# Pins of a Vitis export that openhls leaves out, by channel.
_EXTRA_OUT = {"AR": "ID LOCK QOS REGION USER", "AW": "ID LOCK QOS REGION USER", "W": "ID USER"}
_EXTRA_IN = {"R": "ID USER", "B": "ID USER"}


def vitis_pins() -> dict[str, tuple[str, int]]:
    """Return direction and width of the pins of a Vitis export: both directions of each master."""
    pins = {"ap_clk": ("input", 1), "ap_rst_n": ("input", 1), "interrupt": ("output", 1)}
    widths = {"DATA": 32, "STRB": 4, "RESP": 2, "AWADDR": 7, "ARADDR": 7}
    for name in LITE_PINS:
        driven = name in ("AWREADY", "WREADY", "ARREADY") or (
            name[0] in "BR" and name[1:] != "READY"
        )
        width = next((bits for part, bits in widths.items() if name.endswith(part)), 1)
        pins[f"s_axi_control_{name}"] = ("output" if driven else "input", width)
    sizes = {"ADDR": 64, "LEN": 8, "SIZE": 3, "BURST": 2, "DATA": 64, "STRB": 8, "RESP": 2}
    for master in ("gmem0", "gmem1", "gmem2", "gmem3", "gmem4"):
        for channel, parts in CHANNELS.items():
            for part in parts:
                out = (part == "READY") == (channel in "RB")
                pins[f"m_axi_{master}_{channel}{part}"] = (
                    "output" if out else "input",
                    sizes.get(part, 1),
                )
        for way, extra in (("output", _EXTRA_OUT), ("input", _EXTRA_IN)):
            for channel, text in extra.items():
                pins |= {f"m_axi_{master}_{channel}{part}": (way, 1) for part in text.split()}
    return pins


def vitis_wrapper(core: str = "") -> str:
    """Return a top module as Vitis writes it: Verilog-95 ports; it needs its memory to interrupt.

    `core` is the text of the instance inside; its interrupt is `core_interrupt`.
    """
    pins = vitis_pins()
    lines = ["`timescale 1 ns / 1 ps", "module winnow_engine (", ",\n".join(pins), ");"]
    lines += [f"{way} [{bits - 1}:0] {name};" for name, (way, bits) in pins.items()]
    lines += ["wire core_interrupt;", "reg [7:0] rom[0:0];"]
    lines += ['initial $readmemh("./winnow_engine_rom.dat", rom);']
    lines += ["assign interrupt = core_interrupt && rom[0] == 8'ha5;", core, "endmodule", ""]
    return "\n".join(lines)


def as_vitis_export(ours: Path, folder: Path) -> None:
    """Write our RTL as another tool would: other file names, one more level, more pins, a .dat."""
    pins = vitis_pins()
    text = (ours / "winnow_engine.sv").read_text()
    inner = re.search(r"module winnow_engine \((.*?)\);", text, re.DOTALL)
    assert inner is not None
    names = [name for name in pins if re.search(rf"\b{name}\b", inner.group(1))]
    links = [f".{n}({'core_interrupt' if n == 'interrupt' else n})" for n in names]
    core = f"winnow_engine_core core ({', '.join(links)});"
    for path in ours.glob("*.sv"):
        text = path.read_text().replace("module winnow_engine (", "module winnow_engine_core (")
        (folder / f"winnow_engine_{path.stem}.v").write_text(text)
    (folder / "winnow_engine.v").write_text(vitis_wrapper(core))
    (folder / "winnow_engine_rom.dat").write_text("a5\n")


@pytest.mark.slow
def test_rtl_of_another_tool_passes_all_tests(tmp_path: Path) -> None:
    """The pins are the contract: no names of files, no axi_error, no wires for hangs."""
    export, work = tmp_path / "verilog", tmp_path / "work"
    export.mkdir()
    as_vitis_export(rtl_folder(), export)
    result = rtl.run_cocotb(export, make_job(tmp_path, 30), CACHE, work)
    assert len(result.passed) == 10
    assert not (export / "wait_for_graph.json").exists()


def test_folder_without_the_top_module_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.v").write_text("module winnow_engine_2 ();\nendmodule\n")
    job = rtl.CocotbJob(tmp_path, tmp_path / "golden.npz", 1, 0)
    with pytest.raises(ToolError) as caught:
        rtl.run_cocotb(tmp_path, job, CACHE, tmp_path)
    assert str(caught.value) == (
        f"'{tmp_path}' has no module 'winnow_engine': the top function must keep its name"
    )


def test_missing_pins_are_named(tmp_path: Path) -> None:
    path = tmp_path / "winnow_engine.v"
    path.write_text(vitis_wrapper().replace("gmem1_RLAST", "gmem1_OTHER"))
    job = rtl.CocotbJob(tmp_path, tmp_path / "golden.npz", 1, 0)
    with pytest.raises(ToolError) as caught:
        rtl.run_cocotb(tmp_path, job, CACHE, tmp_path)
    assert str(caught.value) == (
        f"module 'winnow_engine' of '{path}' lacks 1 pins: m_axi_gmem1_RLAST"
    )
    path.write_text("module winnow_engine(input wire ap_clk);\nendmodule\n")
    with pytest.raises(ToolError, match=r"lacks \d+ pins: ap_rst_n, interrupt, .*, \.\.\.$"):
        rtl.run_cocotb(tmp_path, job, CACHE, tmp_path)


def test_our_top_has_every_pin_of_the_contract() -> None:
    folder = rtl_folder()
    require_top(folder, rtl.rtl_sources(folder), rtl.TOP)


STUB = """module winnow_engine(input wire ap_clk, output wire moves, input wire m_axi_gmem3_WVALID,
    input wire m_axi_gmem3_WREADY, input wire [63:0] m_axi_gmem3_WDATA);
  assign moves = m_axi_gmem3_WVALID & m_axi_gmem3_WREADY;
endmodule
"""


def written_words(waves: Path, folder: Path) -> list[int]:
    """Return the words that cross gmem3 in a file of waveforms, as Yosys reads them."""
    stub, dump = folder / "stub.v", folder / "pins.vcd"
    stub.write_text(STUB)
    commands = [f"read_verilog {stub}", "hierarchy -top winnow_engine"]
    commands.append(f"sim -r {waves} -scope winnow_engine -clock ap_clk -q -vcd {dump}")
    lines = ["from pyosys import libyosys", "design = libyosys.Design()"]
    lines += [f"design.run_pass({command!r})" for command in commands]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True)
    names = dict(re.findall(r"\$var \w+ \d+ (\S+) (\w+)", dump.read_text()))
    values, words = dict.fromkeys(names.values(), 0), []
    for step in re.split(r"^#\d+$", dump.read_text(), flags=re.MULTILINE)[1:]:
        before = dict(values)
        for bits, code in re.findall(r"^b(\d+) (\S+)$", step, re.MULTILINE):
            values[names[code]] = int(bits, 2)
        if before["moves"] and values["ap_clk"] > before["ap_clk"]:
            words.append(before["m_axi_gmem3_WDATA"])
    return words


@pytest.mark.slow
def test_waveforms_hold_the_words_that_memory_got(tmp_path: Path) -> None:
    """The FST file against the golden maps: each word of a layer crosses the port once."""
    job = replace(make_job(tmp_path, 0), tests=("network_equals_the_model",), waves=True)
    result = rtl.run_cocotb(rtl_folder(), job, CACHE, tmp_path)
    assert result.waves is not None
    words = written_words(result.waves, tmp_path)
    plan = schedule(chain_case(3, 3), EngineConfig())
    assert len(words) == sum(layer.result.words for layer in plan.layers)
    with np.load(job.golden) as arrays:
        for layer in plan.layers[:-1]:  # the last one's are raw accumulators, laid out otherwise
            maps = arrays[f"layer.{layer.name}"].astype(np.int64)
            expected = pack_features(layer.result.tensor, maps).view("<u8").ravel().tolist()
            found, words = words[: len(expected)], words[len(expected) :]
            assert sorted(found) == sorted(expected), layer.name


def test_missing_files_are_named(tmp_path: Path) -> None:
    job = rtl.CocotbJob(tmp_path, tmp_path / "golden.npz", 1, 0)
    with pytest.raises(ToolError, match="holds no RTL"):
        rtl.run_cocotb(tmp_path, job, CACHE, tmp_path)
    (tmp_path / "top.sv").write_text(vitis_wrapper())
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
