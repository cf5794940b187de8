# SPDX-License-Identifier: Apache-2.0
"""A user's file and checkpoint: found, run, hashed; what is wrong with them is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from quant.build import Build, load_trained, new_network
from quant.data import to_input
from quant.network.calibrate import calibrate
from quant.network.network import Network
from quant.network.same import random_images, require_same
from quant.stages import train
from quant.train.resume import Resume
from tests.own import good
from winnow.config import Config, ModelConfig, TrainConfig, load_config
from winnow.errors import ArtefactError, ConfigError, NetworkError
from winnow.flow import BY_NAME, stage_inputs

NET = """
from torch import nn
from blocks import head

def make_net(classes=10):
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *head(classes))
"""
BLOCKS = """
from torch import nn

def head(classes):
    return [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, classes)]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks.py").write_text(BLOCKS)
    return tmp_path


def opened(folder: Path, model: str, more: str = "") -> Build:
    (folder / "mine.toml").write_text(f"[model]\n{model}\n{more}")
    config = load_config(folder / "mine.toml")
    return Build(config, folder / "out", config_path=str(folder / "mine.toml"))


def refused(folder: Path, model: str, more: str = "") -> str:
    with pytest.raises((ConfigError, NetworkError, ArtefactError)) as caught:
        new_network(opened(folder, model, more))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_of_a_checkpoint_are_kept_without_epochs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = nn.Sequential(nn.Conv2d(1, 4, 3), *[nn.Identity()] * 3, nn.Linear(256, 10))
    nn.init.zeros_(weights[-1].weight)
    torch.save(weights.state_dict(), folder / "weights.pt")
    model = 'name = "net.py:make_net"\ncheckpoint = "weights.pt"'
    build = opened(folder, model, "[train]\nepochs = 0")
    net = new_network(build)
    assert all(torch.equal(v, weights.state_dict()[n]) for n, v in net.state_dict().items())
    result = train.run(build, Resume(folder / "resume.npz", "", ""))
    assert all(not values for values in result.numbers["history"].values())
    assert "train: WARNING: test accuracy" in capsys.readouterr().out
    saved = load_trained(build).state_dict()
    assert all(torch.equal(value, weights.state_dict()[name]) for name, value in saved.items())


def test_files_and_checkpoint_make_stages_stale(folder: Path) -> None:
    torch.save(good.sequential().state_dict(), folder / "weights.pt")
    build = opened(folder, 'name = "net.py:make_net"\ncheckpoint = "weights.pt"')

    def hashes() -> list[str]:
        inputs = [stage_inputs(BY_NAME[name], build) for name in ("check", "train")]
        assert inputs[0]["model.name"] == inputs[1]["model.name"]
        return [inputs[0]["model.name"], inputs[0]["model.checkpoint"]]

    first = hashes()
    (folder / "other.py").write_text("")
    assert hashes() == first
    (folder / "blocks.py").write_text(BLOCKS + "\n# changed\n")
    second = hashes()
    assert (second[0] != first[0], second[1]) == (True, first[1])
    (folder / "weights.pt").write_bytes(b"other")
    assert (hashes()[0], hashes()[1] != first[1]) == (second[0], True)


def test_modules_are_found_beside_the_configuration(folder: Path) -> None:
    package = folder / "my_nets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "small.py").write_text("from .parts import make\n")
    (package / "parts.py").write_text(NET.replace("make_net", "make"))
    build = opened(folder, 'name = "my_nets.small:make"', "[model.arguments]\nclasses = 10")
    assert isinstance(new_network(build), Network)
    own = build.config.model.own
    assert own is not None
    names = [path.relative_to(folder).as_posix() for path in own.places]
    assert names == ["blocks.py", "my_nets/__init__.py", "my_nets/parts.py", "my_nets/small.py"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def make_net(:\n", "cannot be imported: SyntaxError at net.py:1: "),
        (
            "import nothing_of_this_name\n",
            "cannot be imported: ModuleNotFoundError at net.py:1: ",
        ),
        ("\ndef make_net():\n    return 1 / 0\n", "raises ZeroDivisionError at net.py:3: division"),
        ("def make_net(width):\n    pass\n", "raises TypeError: make_net() missing 1 required"),
        ("def other():\n    pass\n", "has no function or class 'make_net'; it has other"),
        ("make_net = lambda: 'no'\n", "must give an nn.Module, got str"),
        ("def make_net():\n    exit(1)\n", "raises SystemExit at net.py:2: 1"),
        (
            "import os\ndef make_net():\n    os._exit(0)\n",
            "raises SystemExit at net.py:3: os._exit(0) ends all without a word; raise an error",
        ),
        (
            "import os\nos._exit(7)\n",
            "cannot be imported: SystemExit at net.py:2: os._exit(7) ends all without a word;",
        ),
        ("raise SystemError('a\\nb')\n", "cannot be imported: SystemError at net.py:1: a"),
    ],
)
def test_errors_of_the_users_code_are_one_line(tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "net.py").write_text(source)
    assert words in refused(tmp_path, 'name = "net.py:make_net"')


@pytest.mark.parametrize(
    ("model", "more", "words"),
    [
        (
            'name = "nett.py:make_net"',
            "",
            "nett.py' is missing; its path is relative to",
        ),
        ('name = "no_such_module:make"', "", "'no_such_module' cannot be imported: ModuleNotFound"),
        ('name = "net.py"', "", "or name your own network as one of FILE.py:FUNCTION"),
        ('name = "net.py:make net"', "", "or name your own network as one of FILE.py:FUNCTION"),
        ('name = "vgg16"', "[model.arguments]\na = 1", "model.arguments are given to a function"),
        ('name = "net.py:make_net"\nwidth = 2.0', "", "pass it to your own by [model.arguments]"),
        ('name = "net.onnx"\ncheckpoint = "a.pt"', "", "model.checkpoint must be '' for the ONNX"),
        (
            'name = "net.py:make_net"',
            "[model.arguments]\na = 1979-01-01",
            "model.arguments.a must be",
        ),
        ('name = "chain"', "[train]\nepochs = 0", "train.epochs must be at least 1 for a network"),
        ('name = "net.py:make_net"\ncheckpoint = "a.pt"', "", "a.pt' is missing; name an existing"),
    ],
)
def test_wrong_keys_are_named(folder: Path, model: str, more: str, words: str) -> None:
    assert words in refused(folder, model, more)


def test_checkpoint_of_another_network_is_named(folder: Path) -> None:
    torch.save(good.dense_only().state_dict(), folder / "other.pt")
    found = refused(folder, 'name = "net.py:make_net"\ncheckpoint = "other.pt"')
    assert "other.pt' belongs to another model: it lacks '0.weight'" in found


def test_library_networks_take_checkpoints_too(tmp_path: Path) -> None:
    build = opened(tmp_path, "channels = [4, 4]\npool_after = [1, 2]\nexit_after = []")
    net = new_network(build)
    torch.save(net.state_dict(), tmp_path / "chain.pt")
    model = 'channels = [4, 4]\npool_after = [1, 2]\nexit_after = []\ncheckpoint = "chain.pt"'
    again = new_network(opened(tmp_path, model))
    assert all(torch.equal(v, net.state_dict()[n]) for n, v in again.state_dict().items())


def test_other_numbers_are_refused() -> None:
    want = random_images((1, 2, 2))
    require_same(want, want * (1 + 1e-5), "it")
    for got, words in ((want * 1.001, "it differs from"), (want * float("nan"), "by nan of its")):
        with pytest.raises(NetworkError, match=words):
            require_same(want, got, "it")
    with pytest.raises(NetworkError, match=r"it gives results \[3, 1, 2\], the network that was"):
        require_same(want, want[:, :, 0], "it")


def test_black_images_cannot_calibrate() -> None:
    net = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
    with pytest.raises(NetworkError, match="the 3 images for calibration are all black"):
        calibrate(net, to_input(torch.zeros(3, 1, 2, 2, dtype=torch.uint8)))


def test_config_of_own_network_is_plain() -> None:
    model = ModelConfig(name="a.py:f", arguments=(("x", (1, 2)),))
    config = Config(model=model, train=TrainConfig(epochs=0))
    assert config.section("model")["model"]["arguments"] == (("x", (1, 2)),)
    assert config.places("model.checkpoint") == ()
