# SPDX-License-Identifier: Apache-2.0
"""data.mean and data.std: exact at borders too, in every form of network, down to the integers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import winnow
from codegen.stages import check
from quant.build import Build, new_network
from quant.data import LazyImages, input_shape, load_split, to_input
from quant.network.calibrate import calibrate
from quant.network.network import Network
from quant.network.normalise import Normal, on_bytes
from quant.network.same import random_images, result
from winnow.config import load_config
from winnow.errors import ConfigError, NetworkError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMAL = Normal(MEAN, STD)


class Branches(nn.Module):
    """Two layers read the images, one of them flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding="same")
        self.fc = nn.Linear(3 * 35, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).mean((2, 3)) + self.fc(torch.flatten(x, 1))


NETS = {
    "padded": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)),
    "without_bias": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False)),
    "wide_border": lambda: nn.Sequential(nn.Conv2d(3, 4, 5, stride=2, padding=(4, 2))),
    "unpadded": lambda: nn.Sequential(nn.Conv2d(3, 4, (2, 3))),
    "flat": lambda: nn.Sequential(nn.Flatten(), nn.Linear(105, 4)),
    "branches": Branches,
}


def build_of(folder: Path, data: str, model: str = 'name = "net.py:make_net"') -> Build:
    (folder / "x.toml").write_text(f"[data]\n{data}\n[model]\n{model}\n")
    return Build(load_config(folder / "x.toml"), folder / "out", config_path="x.toml")


@pytest.mark.parametrize("name", NETS)
def test_network_of_bytes_equals_that_of_normalised_images(name: str) -> None:
    torch.manual_seed(0)
    module = NETS[name]().eval()
    made = on_bytes(Network.of(module, (3, 7, 5)), NORMAL)
    assert made.graph.input == (4, 7, 5)
    x = random_images((3, 7, 5))
    pixels = x * 256
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        want = module.double()((pixels / 255 - mean) / std)
    given = torch.cat([x, torch.full((3, 1, 7, 5), 255 / 256, dtype=torch.float64)], 1)
    assert torch.allclose(result(made, given), want, rtol=0, atol=1e-5)


def test_a_mean_in_the_bias_would_be_wrong_at_the_border() -> None:
    """The reason for the channel: the same by a bias differs, and only where zeros are padded."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1).double()
    x = random_images((3, 7, 5))
    mean, std = (torch.tensor(v).double().view(1, 3, 1, 1) for v in (MEAN, STD))
    weight = conv.weight * (256 / 255) / std
    assert conv.bias is not None
    bias = conv.bias - (conv.weight * mean / std).sum((1, 2, 3))
    with torch.no_grad():
        off = F.conv2d(x, weight, bias, padding=1) - conv(NORMAL.normalised(x))
    off = off.abs().amax((0, 1))
    assert float(off[1:-1, 1:-1].max()) < 1e-12
    border = torch.ones(7, 5, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert float(off[border].min()) > 0.1


def test_one_value_serves_all_channels_and_no_mean_needs_no_channel() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval()
    x = random_images((3, 7, 5))
    images = (x * 256).to(torch.uint8)
    scaled = winnow.on_bytes(module, images, std=[0.5])
    assert scaled.graph.input == (3, 7, 5)
    want = module.double()(x * 256 / 255 / 0.5)
    assert torch.allclose(result(scaled, x), want, rtol=0, atol=1e-6)
    moved = winnow.on_bytes(module.float(), images, mean=0.5)
    assert moved.graph.input == (4, 7, 5)
    given = to_input(winnow.with_constant(images), torch.float64)
    want = module.double()(x * 256 / 255 - 0.5)
    assert torch.allclose(result(moved, given), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.MaxPool2d(2), "'0' (MaxPool) reads the images; with data.mean or data.std only convol"),
        (nn.Conv2d(3, 6, 3, groups=3), "'0' (Conv in groups) reads the images; with data.mean or"),
    ],
)
def test_other_readers_of_the_images_are_refused(module: nn.Module, words: str) -> None:
    net = Network.of(nn.Sequential(module), (3, 8, 8))
    with pytest.raises(NetworkError) as caught:
        on_bytes(net, NORMAL)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("mean = [123.7, 116.3, 103.5]", "data.mean must be a list of numbers in 0..1, got "),
        ("std = [0.0]", "data.std must be a list of numbers in 0.0001..100, got "),
        ("mean = 0.5", "data.mean must be a list of numbers in 0..1, got 0.5"),
    ],
)
def test_values_of_other_units_are_refused(data: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        build_of(tmp_path, data, "")
    assert words in str(caught.value)


def test_values_must_be_one_or_one_per_channel(tmp_path: Path) -> None:
    build = build_of(tmp_path, "mean = [0.5, 0.5]", "")
    message = "data.mean must have 1 value for images of 1 channels, got 2"
    with pytest.raises(ConfigError, match=message):
        new_network(build)
    with pytest.raises(ConfigError, match="must have 1 or 3 values for images of 3 channels"):
        winnow.on_bytes(nn.Conv2d(3, 4, 3), np.ones((1, 3, 8, 8), np.uint8), std=[1, 1])


NET = """
from torch import nn

def make_net(kernel=3, stride=1):
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel, stride, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 9, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.LazyLinear(10),
    )
"""


@pytest.mark.parametrize("arguments", ["kernel = 3", "kernel = 5\nstride = 2"])
def test_whole_chain_is_exact(arguments: str, tmp_path: Path) -> None:
    values = "9 * 8 * 8" if "stride" not in arguments else "9 * 3 * 3"
    (tmp_path / "net.py").write_text(NET.replace("nn.LazyLinear(10", f"nn.Linear({values}, 10"))
    model = f'name = "net.py:make_net"\n[model.arguments]\n{arguments}'
    build = build_of(tmp_path, "mean = [0.1307]\nstd = [0.3081]", model)
    assert check.run(build, {}).numbers["layers"] == 3


@pytest.mark.parametrize("name", ["chain", "mobilenet_v2", "resnet18"])
def test_networks_of_the_library_are_rewritten_too(name: str, tmp_path: Path) -> None:
    width = "" if name == "chain" else "width = 0.125"
    build = build_of(tmp_path, "mean = [0.5]", f'name = "{name}"\n{width}')
    net = new_network(build)
    assert net.graph.input == (2, 16, 16) == build.shape.image
    exits = 2 if name == "chain" else 0
    assert len(net.graph.exits) == exits


def test_onnx_network_is_rewritten_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)
    )
    example = torch.zeros(1, 1, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (example,), str(tmp_path / "net.onnx"), dynamo=False)
    build = build_of(tmp_path, "mean = [0.5]\nstd = [0.25]", 'name = "net.onnx"')
    normal = Normal((0.5,), (0.25,))
    x = random_images((1, 16, 16))
    want = module.double()(normal.normalised(x))
    assert torch.allclose(result(new_network(build), normal.given(x)), want, rtol=0, atol=1e-5)


def test_images_get_the_channel_and_augmentation_leaves_it_alone(tmp_path: Path) -> None:
    config = build_of(tmp_path, 'mean = [0.5]\naugment = "crop"', "").config.data
    split = load_split(config)
    assert split.shape.image == input_shape(config).image
    for part in (split.train, split.validation, split.test):
        assert bool((part.images[: len(part)][:, 1] == 255).all())
    x = to_input(split.train.images[:50])
    varied = split.augment(x, torch.Generator().manual_seed(0))
    assert bool((varied[:, 1] == 255 / 256).all())
    assert not torch.equal(varied[:, 0], x[:, 0])


def test_images_that_are_read_when_asked_for_get_it_too(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 24, 3), np.uint8)
    for i, image in enumerate(pixels):
        folder = tmp_path / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    plain, wide = (
        load_split(build_of(tmp_path, f'source = "folder"\npath = "."\n{more}', "").config.data)
        for more in ("", _line("mean", MEAN))
    )
    assert isinstance(plain.train.images, LazyImages)
    assert wide.train.images.shape == (len(wide.train), 4, 20, 24)
    assert len(wide.train.images) == len(plain.train)
    chosen = torch.tensor([1, 0])
    got = wide.train.images[chosen]
    assert torch.equal(got[:, :3], plain.train.images[chosen])
    assert bool((got[:, 3] == 255).all())


def _line(key: str, values: Sequence[float]) -> str:
    return f"{key} = {list(values)}"


def test_black_images_stay_black_with_the_channel() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    images = np.zeros((2, 1, 8, 8), np.uint8)
    images[0, 0, 0, 0] = 1
    made = winnow.on_bytes(module, images, mean=[0.5])
    made_input = to_input(winnow.with_constant(images))
    made_input[:, 0] = 0
    with pytest.raises(NetworkError, match=r"calibration are all black \(0\)"):
        calibrate(made, made_input)
