# SPDX-License-Identifier: Apache-2.0
"""What users of other drivers complained of in public: the table of docs/deploy.md, and its tests.

Most lie in the files of what they test; those that belong nowhere else are here.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.ports import OFFSETS, Control
from deploy.driver import winnow_pynq as driver
from deploy.handoff import handoff
from tests.conftest import ROOT
from tests.fake_board import FakeBoard
from tests.test_deploy_driver import LAST, board, bundle, golden  # noqa: F401
from tests.test_deploy_vivado import play, scripts
from tests.test_docs import table
from winnow.boards import BOARDS, Family


def test_every_complaint_has_its_tests() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    rows = table(text, "what users of other drivers reported", "what ours does", "test")
    assert len(rows) >= 14
    for complaint, _, tests in rows:
        names = [name.strip(" `") for name in tests.split(",")]
        assert names, complaint
        for name in names:
            file, _, function = name.partition("::")
            content = (ROOT / "tests" / f"test_deploy_{file}.py").read_text(encoding="utf-8")
            assert re.search(rf"^def {function}\(", content, re.MULTILINE), f"{complaint}: {name}"


class Watched(FakeBoard):
    """A fake board that notes syncs and starts in order."""

    def __init__(self, plain: FakeBoard) -> None:
        super().__init__(plain.graph, plain.plan)
        self.calls: list[str] = []

    def to_device(self, memory: Any) -> None:
        self.calls.append("flush")
        super().to_device(memory)

    def from_device(self, memory: Any) -> None:
        self.calls.append("invalidate")
        super().from_device(memory)

    def pause(self, seconds: float) -> None:
        self.calls.append("pause")
        super().pause(seconds)

    def write32(self, offset: int, value: int) -> None:
        if offset == OFFSETS["control"] and value == Control.START:
            self.calls.append("start")
        super().write32(offset, value)


def test_the_processor_writes_no_memory_during_a_run(
    board: FakeBoard,  # noqa: F811
    bundle: Path,  # noqa: F811
) -> None:
    """A line of its cache that is written back late would lie over the engine's results."""
    watched = Watched(board)
    with driver.Engine(watched) as engine, engine.load(bundle, batch=2) as network:
        watched.looks = 2
        watched.calls.clear()
        assert np.array_equal(network.run(golden().images), golden().layers[LAST])
    flushes = ["flush"] * 2  # the program for two images, and these; then the images alone
    first = [*flushes, "start", "pause", "pause", "invalidate"]
    assert watched.calls == [*first, "flush", "start", "invalidate"]


@pytest.mark.parametrize("name", BOARDS)
def test_interrupts_are_edges_and_the_processor_is_at_the_top(name: str, tmp_path: Path) -> None:
    error, calls = play(scripts(tmp_path, BOARDS[name]), "overlay.tcl")
    assert error == ""
    assert "CONFIG.C_KIND_OF_INTR 0xFFFFFFFF" in "\n".join(calls)
    cells = [call.split()[-1] for call in calls if call.startswith("create_bd_cell ")]
    assert "ps" in cells
    (processor, *_) = ET.fromstring(handoff(BOARDS[name], 100.0)).findall("MODULES/MODULE")
    assert str(processor.get("FULLNAME")).count("/") == 1


@pytest.mark.parametrize("name", [n for n, b in BOARDS.items() if b.family is not Family.ZYNQ7])
def test_handoff_says_how_wide_the_memory_ports_are(name: str) -> None:
    """pynq sets the width that it finds there; the boot may have left another."""
    parameters = {
        str(p.get("NAME")): p.get("VALUE")
        for p in ET.fromstring(handoff(BOARDS[name], 100.0)).iter("PARAMETER")
    }
    for number in range(len(BOARDS[name].memory_ports)):
        assert parameters[f"C_SAXIGP{number + 2}_DATA_WIDTH"] == "64"
