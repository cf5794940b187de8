# SPDX-License-Identifier: Apache-2.0
"""The stages of `python -m codegen` on a small chain: what they read, write and refuse."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import codegen.stages as stages
from codegen.graph_text import load_graph, save_graph
from codegen.interpret import interpret
from codegen.ir import Graph
from codegen.stages import STAGES, Build, format_schedule, load_golden, read_schedule
from tests.engines import chain_case
from tests.ladder import random_images
from winnow.artefact import Record, save_arrays
from winnow.config import Config
from winnow.engine import EngineConfig
from winnow.errors import ArtefactError, MismatchError, ScheduleError, ToolError

GRAPH = chain_case(11, 4)


def golden_of(graph: Graph) -> dict[str, np.ndarray]:
    images = random_images(graph, 0, 3)
    maps = {f"layer.{name}": values for name, values in interpret(graph, images).items()}
    return {"images": images, "labels": np.arange(3), **maps}


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A build whose graph and golden values are there."""
    save_graph(tmp_path, GRAPH)
    save_arrays(tmp_path / "golden.npz", golden_of(GRAPH))
    return Build(Config(), Path("configs/x.toml"), tmp_path)


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_command_is_what_the_user_can_paste(build: Build) -> None:
    expected = f"python -m quant golden --config configs/x.toml --out {build.out}"
    assert build.command("quant", "golden") == expected


def test_inputs_follow_configuration_code_and_files(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build.inputs(("engine",), {"graph.txt": ""})
    assert set(before) == {"config", "code", "graph.txt"}
    other = replace(build, config=replace(build.config, engine=EngineConfig(po=2)))
    assert other.inputs(("engine",), {"graph.txt": ""})["config"] != before["config"]
    assert other.inputs(("target",), {}) == build.inputs(("target",), {})
    (build.out / "graph.txt").write_text("changed")
    assert build.inputs(("engine",), {"graph.txt": ""})["graph.txt"] != before["graph.txt"]
    asked: list[str] = []
    monkeypatch.setattr(stages, "sources_hash", lambda folder: asked.append(folder.name) or "h")
    build.inputs((), {})
    assert asked == ["codegen", "winnow"]


def test_missing_input_names_file_and_command(build: Build) -> None:
    (build.out / "graph.npz").unlink()
    with pytest.raises(ArtefactError) as caught:
        STAGES["schedule"](build)
    assert str(caught.value) == (
        f"'{build.out / 'graph.npz'}' is missing; make it with: "
        f"python -m codegen lower --config configs/x.toml --out {build.out}"
    )


def test_schedule_writes_table_data_and_record(build: Build) -> None:
    STAGES["schedule"](build)
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
            layer.shape.op,
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
    STAGES["schedule"](build)
    before = snapshot(build.out)
    tight = replace(build, config=replace(build.config, engine=EngineConfig(m=4)))
    with pytest.raises(ScheduleError, match=r"uses F\(2,3\), the engine is F\(4,3\)"):
        STAGES["schedule"](tight)
    assert snapshot(build.out) == before


def test_emit_needs_no_graph_and_follows_the_templates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Build(Config(), Path("configs/x.toml"), tmp_path / "new")
    STAGES["emit"](build)
    STAGES["emit"](build)
    assert capsys.readouterr().out.splitlines()[1] == "emit: up to date"
    top = build.hls / "src" / "top.cpp"
    good = top.read_bytes()
    top.write_bytes(good + b"// edited\n")
    STAGES["emit"](build)
    assert top.read_bytes() == good
    assert Record.load(build.out / "emit.json", "").numbers["files"] == len(snapshot(build.hls))


def test_golden_is_read_as_int64(build: Build) -> None:
    golden = load_golden(build)
    assert list(golden.layers) == [layer.name for layer in GRAPH.layers]
    arrays = [golden.images, golden.labels, *golden.layers.values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}
    count = stages.require_golden(interpret(GRAPH, golden.images), golden)
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
    """A build before lowering; the checkpoint lowers to GRAPH without torch."""
    for name in ("graph.txt", "graph.npz"):
        (build.out / name).unlink()
    save_arrays(build.out / "qat.npz", {})
    (build.out / "bits.json").write_text("8 8")
    fake = SimpleNamespace(lower_checkpoint=lambda *_: GRAPH)
    monkeypatch.setitem(sys.modules, "codegen.lower", fake)
    return build


def test_lower_writes_the_graph_it_has_checked(
    lowering: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    STAGES["lower"](lowering)
    assert len(load_graph(lowering.out).layers) == 4
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
    name = GRAPH.layers[2].name
    arrays[f"layer.{name}"][2, 0, 0, 0] += 1
    save_arrays(lowering.out / "golden.npz", arrays)
    with pytest.raises(MismatchError, match=f"layer '{name}': image 2, channel 0, y 0, x 0 must"):
        STAGES["lower"](lowering)
    assert {path.name for path in lowering.out.iterdir()} == {
        "bits.json",
        "golden.npz",
        "qat.npz",
    }


def test_other_widths_lower_again(lowering: Build, capsys: pytest.CaptureFixture[str]) -> None:
    STAGES["lower"](lowering)
    (lowering.out / "bits.json").write_text("8 4")
    STAGES["lower"](lowering)
    STAGES["lower"](lowering)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("lower: 4 layers")
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
def test_vitis_runs_the_script_and_keeps_its_log(
    build: Build, name: str, arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool_at(build.out / "bin", name, 'echo "$PWD $*"', monkeypatch)
    STAGES["emit"](build)
    STAGES["vitis"](build)
    assert (build.hls / "vitis.log").read_text() == f"{build.hls} {arguments}\n"
    assert set(Record.load(build.out / "vitis.json", "").outputs) == {"hls/vitis.log"}


def test_failing_vitis_names_its_log(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    tool_at(build.out / "bin", "vitis_hls", "echo broken >&2; exit 3", monkeypatch)
    with pytest.raises(ArtefactError, match=r"csynth\.tcl' is missing; make it with: python -m co"):
        STAGES["vitis"](build)
    STAGES["emit"](build)
    log = build.hls / "vitis.log"
    with pytest.raises(ToolError) as caught:
        STAGES["vitis"](build)
    assert str(caught.value) == f"vitis_hls failed with exit code 3; see '{log}'"
    assert (caught.value.exit_code, caught.value.log) == (3, log)
    assert log.read_text() == "broken\n"
    assert not (build.out / "vitis.json").exists()
