# SPDX-License-Identifier: Apache-2.0
"""The verb that runs a build with early exits on the compiled C++, and the files it writes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from codegen.abi import HEADER_WORDS, LAYER_WORDS
from quant import build as training
from quant.distill.exits import ask, curve
from quant.integer_exits import integer_costs, quantized_with_exits
from quant.run import run_stage as run_training
from sim import csim
from sim.exits import exits
from tests.engines import compiled
from winnow.config import Config, ModelConfig, PruneConfig, QuantizeConfig, TrainConfig
from winnow.errors import ArtefactError, ConfigError, MismatchError
from winnow.flow import BY_NAME, Build, run_stage

CONFIG = Config(
    model=ModelConfig(channels=(8, 16), pool_after=(1,), exit_after=(1,)),
    train=TrainConfig(epochs=1, batch=128),
    prune=PruneConfig(keep=2, method="magnitude", steps=1, epochs=1),
    quantize=QuantizeConfig(budget_share=1.0, epochs=1),
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A build up to stage `emit`."""
    out = tmp_path_factory.mktemp("exits")
    trained = training.Build(CONFIG, out, torch.device("cpu"))
    for name in ("train", "prune_channels", "prune", "bits", "qat", "golden"):
        run_training(BY_NAME[name], trained)
    build = Build(CONFIG, out)
    for name in ("lower", "schedule", "emit"):
        stage = BY_NAME[name]
        module = import_module(stage.module)
        run_stage(stage, build, lambda inputs, module=module: module.run(build, inputs))
    return build


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile no second engine of the same configuration."""
    engine = compiled("default")
    monkeypatch.setattr("sim.exits.csim.build", lambda *_: engine)


def test_test_images_leave_and_programs_are_written(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    exits(build, 0.3)
    line = capsys.readouterr().out
    assert line.startswith("exits: C++ = interpreter on ")
    assert "of 360 images, threshold 0.3, accuracy " in line
    assert "left at conv1 " in line
    folder = build.out / "exits"
    table = json.loads((folder / "memory.json").read_text())
    assert table["exits"] == {
        "threshold": 0.3,
        "parts": [
            {"exit": "conv1", "first": 0, "layers": 4},
            {"exit": "end", "first": 4, "layers": 2},
        ],
    }
    beats = (folder / "weights.bin").stat().st_size * 8 // CONFIG.engine.axi_bits
    assert table["weight_beats"] == beats
    whole = np.fromfile(folder / "program.bin", "<u8")[HEADER_WORDS:]
    for part in table["exits"]["parts"]:
        words = np.fromfile(folder / f"program_{part['exit']}.bin", "<u8")[HEADER_WORDS:]
        first = part["first"] * LAYER_WORDS
        assert len(words) == LAYER_WORDS * part["layers"]
        np.testing.assert_array_equal(words, whole[first : first + len(words)])
    assert len(table["layers"]) == 6


def test_without_a_threshold_it_is_the_one_of_validation_images(
    build: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = training.Build(CONFIG, build.out, torch.device("cpu"))
    net = quantized_with_exits(trained)
    answers = ask(net, trained.split().validation, torch.device("cpu"), quantized=True)
    points = curve(answers, *integer_costs(trained, net))
    good = [p for p in points if p.accuracy >= answers.alone[-1]]
    if good:
        expected = min(good, key=lambda p: p.cost).threshold
        assert exits(build).threshold == expected
        table = json.loads((build.out / "exits" / "memory.json").read_text())
        assert table["exits"]["threshold"] == expected
        assert f" images, threshold {expected:g}, accuracy " in capsys.readouterr().out
    monkeypatch.setattr("quant.integer_exits.cheapest", lambda *_: None)
    with pytest.raises(ConfigError, match=r"^no threshold is chosen: each loses to the end on "):
        exits(build)


def test_images_leave_on_the_engine_where_the_quantized_network_says(build: Build) -> None:
    """Two rungs, one rule: what is asked in float64 decides as the integers of the engine do."""
    trained = training.Build(CONFIG, build.out, torch.device("cpu"))
    net, samples = quantized_with_exits(trained), trained.split().test
    answers = ask(net, samples, torch.device("cpu"), quantized=True)
    threshold = float(np.median(answers.confidence[0]))
    left = exits(build, threshold).left
    np.testing.assert_array_equal(left.parts == 1, answers.confidence[0] >= threshold)


def test_files_of_another_network_do_not_stay(build: Build) -> None:
    folder = build.out / "exits"
    folder.mkdir(exist_ok=True)
    for name in ("program_conv7.bin", "exits.json"):
        (folder / name).write_bytes(b"old")
    (folder / "notes.txt").write_text("mine")
    exits(build, 0.5)
    assert {path.name for path in folder.iterdir()} == {
        *("program.bin", "weights.bin", "memory.json", "notes.txt"),
        *("program_conv1.bin", "program_end.bin"),
    }


def test_a_wrong_value_is_found(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = csim.layer_maps

    def one_off(*given: object) -> dict[str, np.ndarray]:
        maps = whole(*given)  # type: ignore[arg-type]
        maps["conv1"] = maps["conv1"] + 1
        return maps

    monkeypatch.setattr("sim.exits.csim.layer_maps", one_off)
    with pytest.raises(MismatchError, match="conv1"):
        exits(build, 0.5)


def test_without_golden_vectors_nothing_is_written(build: Build, tmp_path: Path) -> None:
    copy = replace(build, out=tmp_path / "copy")
    shutil.copytree(build.out, copy.out, ignore=shutil.ignore_patterns("exits", "golden.npz"))
    with pytest.raises(ArtefactError, match=r"golden"):
        exits(copy, 0.5)
    assert not (copy.out / "exits").exists()


def test_thresholds_and_networks_without_exits_are_refused(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"^--threshold must be within 0\.\.1, got 1\.5$"):
        exits(build, 1.5)
    with pytest.raises(ArtefactError, match="emit"):
        exits(replace(build, out=tmp_path), 0.5)
    monkeypatch.setattr("sim.exits.lower_build_exits", lambda _: (None, {}))
    with pytest.raises(ConfigError, match=r"^exits needs a network with exits; set model"):
        exits(build, 0.5)
