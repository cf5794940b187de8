# SPDX-License-Identifier: Apache-2.0
"""The training loop: averaged weights against the closed form, and what stays un-averaged."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import quant.train.training as training
from quant.data import Samples, Split
from quant.data.augment import Augmentation
from quant.train.resume import Resume
from quant.train.training import Plan, fit

PLAN = Plan("test", 3, 4, 1e-2, 0.0, 0, torch.device("cpu"))


def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 1, 4, 4), generator=generator, dtype=torch.uint8)
    samples = Samples(images, torch.arange(8) % 2)
    return Split(samples, samples, samples, 2, Augmentation())


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2))


def train(model: nn.Module, plan: Plan, folder: Path) -> list[torch.Tensor]:
    """Fit, and return the linear layer's weights after every step."""
    seen: list[torch.Tensor] = []

    def loss(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(model[2].weight.detach().clone())
        return nn.functional.cross_entropy(model(x), labels)

    fit(model, split(), loss, plan, resume=Resume(folder / "r.npz", "key", "command"))
    return [*seen[1:], model[2].weight.detach().clone()]


def test_average_is_the_closed_form(tmp_path: Path) -> None:
    plain, averaged = net(), net()
    start = copy.deepcopy(plain)
    steps = train(plain, PLAN, tmp_path / "a")
    train(averaged, Plan(**(vars(PLAN) | {"ema": 0.75})), tmp_path / "b")
    want = start[2].weight.detach()
    for weight in steps:
        want = 0.75 * want + 0.25 * weight
    torch.testing.assert_close(averaged[2].weight.detach(), want)
    assert torch.equal(averaged[1].running_mean, plain[1].running_mean)  # not averaged


def test_dropout_of_a_resumed_run_is_that_of_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [nn.Sequential(*net()[:2], nn.Dropout(0.5), *net()[2:]) for _ in range(2)]

    def run(model: nn.Module, name: str) -> None:
        def loss(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(model(x), labels)

        fit(model, split(), loss, PLAN, resume=Resume(tmp_path / name, "key", "command"))

    run(models[0], "whole.npz")
    step, count = training._step, iter(range(100))

    def stopping(*args: object) -> float:
        if next(count) == 5:  # the last step
            raise KeyboardInterrupt
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(models[1], "parts.npz")
    torch.manual_seed(123)  # as another process would have it
    run(models[1], "parts.npz")
    whole, parts = (model.state_dict() for model in models)
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_validation_is_measured_when_due(tmp_path: Path) -> None:
    resume = Resume(tmp_path / "r.npz", "key", "command")
    model = net()
    plan = Plan(**(vars(PLAN) | {"validate_every": 2}))
    history = fit(
        model, split(), lambda x, y: nn.functional.cross_entropy(model(x), y), plan, resume=resume
    )
    validation = history.table()["validation_accuracy"]
    assert [value is None for value in validation] == [True, False, True]
    assert 0 <= validation[1] <= 100
    assert training.accuracy(model, split().test, PLAN.device) <= 100
