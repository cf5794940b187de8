# SPDX-License-Identifier: Apache-2.0
"""data.labels = "values": a network that gives numbers, from its data to integers and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.golden import load_golden
from codegen.interpret import interpret
from codegen.lower import lower_checkpoint
from codegen.schedule import schedule
from quant.build import Build, new_network
from quant.data import load_split
from quant.exchange import TOOLS
from quant.run import STAGES, run_stage
from winnow.artefact import Record
from winnow.config import DataConfig, load_config
from winnow.errors import ConfigError, NetworkError
from winnow.score import score_in, score_of, score_text

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (300, 1, 8, 10), np.uint8)
IMAGES[:, 0, :4] = RNG.integers(0, 256, (300, 1, 1))  # the upper half is of one grey
VALUES = IMAGES.reshape(300, 2, 40).mean(2) / 64 - 2  # mean of the upper and the lower half

NET = """
from torch import nn

def make_net(end=False):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(160, 2), *([nn.Sigmoid()] if end else []),
    )
"""
CONFIG = """
[data]
source = "npz"
path = "x.npz"
labels = "values"
[model]
name = "net.py:make_net"
[train]
epochs = 12
batch = 16
[prune]
keep = 4
epochs = 3
steps = 1
[quantize]
epochs = 3
"""


def build_of(folder: Path, text: str = CONFIG) -> Build:
    (folder / "net.py").write_text(NET)
    np.savez(folder / "x.npz", images=IMAGES, labels=VALUES)
    (folder / "x.toml").write_text(text)
    return Build(load_config(folder / "x.toml"), folder / "out", config_path="x.toml")


@pytest.mark.parametrize("sensitivity", ["kl", "hessian"])
def test_network_of_values_is_trained_and_lowered(sensitivity: str, tmp_path: Path) -> None:
    build = build_of(tmp_path, f'{CONFIG}sensitivity = "{sensitivity}"\n')
    for stage in STAGES.values():
        run_stage(stage, build)
    numbers = {name: Record.load(build.out / f"{name}.json", "").numbers for name in STAGES}
    spread = float(VALUES.var())
    assert score_in(numbers["train"], "fp32")[0] == "error"
    assert numbers["train"]["fp32_error"] < 0.2 * spread
    assert numbers["qat"]["quantized_error"] < 0.2 * spread
    assert numbers["golden"]["golden_error"] == pytest.approx(numbers["qat"]["quantized_error"])
    graph, golden = lower_checkpoint(build.config, build.out), load_golden(build)
    last = schedule(graph, build.config.engine).layers[-1]
    found = interpret(graph, golden.images)[last.name].reshape(len(golden.labels), -1)
    error = score_of(found, golden.labels, 2.0**last.result.tensor.exponent)["error"]
    assert error == numbers["golden"]["golden_error"]
    off = found * 2.0**last.result.tensor.exponent - build.split().test.labels.double().numpy()
    assert error == float((off**2).mean())


def data(folder: Path, **arrays: Any) -> DataConfig:
    np.savez(folder / "x.npz", **({"images": IMAGES, "labels": VALUES} | arrays))
    return DataConfig(source="npz", path="x.npz", base=folder, labels="values")


def test_values_are_read_as_they_are(tmp_path: Path) -> None:
    split = load_split(data(tmp_path))
    assert [len(p) for p in (split.train, split.validation, split.test)] == [216, 24, 60]
    assert split.classes == 2
    expected = {x.tobytes(): y for x, y in zip(IMAGES, VALUES, strict=True)}
    for part in (split.train, split.validation, split.test):
        for image, values in zip(part.images[: len(part)], part.labels, strict=True):
            want = expected.pop(image.numpy().tobytes())
            assert np.array_equal(values.numpy(), want.astype(np.float32))
    assert not expected
    single = load_split(data(tmp_path, labels=np.arange(300), split=np.arange(300) % 3))
    assert single.test.labels[:, 0].tolist() == list(range(2, 300, 3))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": np.full((300, 2), "a")}, "labels must be numbers [n] or [n, k] for data.labe"),
        ({"labels": VALUES[:9]}, "labels must be one per image, got 9 for 300 images"),
        ({"labels": VALUES * np.nan}, "labels must be finite and at most 1e+06 for data.labels"),
        ({"labels": VALUES * 1e7}, "labels must be finite and at most 1e+06 for data.labels"),
        (
            {"test_images": IMAGES, "test_labels": VALUES[:, 0]},
            "test labels must have 2 values each as those of training, got 1",
        ),
        ({"images": IMAGES[:1], "labels": VALUES[:1]}, "there must be more images to cut a test"),
    ],
)
def test_wrong_values_are_refused(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_split(data(tmp_path, **arrays))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_needs_classes_is_refused(tmp_path: Path) -> None:
    build = build_of(tmp_path)
    for verb in ("report", "exits"):
        with pytest.raises(ConfigError, match=f"{verb} needs data.labels 'classes', got 'values'"):
            TOOLS[verb].run(build, None)  # type: ignore[arg-type]
    build = build_of(tmp_path, CONFIG.replace("[train]", "arguments = { end = true }\n[train]"))
    with pytest.raises(NetworkError, match=r"'7' \(Sigmoid\) ends the network, which gives the"):
        new_network(build)
    with pytest.raises(ConfigError, match=r"data\.labels must be 'classes' for data\.sour"):
        DataConfig(labels="values")
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=VALUES[:, :1])
    build = Build(load_config(tmp_path / "x.toml"), tmp_path / "out")
    with pytest.raises(NetworkError, match=r"ends with 2 values, the data have 1 values; give its"):
        new_network(build)


def test_scores_in_words() -> None:
    assert score_text("accuracy", 12.345) == "accuracy 12.35%"
    assert score_text("error", 0.0123456) == "mean squared error 0.01235"
    with pytest.raises(KeyError):
        score_in({}, "fp32")
