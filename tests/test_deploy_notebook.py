# SPDX-License-Identifier: Apache-2.0
"""The notebook of the wheel: its cells run in order, and print what they must.

On a fake board, and on the virtual board, whose engine is the RTL. pynq and matplotlib are
stand-ins.
"""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.virtual_board import virtual_board
from deploy.wheel import NOTEBOOK, TEMPLATES, write_wheel
from sim import rtl
from tests import test_deploy_exits as exits_case
from tests.fake_board import LAYER_CYCLES, FakeBoard
from tests.test_deploy_boards import pynq_board  # noqa: F401
from tests.test_deploy_driver import GRAPH, LAST, PLAN, bundle, golden  # noqa: F401
from tests.test_sim_rtl import harness, rtl_folder


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


@contextmanager
def fake() -> Iterator[tuple[Any, int]]:
    """Yield a fake board and the cycles that an image takes on it."""
    board = FakeBoard(GRAPH, PLAN)
    yield board, LAYER_CYCLES * len(PLAN.layers)
    assert board.buffers == []


@contextmanager
def virtual() -> Iterator[tuple[Any, int]]:
    """Yield a virtual board and the cycles of an image in the harness."""
    one = rtl.run(harness("default"), PLAN, golden().images[:1])
    with virtual_board(harness("default"), rtl_folder("default")) as board:
        yield board, one.counted[0]
        assert board.bus.live == 0


@pytest.mark.parametrize("place", [fake, virtual])
def test_cells_run_in_order(
    place: Any,
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
    names: dict[str, Any] = {}
    with place() as (found, cycles):
        monkeypatch.setattr(board, "open_overlay", lambda _: engine.Engine(found))
        for cell in code_cells(tmp_path / "place" / "winnow_book" / NOTEBOOK):
            exec(cell, names)
    text = capsys.readouterr().out
    assert f"4 layers, images of {PLAN.input.tensor.shape}" in text
    compared = sum(maps.size for maps in golden().layers.values())
    assert f"{compared} integers compared, all equal" in text
    labels = golden().layers[LAST][:, :, 0, 0].argmax(1)
    assert f"classes {labels.tolist()}" in text
    assert [axis.title for axis in axes] == [f"class {label}" for label in labels]
    assert {axis.shape for axis in axes} == {(*PLAN.input.tensor.shape[1:], 3)}
    rows = [line.split() for line in text.splitlines() if line.endswith(" modelled")]
    assert [[row[0], row[2]] for row in rows] == [
        [layer.name, str(layer.cycles.total)] for layer in PLAN.layers
    ]
    assert sum(int(row[1]) for row in rows) == cycles
    assert f"chain            says {labels.tolist()}" in text
    assert "this network has no early exits" in text
    assert " images/s, " in text


def test_the_notebook_shows_early_exits_where_there_are_some(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (cell,) = (cell for cell in code_cells(TEMPLATES / NOTEBOOK) if "classify_early" in cell)
    left = exits_case.made().left
    images = exits_case.made().golden.images.astype(np.uint8)
    with exits_case.on_fake_board() as network:
        exec(cell, {"network": network, "images": images})
    names = network.exit_names
    assert capsys.readouterr().out.splitlines() == [
        f"class {row.argmax()} at {names[part - 1]}"
        for row, part in zip(left.results, left.parts, strict=True)
    ]


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 5)), (2, (4, 5)), (3, (4, 5, 3))])
def test_pictures_are_gray_or_of_three_colours(
    channels: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, axes = np.zeros((2, channels, 4, 5), np.uint8), [Axis(), Axis()]
    plt: Any = ModuleType("matplotlib.pyplot")
    plt.subplots = lambda *_, **__: (None, np.array([axes]))
    monkeypatch.setitem(sys.modules, "matplotlib", SimpleNamespace(pyplot=plt))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", plt)
    bundle = SimpleNamespace(  # noqa: F811
        golden=lambda: {"images": images}, input=SimpleNamespace(dtype=np.uint8)
    )
    network = SimpleNamespace(bundle=bundle, classify=lambda _: (np.array([1, 0]), None))
    (cell,) = (cell for cell in code_cells(TEMPLATES / NOTEBOOK) if "imshow" in cell)
    exec(cell, {"network": network})
    assert [(axis.shape, axis.title) for axis in axes] == [(shape, "class 1"), (shape, "class 0")]


def test_notebook_is_kept_without_outputs() -> None:
    cells = json.loads((TEMPLATES / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)
