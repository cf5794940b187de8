# SPDX-License-Identifier: Apache-2.0
"""What is told of long work, when and how; the clock is ours."""

from __future__ import annotations

import io

import pytest

from winnow import progress
from winnow.progress import Progress, duration, steps, waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(stream: io.StringIO, total: int | None = 10) -> tuple[Progress, Clock]:
    clock = Clock()
    return Progress("lower", total, stream=stream, clock=clock), clock


def test_short_work_says_nothing() -> None:
    stream = Terminal()
    bar, clock = made(stream)
    with bar:
        for _ in range(10):
            clock.now += 0.49
            bar.add()
    assert stream.getvalue() == ""


def test_a_terminal_has_one_line_that_is_wiped_out() -> None:
    stream = Terminal()
    bar, clock = made(stream)
    with bar:
        clock.now += 6
        bar.add(3)
        clock.now += 0.4
        bar.add()  # too early to draw again
        clock.now += 0.1
        bar.add(5)
    first, second = "lower: 3 of 10, 6 s, about 14 s left", "lower: 9 of 10, 6 s, about 1 s left"
    wiped = "\r" + " " * len(second) + "\r"
    assert stream.getvalue() == f"\r{first}\r{second.ljust(len(first))}{wiped}"


def test_elsewhere_there_is_a_line_every_half_minute() -> None:
    stream = io.StringIO()
    bar, clock = made(stream, 100)
    with bar:
        for _ in range(90):
            clock.now += 1
            bar.add()
    assert stream.getvalue().splitlines() == [
        "lower: 30 of 100, 30 s, about 70 s left",
        "lower: 60 of 100, 60 s, about 40 s left",
        "lower: 90 of 100, 90 s, about 10 s left",
    ]


@pytest.mark.parametrize(
    ("total", "done", "text"),
    [
        (None, 0, "lower: 31 s"),
        (10, 0, "lower: 0 of 10, 31 s"),  # how long a step takes is not known
        (10, 10, "lower: 10 of 10, 31 s"),
    ],
)
def test_without_a_step_or_a_total_only_the_time_is_told(
    total: int | None, done: int, text: str
) -> None:
    stream = io.StringIO()
    bar, clock = made(stream, total)
    clock.now += 31
    bar.reach(done)
    assert stream.getvalue() == text + "\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119.4, "119 s"), (120, "2 min 0 s"), (3725, "62 min 5 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_stream_that_nobody_reads_does_not_end_the_work() -> None:
    stream = io.StringIO()
    bar, clock = made(stream)
    stream.close()
    clock.now += 60
    bar.add()
    assert bar.done == 1


def test_steps_yields_every_item() -> None:
    assert list(steps("layers", "abc")) == ["a", "b", "c"]


def test_waiting_measures_while_the_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher asks until it is told that the block has ended; no time is waited for."""
    asked = progress.threading.Event()
    monkeypatch.setattr(progress, "DRAW_SECONDS", 0.0)

    def measure() -> int:
        asked.set()
        return 1

    with waiting("rtl", 2, measure):
        assert asked.wait(60)


def test_a_failure_ends_the_watcher_and_passes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DRAW_SECONDS", 0.0)
    before = progress.threading.active_count()
    with pytest.raises(KeyError), waiting("rtl"):
        raise KeyError
    assert progress.threading.active_count() == before


def test_work_goes_on_where_stderr_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python makes it None then; `command 2>&-` does that."""
    monkeypatch.setattr("sys.stderr", None)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert list(steps("lower", [1, 2])) == [1, 2]
