# SPDX-License-Identifier: Apache-2.0
"""The bench prints what it measured beside the floors; missing one is a note, not a failure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from codegen.schedule import schedule
from openhls import place as placing
from sim import bench as sim_bench
from sim.bench import LINES, Speeds, format_bench
from sim.report import format_report
from tests.test_sim_report import GRAPH, RECORDS
from winnow.config import Config
from winnow.engine import EngineConfig
from winnow.flow import Build

SPEEDS = Speeds(7.84, 38.4, 5.25, 41.0, 298_765.4, 12_345)


def row(key: str, speeds: Speeds) -> list[str]:
    (line,) = [line for line in LINES if line.key == key]
    return line.text(speeds).split()


def test_bench_is_the_report_and_the_speeds() -> None:
    plan = schedule(GRAPH, EngineConfig())
    text = format_bench(RECORDS, plan, SPEEDS, "python -m sim STAGE --out build/x")
    report = format_report(RECORDS, plan)
    assert text.startswith(report + "\n\n")
    lines = text.removeprefix(report).strip().splitlines()
    assert lines[0].startswith("speeds, measured on this machine (")
    assert lines[1] == "  python -m sim STAGE --out build/x"
    assert len(lines) == 3 + len(LINES) + 2
    assert lines[-1] == (
        "seconds of the stages, measured as they ran: train 31, prune_channels 0, prune 20, "
        "bits 3, qat 12, golden 1, lower 0, schedule 0, emit 0, csim 10, rtl 5, rtlsim 60, "
        "synth 70, bundle 3; 216 in all"
    )


def test_every_speed_has_its_row_with_the_stage_that_measures_it() -> None:
    assert {line.key: line.stage for line in LINES} == {
        "gxx_seconds": "csim",
        "images_per_second": "csim",
        "openhls_seconds": "rtl",
        "verilator_seconds": "rtlsim",
        "harness_cycles_per_second": "rtlsim",
        "cocotb_cycles_per_second": "cocotb",
    }
    assert row("images_per_second", SPEEDS)[-3:] == ["38.4", "images/s", "csim"]
    assert row("openhls_seconds", SPEEDS)[-6:] == ["5.2", "s", "at", "most", "90", "rtl"]
    floor = ["298,765", "cycles/s", "at", "least", "50,000", "rtlsim"]
    assert row("harness_cycles_per_second", SPEEDS)[-6:] == floor


@pytest.mark.parametrize(
    ("key", "just", "missed"),
    [
        ("openhls_seconds", 90, 90.5),
        ("harness_cycles_per_second", 50_000, 49_999),
        ("cocotb_cycles_per_second", 5_000, 4_999),
    ],
)
def test_missed_floor_is_noted(key: str, just: float, missed: float) -> None:
    assert "missed" not in row(key, replace(SPEEDS, **{key: just}))
    assert "missed" in row(key, replace(SPEEDS, **{key: missed}))


def test_modules_are_placed_where_nextpnr_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    placed: list[object] = []
    monkeypatch.setattr(sim_bench, "place", lambda *given, **named: placed.append((given, named)))
    build = Build(Config(), Path("build/x"))
    monkeypatch.setattr(sim_bench, "require_nextpnr", lambda: None)
    sim_bench.place_modules(build)
    assert placed == [((build, []), {"seeds": 1})]
    monkeypatch.undo()
    monkeypatch.setattr(placing, "find_spec", lambda _: None)
    sim_bench.place_modules(build)
    assert capsys.readouterr().out.startswith("modules are not placed: nextpnr-ecp5, which ")
