# SPDX-License-Identifier: Apache-2.0
"""How far long work is, told on stderr: what takes less than QUIET_SECONDS says nothing.

On a terminal it is one line, written anew and wiped out at the end; elsewhere, where lines are
kept, one in LINE_SECONDS.

    interpreter: 12 of 23, 14 s, about 13 s left
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TextIO, TypeVar

QUIET_SECONDS, DRAW_SECONDS, LINE_SECONDS = 5.0, 0.5, 30.0
T = TypeVar("T")


class Progress:
    """Tells how many of `total` steps are done, and when the last one will be; a context manager.

    Steps are taken to last equally long. Without a total, or before the first step, only the time
    is told.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.done = what, total, 0
        self._stream: TextIO | None = (
            stream or sys.stderr
        )  # None where it was closed from the start
        self._clock = clock
        self._is_terminal = self._stream is not None and self._stream.isatty()
        self._drawn = 0  # characters of the line on the terminal
        self._started = clock()
        self._next = self._started + (QUIET_SECONDS if self._is_terminal else LINE_SECONDS)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            self._write("\r" + " " * self._drawn + "\r")
            self._drawn = 0

    def add(self, count: int = 1) -> None:
        """Count steps that are done."""
        self.reach(self.done + count)

    def reach(self, done: int) -> None:
        """Tell, if it is time to, that so many steps are done."""
        self.done = done
        now = self._clock()
        if now < self._next:
            return
        text = self._text(now - self._started)
        if self._is_terminal:
            self._write("\r" + text.ljust(self._drawn))
            self._drawn = len(text)
            self._next = now + DRAW_SECONDS
        else:
            self._write(text + "\n")
            self._next = now + LINE_SECONDS

    def _text(self, seconds: float) -> str:
        if self.total is None:
            return f"{self.what}: {duration(seconds)}"
        text = f"{self.what}: {self.done} of {self.total}, {duration(seconds)}"
        if not 0 < self.done < self.total:
            return text
        left = seconds * (self.total - self.done) / self.done
        return f"{text}, about {duration(left)} left"

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        with contextlib.suppress(OSError, ValueError):  # nobody reads: the work goes on
            self._stream.write(text)
            self._stream.flush()


def duration(seconds: float) -> str:
    """Return seconds as "75 s", or from two minutes on as "2 min 5 s"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def steps(what: str, items: Iterable[T], total: int | None = None) -> Iterator[T]:
    """Yield the items, a step each; `total` is their number where it cannot be asked for."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(what, total) as progress:
        for item in items:
            yield item
            progress.add()


@contextlib.contextmanager
def waiting(
    what: str, total: int | None = None, measure: Callable[[], int] = lambda: 0
) -> Iterator[None]:
    """Tell how long the block takes, which waits for a program; `measure` returns steps it did."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(DRAW_SECONDS):
            progress.reach(measure())

    with Progress(what, total) as progress:
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
