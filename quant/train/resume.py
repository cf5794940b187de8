# SPDX-License-Identifier: Apache-2.0
"""An unfinished training run on disk: model, averaged weights, optimizer, history, next epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from quant.network.state import arrays_of, load_state
from quant.train.history import COLUMNS, History
from winnow.artefact import load_arrays, save_arrays


@dataclass(frozen=True)
class Run:
    """What training changes: the model, a second one for averaged weights or None, the optimizer,
    and what was measured."""

    model: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    history: History


@dataclass(frozen=True)
class Resume:
    """Where an unfinished run is kept; `key` is the hash of everything it depends on."""

    path: Path
    key: str
    made_by: str

    def load(self, run: Run) -> int:
        """Restore a run from the file and return the next epoch; 0 if there is no such file."""
        if not self.path.is_file():
            return 0
        arrays = load_arrays(self.path, self.made_by)
        if str(arrays.get("key")) != self.key:
            return 0
        parts: dict[str, dict[str, np.ndarray]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            if part in parts:
                parts[part][rest] = array
        load_state(run.model, parts["model"], self.path, self.made_by)
        if run.average is not None:
            load_state(run.average, parts["average"], self.path, self.made_by)
        _load_optimizer(run.optimizer, parts["optimizer"])
        run.history.rows[:] = [tuple(row) for row in arrays["history"].tolist()]
        return int(arrays["epoch"])

    def save(self, run: Run, epoch: int) -> None:
        """Write a run, and the number of the next epoch."""
        arrays = {f"model/{name}": array for name, array in arrays_of(run.model).items()}
        if run.average is not None:
            arrays |= {f"average/{name}": array for name, array in arrays_of(run.average).items()}
        for index, state in run.optimizer.state_dict()["state"].items():
            for name, tensor in state.items():
                arrays[f"optimizer/{index}/{name}"] = tensor.detach().cpu().numpy()
        history = np.array(run.history.rows, dtype=np.float64).reshape(-1, len(COLUMNS))
        more = {"epoch": np.array(epoch), "key": np.array(self.key), "history": history}
        save_arrays(self.path, arrays | more)

    def part(self, name: str) -> Resume:
        """Return where one of a stage's several runs is kept until the whole stage is done.

        A part that is finished is read back, so a stage resumes in the part that was interrupted.
        """
        suffix = f".{name}{self.path.suffix}"
        return replace(self, path=self.path.with_suffix(suffix), key=f"{self.key} {name}")

    def clear(self) -> None:
        """Delete the files once the stage's result is safe."""
        self.path.unlink(missing_ok=True)
        for path in self.path.parent.glob(f"{self.path.stem}.*{self.path.suffix}"):
            path.unlink()


def _load_optimizer(optimizer: torch.optim.Optimizer, arrays: dict[str, np.ndarray]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = torch.from_numpy(array.copy())
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
