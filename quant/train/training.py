# SPDX-License-Identifier: Apache-2.0
"""The training loop.

After every epoch everything that training changes goes to a resume file. All randomness of an epoch
comes from a generator seeded by (seed, epoch), so an interrupted run repeats exactly what an
uninterrupted one would have done on the same machine.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from quant.data import Samples, Split, to_input
from quant.train.distributed import World
from quant.train.history import History, Progress
from quant.train.objective import Loss, Scheduled
from quant.train.resume import Resume, Run
from winnow.errors import ConfigError
from winnow.score import ACCURACY, ERROR

WARM_UP_STEPS = 20
GRADIENT_NORM = 5.0
EVAL_BATCH = {"cpu": 32, "cuda": 256}  # on a CPU maps should stay in its cache


@dataclass(frozen=True)
class Plan:
    """How one stage trains.

    Members:
        learning_rate: peak of a warm-up and cosine schedule.
        ema: the weights at the end are an exponential average with this decay per step; 0: the
            last ones.
        amp: multiply in bfloat16 where the device has instructions for it.
        validate_every: epochs between two measurements of the validation accuracy; 0: never.
        logs: folder for TensorBoard files of all stages; None: none.
    """

    name: str
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    seed: int
    device: torch.device
    progress: bool = False
    ema: float = 0.0
    amp: bool = False
    validate_every: int = 0
    logs: Path | None = None
    world: World = field(default=World())

    def show(self) -> Progress:
        """Return the progress of a run of this plan."""
        hidden = not self.world.is_main or not (self.progress or sys.stderr.isatty())
        folder = self.logs / self.name if self.logs and self.world.is_main else None
        return Progress(self.name, self.epochs, hidden=hidden, folder=folder)


def pick_device(name: str) -> torch.device:
    """Return the device called `name` ("cpu" or "cuda"); ConfigError if this machine has none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has no CUDA device; use --device cpu")
    return torch.device(name)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16, so that `amp` saves time."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def batches(split: Split, plan: Plan, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled, augmented (input, label) batches; the last incomplete one is dropped."""
    samples, world = split.train, plan.world
    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + epoch)
    order = torch.randperm(len(samples), generator=generator)
    generator.manual_seed(generator.initial_seed() * world.size + world.rank)
    size = min(plan.batch, len(samples))
    for start in range(0, len(order) - size + 1, size):
        chosen = world.part(order[start : start + size])
        x = split.augment(to_input(samples.images[chosen]), generator)
        yield x.to(plan.device), samples.labels[chosen].to(plan.device)


def fit(
    model: nn.Module,
    split: Split,
    loss: Loss,
    plan: Plan,
    *,
    resume: Resume,
    begin_epoch: Callable[[int], None] | None = None,
) -> History:
    """Train `model` in place, from the resume file if it belongs to this very run.

    `begin_epoch` runs before every epoch with its number; pruning steps live there. Raises
    ConfigError when the loss is no longer a number.
    """
    model.to(memory_format=torch.channels_last)  # convolutions of nn run faster
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, plan.learning_rate, weight_decay=plan.weight_decay)
    average = copy.deepcopy(model) if plan.ema else None
    run = Run(model, average, optimizer, History())
    first = resume.load(run)
    with plan.show() as progress:
        progress.start(run.history)
        for epoch in range(first, plan.epochs):
            if isinstance(loss, Scheduled):
                loss.begin_epoch(epoch, plan.epochs)
            if begin_epoch is not None:
                begin_epoch(epoch)
                plan.world.share(model)
            mean, rate = _epoch(run, split, loss, plan, epoch)
            plan.world.share(model)
            is_due = plan.validate_every and (epoch + 1) % plan.validate_every == 0
            validation = score(model, split.validation, plan.device)[1] if is_due else math.nan
            run.history.rows.append((mean, rate, validation))
            if plan.world.is_main:
                resume.save(run, epoch + 1)
            progress.add(epoch, run.history.rows[-1])
    if average is not None:
        _copy_parameters(average, model)
    return run.history


def _epoch(run: Run, split: Split, loss: Loss, plan: Plan, epoch: int) -> tuple[float, float]:
    """Train one epoch and return the mean loss and the last learning rate."""
    devices = [plan.device] if plan.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # dropout draws from the global generators
        torch.manual_seed(plan.seed * 1_000_003 + epoch)
        return _steps(run, split, loss, plan, epoch)


def _steps(run: Run, split: Split, loss: Loss, plan: Plan, epoch: int) -> tuple[float, float]:
    run.model.train()
    count = len(split.train)
    steps = max(1, count // min(plan.batch, count))
    mean, rate = 0.0, plan.learning_rate
    for i, (x, labels) in enumerate(batches(split, plan, epoch)):
        rate = _set_rate(run.optimizer, plan, epoch * steps + i, plan.epochs * steps)
        mean += _step(run.optimizer, loss, x, labels, plan) / steps
        if run.average is not None:
            _update_average(run.average, run.model, plan.ema)
    if not math.isfinite(mean):
        raise ConfigError(
            f"{plan.name}: the loss became {mean} in epoch {epoch + 1}; lower the stage's "
            f"learning_rate, now {plan.learning_rate:g}"
        )
    return mean, rate


def _set_rate(optimizer: torch.optim.Optimizer, plan: Plan, step: int, total: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    rate = plan.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / total))
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _step(
    optimizer: torch.optim.Optimizer, loss: Loss, x: Tensor, labels: Tensor, plan: Plan
) -> float:
    is_mixed = plan.amp and multiplies_bfloat16(x.device)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=is_mixed):
        value = loss(x, labels)
    optimizer.zero_grad()
    value.backward()
    for group in optimizer.param_groups:
        plan.world.average_gradients(group["params"])
        nn.utils.clip_grad_norm_(group["params"], GRADIENT_NORM)
    optimizer.step()
    return float(value.detach())


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


@torch.no_grad()
def _copy_parameters(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters only: masks and running statistics stay the trained network's own."""
    for value, mean in zip(target.parameters(), source.parameters(), strict=True):
        value.copy_(mean)


def score(model: nn.Module, samples: Samples, device: torch.device) -> tuple[str, float]:
    """Return `ACCURACY` and the accuracy in percent, or `ERROR` and the mean squared error."""
    if samples.labels.is_floating_point():
        return ERROR, squared_error(model, samples, device)
    return ACCURACY, accuracy(model, samples, device)


@torch.no_grad()
def squared_error(model: nn.Module, samples: Samples, device: torch.device) -> float:
    """Return the mean squared error of all values of all samples."""
    model.eval()
    dtype = next(model.parameters()).dtype
    total, size = 0.0, EVAL_BATCH[device.type]
    for start in range(0, len(samples), size):
        x = to_input(samples.images[start : start + size], dtype).to(device)
        off = model(x).cpu().double() - samples.labels[start : start + size]
        total += float(off.square().sum())
    return total / samples.labels.numel()


@torch.no_grad()
def hits(model: nn.Module, samples: Samples, device: torch.device) -> Tensor:
    """Return which samples are classified rightly, bool [n]."""
    model.eval()
    dtype = next(model.parameters()).dtype
    size = EVAL_BATCH[device.type]
    found = []
    for start in range(0, len(samples), size):
        x = to_input(samples.images[start : start + size], dtype).to(device)
        guess = model(x).argmax(1).cpu()
        found.append(guess == samples.labels[start : start + size])
    return torch.cat(found)


def accuracy(model: nn.Module, samples: Samples, device: torch.device) -> float:
    """Return the share of correctly classified samples in percent."""
    return 100 * int(hits(model, samples, device).sum()) / len(samples)
