# SPDX-License-Identifier: Apache-2.0
"""What a training run measured after every epoch: a progress bar, TensorBoard files, a table."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter
from tqdm import tqdm

COLUMNS = ("loss", "learning_rate", "validation_accuracy")
Row = tuple[float, ...]


@dataclass(frozen=True)
class History:
    """One row per epoch: mean loss, last learning rate, validation accuracy in percent or NaN.

    Of a network that gives values it is the mean squared error.
    """

    rows: list[Row] = field(default_factory=list)

    def table(self) -> dict[str, list[float | None]]:
        """Return the columns for a record; what was not measured is None."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(COLUMNS)
        return {
            name: [None if math.isnan(value) else value for value in column]
            for name, column in zip(COLUMNS, columns, strict=True)
        }


class Progress:
    """Shows and logs epochs while a run goes on; a context manager.

    `folder` receives TensorBoard files, written anew by every run and resumed run; None: no files,
    and no message.
    """

    def __init__(self, name: str, epochs: int, *, hidden: bool, folder: Path | None) -> None:
        self.name, self.epochs, self.hidden, self.folder = name, epochs, hidden, folder

    def start(self, history: History) -> None:
        """Continue after the epochs that `history` holds."""
        done = len(history.rows)
        if done and self.folder is not None:
            note = f"{self.name}: resuming after epoch {done} of {self.epochs}"
            tqdm.write(note, file=sys.stderr)
        self.bar.update(done)
        for epoch, row in enumerate(history.rows):
            self._log(epoch, row)

    def __enter__(self) -> Progress:
        self.bar = tqdm(total=self.epochs, desc=self.name, unit="epoch", disable=self.hidden)
        self.writer: SummaryWriter | None = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.writer = SummaryWriter(str(self.folder))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()

    def add(self, epoch: int, row: Row) -> None:
        """Show and log one epoch."""
        loss, rate, validation = row
        shown = {"loss": f"{loss:.3f}", "rate": f"{rate:.1e}"}
        if not math.isnan(validation):
            shown["validation"] = f"{validation:.3g}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()
        self._log(epoch, row)

    def _log(self, epoch: int, row: Row) -> None:
        if self.writer is not None:
            for column, value in zip(COLUMNS, row, strict=True):
                if not math.isnan(value):
                    self.writer.add_scalar(f"{self.name}/{column}", value, epoch + 1)
