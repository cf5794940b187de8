# SPDX-License-Identifier: Apache-2.0
"""Import, export and the page of a run, through the command line on a tiny network."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from quant.__main__ import main
from quant.build import Build, new_network
from quant.exchange import print_data
from quant.report.plot import Series, make_plot
from quant.run import STAGES, run_stage
from winnow.artefact import Record, load_arrays
from winnow.cli import guard
from winnow.config import Config, DataConfig, load_config
from winnow.errors import ConfigError

CONFIG = """
[model]
channels = [4, 8]
pool_after = [1, 2]
exit_after = [1]
[train]
epochs = 3
validate_every = 1
batch = 128
[prune]
steps = 2
epochs = 2
[quantize]
epochs = 1
budget_share = 1.0
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.toml and a finished build in out/; tests must not change it."""
    folder = tmp_path_factory.mktemp("tools")
    (folder / "tiny.toml").write_text(CONFIG)
    build = Build(load_config(folder / "tiny.toml"), folder / "out", torch.device("cpu"))
    for stage in STAGES.values():
        run_stage(stage, build)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def run(folder: Path, *arguments: str) -> int:
    """Run `python -m quant` on the folder's build; return its exit code."""
    verb, *rest = arguments
    files = ["--config", str(folder / "tiny.toml"), "--out", str(folder / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["quant", verb, *files, *rest])
        return guard(main)


def test_imported_weights_are_those_of_the_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Build(load_config(folder / "tiny.toml"), folder / "out", torch.device("cpu"))
    torch.manual_seed(5)
    net = new_network(build)
    torch.save({"state_dict": net.state_dict()}, folder / "mine.pth")
    assert run(folder, "import", "--checkpoint", str(folder / "mine.pth")) == 0
    told = capsys.readouterr().out
    assert "tensors of" in told
    assert re.match(r"import: WARNING: test accuracy [\d.]+% is that of guessing among 10", told)
    saved = load_arrays(folder / "out" / "train.npz", "")
    assert all((saved[name] == value.numpy()).all() for name, value in net.state_dict().items())
    assert run(folder, "train") == 0
    assert capsys.readouterr().out == "train: up to date\n"  # the stages after it take the weights
    assert run(folder, "prune_channels") == 0  # the next stage
    assert Record.load(folder / "out" / "train.json", "").numbers["imported"] == "mine.pth"


def test_imported_weights_may_be_those_of_normalised_images(folder: Path) -> None:
    """The file has the network's own number of channels; the constant one is added after it."""
    module = new_network(Build(load_config(folder / "tiny.toml"), folder / "out"))
    torch.save(module.state_dict(), folder / "mine.pth")
    (folder / "tiny.toml").write_text(CONFIG + "[data]\nmean = [0.25]\n")
    assert run(folder, "import", "--checkpoint", str(folder / "mine.pth")) == 0
    saved = load_arrays(folder / "out" / "train.npz", "")["conv1.weight"]
    weight = module.state_dict()["conv1.weight"].numpy() * (256 / 255)
    assert saved.shape == (4, 2, 3, 3)
    assert np.allclose(saved[:, :1], weight, atol=1e-7)
    assert np.allclose(saved[:, 1:], -0.25 * weight, atol=1e-7)


def test_foreign_checkpoint_changes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weight": torch.zeros(1)}, folder / "other.pt")
    before = (folder / "out" / "train.npz").read_bytes()
    assert run(folder, "import", "--checkpoint", str(folder / "other.pt")) == 1
    error = capsys.readouterr().err
    assert re.match(r"error: checkpoint '.*other.pt' belongs to another model: .*\n$", error)
    assert (folder / "out" / "train.npz").read_bytes() == before


@pytest.mark.parametrize("network", ["fp32", "quantized"])
def test_exports_are_checked(
    folder: Path, network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx", reason="exports need the package onnx")
    path = folder / "net.onnx"
    assert run(folder, "export", "--network", network, "--file", str(path)) == 0
    assert path.stat().st_size > 1000
    assert f"equals the {network} network" in capsys.readouterr().out


def test_export_of_an_unfinished_build_names_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out" / "qat.npz").unlink()
    path = folder / "net.onnx"
    assert run(folder, "export", "--network", "quantized", "--file", str(path)) == 1
    error = capsys.readouterr().err
    assert f"python -m quant qat --config {folder / 'tiny.toml'} --out" in error
    assert not path.exists()


class _Page(HTMLParser):
    """Counts tags and collects texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 (its signature)
        self.tags[tag] = self.tags.get(tag, 0) + 1

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()]


def test_report_shows_the_records(folder: Path) -> None:
    assert run(folder, "report") == 0
    page = _Page((folder / "out" / "report.html").read_text())
    for stage, kind in (("train", "fp32"), ("prune", "pruned"), ("qat", "quantized")):
        accuracy = Record.load(folder / "out" / f"{stage}.json", "").numbers[f"{kind}_accuracy"]
        assert f"{accuracy:.2f} %" in page.texts
    assert page.tags["polyline"] == 6  # loss and validation accuracy of three stages
    assert {"conv1", "conv2", "fc"} <= set(page.texts)
    masks = load_arrays(folder / "out" / "prune.npz", "")
    kept = 100 * (masks["conv2.weight"] * masks["conv2.mask"] != 0).mean(axis=(0, 1)).round(4)
    assert f"{kept[0]:.0f}" in page.texts


def test_report_of_an_unfinished_run_names_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out" / "qat.json").unlink()
    assert run(folder, "report") == 1
    error = capsys.readouterr().err
    assert "stage 'qat' must run first: it has not run; run: python -m quant qat" in error
    assert not (folder / "out" / "report.html").exists()


@pytest.mark.parametrize("verb", ["report", "trace", "exits", "export"])
def test_what_is_not_of_this_configuration_is_not_shown(
    folder: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tiny.toml").write_text(CONFIG.replace("epochs", "learning_rate = 1e-4\nepochs", 1))
    rest = ["--file", str(folder / "net.onnx")] if verb == "export" else []
    assert run(folder, verb, *rest) == 1
    told, error = capsys.readouterr()
    assert told == ""
    assert "stage 'train' must run first: its config changed; run: python -m quant tr" in error


def test_plot_places_values_on_its_axes() -> None:
    plot = make_plot("t", ("x", "y"), [Series("a", ((0, 10), (4, 20))), Series("b", ())])
    assert plot is not None
    assert [series.name for series in plot.series] == ["a"]
    (left, low), (right, high) = ((plot.x.at(0), plot.y.at(10)), (plot.x.at(4), plot.y.at(20)))
    assert left < right
    assert low > high  # SVG counts rows down
    assert [label for _, label in plot.x.ticks] == ["0", "1", "2", "3", "4"] or len(
        plot.x.ticks
    ) < 9
    assert plot.path(plot.series[0]) == f"{left},{low} {right},{high}"
    assert make_plot("t", ("x", "y"), [Series("b", ())]) is None


def test_plot_of_one_value_has_a_range() -> None:
    plot = make_plot("t", ("x", "y"), [Series("a", ((3, 0),))])
    assert plot is not None
    assert plot.x.low < 3 < plot.x.high
    assert plot.y.low < 0 < plot.y.high


def test_data_whose_mean_has_other_channels_are_refused() -> None:
    build = Build(Config(data=DataConfig(mean=(0.5, 0.5))), Path("never"))
    with pytest.raises(ConfigError, match=r"^data\.mean must have 1 value for images of 1 channel"):
        print_data(build, argparse.Namespace())
