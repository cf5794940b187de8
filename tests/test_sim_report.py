# SPDX-License-Identifier: Apache-2.0
"""The report only formats what the stages recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.ir import Graph, TensorType
from codegen.schedule import Schedule, schedule
from codegen.stages import Build
from sim.report import MAKERS, direct_macs, format_bench, format_report, read_records
from tests.engines import chain_case
from winnow.artefact import Record
from winnow.config import Config
from winnow.engine import EngineConfig
from winnow.errors import ArtefactError

NUMBERS: dict[str, dict[str, Any]] = {
    "train": {"fp32_accuracy": 98.61, "seconds": 31.2},
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
        "layer_cycles": {layer.name: 1000 + i for i, layer in enumerate(GRAPH.layers)},
        "cycles_per_second": 200000,
    },
}
RECORDS = {stage: Record(stage, {}, {}, numbers) for stage, numbers in NUMBERS.items()}
SYNTH = Record(
    "synth",
    {},
    {},
    {
        "total": {"lut": 48201.0, "ff": 28436.0, "dsp": 64.0, "bram": 87.5},
        "part": {"lut": 53200, "ff": 106400, "dsp": 220, "bram": 140},
    },
)


@pytest.fixture
def plan() -> Schedule:
    return schedule(GRAPH, EngineConfig())


def test_records_of_all_stages_are_read(tmp_path: Path) -> None:
    build = Build(Config(), Path("configs/x.toml"), tmp_path)
    for stage, record in RECORDS.items():
        record.save(tmp_path / f"{stage}.json")
    assert read_records(build) == RECORDS


@pytest.mark.parametrize("missing", MAKERS)
def test_first_stage_that_has_not_run_is_named(tmp_path: Path, missing: str) -> None:
    build = Build(Config(), Path("configs/x.toml"), tmp_path)
    for stage in list(MAKERS)[: list(MAKERS).index(missing)]:
        RECORDS[stage].save(tmp_path / f"{stage}.json")
    with pytest.raises(ArtefactError) as caught:
        read_records(build)
    assert str(caught.value) == (
        f"'{tmp_path / missing}.json' is missing; make it with: "
        f"python -m {MAKERS[missing]} {missing} --config configs/x.toml --out {tmp_path}"
    )


def test_accuracies_name_their_stage(plan: Schedule) -> None:
    assert format_report(RECORDS, plan).splitlines()[:5] == [
        "test accuracy, measured",
        "  fp32           98.61 %   (train)",
        "  pruned         97.50 %   (prune)",
        "  quantized      96.94 %   (qat)",
        "  HLS C++        96.90 %   (csim)",
    ]


def test_every_layer_has_its_line(plan: Schedule) -> None:
    lines = format_report(RECORDS, plan).splitlines()
    for layer in plan.layers:
        (line,) = [line for line in lines if line.split()[:1] == [layer.name]]
        shape, cycles = layer.shape, layer.cycles
        assert line.split() == [
            layer.name,
            shape.op,
            f"{shape.in_channels}x{shape.height}x{shape.width}",
            str(shape.out_channels),
            str(shape.keep),
            str(shape.weight_bits),
            str(cycles.total),
            str(1000 + plan.layers.index(layer)),
            f"{100 * cycles.utilisation:.1f}",
            cycles.bound,
        ]


def test_network_is_judged_against_direct_convolution(plan: Schedule) -> None:
    rate = sum(direct_macs(layer) for layer in plan.layers) / 5000
    lines = format_report(RECORDS, plan).splitlines()
    (line,) = [x for x in lines if x.startswith("  network")]
    assert line.split() == ["network", str(plan.total_cycles), "5000"]
    assert lines[lines.index(line) + 1].strip() == (
        f"64 multipliers; {rate:.1f} direct-convolution MACs/cycle in RTL, {rate / 64:.2f} per "
        "multiplier, load and store included"
    )


def test_resources_are_shown_when_they_were_counted(plan: Schedule) -> None:
    assert "resources: not counted yet; run: make synth" in format_report(RECORDS, plan)
    assert (
        "resources, estimated by Yosys after mapping: 48201 of 53200 LUT, 28436 of 106400 FF, "
        "64 of 220 DSP, 87.5 of 140 BRAM36"
    ) in format_report(RECORDS | {"synth": SYNTH}, plan)


def test_optional_stage_is_read_when_it_ran(tmp_path: Path) -> None:
    build = Build(Config(), Path("configs/x.toml"), tmp_path)
    for stage, record in (RECORDS | {"synth": SYNTH}).items():
        record.save(tmp_path / f"{stage}.json")
    assert read_records(build) == RECORDS | {"synth": SYNTH}


def test_direct_macs_count_what_a_plain_loop_does() -> None:
    graph: Graph = chain_case(11, 4)
    for layer, planned in zip(graph.layers, schedule(graph, EngineConfig()).layers, strict=True):
        kind: TensorType = graph.type_of(layer.source)
        pixels = np.prod(kind.shape[1:])
        kernel = 9 if planned.shape.op == "winograd" else 1
        assert direct_macs(planned) == layer.output.channels * kind.channels * pixels * kernel


def test_checks_show_how_much_was_compared(plan: Schedule) -> None:
    lines = format_report(RECORDS, plan).splitlines()
    assert "  Brevitas (float64) = interpreter   1234 integers, 7 images" in lines
    assert "  Brevitas (float64) = HLS C++       1235 integers, 8 images" in lines
    assert (
        "  Brevitas (float64) = RTL           444 integers, 2 images, with 0% and 30% stalls"
        in lines
    )


def test_bench_adds_speeds_to_the_report(plan: Schedule) -> None:
    text = format_bench(RECORDS, plan, 45.6)
    report = format_report(RECORDS, plan)
    assert text.startswith(report + "\n")
    assert text.removeprefix(report).strip().splitlines() == [
        "speed, measured on this machine",
        "  csim         46 images/s",
        "  g++          8.2 s to compile",
        "  openhls      4.5 s from C++ to RTL (less where cached)",
        "  Verilator    39.5 s to build, 200000 RTL cycles/s",
        "  stages       train 31, prune 20, bits 3, qat 12, golden 1, lower 0, schedule 0, "
        "emit 0, csim 10, rtl 5, rtlsim 60; 143 s in all",
    ]
