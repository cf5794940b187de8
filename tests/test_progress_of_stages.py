# SPDX-License-Identifier: Apache-2.0
"""The long parts of the flow tell how far they are. Here no part is too short to be told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from codegen.interpret import interpret
from codegen.schedule import schedule
from quant.allocate.sensitivity import weight_divergence
from quant.network.network import Network
from quant.network.rewrite import to_winograd
from sim import csim, rtl, verilator
from tests.engines import shell_engine
from tests.ladder import random_chain_graph, random_images
from winnow import progress
from winnow.engine import EngineConfig


@pytest.fixture(autouse=True)
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines of stderr up to the time."""
    return [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]


def small() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten()
    )
    return Network.of(module.eval(), (3, 8, 8))


def test_interpreter_and_scheduler(capsys: pytest.CaptureFixture[str]) -> None:
    graph = random_chain_graph(1, 2)
    interpret(graph, random_images(graph, 1, 33))  # two parts
    count = 2 * len(graph.nodes)
    assert told(capsys) == [f"interpreter: {n + 1} of {count}" for n in range(count)]
    plan = schedule(graph, EngineConfig())
    count = len(plan.layers)
    assert told(capsys) == [f"scheduling and packing: {n + 1} of {count}" for n in range(count)]


def test_a_network_that_is_evaluated_but_not_one_that_trains(
    capsys: pytest.CaptureFixture[str],
) -> None:
    net = small()
    net(torch.zeros(1, 3, 8, 8))
    assert told(capsys) == [f"running the network: {n + 1} of 4" for n in range(4)]
    net.train()(torch.zeros(1, 3, 8, 8))
    assert told(capsys) == []


def test_sensitivities(capsys: pytest.CaptureFixture[str]) -> None:
    weight_divergence(to_winograd(small(), 2), torch.zeros(1, 3, 8, 8), [4, 8])
    lines = [line for line in told(capsys) if line.startswith("measuring")]
    assert lines == ["measuring sensitivities: 1 of 2", "measuring sensitivities: 2 of 2"]


class Waits:
    """In place of `waiting`: what is waited for, of how many, and how many were done at the end."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None, int]] = []

    @contextmanager
    def __call__(
        self, what: str, total: int | None = None, measure: Callable[[], int] = lambda: 0
    ) -> Iterator[None]:
        yield
        self.seen.append((what, total, measure()))


def test_compiled_engine_by_what_it_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, images = Waits(), bytes(range(48))
    monkeypatch.setattr(csim, "waiting", waits)
    engine = csim.Engine(shell_engine('echo "status 0 1 1"; cp "$3" "$4"', tmp_path))
    csim.execute(engine, tmp_path, images, (2, 0, 2), processes=2)
    assert waits.seen == [("C++, images", 3, 3)]


def test_rtl_by_what_it_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Waits()
    monkeypatch.setattr(rtl, "waiting", waits)
    harness = rtl.Harness(shell_engine('cp "$3" "$4"', tmp_path))
    _, memory = rtl.execute(harness, tmp_path, csim.Starts(bytes(32), (2, 0, 2)))
    assert waits.seen == [("RTL, images", 2, 2)]
    assert np.array_equal(memory, np.zeros(32, np.uint8))


def test_what_has_written_nothing_has_done_nothing(tmp_path: Path) -> None:
    assert csim.starts_written(tmp_path / "output.bin", 2) == 0
    (tmp_path / "output.bin").write_bytes(bytes(31))
    assert csim.starts_written(tmp_path / "output.bin", 2) == 1


def test_builds_of_verilator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Waits()
    monkeypatch.setattr(verilator, "waiting", waits)
    verilator.run(["true"], tmp_path / "build.log", "Verilator on 'top'")
    assert waits.seen == [("Verilator on 'top'", None, 0)]
