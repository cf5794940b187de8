# SPDX-License-Identifier: Apache-2.0
"""Run networks on the RTL: in the plain C++ harness (fast) and under cocotb (thorough).

Both talk to the design through AXI only and compare every layer's map with the golden model.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from codegen import ports
from codegen.abi import STATUS_TEXT, Status
from codegen.emit import abi_header, emit_data
from codegen.fuse import LayerMaps
from codegen.pack import Bytes
from codegen.schedule import LayerPlan, Schedule
from openhls import deadlock
from openhls.deadlock import Snapshot, WaitForGraph
from sim.contract import axi_error_ports, require_top
from sim.csim import Starts, layer_maps, starts, starts_written
from sim.verilator import (
    FST,
    build_harness,
    content_hash,
    empty_folder,
    environment,
    fst_options,
)
from winnow import process
from winnow.artefact import write_text
from winnow.cache import is_sealed, lock, seal
from winnow.engine import EngineConfig
from winnow.errors import ArtefactError, MismatchError, ToolError
from winnow.fixed_point import IntArray
from winnow.progress import waiting

TOP = ports.TOP
HERE = Path(__file__).resolve().parent
HARNESS = tuple(
    HERE / "harness" / name
    for name in (
        *("rtl_main.cpp", "axi_lite.hpp", "axi_memory.hpp", "deadlock.hpp"),
        *("device.hpp", "engine.hpp"),
    )
)
PINS, WIRES = HERE / "harness" / "pins.vlt", HERE / "harness" / "deadlock.vlt"
WAVES = "dump.fst"  # what cocotb's main program calls it
DATA_FILES = ("program.bin", "weights.bin", "memory.json")
LATENCY_CYCLES = 8  # of the harness' memory, from request to first beat
RUN_SECONDS = 1800
WATCHDOG_CYCLES = 50_000  # without a beat on any AXI port
WAIT_FOR_DEFINE = "+define+OPENHLS_WAIT_FOR"
HANG = 4  # exit code of the harness


def rtl_sources(folder: Path) -> list[Path]:
    """Return the Verilog files of an RTL folder; ToolError when there is none."""
    sources = sorted([*folder.glob("*.sv"), *folder.glob("*.v")])
    if not sources:
        raise ToolError(f"'{folder}' holds no RTL (.sv or .v files); make it with: make hls")
    return sources


@dataclass(frozen=True)
class Harness:
    """A Verilated engine with its C++ main program; `source` is what it was built from."""

    binary: Path
    source: Source | None = None


@dataclass(frozen=True)
class Source:
    """What a harness is built from: the RTL folder, its engine, and the folder of cached builds."""

    rtl: Path
    engine: EngineConfig
    cache: Path


def build(rtl: Path, engine: EngineConfig, cache: Path, *, explains: bool = False) -> Harness:
    """Build the harness of an engine's RTL; one that `explains` a hang runs at 0.6 of the speed."""
    defines = [f"-DWINNOW_LATENCY={LATENCY_CYCLES}"]
    sources, options = rtl_sources(rtl), list[str]()
    if explains:
        defines.append("-DWINNOW_WAITS")
        sources, options = [WIRES, *sources], [WAIT_FOR_DEFINE]
    with tempfile.TemporaryDirectory() as work:
        header = Path(work) / "abi.hpp"
        header.write_text(abi_header(engine), encoding="utf-8")
        binary = build_harness(sources, (*HARNESS, header), TOP, defines, cache, options=options)
    return Harness(binary, Source(rtl, engine, cache))


@dataclass(frozen=True, eq=False)
class RtlRun:
    """Every layer's maps, and per start the cycles of the run and of each layer.

    `counted` are the cycles by the engine's own register.
    """

    maps: LayerMaps
    cycles: list[int]
    layer_cycles: list[list[int]]
    counted: list[int]


def run(
    harness: Harness,
    plan: Schedule,
    images: IntArray,
    *,
    stall: int = 0,
    seed: int = 0,
    per_start: int = 1,
) -> RtlRun:
    """Run a scheduled network on integer images [n, c, h, w] with random stalls in percent.

    A start runs `per_start` images. Raises MismatchError when the engine hangs, sees an error
    response or reports an error.
    """
    with tempfile.TemporaryDirectory() as work:
        emit_data(Path(work), plan, per_start)
        inputs = starts(plan, images, per_start)
        reports, memory = execute(harness, Path(work), inputs, stall=stall, seed=seed)
    require_ok(plan.layers, reports)
    maps = layer_maps(plan, memory.reshape(-1, plan.feature_words * 8))
    cycles, counted = ([c[0] for c in reports[kind]] for kind in ("cycles", "counted"))
    return RtlRun(maps, cycles, reports["layers"], counted)


Reports = dict[str, list[list[int]]]


def execute(
    harness: Harness, folder: Path, inputs: Starts, *, stall: int = 0, seed: int = 0
) -> tuple[Reports, Bytes]:
    """Run the program in `folder` (program.bin, weights.bin) on what memory holds at every start.

    Returns what the harness reports, by kind and start, and the memory behind all starts. Raises
    MismatchError when the engine hangs or breaks the protocol.
    """
    (folder / "images.bin").write_bytes(inputs.content)
    names = ("program.bin", "weights.bin", "images.bin", "output.bin")
    arguments = [str(folder / name) for name in names]
    arguments += map(str, (*inputs.sizes, stall, seed, WATCHDOG_CYCLES))
    output, count = folder / "output.bin", len(inputs.content) // (inputs.sizes[2] * 8)
    with waiting("RTL, images", count, lambda: starts_written(output, inputs.sizes[0])):
        result = _execute(harness, arguments)
    if result.code not in (0, 2):
        raise MismatchError(_failure(harness, arguments, result))
    memory = np.frombuffer(output.read_bytes(), dtype=np.uint8)
    reports: Reports = defaultdict(list)
    for line in result.stdout.splitlines():
        kind, *numbers = line.split()
        reports[kind].append([int(number) for number in numbers])
    return reports, memory


def _execute(harness: Harness, arguments: Sequence[str]) -> process.Finished:
    return process.run([harness.binary, *arguments], timeout=RUN_SECONDS)


def _failure(harness: Harness, arguments: Sequence[str], result: process.Finished) -> str:
    """Return why the harness stopped: its last line; for a hang also who waits for whom.

    The wires that show it cost speed, so they are built only now, and the run is repeated.
    """
    line = result.last_line
    text = f"the RTL stopped with code {result.code}: {line}"
    source = harness.source
    if result.code != HANG or source is None or not (source.rtl / deadlock.FILE).is_file():
        return text
    again = _execute(build(source.rtl, source.engine, source.cache, explains=True), arguments)
    reason = deadlock.explain(
        WaitForGraph.load(source.rtl / deadlock.FILE), Snapshot.parse(again.stdout)
    )
    return f"the RTL hangs ({line.removeprefix('error: ')}): {reason}"


def require_ok(plans: Sequence[LayerPlan], reports: Reports) -> None:
    """Raise MismatchError if an engine that ran some layers reports an error."""
    for (bits,) in reports["axi_error"]:
        if bits:
            raise MismatchError(f"the RTL saw an error response on {axi_error_ports(bits)}")
    for code, layers, _ in reports["status"]:
        if code != Status.OK:
            name = plans[min(layers, len(plans) - 1)].name
            raise MismatchError(
                f"the RTL stopped at layer '{name}' with status {code}: {STATUS_TEXT[Status(code)]}"
            )


@dataclass(frozen=True)
class CocotbJob:
    """What the cocotb bench runs; see sim/engine_bench.py."""

    data: Path
    golden: Path
    images: int
    stall: int
    seed: int = 1
    tests: tuple[str, ...] = ()
    waves: bool = False


@dataclass(frozen=True)
class CocotbResult:
    """Tests that passed, cycles of every image, simulated cycles per second, log, waveforms."""

    passed: tuple[str, ...]
    cycles: list[int]
    cycles_per_second: int
    log: Path
    waves: Path | None = None


def run_cocotb(rtl: Path, job: CocotbJob, cache: Path, work: Path) -> CocotbResult:
    """Build and run the cocotb bench on an RTL folder; MismatchError names the failing test."""
    require_top(rtl, rtl_sources(rtl), TOP)
    for path in (*(job.data / name for name in DATA_FILES), job.golden):
        if not path.is_file():
            raise ArtefactError(f"'{path}' is missing; make it with: make hls")
    work.mkdir(parents=True, exist_ok=True)
    for path in rtl.glob("*.dat"):  # memories that the RTL reads from its working directory
        shutil.copy(path, work)
    setup, log, described = work / "bench.json", work / "cocotb.log", rtl / deadlock.FILE
    results = work / "cycles.json"
    results.unlink(missing_ok=True)
    folder = _build_cocotb(rtl, job, cache)
    numbers = {
        "data": str(job.data.resolve()),
        "golden": str(job.golden.resolve()),
        "images": job.images,
        "stall": job.stall,
        "seed": job.seed,
        "waits": str(described.resolve()) if described.is_file() else None,
        "watchdog": WATCHDOG_CYCLES,
        "results": str(results.resolve()),
    }
    write_text(setup, json.dumps(numbers, indent=2) + "\n")
    options = {
        "hdl_toplevel": TOP,
        "hdl_toplevel_lang": "verilog",
        "test_module": "sim.engine_bench",
        "build_dir": str(folder.resolve()),
        "test_dir": str(work.resolve()),
        "plusargs": [f"+bench={setup.resolve()}"],
        "testcase": list(job.tests) or None,
        "log_file": str(log.resolve()),
        "results_xml": str((work / "results.xml").resolve()),
        "waves": job.waves,
    }
    ran = _runner("test", options)
    if ran.code != 0:
        raise ToolError(f"the cocotb run failed ({ran.last_line}); see '{log}'", log=log)
    result = _cocotb_result(log, results)
    return replace(result, waves=work / WAVES) if job.waves else result


def _runner(step: str, options: Mapping[str, object]) -> process.Finished:
    """Call cocotb's runner in a child, without the variables that change what it does."""
    changing = ("WAVES", "GUI", "PYTEST_CURRENT_TEST")
    variables = {name: value for name, value in environment().items() if name not in changing}
    command = [sys.executable, "-m", "sim.cocotb_child", step, json.dumps(options)]
    with waiting(f"cocotb, {step}"):
        return process.run(command, env=variables, cwd=HERE.parent)


def _build_cocotb(rtl: Path, job: CocotbJob, cache: Path) -> Path:
    """Return the folder of the simulator `TOP`, built if it is not in the cache."""
    options = ["-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal"]
    # The runner makes every signal public, which doubles the build; PINS names those we need.
    options.append("--no-public-flat-rw")
    sources = [PINS, *rtl_sources(rtl)]
    if (rtl / deadlock.FILE).is_file():
        sources, options = [WIRES, *sources], [*options, WAIT_FOR_DEFINE]
    written = FST if job.waves else ()
    key = content_hash([*sources, *written], *options)
    folder = cache / f"cocotb-{key}"
    log, program = folder / "build.log", folder / TOP
    with lock(folder):
        if is_sealed(program, key):
            return folder
        objects = empty_folder(folder / "obj")
        if job.waves:
            options += fst_options(objects / "fst")
        arguments = {
            "sources": [str(path.resolve()) for path in sources],
            "includes": [str(rtl.resolve())],
            "hdl_toplevel": TOP,
            "build_dir": str(objects.resolve()),
            "build_args": options,
            "waves": job.waves,
            "log_file": str(log.resolve()),
        }
        if _runner("build", arguments).code != 0:
            raise ToolError(f"Verilator failed on '{TOP}'; see '{log}'", log=log)
        (objects / TOP).replace(program)
        seal(program, key)
        shutil.rmtree(objects)
    return folder


def _cocotb_result(log: Path, results: Path) -> CocotbResult:
    text = log.read_text(errors="replace")
    rows = re.findall(r"\*\* sim\.engine_bench\.(\w+)\s+(PASS|FAIL)", text)
    failed = [name for name, outcome in rows if outcome == "FAIL"]
    if failed or not rows:
        reasons = re.findall(r"^\s*(?:[\w.]*\.)?\w+(?:Error|Exception): (.*)", text, re.MULTILINE)
        reason = reasons[0] if reasons else "no test ran"
        names = ", ".join(failed) or "the bench"
        raise MismatchError(f"cocotb: {names} failed: {reason}; see '{log}'")
    numbers = json.loads(results.read_text()) if results.is_file() else {}
    passed = tuple(name for name, outcome in rows if outcome == "PASS")
    return CocotbResult(passed, numbers.get("cycles", []), numbers.get("cycles_per_second", 0), log)
