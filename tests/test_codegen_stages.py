# SPDX-License-Identifier: Apache-2.0
"""The stages of `python -m codegen` on a small chain: what they read, write and refuse."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codegen.fuse import fuse
from codegen.golden import load_golden, require_golden
from codegen.graph_text import load_graph, save_graph
from codegen.ir import Graph
from codegen.stages import lower
from codegen.stages.schedule import format_schedule, read_schedule
from codegen.vitis_report import REPORT
from tests.builds import TRAINING, play, play_all
from tests.engines import chain_case, expected_maps
from tests.ladder import random_images
from tests.vitis_reports import report
from winnow.artefact import Record, save_arrays
from winnow.config import Config
from winnow.engine import EngineConfig
from winnow.errors import ArtefactError, MismatchError, ScheduleError, ToolError
from winnow.flow import Build
from winnow.stage_cli import run_verb

GRAPH = chain_case(11, 4)
DEFAULT = Config()


def golden_of(graph: Graph) -> dict[str, np.ndarray]:
    images = random_images(graph, 0, 3)
    maps = {f"layer.{name}": values for name, values in expected_maps(graph, images).items()}
    return {"images": images, "labels": np.arange(3), **maps}


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A build whose graph and golden values are there."""
    build = build_at(tmp_path)
    save_graph(tmp_path, GRAPH)
    adopt(build)
    return build


def build_at(out: Path, config: Config = DEFAULT) -> Build:
    return Build(config, out, config_path="configs/x.toml")


def adopt(build: Build) -> None:
    """Play the stages whose files GRAPH and its golden values are, under a configuration."""
    play_all(build, TRAINING, {})
    save_arrays(build.out / "golden.npz", golden_of(GRAPH))
    play(build, "golden", [build.out / "golden.npz"])
    play(build, "lower", [build.out / "graph.txt", build.out / "graph.npz"])


def snapshot(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("[!.]*") if path.is_file())
    return {path: path.read_bytes() for path in files}


def test_schedule_writes_table_data_and_record(build: Build) -> None:
    run_verb("schedule", build)
    plan = read_schedule(build)
    assert (build.out / "schedule.txt").read_text() == format_schedule(plan)
    record = Record.load(build.out / "schedule.json", "")
    assert set(record.outputs) == {
        "schedule.txt",
        "hls/data/program.bin",
        "hls/data/weights.bin",
        "hls/data/memory.json",
    }
    assert record.numbers["total_cycles"] == plan.total_cycles
    assert record.numbers["cycles"] == {p.name: p.cycles.total for p in plan.layers}
    size = (build.hls / "data" / "weights.bin").stat().st_size
    assert record.numbers["weight_bytes"] == size


def test_schedule_table_has_a_line_per_layer_and_the_total(build: Build) -> None:
    plan = read_schedule(build)
    head, *lines, total = format_schedule(plan).splitlines()
    assert head.split()[:3] == ["layer", "op", "keep"]
    assert total == f"total: {plan.total_cycles} modelled cycles"
    for line, layer in zip(lines, plan.layers, strict=True):
        numbers = line.split()
        assert numbers[:4] == [
            layer.name,
            str(layer.shape.op),
            str(layer.shape.keep),
            str(layer.shape.weight_bits),
        ]
        assert numbers[8:12] == [
            str(layer.source.base),
            str(layer.result.base),
            str(layer.weight_base),
            str(layer.cycles.total),
        ]
        assert numbers[-1] == layer.cycles.bound


def test_rejected_schedule_leaves_earlier_files_as_they_were(build: Build) -> None:
    run_verb("schedule", build)
    tight = replace(build, config=replace(build.config, engine=EngineConfig(m=4)))
    adopt(tight)
    before = snapshot(build.out)
    with pytest.raises(ScheduleError, match=r"uses F\(2,3\), the engine is F\(4,3\)"):
        run_verb("schedule", tight)
    assert snapshot(build.out) == before


def test_emit_needs_no_graph_and_follows_the_templates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = build_at(tmp_path / "new")
    run_verb("emit", build)
    run_verb("emit", build)
    assert capsys.readouterr().out.splitlines()[1] == "emit: up to date"
    top = build.hls / "src" / "top.cpp"
    good = top.read_bytes()
    top.write_bytes(good + b"// edited\n")
    run_verb("emit", build)
    assert top.read_bytes() == good
    assert Record.load(build.out / "emit.json", "").numbers["files"] == len(snapshot(build.hls))


def test_golden_is_read_as_int64(build: Build) -> None:
    golden = load_golden(build)
    assert list(golden.layers) == [layer.name for layer in fuse(GRAPH)]
    arrays = [golden.images, golden.labels, *golden.layers.values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}
    count = require_golden(expected_maps(GRAPH, golden.images), golden)
    assert count == sum(values.size for values in golden.layers.values())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: arrays.pop("images"),
        lambda arrays: arrays.pop("labels"),
        lambda arrays: arrays.update(labels=np.arange(2)),
        lambda arrays: arrays.update(images=arrays["images"][0]),
        lambda arrays: arrays.update(images=arrays["images"][:0], labels=np.arange(0)),
    ],
)
def test_incomplete_golden_is_one_line(build: Build, spoil: object) -> None:
    arrays = golden_of(GRAPH)
    spoil(arrays)  # type: ignore[operator]
    save_arrays(build.out / "golden.npz", arrays)
    match = r"golden\.npz' must hold images \[n, c, h, w\] and labels \[n\]; run: python -m quant"
    with pytest.raises(ArtefactError, match=match):
        load_golden(build)


@pytest.fixture
def lowering(build: Build, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A build before lowering; the checkpoint lowers to GRAPH."""
    for name in ("graph.txt", "graph.npz", "lower.json"):
        (build.out / name).unlink()
    monkeypatch.setattr(lower, "lower_checkpoint", lambda *_: GRAPH)
    return build


def test_lower_writes_the_graph_it_has_checked(
    lowering: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    run_verb("lower", lowering)
    assert len(fuse(load_graph(lowering.out))) == 4
    record = Record.load(lowering.out / "lower.json", "")
    values = sum(v.size for n, v in golden_of(GRAPH).items() if n.startswith("layer."))
    assert {k: record.numbers[k] for k in ("layers", "values", "images")} == {
        "layers": 4,
        "values": values,
        "images": 3,
    }
    assert f"interpreter = Brevitas on {values} values of 3 images" in capsys.readouterr().out


def test_graph_that_differs_from_golden_is_not_written(lowering: Build) -> None:
    arrays = golden_of(GRAPH)
    name = fuse(GRAPH)[2].name
    arrays[f"layer.{name}"][2, 0, 0, 0] += 1
    save_arrays(lowering.out / "golden.npz", arrays)
    play(lowering, "golden", [lowering.out / "golden.npz"])
    before = snapshot(lowering.out)
    with pytest.raises(MismatchError, match=f"layer '{name}': image 2, channel 0, y 0, x 0 must"):
        run_verb("lower", lowering)
    assert snapshot(lowering.out) == before


def test_another_network_lowers_again(lowering: Build, capsys: pytest.CaptureFixture[str]) -> None:
    run_verb("lower", lowering)
    (lowering.out / "qat.npz").write_bytes(b"another network")
    play(lowering, "qat", [lowering.out / "qat.npz"])
    play(lowering, "golden", [lowering.out / "golden.npz"])
    capsys.readouterr()
    run_verb("lower", lowering)
    run_verb("lower", lowering)
    second, third = capsys.readouterr().out.splitlines()
    assert second.startswith("lower: 4 layers")
    assert third == "lower: up to date"


def tool_at(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script in the place of Vitis HLS, the only one on the PATH."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    rest = [p for p in os.environ["PATH"].split(os.pathsep) if "itis" not in p]
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), *rest]))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("vitis_hls", "-f csynth.tcl"), ("vitis-run", "--mode hls --tcl csynth.tcl")],
)
def test_vitis_runs_the_script_and_reads_its_report(
    build: Build,
    name: str,
    arguments: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left = build.out / "csynth.xml"
    copy = f"mkdir -p {REPORT.parent} && cp {left} {REPORT}"
    tool_at(build.out / "bin", name, f'echo "$PWD $*"; {copy}', monkeypatch)
    left.write_text(report({"each_step": 1}))
    run_verb("emit", build)
    run_verb("vitis", build)
    assert (build.hls / "vitis.log").read_text() == f"{build.hls} {arguments}\n"
    record = Record.load(build.out / "vitis.json", "")
    assert set(record.outputs) == {"hls/vitis.log", "hls/vitis.txt"}
    assert record.numbers["clock_ns"] == 6.21
    assert "each_step_process each_step   1      9\n" in capsys.readouterr().out
    left.write_text(report({"each_step": 2}))
    run_verb("emit", build)
    (build.out / "vitis.json").unlink()
    with pytest.raises(
        ToolError, match=r"^Vitis HLS lost II 1: each_step of each_step_process has"
    ):
        run_verb("vitis", build)
    assert not (build.out / "vitis.json").exists()


def test_failing_vitis_names_its_log(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    tool_at(build.out / "bin", "vitis_hls", "echo broken >&2; exit 3", monkeypatch)
    with pytest.raises(ArtefactError, match=r"stage 'emit' must run first: it has not run; run: p"):
        run_verb("vitis", build)
    run_verb("emit", build)
    log = build.hls / "vitis.log"
    with pytest.raises(ToolError) as caught:
        run_verb("vitis", build)
    assert str(caught.value) == f"vitis_hls failed with exit code 3; see '{log}'"
    assert (caught.value.exit_code, caught.value.log) == (3, log)
    assert log.read_text() == "broken\n"
    assert not (build.out / "vitis.json").exists()
