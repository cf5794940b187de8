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
from codegen.graph_text import save_graph
from codegen.interpret import interpret
from tests.engines import CACHE, chain_case
from tests.ladder import random_images
from tests.test_sim_report import RECORDS
from winnow.artefact import Record, load_arrays, save_arrays
from winnow.cli import guard

MAINS = {"codegen": codegen.__main__.main, "sim": sim.__main__.main}
GRAPH = chain_case(33, 4)
VERBS = (("codegen", "schedule"), ("codegen", "emit"), ("sim", "csim"))
# What the RTL stages would record: making, simulating and mapping RTL takes too long here.
RTL_RECORDS = {
    "synth": RECORDS["synth"],
    "rtl": Record("rtl", {}, {}, {"compile_seconds": 1.5, "seconds": 2.0}),
    "rtlsim": Record(
        "rtlsim",
        {},
        {},
        {
            "values": 321,
            "images": 3,
            "build_seconds": 2.5,
            "seconds": 3.0,
            "stall_0": {
                "cycles": [70000, 70001],
                "layer_cycles": {layer.name: 60000 + i for i, layer in enumerate(GRAPH.layers)},
                "cycles_per_second": 1000,
            },
        },
    ),
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A build as training and lowering leave it; compiled engines come from the tests' cache."""
    folder = tmp_path / "build" / "tiny"
    save_graph(folder, GRAPH)
    images = random_images(GRAPH, 0, 3)
    maps = {f"layer.{name}": values for name, values in interpret(GRAPH, images).items()}
    save_arrays(folder / "golden.npz", {"images": images, "labels": np.arange(3), **maps})
    for stage in ("train", "shrink", "prune", "bits", "qat", "golden", "lower"):
        RECORDS[stage].save(folder / f"{stage}.json")
    (tmp_path / "tiny.toml").write_text("[engine]\nm = 2\n")
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
    for stage, record in RTL_RECORDS.items():
        record.save(out / f"{stage}.json")


def error_of(result: tuple[int, str, str]) -> str:
    """Return the one line of a failed command."""
    code, text, error = result
    assert (code, text) == (1, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    return error.removeprefix("error: ").rstrip("\n")


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    for i, layer in enumerate(GRAPH.layers):
        (line,) = [x for x in text.splitlines() if x.split()[:1] == [layer.name]]
        assert str(60000 + i) in line.split()


def test_second_run_is_up_to_date_and_writes_nothing(out: Path, run: Run) -> None:
    run_all(run)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for module, verb in VERBS:
        assert run(module, verb) == (0, f"{verb}: up to date\n", "")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_accuracy_is_that_of_the_labels(out: Path, run: Run) -> None:
    arrays = load_arrays(out / "golden.npz", "")
    guess = arrays[f"layer.{GRAPH.layers[-1].name}"].reshape(3, -1).argmax(1)
    arrays["labels"] = guess + np.array([0, 0, 1])
    save_arrays(out / "golden.npz", arrays)
    run_all(run)
    accuracy = json.loads((out / "csim.json").read_text())["numbers"]["accuracy"]
    assert accuracy == pytest.approx(200 / 3)


def test_changed_golden_value_names_layer_place_and_both_values(out: Path, run: Run) -> None:
    run_all(run)
    arrays = load_arrays(out / "golden.npz", "")
    name = GRAPH.layers[1].name
    golden = arrays[f"layer.{name}"]
    place = tuple(length - 1 for length in golden.shape)
    golden[place] += 1
    want, size = int(golden[place]), golden.size
    save_arrays(out / "golden.npz", arrays)
    before = snapshot(out)
    image, channel, y, x = place
    assert error_of(run("sim", "csim")) == (
        f"layer '{name}': image {image}, channel {channel}, y {y}, x {x} must be {want}, "
        f"got {want - 1}; 1 of {size} values differ"
    )
    assert snapshot(out) == before


def test_layer_without_golden_values_is_named(out: Path, run: Run) -> None:
    arrays = load_arrays(out / "golden.npz", "")
    name = GRAPH.layers[2].name
    del arrays[f"layer.{name}"]
    save_arrays(out / "golden.npz", arrays)
    run("codegen", "schedule")
    run("codegen", "emit")
    assert f"layer '{name}' must have an expected output" in error_of(run("sim", "csim"))


def test_images_of_another_network_are_one_line(out: Path, run: Run) -> None:
    arrays = load_arrays(out / "golden.npz", "")
    arrays["images"] = np.zeros((3, 40, 2, 2), dtype=np.int64)
    save_arrays(out / "golden.npz", arrays)
    run("codegen", "schedule")
    run("codegen", "emit")
    assert "feature maps must be" in error_of(run("sim", "csim"))


@pytest.mark.parametrize(
    ("module", "verb", "name", "maker"),
    [
        ("codegen", "schedule", "graph.txt", "codegen lower"),
        ("codegen", "schedule", "graph.npz", "codegen lower"),
        ("codegen", "lower", "qat.npz", "quant qat"),
        ("sim", "csim", "golden.npz", "quant golden"),
        ("sim", "csim", "schedule.json", "codegen schedule"),
        ("sim", "csim", "emit.json", "codegen emit"),
        ("sim", "report", "csim.json", "sim csim"),
        ("sim", "report", "train.json", "quant train"),
        ("sim", "report", "rtl.json", "sim rtl"),
        ("sim", "report", "rtlsim.json", "sim rtlsim"),
        ("sim", "rtl", "emit.json", "codegen emit"),
        ("sim", "rtlsim", "golden.npz", "quant golden"),
        ("sim", "rtlsim", "rtl.json", "sim rtl"),
        ("sim", "synth", "rtl.json", "sim rtl"),
        ("sim", "bench", "lower.json", "codegen lower"),
    ],
)
def test_missing_file_names_the_command_that_makes_it(
    out: Path, run: Run, tmp_path: Path, module: str, verb: str, name: str, maker: str
) -> None:
    if name not in ("schedule.json", "emit.json"):
        run_all(run)
    elif name == "emit.json":
        run("codegen", "schedule")
    fake_rtl(out)
    (out / name).unlink(missing_ok=True)
    before = snapshot(out)
    assert error_of(run(module, verb)) == (
        f"'{out / name}' is missing; make it with: "
        f"python -m {maker} --config {tmp_path / 'tiny.toml'} --out {out}"
    )
    assert snapshot(out) == before


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
@pytest.mark.parametrize(
    ("module", "verb", "name"),
    [("codegen", "schedule", "graph.npz"), ("sim", "csim", "golden.npz")],
)
def test_damaged_archive_is_one_line(
    out: Path, run: Run, module: str, verb: str, name: str, damage: str
) -> None:
    run_all(run)
    good = (out / name).read_bytes()
    middle = len(good) // 2
    bad = {
        "cut": good[:middle],
        "flip": good[:middle] + bytes([good[middle] ^ 0x10]) + good[middle + 1 :],
        "empty": b"",
        "text": b"not an archive\n",
    }[damage]
    (out / name).write_bytes(bad)
    before = snapshot(out)
    message = error_of(run(module, verb))
    assert f"'{out / name}' is damaged" in message
    assert snapshot(out) == before
    (out / name).write_bytes(good)
    assert run(module, verb) == (0, f"{verb}: up to date\n", "")


def test_damaged_graph_text_is_one_line(out: Path, run: Run) -> None:
    text = (out / "graph.txt").read_text()
    (out / "graph.txt").write_text(text.replace("m=2", "m=4", 1))
    assert "graph.txt' is damaged or belongs to another build" in error_of(
        run("codegen", "schedule")
    )


def test_damaged_record_is_one_line(out: Path, run: Run) -> None:
    run_all(run)
    (out / "csim.json").write_text("{")
    message = error_of(run("sim", "report"))
    assert f"'{out / 'csim.json'}' is damaged; delete it and run: python -m sim csim" in message


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
        ("w_words = 16", "words of a W bank, engine.w_words is 16; raise engine.w_words"),
    ],
)
def test_engine_too_small_is_one_line_and_spoils_nothing(
    out: Path, run: Run, tmp_path: Path, engine: str, message: str
) -> None:
    run_all(run)
    before = snapshot(out)
    (tmp_path / "other.toml").write_text(f"[engine]\n{engine}\n")
    error = error_of(run("codegen", "schedule", "other.toml"))
    assert error.startswith("layer '")
    assert message in error
    assert snapshot(out) == before
    assert run("codegen", "schedule") == (0, "schedule: up to date\n", "")


def test_engine_of_another_configuration_stops_with_a_status(run: Run, tmp_path: Path) -> None:
    """C++ and program that were not made for each other: the signature tells."""
    run_all(run)
    (tmp_path / "other.toml").write_text("[engine]\nout_tiles = 128\n")
    assert run("codegen", "schedule", "other.toml")[0] == 0
    error = error_of(run("sim", "csim", "other.toml"))
    assert "with status 3: the program was scheduled for an engine with other parameters" in error


@pytest.mark.parametrize("module", MAINS)
def test_help_and_exit_code_of_a_real_process(module: str, root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module]
    helped = subprocess.run(
        [*command, "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    stages = {"codegen": codegen.__main__.STAGES, "sim": sim.__main__.STAGES}[module]
    for verb, stage in stages.items():
        assert f"\n    {verb} " in helped.stdout
        assert stage.__doc__
    verb = next(iter(stages))
    options = ["--config", str(tmp_path / "none.toml"), "--out", str(tmp_path)]
    failed = subprocess.run(
        [*command, verb, *options], cwd=root, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert error_of((1, "", failed.stderr)).startswith("configuration '")
    assert list(tmp_path.iterdir()) == []
