# SPDX-License-Identifier: Apache-2.0
"""The command lines from graph to report, on a small chain; and one line for every error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import codegen.__main__
import sim.__main__
from codegen.fuse import fuse
from codegen.golden import load_golden
from codegen.graph_text import save_graph
from codegen.stages.schedule import read_schedule
from sim import csim
from sim.stages.csim import compare
from tests.builds import TRAINING, play, play_all
from tests.engines import CACHE, chain_case, expected_maps
from tests.ladder import random_images
from tests.test_sim_report import NUMBERS
from winnow.artefact import load_arrays, save_arrays
from winnow.cli import guard
from winnow.config import load_config
from winnow.errors import MismatchError
from winnow.flow import STAGES, Build

MAINS = {"codegen": codegen.__main__.main, "sim": sim.__main__.main}
GRAPH = chain_case(33, 4)
VERBS = (("codegen", "schedule"), ("codegen", "emit"), ("sim", "csim"))
# What the RTL stages would record: making, simulating and mapping RTL takes too long here.
RTL_NUMBERS = {
    "synth": NUMBERS["synth"],
    "rtl": {"compile_seconds": 1.5},
    "bundle": NUMBERS["bundle"],
    "rtlsim": {
        "values": 321,
        "images": 3,
        "build_seconds": 2.5,
        "stall_0": {
            "cycles": [70000, 70001],
            "layer_cycles": {layer.name: 60000 + i for i, layer in enumerate(fuse(GRAPH))},
            "cycles_per_second": 1000,
        },
    },
}
Run = Callable[..., tuple[int, str, str]]


def tiny(out: Path) -> Build:
    """The build in `out` as its configuration describes it."""
    path = out.parent.parent / "tiny.toml"
    return Build(load_config(path), out, config_path=str(path))


def adopt(out: Path, config: Path) -> None:
    """Make the graph of a build that of another configuration."""
    build = Build(load_config(config), out, config_path=str(config))
    play_all(build, TRAINING, NUMBERS)
    play(build, "golden", [out / "golden.npz"], NUMBERS["golden"])
    play(build, "lower", [out / "graph.txt", out / "graph.npz"], NUMBERS["lower"])


def make_golden(out: Path, arrays: dict[str, np.ndarray]) -> None:
    """Put golden values in place as if their stage had made them, and lowering had agreed."""
    save_arrays(out / "golden.npz", arrays)
    play(tiny(out), "golden", [out / "golden.npz"], NUMBERS["golden"])
    play(tiny(out), "lower", [out / "graph.txt", out / "graph.npz"], NUMBERS["lower"])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A build as training and lowering leave it; compiled engines come from the tests' cache."""
    folder = tmp_path / "build" / "tiny"
    (tmp_path / "tiny.toml").write_text("[engine]\nm = 2\n")
    play_all(tiny(folder), TRAINING, NUMBERS)
    save_graph(folder, GRAPH)
    images = random_images(GRAPH, 0, 3)
    maps = {f"layer.{name}": values for name, values in expected_maps(GRAPH, images).items()}
    make_golden(folder, {"images": images, "labels": np.arange(3), **maps})
    CACHE.mkdir(parents=True, exist_ok=True)
    (folder.parent / ".cache").mkdir()
    (folder.parent / ".cache" / "csim").symlink_to(CACHE)
    return folder


@pytest.fixture
def run(
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Return `run(module, verb)` -> exit code, stdout, stderr of the command line."""

    def command(module: str, verb: str, config: str = "tiny.toml") -> tuple[int, str, str]:
        capsys.readouterr()
        options = ["--config", str(tmp_path / config), "--out", str(out)]
        monkeypatch.setattr(sys, "argv", [module, verb, *options])
        code = guard(MAINS[module])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def run_all(run: Run) -> None:
    for module, verb in VERBS:
        code, text, error = run(module, verb)
        assert (code, error) == (0, "")
        assert text.startswith(f"{verb}: ")


def fake_rtl(out: Path) -> None:
    play_all(tiny(out), ("rtl", "rtlsim", "synth", "bundle"), RTL_NUMBERS)


def error_of(result: tuple[int, str, str]) -> str:
    """Return the one line of a failed command."""
    code, text, error = result
    assert (code, text) == (1, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    return error.removeprefix("error: ").rstrip("\n")


def snapshot(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files}


def test_graph_becomes_checked_hardware_and_a_report(out: Path, run: Run) -> None:
    run_all(run)
    fake_rtl(out)
    count = sum(a.size for n, a in load_arrays(out / "golden.npz", "").items() if "." in n)
    csim = json.loads((out / "csim.json").read_text())["numbers"]
    assert (csim["values"], csim["images"]) == (count, 3)
    code, text, error = run("sim", "report")
    assert (code, error) == (0, "")
    assert f"  Brevitas (float64) = HLS C++       {count} integers, 3 images" in text
    assert "  Brevitas (float64) = RTL           321 integers, 3 images" in text
    for i, layer in enumerate(fuse(GRAPH)):
        (line,) = [x for x in text.splitlines() if x.split()[:1] == [layer.name]]
        assert str(60000 + i) in line.split()


def test_second_run_is_up_to_date_and_writes_nothing(out: Path, run: Run) -> None:
    run_all(run)
    before = {path: path.stat().st_mtime_ns for path in snapshot(out)}
    for module, verb in VERBS:
        assert run(module, verb) == (0, f"{verb}: up to date\n", "")
    assert {path: path.stat().st_mtime_ns for path in snapshot(out)} == before


def test_accuracy_is_that_of_the_labels(out: Path, run: Run) -> None:
    arrays = load_arrays(out / "golden.npz", "")
    guess = arrays[f"layer.{fuse(GRAPH)[-1].name}"].reshape(3, -1).argmax(1)
    arrays["labels"] = guess + np.array([0, 0, 1])
    make_golden(out, arrays)
    run_all(run)
    accuracy = json.loads((out / "csim.json").read_text())["numbers"]["accuracy"]
    assert accuracy == pytest.approx(200 / 3)


def test_changed_golden_value_names_layer_place_and_both_values(out: Path, run: Run) -> None:
    run_all(run)
    arrays = load_arrays(out / "golden.npz", "")
    name = fuse(GRAPH)[1].name
    golden = arrays[f"layer.{name}"]
    place = tuple(length - 1 for length in golden.shape)
    golden[place] += 1
    want, size = int(golden[place]), golden.size
    make_golden(out, arrays)
    before = snapshot(out)
    image, channel, y, x = place
    assert error_of(run("sim", "csim")) == (
        f"layer '{name}': image {image}, channel {channel}, y {y}, x {x} must be {want}, "
        f"got {want - 1}; 1 of {size} values differ"
    )
    assert snapshot(out) == before


def test_layer_without_golden_values_is_named(out: Path, run: Run) -> None:
    arrays = load_arrays(out / "golden.npz", "")
    name = fuse(GRAPH)[2].name
    del arrays[f"layer.{name}"]
    make_golden(out, arrays)
    run("codegen", "schedule")
    run("codegen", "emit")
    assert f"layer '{name}' must have an expected output" in error_of(run("sim", "csim"))


def test_images_of_another_network_are_one_line(out: Path, run: Run) -> None:
    arrays = load_arrays(out / "golden.npz", "")
    arrays["images"] = np.zeros((3, 40, 2, 2), dtype=np.int64)
    make_golden(out, arrays)
    run("codegen", "schedule")
    run("codegen", "emit")
    assert "feature maps must be" in error_of(run("sim", "csim"))


ARTEFACTS = (
    ("graph.txt", "lower"),
    ("graph.npz", "lower"),
    ("golden.npz", "golden"),
    ("schedule.txt", "schedule"),
    ("hls/data/program.bin", "schedule"),
    ("hls/data/weights.bin", "schedule"),
    ("hls/data/memory.json", "schedule"),
    ("hls/src/top.cpp", "emit"),
    ("hls/include/config.hpp", "emit"),
    *((f"{stage.name}.json", stage.name) for stage in STAGES if not stage.optional),
)


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", ["flip", "empty", "delete", "swap"])
@pytest.mark.parametrize(("name", "stage"), ARTEFACTS)
def test_report_refuses_every_damaged_artefact_by_name(
    out: Path, run: Run, name: str, stage: str, damage: str
) -> None:
    run_all(run)
    fake_rtl(out)
    assert run("sim", "report")[0] == 0
    path = out / name
    good = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        other = (out / ("csim.json" if name != "csim.json" else "rtl.json")).read_bytes()
        path.write_bytes({"flip": flipped(good), "empty": b"", "swap": other}[damage])
    before = snapshot(out)
    message = error_of(run("sim", "report"))
    assert message.startswith(f"'{out}': stage '{stage}' must run first: ")
    assert (
        "it has not run" if damage == "delete" and name == f"{stage}.json" else path.name
    ) in message
    assert message.endswith(f"run: {tiny(out).command('run')}")
    assert snapshot(out) == before


@pytest.mark.parametrize("damage", ["flip", "empty", "delete"])
@pytest.mark.parametrize(
    ("module", "verb", "name", "stage"),
    [
        ("codegen", "schedule", "graph.txt", "lower"),
        ("codegen", "schedule", "graph.npz", "lower"),
        ("codegen", "lower", "golden.npz", "golden"),
        ("sim", "csim", "golden.npz", "golden"),
        ("sim", "csim", "hls/data/weights.bin", "schedule"),
        ("sim", "csim", "hls/include/winnow/lane.hpp", "emit"),
        ("sim", "rtl", "hls/src/top.cpp", "emit"),
        ("sim", "rtlsim", "hls/data/program.bin", "schedule"),
        ("sim", "synth", "emit.json", "emit"),
        ("sim", "cocotb", "hls/data/program.bin", "schedule"),
        ("sim", "fill", "rtlsim.json", "rtlsim"),
        ("sim", "bench", "lower.json", "lower"),
    ],
)
def test_stage_refuses_what_is_damaged_before_it(
    out: Path, run: Run, module: str, verb: str, name: str, stage: str, damage: str
) -> None:
    run_all(run)
    fake_rtl(out)
    path = out / name
    good = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(flipped(good) if damage == "flip" else b"")
    before = snapshot(out)
    message = error_of(run(module, verb))
    assert message.startswith(f"'{out}': stage '{stage}' must run first: ")
    assert snapshot(out) == before
    path.write_bytes(good)
    if verb not in ("cocotb", "bench", "fill", "rtl", "lower"):
        assert run(module, verb) == (0, f"{verb}: up to date\n", "")


@pytest.mark.parametrize("name", ["schedule.txt", "hls/data/weights.bin", "hls/src/top.cpp"])
def test_damaged_output_is_made_again(out: Path, run: Run, name: str) -> None:
    run_all(run)
    before = snapshot(out)
    (out / name).write_bytes(b"")
    run_all(run)
    after = snapshot(out)
    assert after[out / name] == before[out / name]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[engine]\npoo = 4\n", "unknown key 'engine.poo'; the nearest valid one is 'engine.po'"),
        ("[engine]\npo = 3\n", "engine.po must be one of 1, 2, 4, 8; got 3"),
        ("[engine\n", "is not valid TOML"),
    ],
)
def test_bad_configuration_is_one_line(
    out: Path, run: Run, tmp_path: Path, config: str, message: str
) -> None:
    run_all(run)
    before = snapshot(out)
    (tmp_path / "bad.toml").write_text(config)
    for module, verb in VERBS:
        error = error_of(run(module, verb, "bad.toml"))
        assert "bad.toml" in error
        assert message in error
    assert snapshot(out) == before


def test_missing_configuration_lists_the_others(run: Run) -> None:
    message = error_of(run("codegen", "emit", "other.toml"))
    assert message.endswith("/ has: tiny")
    assert "other.toml' is missing" in message


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("m = 4", r"uses F(2,3), the engine is F(4,3); set engine.m = 2 or quantize again"),
    ],
)
def test_engine_too_small_is_one_line_and_spoils_nothing(
    out: Path, run: Run, tmp_path: Path, engine: str, message: str
) -> None:
    run_all(run)
    (tmp_path / "other.toml").write_text(f"[engine]\n{engine}\n")
    adopt(out, tmp_path / "other.toml")
    before = snapshot(out)
    error = error_of(run("codegen", "schedule", "other.toml"))
    assert error.startswith("layer '")
    assert message in error
    assert snapshot(out) == before
    adopt(out, tmp_path / "tiny.toml")
    assert run("codegen", "schedule") == (0, "schedule: up to date\n", "")


def test_engine_of_another_configuration_stops_with_a_status(
    out: Path, run: Run, tmp_path: Path
) -> None:
    """C++ and program that were not made for each other: the stage tells, and the signature."""
    run_all(run)
    (tmp_path / "other.toml").write_text("[engine]\nout_tiles = 128\n")
    adopt(out, tmp_path / "other.toml")
    assert run("codegen", "schedule", "other.toml")[0] == 0
    assert "stage 'emit' must run first: its config changed" in error_of(
        run("sim", "csim", "other.toml")
    )
    other = load_config(tmp_path / "other.toml")
    build = Build(other, out)
    engine = csim.build(out / "hls", CACHE)
    with pytest.raises(MismatchError, match="with status 3: the program was sched"):
        compare(engine, read_schedule(build), load_golden(build))


@pytest.mark.parametrize("module", MAINS)
def test_help_and_exit_code_of_a_real_process(module: str, root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module]
    helped = subprocess.run(
        [*command, "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    verbs = [stage.name for stage in STAGES if stage.folder == module]
    for verb in verbs:
        assert f"\n    {verb} " in helped.stdout
    verb = verbs[0]
    options = ["--config", str(tmp_path / "none.toml"), "--out", str(tmp_path)]
    failed = subprocess.run(
        [*command, verb, *options], cwd=root, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert error_of((1, "", failed.stderr)).startswith("configuration '")
    assert list(tmp_path.iterdir()) == []
