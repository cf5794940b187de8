# SPDX-License-Identifier: Apache-2.0
"""`python -m sim bench`: measure every speed again, without caches, and print all numbers.

hls/, rtl/, program, weights, golden.npz and the records of all stages -> tables

Nothing here passes or fails: a floor that is missed gets a note.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codegen.golden import Golden, load_golden
from codegen.schedule import Schedule
from codegen.stages.schedule import read_schedule
from openhls.place import require_nextpnr
from openhls.project import compile_design
from sim import csim, rtl
from sim.bounded import depths
from sim.placement import place
from sim.report import Records, format_report, read_records
from sim.stages.csim import compare
from sim.stages.rtlsim import IMAGES
from winnow.errors import ToolError
from winnow.flow import Build

COCOTB_TEST = "network_equals_the_model"


@dataclass(frozen=True)
class Speeds:
    """Speeds on this machine: seconds without any cache, rates without stalls."""

    gxx_seconds: float
    images_per_second: float
    openhls_seconds: float
    verilator_seconds: float
    harness_cycles_per_second: float
    cocotb_cycles_per_second: float


@dataclass(frozen=True)
class Line:
    """One row: the value's unit, whether more is better, the floor if any, the stage's command."""

    name: str
    key: str
    unit: str
    stage: str
    floor: float | None = None
    more: bool = True

    def text(self, speeds: object) -> str:
        """Return the row of the table."""
        value = getattr(speeds, self.key)
        limit = ""
        if self.floor is not None:
            limit = f"{'at least' if self.more else 'at most'} {self.floor:,g}"
            if value < self.floor if self.more else value > self.floor:
                limit += ", missed"
        places = 3 if value < 1 else 1 if value < 100 else 0
        number = f"{value:,.{places}f}"
        return f"  {self.name:<26}{number:>10} {self.unit:<10}{limit:<25}{self.stage}"


LINES = (
    Line("g++ on the engine", "gxx_seconds", "s", "csim"),
    Line("C++ in host simulation", "images_per_second", "images/s", "csim"),
    Line("C++ to RTL", "openhls_seconds", "s", "rtl", 90, more=False),
    Line("Verilator build, harness", "verilator_seconds", "s", "rtlsim"),
    Line("RTL in the C++ harness", "harness_cycles_per_second", "cycles/s", "rtlsim", 50_000),
    Line("RTL in cocotb", "cocotb_cycles_per_second", "cycles/s", "cocotb", 5_000),
)


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def measure(build: Build) -> Speeds:
    """Run what the stages csim, rtl, rtlsim and cocotb run, into empty folders."""
    plan, golden = read_schedule(build), load_golden(build)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        gxx_seconds = _seconds(lambda: csim.build(build.hls, folder / "csim"))
        _, csim_seconds = compare(csim.build(build.hls, folder / "csim"), plan, golden)
        openhls_seconds = _seconds(lambda: _compile(build, folder / "openhls"))
        engine = build.config.engine
        verilator_seconds = _seconds(lambda: rtl.build(build.rtl, engine, folder / "rtl"))
        harness = rtl.build(build.rtl, engine, folder / "rtl")
        return Speeds(
            gxx_seconds,
            len(golden.images) / csim_seconds,
            openhls_seconds,
            verilator_seconds,
            _harness_rate(harness, plan, golden),
            _cocotb_rate(build, folder / "cocotb"),
        )


def _compile(build: Build, folder: Path) -> None:
    source = build.hls / "src" / "top.cpp"
    compile_design(source, [build.hls / "include"], rtl.TOP, folder)


def _harness_rate(harness: rtl.Harness, plan: Schedule, golden: Golden) -> float:
    started = time.monotonic()
    run = rtl.run(harness, plan, golden.images[:IMAGES])
    return sum(run.cycles) / (time.monotonic() - started)


def _cocotb_rate(build: Build, work: Path) -> float:
    """Return cycles/s of the network's test; its simulator may come from the cache."""
    job = rtl.CocotbJob(
        build.hls / "data", build.out / "golden.npz", IMAGES, 0, tests=(COCOTB_TEST,)
    )
    return rtl.run_cocotb(build.rtl, job, build.cache / "rtl", work).cycles_per_second


def format_bench(records: Records, plan: Schedule, speeds: Speeds, command: str) -> str:
    """Return the report with speeds; `command` is what runs the stage STAGE of this build."""
    seconds = ", ".join(
        f"{stage} {record.numbers.get('seconds', 0):.0f}" for stage, record in records.items()
    )
    total = sum(record.numbers.get("seconds", 0) for record in records.values())
    return "\n".join(
        [
            format_report(records, plan),
            "",
            f"speeds, measured on this machine ({os.cpu_count()} cores) without caches; alone:",
            f"  {command}",
            f"  {'what':<26}{'measured':>10} {'':<10}{'floor':<25}STAGE",
            *(line.text(speeds) for line in LINES),
            "",
            f"seconds of the stages, measured as they ran: {seconds}; {total:.0f} in all",
        ]
    )


def bench(build: Build) -> None:
    """Measure the speeds again, without caches, and print all numbers of the build."""
    records, plan = read_records(build), read_schedule(build)
    command = build.command("csim").replace(" csim ", " STAGE ")
    print(format_bench(records, plan, measure(build), command) + "\n", flush=True)
    depths(build)
    place_modules(build)


def place_modules(build: Build) -> None:
    """Print the clocks of placed modules; one line where nextpnr, which is optional, is missing."""
    try:
        require_nextpnr()
    except ToolError as missing:
        print(f"modules are not placed: {missing}")
        return
    place(build, [], seeds=1)
