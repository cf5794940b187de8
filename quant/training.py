# SPDX-License-Identifier: Apache-2.0
"""The training loop, and resuming it bit for bit.

After every epoch the model, the optimizer and the epoch number go to a resume file. All randomness
of an epoch comes from a generator seeded by (seed, epoch), so an interrupted run repeats exactly
what an uninterrupted one would have done on the same machine.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from quant.checkpoint import arrays_of, load_state
from quant.data import Samples, Split, to_input
from quant.distill import Loss
from winnow.artefact import load_arrays, save_arrays
from winnow.errors import ConfigError

WARM_UP_STEPS = 20
GRADIENT_NORM = 5.0
EVAL_BATCH = 256


@dataclass(frozen=True)
class Plan:
    """How one stage trains. `learning_rate` is the peak of a warm-up and cosine schedule."""

    name: str
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    seed: int
    device: torch.device
    progress: bool = False


@dataclass(frozen=True)
class Resume:
    """Where an unfinished run is kept; `key` is the hash of everything it depends on."""

    path: Path
    key: str
    made_by: str

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Restore both from the file and return the next epoch; 0 if there is nothing to resume."""
        if not self.path.is_file():
            return 0
        arrays = load_arrays(self.path, self.made_by)
        if str(arrays.get("key")) != self.key:
            return 0
        parts: dict[str, dict[str, np.ndarray]] = {"model": {}, "optimizer": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            if part in parts:
                parts[part][rest] = array
        load_state(model, parts["model"], self.path, self.made_by)
        _load_optimizer(optimizer, parts["optimizer"])
        return int(arrays["epoch"])

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
        """Write both, and the number of the next epoch."""
        arrays = {f"model/{name}": array for name, array in arrays_of(model).items()}
        for index, state in optimizer.state_dict()["state"].items():
            for name, tensor in state.items():
                arrays[f"optimizer/{index}/{name}"] = tensor.detach().cpu().numpy()
        save_arrays(self.path, arrays | {"epoch": np.array(epoch), "key": np.array(self.key)})

    def clear(self) -> None:
        """Delete the file once the stage's result is safe."""
        self.path.unlink(missing_ok=True)


def _load_optimizer(optimizer: torch.optim.Optimizer, arrays: dict[str, np.ndarray]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = torch.from_numpy(array.copy())
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def pick_device(name: str) -> torch.device:
    """Return the device called `name` ("cpu" or "cuda"); ConfigError if this machine has none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has no CUDA device; use --device cpu")
    return torch.device(name)


def batches(split: Split, batch: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled, augmented (input, label) batches; the last incomplete one is dropped."""
    samples = split.train
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(samples), generator=generator)
    size = min(batch, len(samples))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        x = split.augment(to_input(samples.images[chosen]), generator)
        yield x, samples.labels[chosen]


def fit(
    model: nn.Module,
    split: Split,
    loss: Loss,
    plan: Plan,
    *,
    resume: Resume,
    begin_epoch: Callable[[int], None] | None = None,
) -> None:
    """Train `model` in place, from the resume file if it belongs to this very run.

    `begin_epoch` runs before every epoch with its number; pruning steps live there.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, plan.learning_rate, weight_decay=plan.weight_decay)
    first = resume.load(model, optimizer)
    if first:
        tqdm.write(f"{plan.name}: resuming after epoch {first} of {plan.epochs}", file=sys.stderr)
    count = len(split.train)
    steps = max(1, count // min(plan.batch, count))
    hidden = not (plan.progress or sys.stderr.isatty())
    bar = tqdm(total=plan.epochs, initial=first, desc=plan.name, unit="epoch", disable=hidden)
    with bar:
        for epoch in range(first, plan.epochs):
            if begin_epoch is not None:
                begin_epoch(epoch)
            model.train()
            mean = 0.0
            epoch_batches = batches(split, plan.batch, plan.seed, epoch)
            for i, (x, labels) in enumerate(epoch_batches):
                _set_rate(optimizer, plan, epoch * steps + i, plan.epochs * steps)
                mean += _step(optimizer, loss, x.to(plan.device), labels.to(plan.device)) / steps
            if not math.isfinite(mean):
                raise ConfigError(
                    f"{plan.name}: the loss became {mean} in epoch {epoch + 1}; lower the stage's "
                    f"learning_rate, now {plan.learning_rate:g}"
                )
            resume.save(model, optimizer, epoch + 1)
            bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
            bar.update()


def _set_rate(optimizer: torch.optim.Optimizer, plan: Plan, step: int, total: int) -> None:
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    rate = plan.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / total))
    for group in optimizer.param_groups:
        group["lr"] = rate


def _step(optimizer: torch.optim.Optimizer, loss: Loss, x: Tensor, labels: Tensor) -> float:
    value = loss(x, labels)
    optimizer.zero_grad()
    value.backward()
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], GRADIENT_NORM)
    optimizer.step()
    return float(value.detach())


@torch.no_grad()
def accuracy(model: nn.Module, samples: Samples, device: torch.device) -> float:
    """Return the share of correctly classified samples in percent."""
    model.eval()
    dtype = next(model.parameters()).dtype
    correct = 0
    for start in range(0, len(samples), EVAL_BATCH):
        x = to_input(samples.images[start : start + EVAL_BATCH], dtype).to(device)
        guess = model(x).argmax(1).cpu()
        correct += int((guess == samples.labels[start : start + EVAL_BATCH]).sum())
    return 100 * correct / len(samples)
