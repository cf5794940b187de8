# SPDX-License-Identifier: Apache-2.0
"""Early exits through the driver: images leave where they leave in the flow, with the same scores.

On a fake board, whose engine is the interpreter, and on the virtual one, whose engine is the RTL.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deploy.__main__
from codegen.emit import sealed_json
from codegen.exit_programs import with_exits
from codegen.golden import Golden
from deploy import exits as bundled
from deploy.driver import winnow_pynq as driver
from deploy.driver.winnow_pynq import errors
from deploy.virtual_board import virtual_board
from sim import early_exit
from sim.exits import Exits, write_programs
from tests.engines import compiled, expected_maps
from tests.fake_board import FakeBoard
from tests.test_deploy_wheel import command
from tests.test_sim_early_exit import images_of, lowered, programs
from tests.test_sim_rtl import harness, rtl_folder
from winnow.compare import require_equal
from winnow.confidence import confidence
from winnow.config import Config
from winnow.errors import MismatchError
from winnow.flow import Build

COUNT = 12
EXITS = ("exits", "--config", "net.toml")


@cache
def made() -> Exits:
    """A network with two exits, and where images leave at a threshold that parts them."""
    graph, parts = with_exits(*lowered("pool")), programs("pool")
    images = images_of(1, COUNT)
    maps = expected_maps(graph, images)
    sure = []
    for part in parts.parts[:-1]:
        results = maps[part.layers[-1].name].reshape(COUNT, -1)
        sure.append(confidence(results, part.result.tensor.exponent))
    threshold = float(np.median(sure[0]))
    start = early_exit.on_csim(compiled("default"))
    left = early_exit.run(start, parts, images, threshold)
    assert set(left.parts) >= {1, 2} or set(left.parts) >= {1, 3}
    golden = Golden(images, np.zeros(COUNT, np.int64), maps)
    return Exits(graph, parts, threshold, golden, left)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where the lock file is
    build = Build(Config(), tmp_path / "net")
    write_programs(build, made().programs, made().threshold)
    return build


@pytest.fixture
def folder(build: Build) -> Path:
    return bundled.write_exits(build, made())


@pytest.fixture
def board() -> Iterator[FakeBoard]:
    board = FakeBoard(made().graph, made().programs.whole)
    yield board
    assert board.buffers == []


@contextmanager
def on_fake_board() -> Iterator[driver.Network]:
    """Yield the network on a fake board."""
    with tempfile.TemporaryDirectory() as work:
        build = Build(Config(), Path(work) / "net")
        write_programs(build, made().programs, made().threshold)
        folder = bundled.write_exits(build, made())
        board = FakeBoard(made().graph, made().programs.whole)
        with driver.Engine(board) as engine, engine.load(folder) as network:
            yield network


def require_left(network: Any, threshold: float | None = None) -> None:
    """Let the images leave, and compare with what the flow's own host did."""
    left = made().left
    images = made().golden.images.astype(np.uint8)
    labels, scores, exits = network.classify_early(images, threshold)
    assert exits.tolist() == (left.parts - 1).tolist()
    exponents = np.array([part.result.tensor.exponent for part in made().programs.parts])
    assert np.array_equal(scores, left.results * 2.0 ** exponents[exits][:, None])
    assert np.array_equal(labels, left.results.argmax(1))


@pytest.mark.parametrize("batch", [1, 5, COUNT])
def test_images_leave_where_they_leave_in_the_flow(
    batch: int, folder: Path, board: FakeBoard
) -> None:
    with driver.Engine(board) as engine, engine.load(folder, batch=batch) as network:
        assert network.exit_names == ("conv1", "conv2", "end")
        require_left(network)
        # The network is whole again, and every map is the model's.
        assert driver.selftest(network) > 0
        require_left(network, made().threshold)
        assert len(driver.profile(network, images_of(1)[0])) == len(network.bundle.layers)


def test_thresholds_of_the_user_let_all_leave_or_none(folder: Path, board: FakeBoard) -> None:
    images = made().golden.images.astype(np.uint8)
    with driver.Engine(board) as engine, engine.load(folder) as network:
        assert set(network.classify_early(images, 0)[2]) == {0}
        _, scores, exits = network.classify_early(images * np.float32(2.0**-8), np.float32(1.5))
        assert set(exits) == {2}
        assert np.array_equal(scores, network.classify(images)[1])
        labels, scores, exits = network.classify_early(images[:0])
        assert (labels.shape, scores.shape, exits.shape) == ((0,), (0, 10), (0,))


@pytest.mark.parametrize("batch", [1, COUNT])
def test_images_leave_on_the_rtl_as_in_the_flow(batch: int, folder: Path) -> None:
    with (
        virtual_board(harness("default"), rtl_folder("default")) as found,
        driver.Engine(found) as engine,
        engine.load(folder, timeout_s=600, batch=batch) as network,
    ):
        require_left(network)
        # What `take` finds in memory now is of the images that stayed: maps of theirs, exact.
        last = int((made().left.parts == made().left.parts.max()).sum())
        if batch == COUNT and network.layers.stop == len(network.bundle.layers):
            stayed = np.flatnonzero(made().left.parts == 3)
            (found_last,) = network.take(network.bundle.layers[-1:])
            assert len(stayed) == last
            expected = made().golden.layers[network.bundle.layers[-1].name][stayed]
            assert np.array_equal(found_last, expected)


def test_an_error_in_a_later_part_names_its_layer(folder: Path, board: FakeBoard) -> None:
    images = made().golden.images.astype(np.uint8)
    second = made().programs.parts[1].layers[0].name
    with driver.Engine(board) as engine, engine.load(folder) as network:
        run = board._run

        def fail_later() -> int:
            status = run()
            board.status = 9 if network.layers.start else None
            return status

        board._run = fail_later  # type: ignore[method-assign]
        with pytest.raises(errors.EngineError, match=f"at layer '{second}' of image 0: ") as found:
            network.classify_early(images, 2.0)
        assert found.value.layer == second


def changed(folder: Path, exits: Any) -> None:
    path = folder / "memory.json"
    content = json.loads(path.read_bytes())
    content.pop("seal")
    content.pop("exits")
    path.write_bytes(sealed_json({**content, **({} if exits is None else {"exits": exits})}))


PART = {"exit": "conv1", "first": 0, "layers": 1}


@pytest.mark.parametrize(
    ("exits", "kind", "text"),
    [
        (None, errors.InputError, "the network has no early exits; its bundle is that of: make ex"),
        ({}, errors.MismatchError, r"lacks something \('parts'\); copy the bundle again"),
        ({"parts": [{}]}, errors.MismatchError, r"lacks something \('exit'\); copy the bundle"),
        ({"parts": [PART]}, errors.MismatchError, "its parts are not all layers in a row"),
        ({"parts": [PART, PART]}, errors.MismatchError, "its parts are not all layers in a row"),
    ],
)
def test_a_bundle_without_whole_parts_is_refused(
    exits: Any, kind: type[Exception], text: str, folder: Path, board: FakeBoard
) -> None:
    changed(folder, exits)
    with driver.Engine(board) as engine, engine.load(folder) as network:
        with pytest.raises(kind, match=text):
            network.classify_early(made().golden.images.astype(np.uint8))
        assert driver.selftest(network) > 0  # the whole network runs


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), "0.9"])
def test_a_threshold_that_is_none_is_refused(
    threshold: Any, folder: Path, board: FakeBoard
) -> None:
    with (
        driver.Engine(board) as engine,
        engine.load(folder) as network,
        pytest.raises(errors.InputError, match="threshold must be a probability, got "),
    ):
        network.classify_early(made().golden.images.astype(np.uint8), threshold)


# --- the check of the flow, and its command -----------------------------------------------------


def test_the_check_names_an_image_that_leaves_elsewhere(folder: Path, board: FakeBoard) -> None:
    left = made().left
    other = replace(made(), left=replace(left, parts=np.full(COUNT, 3)))
    first = int(np.flatnonzero(left.parts != 3)[0])
    with driver.Engine(board) as engine, engine.load(folder) as network:
        values = bundled.compare_early(network, made(), COUNT)
        assert values == COUNT * 10 + sum(m.size for m in made().golden.layers.values())
        with pytest.raises(
            MismatchError, match=f"^image {first} leaves at 'conv[12]' on the board, "
        ):
            bundled.compare_early(network, other, COUNT)
        wrong = replace(made(), left=replace(left, results=left.results + 1))
        with pytest.raises(MismatchError, match=r"^layer 'results': image 0, "):
            bundled.compare_early(network, wrong, COUNT)


def test_what_no_image_can_leave_by_is_refused_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.toml").write_text("[model]\nexit_after = [1]\n")
    for given in ("1.5", "nan"):
        error = f"error: --threshold must be within 0..1, got {given}\n"
        assert command(capsys, *EXITS, "--check", "--threshold", given) == (1, "", error)
    Path("values.toml").write_text(
        '[model]\nexit_after = [1]\n[data]\nsource = "npz"\npath = "x.npz"\nlabels = "values"\n'
    )
    error = "error: early exits need data.labels 'classes', got 'values'\n"
    assert command(capsys, *EXITS, "--config", "values.toml", "--check") == (1, "", error)


def test_the_command_writes_bundle_and_wheel(
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.toml").write_text("[model]\nexit_after = []\n")
    error = "error: early exits need a network that is deployed with them: set model.exit_after, "
    assert command(capsys, *EXITS, "--check")[2].startswith(error)
    Path("net.toml").write_text("[model]\nexit_after = [1]\n")
    assert command(capsys, *EXITS, "--check") == (0, "", "")
    assert command(capsys, *EXITS, "--out", "net")[2].startswith(
        "error: 'net': stage 'train' must run fir"
    )
    asked: list[float | None] = []
    monkeypatch.setattr(deploy.__main__, "require_current", lambda *_, **__: None)
    monkeypatch.setattr(deploy.__main__, "exits", lambda _, t: asked.append(t) or made())
    made_before = harness("default")
    monkeypatch.setattr(bundled.rtl, "build", lambda *_: made_before)
    monkeypatch.setattr(
        bundled, "virtual_board", lambda h, _: virtual_board(h, rtl_folder("default"))
    )
    code, text, error = command(capsys, *EXITS, "--out", "net", "--threshold", "0.5")
    assert (code, error, asked) == (0, "", [0.5])
    assert "exits: driver on a virtual board = C++ = interpreter on " in text
    assert "net/bundle_exits, net/winnow_net_exits-" in text
    assert (build.out / "bundle_exits" / "golden.npz").is_file()
    with driver.Engine(FakeBoard(made().graph, made().programs.whole)) as engine:
        require_equal(
            {n: m[:2] for n, m in made().golden.layers.items()},
            engine.load(build.out / "bundle_exits").maps(made().golden.images[:2]),
        )
