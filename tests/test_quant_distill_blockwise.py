# SPDX-License-Identifier: Apache-2.0
"""Block-wise distillation: the cut, the solved regressor, and a block that learns its teacher."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.data import InputShape, Samples, Split
from quant.data.augment import Augmentation
from quant.distill.blockwise import (
    least_squares,
    make_block,
    relative_error,
    run,
    segments,
    settle_statistics,
    train_block,
    train_blocks,
)
from quant.models.library import NAMES, make_model, network_of
from quant.network.network import Network
from quant.network.structure import block_ends, channel_counts
from quant.train.objective import Scheduled
from quant.train.resume import Resume
from quant.train.training import Plan, fit
from tests.library_nets import narrow
from winnow.config import DistillConfig, ModelConfig

STILL = Augmentation(0.0, 0.0, 0.0)


def chain(channels: tuple[int, ...] = (8, 16)) -> Network:
    torch.manual_seed(0)
    model = ModelConfig(channels=channels, pool_after=(1, 2), exit_after=())
    return network_of(model, InputShape(1, 16, 10))


def split_of(count: int = 256) -> Split:
    generator = torch.Generator().manual_seed(0)
    # Coarse, so that images still differ behind the pools.
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    images = images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    samples = Samples(images, torch.zeros(count, dtype=torch.int64))
    return Split.of((samples, samples, samples), 10, STILL)


def plan(epochs: int, rate: float = 1e-2) -> Plan:
    return Plan("test", epochs, 64, rate, 0.0, 0, torch.device("cpu"))


def resume_at(folder: Path) -> Resume:
    return Resume(folder / "test.resume.npz", "key", "")


@pytest.mark.parametrize("name", NAMES)
def test_segments_in_a_row_are_the_network(name: str) -> None:
    torch.manual_seed(0)
    net = Network.of(make_model(name, 10, width=0.125).eval(), (3, 32, 32))
    x = torch.rand(2, 3, 32, 32)
    parts = segments(net)
    assert len(parts) == len(block_ends(net.graph)) + 1
    assert torch.equal(run(parts, x), net(x))
    shared = {id(p) for part in parts for p in part.parameters()}
    assert shared == {id(p) for p in net.parameters()}


def test_segments_of_a_chain_end_with_its_blocks() -> None:
    net = chain().eval()
    x = torch.rand(2, 1, 16, 16)
    first, second, head = segments(net)
    feature = net.conv1_norm(net.conv1(x))
    assert torch.equal(first(x), feature)
    assert torch.equal(second(feature), net.conv2_norm(net.conv2(F.max_pool2d(feature.relu(), 2))))
    assert torch.equal(head(second(feature)), net(x))


def test_regressor_starts_at_the_least_squares_solution() -> None:
    torch.manual_seed(0)
    features, wanted = torch.randn(5, 3, 4, 4), torch.randn(5, 2, 4, 4)
    layer = least_squares(features, wanted)
    rows = np.hstack([features.permute(0, 2, 3, 1).reshape(-1, 3).numpy(), np.ones((80, 1))])
    right = wanted.permute(0, 2, 3, 1).reshape(-1, 2).numpy()
    best, *_ = np.linalg.lstsq(rows.astype(np.float64), right.astype(np.float64), rcond=None)
    np.testing.assert_allclose(layer.weight.detach()[:, :, 0, 0], best[:-1].T, atol=1e-5)
    np.testing.assert_allclose(layer.bias.detach(), best[-1], atol=1e-5)


def test_relative_error_of_the_mean_is_one() -> None:
    wanted = torch.randn(4, 2, 3, 3)
    assert float(relative_error(wanted.mean().expand_as(wanted), wanted)) == pytest.approx(1, 0.02)
    assert float(relative_error(wanted, wanted)) == 0


def test_a_linear_block_reaches_its_least_squares_optimum(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    entry, student = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 1)
    split = split_of()
    x = split.train.images[:] * 2.0**-8
    rows, right = (
        f(x).detach().double().permute(0, 2, 3, 1).flatten(0, 2) for f in (entry, teacher)
    )
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    _, residual, *_ = np.linalg.lstsq(rows, right.numpy(), rcond=None)
    best = float(residual.sum() / right.numel() / right.var())
    block = make_block([teacher], [entry, student], x)
    assert isinstance(block.regressor, nn.Identity)
    before = block.error(x)
    train_block(block, split, plan(30, 1e-1), resume_at(tmp_path))
    assert 0.01 < best < 0.5 * before
    assert best * 0.9999 <= block.error(x) <= best * 1.03


def test_a_block_drawn_anew_learns_its_teachers_maps(tmp_path: Path) -> None:
    teacher = chain().eval()
    student = copy.deepcopy(teacher)
    torch.manual_seed(1)
    nn.init.kaiming_normal_(student.conv2.weight)
    split, untouched = split_of(), copy.deepcopy(student.state_dict())
    x = split.train.images[:] * 2.0**-8
    theirs, ours = segments(teacher), segments(student)
    block = make_block(theirs[:2], [theirs[0], ours[1]], x)
    before = block.error(x)
    train_block(block, split, plan(30, 3e-2), resume_at(tmp_path))
    assert block.error(x) < 0.1 * before
    changed = {n for n, v in student.state_dict().items() if not torch.equal(v, untouched[n])}
    assert all(name.startswith("conv2") for name in changed)
    assert {"conv2.weight", "conv2_norm.weight"} <= changed


def test_statistics_of_a_segment_become_those_of_its_inputs() -> None:
    norm, entry = nn.BatchNorm2d(3, momentum=0.2), torch.randn(8, 3, 4, 4) * 5 + 2
    segment = nn.Sequential(norm, nn.Dropout(0.5)).eval()
    settle_statistics(segment, entry)
    torch.testing.assert_close(norm.running_mean, entry.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, entry.var((0, 2, 3)))
    assert (norm.momentum, norm.training) == (0.2, False)
    torch.testing.assert_close(segment(entry), segment[0](entry))


def test_statistics_of_what_is_not_trained_stay(tmp_path: Path) -> None:
    teacher, student = chain().train(), chain().train()
    before = [copy.deepcopy(net.state_dict()) for net in (teacher, student)]
    split = split_of(64)
    x = split.train.images[:] * 2.0**-8
    theirs, ours = segments(teacher), segments(student)
    block = make_block(theirs[:2], [ours[0], ours[1]], x)
    train_block(block, split, plan(1), resume_at(tmp_path))
    assert all(torch.equal(v, before[0][n]) for n, v in teacher.state_dict().items())
    changed = {n for n, v in student.state_dict().items() if not torch.equal(v, before[1][n])}
    assert "conv2_norm.running_mean" in changed
    assert all(name.startswith("conv2") for name in changed)


def test_training_moves_the_temperature_of_its_loss(tmp_path: Path) -> None:
    net, split, seen = chain(), split_of(64), []

    class Seeing(Scheduled):
        def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
            seen.append(self.temperature)
            return self.with_teacher(net(x), labels, net(x).detach())

    loss = Seeing(DistillConfig(temperature=4.0, temperature_end=2.0, schedule="linear"))
    fit(net, split, loss, plan(3), resume=resume_at(tmp_path))
    assert seen == [4.0, 3.0, 2.0]
    later = Seeing(loss.config)
    fit(net, split, later, plan(4), resume=resume_at(tmp_path))
    assert seen[3:] == [2.0]  # only the fourth epoch was left


def test_a_narrow_student_is_trained_block_by_block(tmp_path: Path) -> None:
    teacher = chain().eval()
    settle_statistics(teacher, split_of().train.images[:] * 2.0**-8)  # as a trained one has them
    student = copy.deepcopy(teacher)
    narrow(student, {"conv1": 4, "conv2": 8})
    split, resume = split_of(), resume_at(tmp_path)
    x = split.train.images[:] * 2.0**-8
    teacher.requires_grad_(False)
    before = float(relative_error(student.eval()(x), teacher(x)).detach())
    errors = train_blocks(student, teacher, split, plan(4), resume=resume, samples=256)
    assert channel_counts(student) == {"conv1": 4, "conv2": 8}
    assert len(errors) == 3
    after = float(relative_error(student.eval()(x), teacher(x)).detach())
    assert errors[-1] == pytest.approx(after)
    assert errors[-1] < 0.7 * before
    assert len(list(tmp_path.iterdir())) == 3
    resume.clear()
    assert list(tmp_path.iterdir()) == []
