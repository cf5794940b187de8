# SPDX-License-Identifier: Apache-2.0
"""A user's folder from outside of this repository: network, weights, data, all the way to RTL.

The network was written for this test and for nothing else: images of 21 x 34 pixels, maps with odd
edges, a 5x5 convolution of stride 2, weights trained by a plain loop on normalised images.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from quant.data import load_split
from quant.models.own import own_module
from tests.conftest import ROOT
from winnow.artefact import Record
from winnow.config import Config, load_config
from winnow.place import child_environment

FILES = {
    "parts.py": """
from torch import nn


class Block(nn.Sequential):
    def __init__(self, inputs, outputs, kernel=3, stride=1):
        super().__init__()
        self.add_module("Conv", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))
        self.add_module("norm", nn.BatchNorm2d(outputs))
        self.add_module("act", nn.ReLU(inplace=True))
""",
    "net.py": '''
import torch.nn.functional as F
from torch import nn

from parts import Block


class Signs(nn.Module):
    """Images [n, 3, 21, 34] -> scores of the signs."""

    def __init__(self, width=12, classes=5):
        super().__init__()
        self.input = Block(3, width, kernel=5, stride=2)
        self.blocks = nn.ModuleList([Block(width, 20), Block(20, 24)])
        self.Größe = nn.Linear(24 * 2 * 4, 30)
        self.out = nn.Linear(30, classes)

    def forward(self, x):
        x = self.input(x)  # 11 x 17
        for block in self.blocks:
            x = F.max_pool2d(block(x), 2)  # 5 x 8, 2 x 4
        x = F.relu(self.Größe(x.view(x.size(0), -1)))
        return self.out(F.dropout(x, 0.1, self.training)).softmax(-1)
''',
    "signs.py": """
import numpy as np

COLOURS = np.array([[200, 40, 40], [40, 180, 60], [60, 80, 220], [200, 190, 50], [180, 60, 190]])


def draw(rng, label):
    image = rng.normal(110, 25, (3, 21, 34))
    top, left = rng.integers(0, 9), rng.integers(0, 20)
    tall, wide = (11, 5) if label % 2 else (5, 11)
    image[:, top : top + tall, left : left + wide] = COLOURS[label][:, None, None]
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
""",
    "data.py": """
from pathlib import Path

import numpy as np


def make_data(path):
    from signs import draw

    rng = np.random.default_rng(7)
    labels = np.arange(int(Path(path).read_text())) % 5
    return {"images": np.stack([draw(rng, label) for label in labels]), "labels": labels}
""",
    "count.txt": "500",
    "mine.toml": """
[data]
source = "data.py:make_data"
path = "count.txt"
mean = [0.44, 0.42, 0.45]
std = [0.13, 0.12, 0.14]

[model]
name = "net.py:Signs"
checkpoint = "weights.pt"
arguments = { width = 12 }

[train]
epochs = 0

[prune]
epochs = 4
steps = 2

[quantize]
epochs = 2
""",
}


def trained(config: Config) -> float:
    """Train the user's module as they do, in plain torch; save it; return its test accuracy."""
    torch.manual_seed(0)
    net = own_module(replace(config.model, checkpoint=""))
    split = load_split(config.data)

    def normalised(images: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.data.mean, config.data.std))
        return (images[:, :3] / 255 - mean) / std

    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    x, y = normalised(split.train.images[: len(split.train)]), split.train.labels
    for _ in range(12):
        for chosen in torch.randperm(len(y)).split(32):
            loss = F.nll_loss(net(x[chosen]).clamp(min=1e-9).log(), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.save({"state_dict": net.state_dict()}, config.model.base / "weights.pt")
    with torch.no_grad():
        guess = net.eval()(normalised(split.test.images[: len(split.test)])).argmax(1)
    return 100 * float((guess == split.test.labels).double().mean())


def winnow(folder: Path, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "winnow", verb, "--config", str(folder / "mine.toml")]
    return subprocess.run(
        [*command, "--out", str(folder / "out"), *words],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_users_network_with_weights_and_data_reaches_rtl(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    accuracy = trained(load_config(tmp_path / "mine.toml"))
    assert accuracy > 60  # 20 by guessing
    done = winnow(tmp_path, "run")
    assert done.returncode == 0, done.stderr
    assert "check: 'softmax' (Softmax) at the end runs on the host" in done.stdout
    numbers = {
        name: Record.load(tmp_path / "out" / f"{name}.json", "").numbers
        for name in ("train", "qat", "golden", "csim", "rtlsim")
    }
    assert numbers["train"]["fp32_accuracy"] == pytest.approx(accuracy, abs=1e-9)
    assert numbers["qat"]["quantized_accuracy"] > 60
    assert numbers["golden"]["golden_accuracy"] == numbers["qat"]["quantized_accuracy"]
    assert numbers["csim"]["accuracy"] == numbers["golden"]["golden_accuracy"]
    assert numbers["csim"]["images"] == 100
    assert "= RTL " in done.stdout
    again = winnow(tmp_path, "run")
    assert again.stdout.startswith("up to date: check, train, ")
    (tmp_path / "signs.py").write_text(FILES["signs.py"] + "# changed\n")
    status = winnow(tmp_path, "status").stdout.splitlines()
    assert status[:2] == [
        f"{name:<10}must run: its data.path changed" for name in ("check", "train")
    ]
