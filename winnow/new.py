# SPDX-License-Identifier: Apache-2.0
"""A starting point: `winnow new NAME` writes a configuration, a network and data that run.

NAME/NAME.toml  NAME/net.py  NAME/data.py        or, with a folder of images, no data.py
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

from winnow.artefact import write_text
from winnow.errors import ConfigError, shown

CONFIG = """\
# Everything has a default; docs/flow.md lists all keys. Paths are relative to this file.
#   {check}    seconds: can all of this run?
#   {run}    train, compress, C++, RTL, checks, report
seed = 0

[data]
{data}

[model]
name = "net.py:make_net"

[model.arguments]
classes = {classes}
channels = {channels}

[train]
epochs = 10

[prune]
keep = 2        # of 8 weights
epochs = 8

[quantize]
weight_bits = [4, 8]
epochs = 6
"""
EDGE = 16  # of the images, in pixels
NET = '''\
"""The network: any nn.Module of layers that the flow knows."""

import torch
from torch import nn

EDGE = {edge}  # of the images; two pools leave a quarter


class Net(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(32 * (EDGE // 4) ** 2, classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.norm1(self.conv1(x))))
        x = self.pool(torch.relu(self.norm2(self.conv2(x))))
        return self.fc(torch.flatten(x, 1))


def make_net(classes, channels):
    return Net(classes, channels)
'''
DATA = '''\
"""The data: bytes [n, c, h, w] or [n, h, w], and labels from 0. Put your own here."""

import numpy as np

EDGE = {edge}


def make_data():
    """Return bars that lie, stand and lean, on noise: 3 classes."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:EDGE, :EDGE]
    directions = (rows, columns, rows + columns)
    images, labels = [], []
    for number in range(600):
        label = number % len(directions)
        bar = (directions[label] + rng.integers(8)) % 8 < 3
        images.append(np.clip(60 + 120 * bar + rng.normal(0, 25, bar.shape), 0, 255))
        labels.append(label)
    return np.round(images).astype(np.uint8), np.array(labels)
'''


def commands(config: Path, *, installed: bool) -> tuple[str, str]:
    """Return what checks and what runs a configuration.

    Only who installed the package has a command `winnow`; a checkout has the Makefile.
    """
    path = shlex.quote(str(config))
    if installed:
        return f"winnow check --config {path}", f"winnow run --config {path}"
    return f".venv/bin/python -m winnow check --config {path}", f"make hls CONFIG={path}"


def write_new(name: str, images: Path | None = None, *, installed: bool = False) -> list[Path]:
    """Write the files of a project into the new folder `name`; return them.

    `installed` is whether there is a command `winnow`. `images` is a folder with train/CLASS/,
    which takes the place of data.py. Raises ConfigError, and writes nothing, for a name that is no
    plain one, a folder that is there, or no such images.
    """
    folder = Path(name)
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", folder.name, re.ASCII):
        raise ConfigError(
            f"the name must be letters, digits, dots, dashes and underscores, got {shown(name)}"
        )
    if folder.exists():
        raise ConfigError(f"'{folder}' is there already and is left as it is; choose another name")
    config = f"{folder.name}.toml"
    check, run = commands(folder / config, installed=installed)
    values = {
        "check": check.ljust(len(run)),
        "run": run.ljust(len(check)),
        "edge": EDGE,
        "data": 'source = "data.py:make_data"',
        "classes": 3,
        "channels": 1,
    }
    texts = {config: CONFIG, "net.py": NET, "data.py": DATA}
    if images is not None:
        classes = [f for f in _entries(images / "train") if f.is_dir() and f.name[0] != "."]
        if len(classes) < 2:
            raise ConfigError(
                f"'{images}' must hold train/CLASS/ folders of two or more classes, got "
                f"{len(classes)}; see docs/data.md"
            )
        place = json.dumps(os.path.relpath(images, folder), ensure_ascii=False)
        source = f'source = "folder"\npath = {place}\nimage_size = {EDGE}\nchannels = 3'
        values |= {"data": source, "classes": len(classes), "channels": 3}
        del texts["data.py"]
    for file, text in texts.items():
        write_text(folder / file, text.format(**values))
    return [folder / file for file in texts]


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
