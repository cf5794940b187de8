# SPDX-License-Identifier: Apache-2.0
"""Training with torchrun on the CPU: averaged gradients are those of the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from quant.train.distributed import World, join
from winnow.artefact import Record, load_arrays
from winnow.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
CONFIG = """
[model]
channels = [4, 8]
pool_after = [1, 2]
exit_after = [1]

[train]
epochs = 2
batch = 128
ema = 0.9

[quantize]
budget_share = 1.0
"""
GRADIENTS = """
import sys
import torch
from torch import nn
from quant.train.distributed import join, leave

world = join(torch.device("cpu"))
torch.manual_seed(world.rank)
net = nn.Linear(3, 2)
world.share(net)
x, y = torch.arange(24.0).view(8, 3) / 24, torch.arange(16.0).view(8, 2)
part = world.part(torch.arange(8))
(net(x[part]) - y[part]).square().mean().backward()
world.average_gradients(net.parameters())
mean = [p.grad.clone() for p in net.parameters()]
net.zero_grad()
(net(x) - y).square().mean().backward()
assert all(torch.allclose(a, p.grad) for a, p in zip(mean, net.parameters()))
line = f"rank {world.rank} of {world.size}: {float(net.weight.detach().sum()):.6f}\\n"
sys.stdout.write(line)  # both processes share it: one write per line
leave(world)
"""


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def test_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    done = torchrun(str(script))
    assert done.returncode == 0, done.stderr
    first, second = sorted(done.stdout.splitlines())
    assert first.split(": ")[0] == "rank 0 of 2"
    assert first.split(": ")[1] == second.split(": ")[1]  # the same weights


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    config = tmp_path / "two.toml"
    config.write_text(CONFIG)
    out = tmp_path / "out"
    done = torchrun("-m", "quant", "train", "--config", str(config), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train: fp32 test accuracy") == 1
    record = Record.load(out / "train.json", "")
    assert len(record.numbers["history"]["loss"]) == 2
    assert all(np.isfinite(array).all() for array in load_arrays(out / "train.npz", "").values())
    assert not list(out.glob("*.partial"))


def test_shares_are_disjoint_and_equal() -> None:
    chosen = torch.arange(7)
    parts = [World(rank, 2).part(chosen).tolist() for rank in range(2)]
    assert parts == [[0, 2, 4], [1, 3, 5]]
    assert World().part(chosen).tolist() == chosen.tolist()


def test_more_processes_than_devices_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    match = (
        r"^--nproc-per-node must be at most 1, the CUDA devices of this machine, got at least 2$"
    )
    with pytest.raises(ConfigError, match=match):
        join(torch.device("cuda"))
