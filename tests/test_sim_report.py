# SPDX-License-Identifier: Apache-2.0
"""The report only formats what the stages recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codegen.fuse import fuse
from codegen.schedule import Schedule, schedule
from sim.report import direct_macs, format_report, read_records
from sim.resources import format_table, inter_module_line, timing_line
from tests.builds import play_all
from tests.engines import chain_case
from winnow.artefact import Record
from winnow.blocking import Op
from winnow.config import Config
from winnow.engine import EngineConfig
from winnow.errors import ArtefactError
from winnow.flow import STAGES, Build

NUMBERS: dict[str, dict[str, Any]] = {
    "train": {"fp32_accuracy": 98.61, "seconds": 31.2},
    "prune_channels": {"narrowed_accuracy": 98.61, "share": 1.0, "seconds": 0.5},
    "prune": {"pruned_accuracy": 97.5, "seconds": 20.0},
    "bits": {"seconds": 3.4},
    "qat": {"quantized_accuracy": 96.944, "seconds": 12.0},
    "golden": {"seconds": 1.0},
    "lower": {"values": 1234, "images": 7, "seconds": 0.5},
    "schedule": {"seconds": 0.0},
    "emit": {"seconds": 0.0},
    "csim": {
        "accuracy": 96.9,
        "values": 1235,
        "images": 8,
        "compile_seconds": 8.25,
        "seconds": 9.9,
    },
    "rtl": {"compile_seconds": 4.5, "seconds": 5.0},
}
GRAPH = chain_case(11, 4)
NUMBERS["rtlsim"] = {
    "values": 444,
    "images": 2,
    "build_seconds": 39.5,
    "seconds": 60.0,
    "stall_0": {
        "cycles": [5000],
        "layer_cycles": {layer.name: 1000 + i for i, layer in enumerate(fuse(GRAPH))},
        "cycles_per_second": 200000,
    },
}
NUMBERS["synth"] = {
    "modules": [
        {"name": "lane_process", "instances": 16, "lut": 6608.0, "ff": 3472.0, "dsp": 64.0,
         "bram": 0.0, "levels": 5, "chains": 2, "ns": 5.47, "path": []},
        {"name": "fifo", "instances": 3, "lut": 41592.6, "ff": 24964.0, "dsp": 0.0, "bram": 87.5,
         "levels": 4, "chains": 0, "ns": 7.25, "path": []},
    ],
    "inter_module_path": {
        "ns": 7.61, "levels": 6, "chains": 1, "pins": ["a", "a.q", "fifo.in_vld"],
    },
    "total": {"lut": 48200.6, "ff": 28436.0, "dsp": 64.0, "bram": 87.5},
    "part": {"lut": 53200, "ff": 106400, "dsp": 220, "bram": 140},
    "part_name": "xc7z020clg400-1",
    "clock_mhz": 150,
    "seconds": 70.0,
}  # fmt: skip
NUMBERS["bundle"] = {"values": 222, "images": 1, "seconds": 3.0}
RECORDS = {stage: Record(stage, {}, {}, numbers) for stage, numbers in NUMBERS.items()}


@pytest.fixture
def plan() -> Schedule:
    return schedule(GRAPH, EngineConfig())


NAMES = [stage.name for stage in STAGES if not stage.optional]


def test_long_names_move_the_columns(plan: Schedule) -> None:
    first = plan.layers[0]
    long = replace(first, name="blocks_0_branch_conv")
    records = dict(RECORDS)
    numbers = dict(NUMBERS["rtlsim"]["stall_0"])
    numbers["layer_cycles"] = numbers["layer_cycles"] | {long.name: 1000}
    records["rtlsim"] = Record("rtlsim", {}, {}, NUMBERS["rtlsim"] | {"stall_0": numbers})
    lines = format_report(records, replace(plan, layers=(long, *plan.layers[1:]))).splitlines()
    header = next(line for line in lines if line.startswith("  layer "))
    column = header.index("op ")
    rows = lines[lines.index(header) + 1 :][: len(plan.layers)]
    assert rows[0].startswith("  blocks_0_branch_conv ")
    assert all(row[column - 1] == " " and row[column] != " " for row in rows)


def test_report_of_values_shows_errors(plan: Schedule) -> None:
    scores = {
        "train": {"fp32_error": 0.0123456},
        "prune_channels": {"narrowed_error": 0.02},
        "prune": {"pruned_error": 1.25},
        "qat": {"quantized_error": 0.5},
        "csim": {"error": 0.5},
    }
    records = dict(RECORDS)
    for stage, score in scores.items():
        numbers = {k: v for k, v in NUMBERS[stage].items() if "accuracy" not in k} | score
        records[stage] = Record(stage, {}, {}, numbers)
    assert format_report(records, plan).splitlines()[:5] == [
        "mean squared error of the test images, measured",
        "  fp32            0.012346   (train)",
        "  pruned              1.25   (prune)",
        "  quantized            0.5   (qat)",
        "  HLS C++              0.5   (csim)",
    ]


def test_records_of_all_stages_are_read(tmp_path: Path) -> None:
    build = Build(Config(), tmp_path, config_path="configs/x.toml")
    play_all(build, NAMES, NUMBERS)
    found = read_records(build)
    assert list(found) == NAMES
    for name, record in found.items():
        assert record.numbers | {"seconds": 0} == {**NUMBERS.get(name, {}), "seconds": 0}


@pytest.mark.parametrize("missing", NAMES)
def test_stage_that_has_not_run_is_named(tmp_path: Path, missing: str) -> None:
    build = Build(Config(), tmp_path, config_path="configs/x.toml")
    play_all(build, NAMES, NUMBERS)
    (tmp_path / f"{missing}.json").unlink()
    with pytest.raises(ArtefactError) as caught:
        read_records(build)
    assert str(caught.value) == (
        f"'{tmp_path}': stage '{missing}' must run first: it has not run; run: "
        f"python -m winnow run --config configs/x.toml --out {tmp_path}"
    )


@pytest.mark.parametrize("edited", NAMES)
def test_report_needs_every_record_as_it_was_written(tmp_path: Path, edited: str) -> None:
    build = Build(Config(), tmp_path, config_path="configs/x.toml")
    play_all(build, NAMES, NUMBERS)
    path = tmp_path / f"{edited}.json"
    path.write_text(path.read_text().replace('"stage"', '"stage" ').replace("0", "1"))
    with pytest.raises(ArtefactError, match=rf"stage '{edited}' must run first: {edited}\.json"):
        read_records(build)


def test_accuracies_name_their_stage(plan: Schedule) -> None:
    assert format_report(RECORDS, plan).splitlines()[:5] == [
        "test accuracy, measured",
        "  fp32           98.61 %   (train)",
        "  pruned         97.50 %   (prune)",
        "  quantized      96.94 %   (qat)",
        "  HLS C++        96.90 %   (csim)",
    ]


def test_a_narrowed_network_has_its_accuracy(plan: Schedule) -> None:
    numbers = {"narrowed_accuracy": 98.06, "share": 0.5, "seconds": 9.0}
    records = RECORDS | {"prune_channels": replace(RECORDS["prune_channels"], numbers=numbers)}
    lines = format_report(records, plan).splitlines()
    assert lines[2] == "  narrowed       98.06 %   (prune_channels)"
    assert len(lines) == len(format_report(RECORDS, plan).splitlines()) + 1


def test_every_layer_has_its_line(plan: Schedule) -> None:
    lines = format_report(RECORDS, plan).splitlines()
    for layer in plan.layers:
        (line,) = [line for line in lines if line.split()[:1] == [layer.name]]
        shape, cycles = layer.shape, layer.cycles
        measured = 1000 + plan.layers.index(layer)
        assert line.split() == [
            layer.name,
            str(shape.op),
            f"{shape.in_channels}x{shape.height}x{shape.width}",
            str(shape.out_channels),
            str(shape.keep),
            str(shape.weight_bits),
            str(cycles.total),
            str(measured),
            f"{100 * (cycles.total - measured) / measured:.1f}",
            f"{100 * cycles.utilisation * cycles.total / measured:.1f}",
            cycles.bound,
        ]


def test_network_is_judged_against_direct_convolution(plan: Schedule) -> None:
    rate = sum(direct_macs(layer) for layer in plan.layers) / 5000
    lines = format_report(RECORDS, plan).splitlines()
    (line,) = [x for x in lines if x.startswith("  network")]
    assert line.split() == [
        "network",
        str(plan.total_cycles),
        "5000",
        f"{(plan.total_cycles - 5000) / 50:.1f}",
    ]
    assert lines[lines.index(line) + 2].strip() == (
        f"64 multipliers; {rate:.1f} direct-convolution MACs/cycle in RTL, {rate / 64:.2f} per "
        "multiplier, load and store included"
    )


def with_layer_cycles(plan: Schedule, percent: float) -> dict[str, Record]:
    """Return the records with RTL cycles that the model misses by `percent` in one layer."""
    cycles = {layer.name: layer.cycles.total for layer in plan.layers}
    name = plan.layers[1].name
    cycles[name] = round(cycles[name] / (1 + percent / 100))
    numbers = dict(NUMBERS["rtlsim"])
    numbers["stall_0"] = numbers["stall_0"] | {"layer_cycles": cycles}
    return RECORDS | {"rtlsim": Record("rtlsim", {}, {}, numbers)}


@pytest.mark.parametrize(("percent", "note"), [(4.0, ""), (-4.0, ""), (9.0, "warning: ")])
def test_model_that_misses_the_rtl_is_named(plan: Schedule, percent: float, note: str) -> None:
    lines = format_report(with_layer_cycles(plan, percent), plan).splitlines()
    (line,) = [x for x in lines if "the model misses" in x]
    assert line.startswith(f"  {note}the model misses {plan.layers[1].name} most, by ")
    shown = float(line.split(" by ")[1].split()[0])
    assert shown == pytest.approx(abs(percent), abs=0.3)
    assert line.endswith(" (limit 5 %)")


def test_resources_are_a_table_with_the_share_of_the_part(plan: Schedule) -> None:
    lines = format_report(RECORDS, plan).splitlines()
    start = lines.index(
        "resources and longest path of each module alone, estimated by Yosys after mapping"
    )
    assert [line.split() for line in lines[start + 1 : start + 6]] == [
        ["module", "inst", "LUT", "FF", "DSP", "BRAM", "levels", "carry", "ns"],
        ["lane", "16", "6608", "3472", "64", "0", "5", "2", "5.47"],
        ["fifo", "3", "41593", "24964", "0", "87.5", "4", "0", "7.25"],
        ["total", "48201", "28436", "64", "87.5"],
        ["xc7z020clg400-1", "53200", "106400", "220", "140"],
    ]
    assert lines[start + 6 : start + 9] == [
        "  48201 of 53200 LUT (91 %), 28436 of 106400 FF (27 %), 64 of 220 DSP (29 %), "
        "87.5 of 140 BRAM36 (62 %)",
        "  warning: 1 module misses 6.67 ns, 150 MHz (estimated); the slowest is fifo with 7.25 ns",
        "  warning: the longest inter-module path takes 7.61 ns (estimated), from a to fifo.in_vld",
    ]


def test_clock_that_every_module_meets_is_no_warning() -> None:
    rows = [{"name": "a", "ns": 9.99}, {"name": "b", "ns": 10.0}]
    assert timing_line(rows, 100) == (
        "the longest path of every module is within 10.00 ns, 100 MHz (estimated)"
    )
    assert timing_line(rows, 101) == (
        "warning: 2 modules miss 9.90 ns, 101 MHz (estimated); the slowest is b with 10.00 ns"
    )


def test_path_that_meets_the_clock_is_no_warning() -> None:
    path = {"ns": 8.0, "pins": ["a", "b.x"]}
    text = "the longest inter-module path takes 8.00 ns (estimated), from a to b.x"
    assert inter_module_line(path, 125) == text
    assert inter_module_line(path, 126) == f"warning: {text}"


def test_direct_macs_count_what_a_plain_loop_does() -> None:
    """3x3 of a channel to 10 of 4x6, to 6 of those; 4x4 of 10 to 39 of 4x4; 624 to 10."""
    layers = schedule(chain_case(11, 4), EngineConfig()).layers
    assert [direct_macs(layer) for layer in layers] == [
        3 * 3 * 1 * 10 * 4 * 6,
        3 * 3 * 1 * 6 * 4 * 6,
        4 * 4 * 10 * 39 * 4 * 4,
        39 * 4 * 4 * 10,
    ]
    assert [layer.shape.op for layer in layers[1:]] == [Op.WINOGRAD, Op.DIRECT, Op.DENSE]


def test_checks_show_how_much_was_compared(plan: Schedule) -> None:
    lines = format_report(RECORDS, plan).splitlines()
    assert "  Brevitas (float64) = interpreter   1234 integers, 7 images" in lines
    assert "  Brevitas (float64) = HLS C++       1235 integers, 8 images" in lines
    driver = "  Brevitas (float64) = driver        222 integers, 1 images, on a virtual board"
    assert driver in lines
    assert (
        "  Brevitas (float64) = RTL           444 integers, 2 images, with 0% and 30% stalls"
        in lines
    )


def test_table_says_for_which_grade_the_estimate_is() -> None:
    numbers = RECORDS["synth"].numbers
    assert not any("note" in line for line in format_table(numbers))
    assert format_table({**numbers, "part_name": "xc7z020clg400-3"})[-1] == (
        "  note: the estimate is for speed grade -1 of the Artix-7 fabric; xc7z020clg400-3 is "
        "grade -3 of the Artix-7 fabric"
    )
