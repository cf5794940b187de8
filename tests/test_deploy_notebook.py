# SPDX-License-Identifier: Apache-2.0
"""The notebook of the wheel: its cells run in order on a fake board, and print what they must.

pynq and matplotlib are stand-ins.
"""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.wheel import NOTEBOOK, TEMPLATES, write_wheel
from tests.fake_board import LAYER_CYCLES, FakeBoard
from tests.test_deploy_boards import pynq_board  # noqa: F401
from tests.test_deploy_driver import GRAPH, LAST, PLAN, bundle, golden  # noqa: F401


class Axis:
    """What the notebook does with a picture."""

    def __init__(self) -> None:
        self.shape, self.title = (), ""

    def imshow(self, image: Any, cmap: str) -> None:
        assert cmap == "gray"
        self.shape = image.shape

    def set_title(self, title: str) -> None:
        self.title = title

    def axis(self, what: str) -> None:
        assert what == "off"


def code_cells(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_cells_run_in_order(
    bundle: Path,  # noqa: F811
    pynq_board: Any,  # noqa: ARG001, F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    zipfile.ZipFile(write_wheel(tmp_path, bundle, "book")).extractall(tmp_path / "place")
    monkeypatch.syspath_prepend(str(tmp_path / "place"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    axes = [Axis() for _ in golden().images]
    plt: Any = ModuleType("matplotlib.pyplot")
    plt.subplots = lambda *_, **__: (None, np.array([axes]))
    monkeypatch.setitem(sys.modules, "matplotlib", SimpleNamespace(pyplot=plt))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", plt)
    board: Any = importlib.import_module("winnow_book.winnow_pynq.pynq_board")
    engine: Any = importlib.import_module("winnow_book.winnow_pynq")
    fake = FakeBoard(GRAPH, PLAN)
    monkeypatch.setattr(board, "open_overlay", lambda _: engine.Engine(fake))
    names: dict[str, Any] = {}
    for cell in code_cells(tmp_path / "place" / "winnow_book" / NOTEBOOK):
        exec(cell, names)
    text = capsys.readouterr().out
    assert f"4 layers, images of {PLAN.input.tensor.shape}" in text
    compared = sum(maps.size for maps in golden().layers.values())
    assert f"{compared} integers compared, all equal" in text
    labels = golden().layers[LAST][:, :, 0, 0].argmax(1)
    assert f"classes {labels.tolist()}" in text
    assert [axis.title for axis in axes] == [f"class {label}" for label in labels]
    assert {axis.shape for axis in axes} == {PLAN.input.tensor.shape[1:]}
    for layer in PLAN.layers:
        line = f"{layer.name:<16}{LAYER_CYCLES:>12}{layer.cycles.total:>12} modelled"
        assert line in text.splitlines()
    assert " images/s, " in text
    assert fake.buffers == []


def test_notebook_is_kept_without_outputs() -> None:
    cells = json.loads((TEMPLATES / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)
