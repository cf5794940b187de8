# SPDX-License-Identifier: Apache-2.0
"""Least squares in place of training: the best kernels there are, and what they were chosen for."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import quant.stages.train
import quant.train.training as training
from quant.build import Build
from quant.data import Split, read_split, to_input
from quant.network.graph import Conv
from quant.network.network import Network
from quant.network.structure import channel_counts
from quant.prune_channels.least_squares import Reader, fitted, least_missed, narrow_all
from quant.prune_channels.task import Task
from quant.run import STAGES, run_stage
from quant.train.resume import Resume
from quant.train.training import Plan
from winnow.artefact import Record
from winnow.config import ChannelPruningConfig, Config, DataConfig, ModelConfig, TrainConfig
from winnow.errors import ConfigError

COUNTS = {"0": 4, "3": 8, "7": 8, "9": 8, "11": 6, "13": 12}
READERS = {"3": "0", "7": "3", "9": "7", "11": "9", "13": "11", "16": "13"}  # and what they read


@pytest.fixture(scope="module")
def split() -> Split:
    return read_split(DataConfig())


@pytest.fixture(scope="module")
def net(split: Split) -> Network:
    """Readers of all kinds, trained for 60 steps: a BatchNorm behind it, nothing, a bias."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=2, dilation=2, bias=False), nn.ReLU()),
        *(nn.Conv2d(16, 16, (1, 3), padding=(0, 1)), nn.ReLU()),
        *(nn.Conv2d(16, 12, 1), nn.ReLU()),
        *(nn.Conv2d(12, 20, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(20 * 16, 10)),
    )
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
    for step in range(60):
        chosen = torch.arange(64 * step, 64 * step + 64) % len(split.train)
        x = to_input(split.train.images[chosen])
        optimizer.zero_grad()
        F.cross_entropy(module(x), split.train.labels[chosen]).backward()
        optimizer.step()
    return Network.of(module.eval(), (1, 16, 16))


def task_of(net: Network, split: Split, samples: int, tmp_path: Path) -> Task:
    plan = Plan("prune_channels", 0, 32, 1e-3, 0.0, 0, torch.device("cpu"))
    resume = Resume(tmp_path / "prune_channels.resume.npz", "key", "")
    return Task(Config(), net, net, split, [], samples, plan, resume)


@pytest.fixture
def task(net: Network, split: Split, tmp_path: Path) -> Task:
    plan = Plan("prune_channels", 0, 32, 1e-3, 0.0, 0, torch.device("cpu"))
    resume = Resume(tmp_path / "prune_channels.resume.npz", "key", "")
    return Task(Config(), net, net, split, [], 32, plan, resume)


def in_float64(task: Task) -> Task:
    return replace(task, net=copy.deepcopy(task.net).double())


def im2col(node: Conv, x: np.ndarray) -> np.ndarray:
    """Return what a convolution multiplies, [outputs, operands], by slicing padded maps."""
    (top, left), (down, right) = node.padding, node.stride
    height, width = node.shape[1:]
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    parts = []
    for channel in range(x.shape[1]):
        for row in range(node.kernel[0]):
            for column in range(node.kernel[1]):
                y0, x0 = row * node.dilation[0], column * node.dilation[1]
                plane = padded[:, channel, y0:, x0:][:, ::down, ::right]
                parts.append(plane[:, :height, :width].reshape(-1))
    return np.stack(parts, axis=1)


@torch.no_grad()
def seen(task: Task, student: Network, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what a reader multiplies, a last column of ones with it, and what it shall give.

    Both for the calibration images: 32, or as many as give four outputs for each unknown.
    """
    node = student.graph.by_name[name]
    unknowns = task.net.get_submodule(name).weight[0].numel() + 1
    places = node.shape[1] * node.shape[2] if isinstance(node, Conv) else 1
    count = max(32, -(-4 * unknowns // places))
    x = to_input(task.split.train.images[:count], next(task.net.parameters()).dtype)
    read = student.run(x, [node.inputs[0]])[0].double().numpy()
    wanted = task.net.run(x, [name])[0].double().numpy()
    matrix = im2col(node, read) if isinstance(node, Conv) else read
    outputs = np.moveaxis(wanted, 1, -1).reshape(-1, wanted.shape[1])
    return np.concatenate([matrix, np.ones((len(matrix), 1))], axis=1), outputs


def unknowns_of(net: Network, name: str) -> np.ndarray:
    """Return kernel and, as the last row, bias or 0, [operands + 1, outputs]."""
    module = net.get_submodule(name)
    kernel = module.weight.detach().double().flatten(1).t()
    added = torch.zeros(kernel.shape[1]) if module.bias is None else module.bias.detach()
    return torch.cat([kernel, added[None]]).numpy()


def own_unknowns(net: Network, name: str, kept: dict[str, list[int]]) -> np.ndarray:
    """Return the same of what stays of a reader with its own kernel."""
    own = unknowns_of(net, name)[:, kept.get(name, slice(None))]
    group = READERS[name]
    rows = own[:-1].reshape(net.graph.by_name[group].shape[0], -1, own.shape[1])
    return np.concatenate([rows[kept[group]].reshape(-1, own.shape[1]), own[-1:]])


def new_unknowns(
    net: Network, student: Network, name: str, kept: dict[str, list[int]]
) -> np.ndarray:
    """Return the same of the narrowed network; what is added may be in the BatchNorm's mean."""
    found = unknowns_of(student, name)
    if name == "3":
        before, after = (n.get_submodule("4").running_mean.double() for n in (net, student))
        found[-1] = (before[kept[name]] - after).numpy()
    return found


def test_kernels_are_those_of_the_least_squares_of_numpy(task: Task) -> None:
    """Of every kind of reader, on what the narrowed network itself gives it."""
    task = in_float64(task)
    student = copy.deepcopy(task.net)
    kept = narrow_all(task, student, COUNTS)["kept"]
    assert channel_counts(student) == COUNTS
    for name in READERS:
        matrix, wanted = seen(task, student, name)
        if name == "7":  # nothing can be added to it
            matrix = matrix[:, :-1]
        best = np.linalg.lstsq(matrix, wanted[:, kept.get(name, slice(None))], rcond=None)[0]
        found, lives = new_unknowns(task.net, student, name, kept)[: len(best)], matrix.any(axis=0)
        largest = np.abs(best).max()
        np.testing.assert_allclose(found[lives], best[lives], rtol=0, atol=1e-9 * largest)
        own = own_unknowns(task.net, name, kept)[: len(best)]
        assert (found[~lives] == own[~lives]).all()  # what is always 0 tells nothing


def test_no_reader_is_worse_than_with_its_own_kernel(task: Task) -> None:
    """In float32, where kernels are rounded."""
    student = copy.deepcopy(task.net)
    found = narrow_all(task, student, COUNTS)
    kept, errors = found["kept"], found["errors"]
    assert list(errors) == list(READERS)
    for name in READERS:
        matrix, wanted = seen(task, student, name)
        wanted = wanted[:, kept.get(name, slice(None))]
        own, new = own_unknowns(task.net, name, kept), new_unknowns(task.net, student, name, kept)
        dropped, refitted = (np.square(matrix @ w - wanted).sum() for w in (own, new))
        assert refitted < dropped
        assert errors[name]["refitted"] < errors[name]["dropped"]
        if name == "16":  # none of its outputs goes later, so this is what the record says
            squares = np.square(wanted - wanted.mean(0)).sum()
            assert errors[name]["dropped"] == pytest.approx(dropped / squares)
            assert errors[name]["refitted"] == pytest.approx(refitted / squares)


def reader_of(matrix: np.ndarray, wanted: np.ndarray, weight: np.ndarray, places: int) -> Reader:
    a, y = torch.from_numpy(matrix), torch.from_numpy(wanted)
    squares = float((y - y.mean(0)).square().sum())
    total, channels = float(y.square().sum()), len(weight) // places
    return Reader(a.T @ a, a.T @ y, torch.from_numpy(weight), channels, places, squares, total)


def by_hand(cases: list[tuple[np.ndarray, np.ndarray]], places: int, count: int) -> list[int]:
    """Remove channels one by one, all systems solved anew for every channel that could go."""
    left = list(range(7))

    def error(channels: list[int]) -> float:
        columns = [c * places + p for c in channels for p in range(places)]
        total = 0.0
        for matrix, wanted in cases:
            added = range(7 * places, matrix.shape[1])
            part = matrix[:, [*columns, *added]]
            best = np.linalg.lstsq(part, wanted, rcond=None)[0]
            total += (
                np.square(part @ best - wanted).sum() / np.square(wanted - wanted.mean(0)).sum()
            )
        return total

    while len(left) > count:
        gone = min(left, key=lambda c: error([other for other in left if other != c]))
        left.remove(gone)
    return left


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("places", [1, 3])
def test_the_channel_that_others_make_up_for_goes_first(seed: int, count: int, places: int) -> None:
    """For two readers of one map, one of which has something to add."""
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(7, 7))
    cases, readers = [], []
    for outputs, added in ((5, 1), (2, 0)):
        base = generator.normal(size=(200, 7, places)) + 0.5
        matrix = np.einsum("ncp,dc->ndp", base, mix).reshape(200, -1)
        matrix = np.concatenate([matrix, np.ones((200, added))], axis=1)
        weight = generator.normal(size=(matrix.shape[1], outputs))
        wanted = matrix @ weight + 0.1 * generator.normal(size=(200, outputs))
        cases.append((matrix, wanted))
        reader = reader_of(matrix, wanted, weight, places)
        readers.append(replace(reader, channels=7))
    assert least_missed(readers, count).tolist() == by_hand(cases, places, count)


def test_of_channels_that_say_the_same_one_is_enough() -> None:
    """Singular equations: every channel is there twice; nothing is lost."""
    generator = np.random.default_rng(0)
    half = generator.normal(size=(300, 4, 2))
    matrix = np.concatenate([half, -2 * half], axis=1).reshape(300, -1)
    weight = generator.normal(size=(16, 3))
    reader = reader_of(matrix, matrix @ weight, weight, 2)
    kept = least_missed([reader], 4)
    assert sorted(c % 4 for c in kept.tolist()) == [0, 1, 2, 3]
    found = fitted(reader, kept, torch.float64)
    rows = reader.rows(kept)
    np.testing.assert_allclose(matrix[:, rows] @ found.numpy(), matrix @ weight, atol=1e-8)


def test_too_few_images_move_the_kernel_no_further_than_they_must() -> None:
    """Singular equations: a ridge draws to the kernel as it was."""
    generator = np.random.default_rng(0)
    matrix, weight = generator.normal(size=(10, 24)), generator.normal(size=(24, 3))
    reader = reader_of(matrix, matrix @ weight, weight, 3)
    kept = torch.tensor([0, 2, 3, 7])
    rows = reader.rows(kept)
    own, found = weight[rows], fitted(reader, kept, torch.float64).numpy()
    part, missing = matrix[:, rows], matrix @ weight - matrix[:, rows] @ weight[rows]
    ridge = 1e-4 * np.diag(np.square(part).sum(0))
    np.testing.assert_allclose(
        found - own, np.linalg.solve(part.T @ part + ridge, part.T @ missing), rtol=1e-6, atol=1e-9
    )
    assert np.square(part @ (found - own) - missing).sum() < 1e-4 * np.square(missing).sum()


def test_a_kernel_that_cannot_get_better_stays() -> None:
    matrix = np.random.default_rng(0).normal(size=(50, 6))
    weight = np.random.default_rng(1).normal(size=(6, 2))
    weight[4:] = 0
    reader = reader_of(matrix, matrix @ weight, weight, 2)
    kept = torch.tensor([0, 1])
    assert torch.equal(fitted(reader, kept, torch.float32), torch.from_numpy(weight[:4]))
    dead = reader_of(0 * matrix, 0 * matrix @ weight, weight, 2)
    assert torch.equal(fitted(dead, kept, torch.float32), torch.from_numpy(weight[:4]))
    assert least_missed([dead], 2).tolist() == [1, 2]


def test_values_that_are_no_numbers_are_refused(task: Task) -> None:
    broken = replace(task, net=copy.deepcopy(task.net))
    with torch.no_grad():
        broken.net.get_submodule("3").weight.fill_(1e38)
    with pytest.raises(ConfigError) as found:
        narrow_all(broken, copy.deepcopy(broken.net), COUNTS)
    assert str(found.value) == (
        "prune_channels.method 'least_squares': '3' reads or gives values that are no numbers for "
        "a training image; train with a lower train.learning_rate"
    )


TINY = Config(
    model=ModelConfig(channels=(16, 16), pool_after=(1, 2), exit_after=()),
    train=TrainConfig(epochs=4, batch=64),
    prune_channels=ChannelPruningConfig(
        method="least_squares", budget="flops", share=0.5, multiple=4, epochs=0
    ),
)


def test_nothing_is_trained_with_no_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build(TINY, tmp_path, torch.device("cpu"), config_path="configs/tiny.toml")
    run_stage(STAGES["train"], build)
    monkeypatch.setattr(training, "_step", lambda *_: pytest.fail("trained"))
    refitted = accuracy_of(build)
    keys = replace(TINY.prune_channels, method="cascade", levels=1)
    dropped = accuracy_of(replace(build, config=replace(TINY, prune_channels=keys)))
    trained = Record.load(tmp_path / "train.json", "").numbers["fp32_accuracy"]
    assert dropped < 60 < trained - 10 < refitted


def accuracy_of(build: Build) -> float:
    """Run the stage; return the accuracy."""
    run_stage(STAGES["prune_channels"], build)
    numbers = Record.load(build.out / "prune_channels.json", "").numbers
    assert numbers["share"] <= 0.5
    assert numbers["history"]["loss"] == []
    return float(numbers["narrowed_accuracy"])


def test_layers_of_too_many_operands_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quant.stages.train, "fit", lambda *_, **__: pytest.fail("training began"))
    model = ModelConfig(channels=(16, 8), pool_after=(), exit_after=())
    config = replace(TINY, model=model, data=DataConfig(image_size=64))
    build = Build(config, tmp_path, torch.device("cpu"), config_path="configs/tiny.toml")
    with pytest.raises(ConfigError) as found:
        run_stage(STAGES["train"], build)
    assert str(found.value) == (
        "prune_channels.method 'least_squares' solves for at most 8,192 operands of a layer, 'fc' "
        "has 32,768; choose 'cascade', or pool the map before that layer"
    )
