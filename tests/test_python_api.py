# SPDX-License-Identifier: Apache-2.0
"""`import winnow`: own training loops, one layer to C++, whole builds, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import winnow
from quant.layers.winograd_layer import TapLayer
from quant.network.network_file import load_network
from tests.conftest import ROOT
from winnow.config import load_config
from winnow.errors import ConfigError, NetworkError
from winnow.given import format_toml, write_given

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 1, 8, 8), np.uint8)
LABELS = np.arange(40) % 4


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 16, 4),
    )


def steps(module: nn.Module, count: int = 3) -> float:
    """Train a module as a user does; return the last loss."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    x, y = winnow.to_input(torch.from_numpy(IMAGES)), torch.from_numpy(LABELS)
    for _ in range(count):
        loss = F.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def zeros(module: nn.Module) -> list[torch.Tensor]:
    return [layer.u.detach() == 0 for layer in module.modules() if isinstance(layer, TapLayer)]


def test_importing_winnow_imports_nothing_heavy() -> None:
    code = (
        "import sys, winnow; print(sorted({'torch', 'numpy', 'quant', 'sim'} & {*sys.modules}));"
        "print(set(['build', 'prune']) <= set(dir(winnow)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\nTrue\n"
    with pytest.raises(AttributeError, match="module 'winnow' has no attribute 'prun'"):
        _ = winnow.prun


@pytest.mark.parametrize("method", ["obs", "magnitude"])
def test_pruned_network_trains_and_keeps_its_zeros(method: str) -> None:
    original = net()
    before = {name: value.clone() for name, value in original.state_dict().items()}
    pruned = winnow.prune(original, IMAGES, keep=2, method=method)
    assert pruned.training
    found = zeros(pruned)
    assert [float(zero.float().mean()) for zero in found] == [0.0, 0.75, 0.75]
    first = steps(pruned, 1)
    assert steps(pruned, 5) < first
    assert all(bool(now[then].all()) for now, then in zip(zeros(pruned), found, strict=True))
    thinner = winnow.prune(pruned, IMAGES, keep=1, method=method)
    assert [float(zero.float().mean()) for zero in zeros(thinner)] == [0.0, 0.875, 0.875]
    after = original.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_quantized_network_trains_and_lowers_to_equal_integers(tmp_path: Path) -> None:
    pruned = winnow.prune(net(), IMAGES, keep=2)
    steps(pruned)
    quantized = winnow.quantize(pruned, IMAGES, weight_bits={"0": 8, "3": 4, "7": 8})
    assert quantized.training
    first = steps(quantized, 1)
    assert steps(quantized, 5) < first
    made = winnow.layer(quantized.eval(), IMAGES[:3], out=tmp_path / "whole")
    assert [plan.name for plan in made.plan.layers] == ["layer_0", "layer_3", "layer_7"]
    assert made.golden.layers["layer_7"].shape == (3, 4, 1, 1)
    assert [plan.shape.weight_bits for plan in made.plan.layers] == [8, 4, 8]
    assert [plan.shape.keep for plan in made.plan.layers] == [1, 2, 2]
    assert (tmp_path / "whole" / "hls" / "src" / "top.cpp").is_file()
    assert (tmp_path / "whole" / "graph.txt").is_file()


@pytest.mark.slow
def test_one_layer_goes_to_equal_cpp_and_rtl(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = RNG.integers(0, 256, (2, 16, 6, 10), np.uint8)
    made = winnow.layer(nn.Conv2d(16, 8, 3, padding=1), images, out=tmp_path / "conv", keep=2)
    assert made.csim() == 2 * 8 * 6 * 10
    names = {path.name for path in made.rtl()}
    assert "winnow_engine.sv" in names
    assert made.rtlsim() == 2 * (2 * 8 * 6 * 10)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "keep": ({"keep": 0}, "prune.keep must be an integer in 1..8, got 0"),
    "method": ({"method": "admm"}, "method must be one of obs, magnitude, got 'admm'"),
    "module": ({"net": None}, "net must be an nn.Module, got NoneType"),
    "m": ({"m": 3}, "engine.m must be one of 2, 4; got 3"),
    "floats": ({"images": IMAGES / 255.0}, "images must be uint8, got float64 in 0..1; use"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_of_prune_are_refused(case: str) -> None:
    changes, message = REFUSED[case]
    arguments: dict[str, Any] = {"net": net(), "images": IMAGES} | changes
    with pytest.raises((ConfigError, NetworkError)) as caught:
        winnow.prune(**arguments)
    assert str(caught.value).startswith(message)


def test_wrong_arguments_of_quantize_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must give a width for each of 0, 3, 7, got 0$"):
        winnow.quantize(net(), IMAGES, weight_bits={"0": 8})
    with pytest.raises(ConfigError, match=r"quantize\.weight_bits must be a list of at least 1"):
        winnow.quantize(net(), IMAGES, weight_bits=9)
    quantized = winnow.quantize(net(), IMAGES)
    with pytest.raises(NetworkError, match="is quantized already; give the one before that"):
        winnow.quantize(quantized, IMAGES)
    pruned = winnow.prune(net(), IMAGES)
    with pytest.raises(ConfigError, match=r"images must be \[1, 8, 8\] \(c, h, w\) as the netwo"):
        winnow.quantize(pruned, IMAGES[:, :, :6])
    with pytest.raises(NetworkError, match=r"must be what winnow\.quantize returned"):
        winnow.layer(nn.Sequential(quantized), IMAGES, out=tmp_path / "x")
    with pytest.raises(ConfigError, match=r"engine\.m must be one of 2, 4; got 3"):
        winnow.quantize(net(), IMAGES, m=3)
    with pytest.raises(ConfigError, match="m must be 2 as for the network's pruning, got 4"):
        winnow.quantize(pruned, IMAGES, m=4)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"out must be a folder, '.*file' is a file"):
        winnow.layer(net(), IMAGES, out=tmp_path / "file")


# --- builds -----------------------------------------------------------------------------------


def test_options_are_keys_nested_or_dotted(tmp_path: Path) -> None:
    options: dict[str, Any] = {"seed": 3, "train": {"epochs": 2}, "prune.keep": 1}
    options |= {"model": {"channels": (4, 8), "pool_after": [1, 2], "exit_after": [1]}}
    path = write_given(tmp_path / "x", {"data.source": "digits", "train.amp": True}, options)
    config = load_config(path)
    assert (config.seed, config.train.epochs, config.train.amp, config.prune.keep) == (
        3,
        2,
        True,
        1,
    )
    assert config.model.channels == (4, 8)


def test_toml_of_odd_values_is_read_back(tmp_path: Path) -> None:
    table = {"a b": 'quo"te\\ \n ü', "x": {"f": 1e-7, "n": [1, [True]], "t": {"k": Path("p")}}}
    (tmp_path / "x.toml").write_text(format_toml(table))
    from winnow.config import read_toml

    table["x"]["t"]["k"] = "p"  # type: ignore[index]
    assert read_toml(tmp_path / "x.toml") == table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": {"epoch": 2}}, "unknown key 'train.epoch'; the nearest valid one is"),
        ({"train.epochs": "x"}, "train.epochs must be an integer in"),
        ({"seed": object()}, "seed must be an integer in 0..2147483647, got <object"),
        ({"train": 3, "train.epochs": 2}, "key 'train' is given as a value and as a section"),
        ({"train.epochs": 2, "train": 3}, "train must be a table"),
        ({"data": {"source": "npz"}}, "data.path must name the .npz file for data.source"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        winnow.build(out=tmp_path / "out", **options)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out" / "config.toml").exists()


def test_values_are_taken_for_labels(tmp_path: Path) -> None:
    data = {"images": IMAGES, "labels": LABELS * 1.5}
    session = winnow.build(net(), data, out=tmp_path / "o", **{"data.labels": "values"})
    assert session.build.config.data.has_values
    with pytest.raises(ConfigError, match="data: labels must be integers, got float64"):
        winnow.build(net(), data, out=tmp_path / "o")


def test_wrong_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data must be \(images, labels\) or a dict of arrays"):
        winnow.build(data=3, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="data must be given beside net, whose layers depend"):
        winnow.build(net(), out=tmp_path / "out")
    with pytest.raises(ConfigError, match="must have no space"):
        winnow.build(out=tmp_path / "my out")
    session = winnow.build(out=tmp_path / "out")
    with pytest.raises(AttributeError, match="a build has no stage 'trian'; it has check, train"):
        session.trian()
    with pytest.raises(ConfigError, match="to must be one of check, train"):
        session.run(to="trian")
    with pytest.raises(winnow.WinnowError, match="must run first"):
        session.report()


@pytest.mark.slow
def test_build_of_arrays_runs_its_stages(tmp_path: Path) -> None:
    chain = {"channels": [4, 8], "pool_after": [1, 2], "exit_after": [1]}
    short = {"train.epochs": 2, "prune": {"epochs": 1, "steps": 1}, "quantize.epochs": 1}
    session = winnow.build(data=(IMAGES, LABELS), out=tmp_path / "o", model=chain, **short)
    session.lower()
    assert session.numbers("train")["fp32_accuracy"] >= 0
    layers = session.trace(IMAGES[:4])
    assert [layer.name for layer in layers] == ["conv1", "conv2", "fc"]
    again = winnow.build(data=(IMAGES, LABELS), out=tmp_path / "o", model=chain, **short)
    before = (tmp_path / "o" / "train.json").stat().st_mtime_ns
    again.train()
    assert (tmp_path / "o" / "train.json").stat().st_mtime_ns == before
    other = winnow.build(data=(IMAGES, LABELS[::-1]), out=tmp_path / "o", model=chain, **short)
    other.train()
    assert (tmp_path / "o" / "train.json").stat().st_mtime_ns != before


@pytest.mark.slow
def test_module_of_the_users_is_trained_again_when_it_changes(tmp_path: Path) -> None:
    """Its weights and its graph decide; an equal module, made anew, is the same."""
    out = tmp_path / "out"

    def train(module: nn.Module) -> int:
        winnow.build(module, (IMAGES, LABELS), out=out, **{"train.epochs": 0}).train()
        return (out / "train.json").stat().st_mtime_ns

    module = net().eval()
    first = train(module)
    x = winnow.to_input(torch.from_numpy(IMAGES))
    loaded = load_network(out / "train.npz", "")
    assert torch.equal(loaded(x), module(x))
    assert train(net()) == first
    with torch.no_grad():
        module[-1].bias += 1
    second = train(module)
    assert second != first
    module[4] = nn.Identity()  # one ReLU less
    assert train(module) != second


@pytest.mark.slow
def test_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of docs/python.md, in order, in one namespace."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert (tmp_path / "out" / "conv" / "graph.txt").is_file()
    assert [p.shape.keep for p in names["whole"].plan.layers] == [1, 2, 2]
    assert names["dense"].graph.input == (2, 8, 8)


@pytest.mark.parametrize("name", ["net.onnx", "net.py:make_net", "nets.small:make_net", "resnet8"])
def test_files_of_a_named_network_are_looked_up_here(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = winnow.build(name, (IMAGES, LABELS), out="out").build.config.model
    file = None if model.own is None else model.own.file
    assert file == (tmp_path / name.partition(":")[0] if name.startswith("net.") else None)
