# SPDX-License-Identifier: Apache-2.0
"""The driver in bad hands: what is wrong, cut short, interrupted or taken away is told in a line.

Kinds, not cases: an interrupt or a failure comes before and after every access of a run in turn.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.emit import emit_data, sealed_json
from codegen.ports import OFFSETS, Control
from deploy.driver import winnow_pynq as driver
from deploy.driver.winnow_pynq import errors, lock
from tests.fake_board import FakeBoard
from tests.test_deploy_driver import (  # noqa: F401
    GRAPH,
    LAST,
    PACKAGE,
    PLAN,
    bundle,
    golden,
    second_process,
)

ONES = 0xFFFFFFFF
IMAGES = golden().images
RESULTS = golden().layers[LAST]
assert len(np.unique(RESULTS, axis=0)) == len(IMAGES), "a test could not tell images apart"


class Fragile(FakeBoard):
    """A fake board that raises `error` at moment `at`; once only, as a Ctrl-C does.

    Members: `moments` counts the ones before and after every access; `dark` is how many reads of
    registers are still answered, after which all are ones.
    """

    at: int = -1
    error: type[BaseException] = KeyboardInterrupt
    moments: int = 0
    dark: int | None = None

    def _pass(self) -> None:
        self.moments += 1
        if self.moments == self.at:
            raise self.error("cut off")

    def _around(self, access: Callable[..., Any], *arguments: Any) -> Any:
        self._pass()
        found = access(*arguments)
        self._pass()
        return found

    def read32(self, offset: int) -> int:
        if self.dark == 0:
            return ONES
        if self.dark is not None:
            self.dark -= 1
        return int(self._around(super().read32, offset))

    def write32(self, offset: int, value: int) -> None:
        self._around(super().write32, offset, value)

    def pause(self, seconds: float) -> None:
        self._around(super().pause, seconds)

    def to_device(self, memory: Any) -> None:
        self._around(super().to_device, memory)

    def from_device(self, memory: Any) -> None:
        self._around(super().from_device, memory)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fragile:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where the lock file is
    return Fragile(GRAPH, PLAN)


# --- what is given ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda n: n.put(IMAGES), r"images of a start must be 1\.\.2, got 4"),
        (lambda n: n.put(IMAGES[:0]), r"images of a start must be 1\.\.2, got 0"),
        (lambda n: n.put(IMAGES[:1], layers=0), r"layers of a start must be 1\.\.4, got 0"),
        (lambda n: n.put(IMAGES[:1], layers=5), r"layers of a start must be 1\.\.4, got 5"),
        (lambda n: n.put(IMAGES[:1], layers=1.5), r"layers of a start must be 1\.\.4, got 1\.5"),
        (lambda n: n.put(IMAGES[:1], layers="2"), r"layers of a start must be 1\.\.4, got '2'"),
        (lambda n: n.put(IMAGES[0]), r"images must be \[n, .*\], got \["),
        (lambda n: n.put(IMAGES[:1] * 1.0), "images must be integers, got float64"),
        (lambda n: n.run([[1], [1, 2]]), "images must be (an array: setting|\\[n, )"),
        (lambda n: n.run(None), r"images must be \[n, .*\], got \[\]"),
        (lambda n: n.classify([[1.0], [1.0, 2.0]]), "images must be (an array: setting|floats)"),
        (lambda n: n.classify(IMAGES.astype(bool)), r"must be floats or u?int8, got bool"),
        (lambda n: n.classify(IMAGES.astype(complex)), r"must be floats or u?int8, got complex"),
        (lambda n: n.classify(IMAGES.astype(str)), r"must be floats or u?int8, got <U"),
        (lambda n: n.classify(np.float32(IMAGES) / 0.0), "images must be finite, got NaN"),
        (lambda n: driver.profile(n, IMAGES), r"images must be \[n, .*\], got \["),
        (lambda n: driver.profile(n, [[1], [1, 2]]), "images must be (an array|\\[n, )"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_no_start_can_run_is_refused_in_a_line(
    use: Callable[[driver.Network], Any],
    text: str,
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    with driver.Engine(board) as engine, engine.load(bundle, batch=2) as network:
        with pytest.raises(errors.InputError, match=text) as caught:
            use(network)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, ValueError)
        assert np.array_equal(network.run(IMAGES), RESULTS)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble])
def test_floats_of_any_width_are_clamped_without_a_warning(
    kind: Any,
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    high = PLAN.input.tensor.bounds[1]
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        largest = np.full((1, *GRAPH.input.shape), np.finfo(kind).max).astype(kind)
        full = np.full((1, *GRAPH.input.shape), high, network.bundle.input.dtype)
        assert np.array_equal(network.classify(largest)[1], network.classify(full)[1])


def test_a_closed_network_refuses_every_step(
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    with driver.Engine(board) as engine:
        network = engine.load(bundle)
        network.put(IMAGES)
        network.close()
        steps: list[Callable[[], Any]] = [
            lambda: network.put(IMAGES),
            network.start,
            lambda: network.take(network.bundle.layers),
        ]
        for step in steps:
            with pytest.raises(errors.BusyError, match="the network was closed; load it again"):
                step()
    with pytest.raises(errors.BusyError, match="the engine was closed; open the overlay again"):
        engine.load(bundle)
    assert board.buffers == []


OPTIONAL = {"weight_bytes", "status", "seal"}  # a board does without; the seal is made again


def sealed_memory() -> bytes:
    """Return the memory.json of a bundle, for the names of its members."""
    with tempfile.TemporaryDirectory() as folder:
        emit_data(Path(folder), PLAN)
        return (Path(folder) / "memory.json").read_bytes()


FILES = ("program.bin", "weights.bin", "memory.json", "golden.npz")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_named(
    name: str,
    kept: float,
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: int(kept * len(content))])
    room = board.room
    with driver.Engine(board) as engine:
        with pytest.raises(errors.MismatchError, match=name) as caught, engine.load(bundle) as net:
            driver.selftest(net)
        assert "\n" not in str(caught.value)
        assert board.room == room


@pytest.mark.parametrize("member", sorted(json.loads(sealed_memory())))
def test_a_description_without_one_of_its_members_runs_or_is_named(
    member: str,
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    """By its seal it is whole: somebody's tool wrote it, of another version perhaps."""
    content = json.loads((bundle / "memory.json").read_bytes())
    for name in ("seal", member):
        content.pop(name, None)
    (bundle / "memory.json").write_bytes(sealed_json(content))
    with driver.Engine(board) as engine:
        if member in OPTIONAL:
            with engine.load(bundle) as network:
                assert np.array_equal(network.run(IMAGES), RESULTS)
        else:
            with pytest.raises(errors.MismatchError, match=r"memory\.json' (lacks|has format)"):
                engine.load(bundle)
    assert board.buffers == []


def test_golden_images_that_no_bundle_vouches_for_are_refused(
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    data = bundle.parent / "data"  # as the flow writes it: without golden images
    with driver.Engine(board) as engine, engine.load(data) as network:
        with pytest.raises(errors.NotFoundError, match=r"cannot read '.*golden\.npz'"):
            driver.selftest(network)
        (data / "golden.npz").write_bytes((bundle / "golden.npz").read_bytes())
        with pytest.raises(errors.MismatchError, match=r"golden\.npz' is damaged or of another"):
            driver.selftest(network)


# --- what is interrupted ----------------------------------------------------------------------


def run_both(networks: list[driver.Network], first: int) -> None:
    """Run two networks in turn, in starts of two sizes; other images leave other results behind."""
    for count in (2, 1):
        for network in networks:
            images = IMAGES[first : first + count]
            assert np.array_equal(network.run(images), RESULTS[first : first + count])


@pytest.mark.parametrize("error", [KeyboardInterrupt, errors.NotFoundError])
def test_a_run_that_was_cut_off_anywhere_leaves_the_next_one_right(
    error: type[BaseException],
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    """Two networks take turns, so that program, counts and addresses change all the time."""
    board.error, board.has_interrupts = error, error is KeyboardInterrupt
    with driver.Engine(board) as engine:
        networks = [engine.load(bundle, batch=2) for _ in range(2)]
        board.looks, board.moments = 2, 0
        run_both(networks, 0)
        moments = board.moments
        assert moments > 120
        for at in range(1, moments + 1):
            board.looks, board.moments, board.at = 2, 0, at
            with pytest.raises(error, match="cut off"):
                run_both(networks, 0)
            run_both(networks, 2)
    assert board.buffers == []


def test_a_load_that_was_cut_off_anywhere_frees_its_memory(
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    with driver.Engine(board) as engine:
        engine.load(bundle).close()
        moments, room = board.moments, board.room
        assert moments >= 10  # two halves of the signature, three memories
        for at in range(1, moments + 1):
            board.moments, board.at = 0, at
            with pytest.raises(KeyboardInterrupt):
                engine.load(bundle)
            assert board.room == room


class Tracer:
    """Raises KeyboardInterrupt at the first or the last time that a line of the driver runs."""

    def __init__(self, at: tuple[str, int] | None = None, times: int = 1) -> None:
        self._at, self._left = at, times
        self.lines: Counter[tuple[str, int]] = Counter()

    def __call__(self, frame: Any, event: str, _: Any) -> Any:
        path = Path(frame.f_code.co_filename)
        if path.parent != PACKAGE:
            return None
        if event == "line":
            place = (path.name, frame.f_lineno)
            self.lines[place] += 1
            if place == self._at:
                self._left -= 1
                if self._left == 0:
                    raise KeyboardInterrupt
        return self

    def run(self, action: Callable[[], Any]) -> bool:
        """Return whether an action was interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            action()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


@pytest.mark.slow
def test_ctrl_c_at_any_line_of_the_driver_leaves_the_next_run_right(
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    with driver.Engine(board) as engine:
        networks = [engine.load(bundle, batch=2) for _ in range(2)]

        def everything() -> None:
            run_both(networks, 0)
            with engine.load(bundle, batch=1) as network:
                network.classify(IMAGES[:1].astype(network.bundle.input.dtype))

        whole = Tracer()
        assert not whole.run(everything)
        assert len(whole.lines) > 150
        for place, times in whole.lines.items():
            for number in {1, times}:
                assert Tracer(place, number).run(everything), place
                run_both(networks, 2)
    assert board.buffers == []  # the engine freed what no network did


def test_memory_that_cannot_be_freed_keeps_no_engine_locked(
    board: Fragile,
    bundle: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    engine = driver.Engine(board)
    engine.load(bundle)

    def refuse(_: Any) -> None:
        raise errors.NotFoundError("gone")

    monkeypatch.setattr(board, "free", refuse)
    with pytest.raises(errors.NotFoundError, match="gone"):
        engine.close()
    assert second_process(tmp_path) == ""


# --- what is taken away -----------------------------------------------------------------------


def test_a_board_without_power_is_told_wherever_it_goes_dark(
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    """Registers of nobody read as ones: neither a finished run nor an error of every port."""
    with driver.Engine(board) as engine:
        for dark in range(2):  # the halves of its signature
            board.dark = dark
            with pytest.raises(errors.NotFoundError, match="no engine answers, a register reads"):
                engine.load(bundle)
    board.dark = None
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        for dark in range(3):  # control, control, axi_error; then a run is over
            board.dark = dark
            with pytest.raises(errors.NotFoundError, match="is the board on, its clock, its bit"):
                network.run(IMAGES[:1])
        board.dark, board.hangs = 5, True
        with pytest.raises(errors.NotFoundError, match="no engine answers"):
            network.run(IMAGES[:1])
        board.dark, board.hangs = None, False
        assert np.array_equal(network.run(IMAGES), RESULTS)


def test_a_status_of_ones_is_no_layer(
    board: Fragile,
    bundle: Path,  # noqa: F811
) -> None:
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        board.status = ONES
        with pytest.raises(errors.EngineError, match="the engine stopped: the run did not end"):
            network.run(IMAGES[:1])


# --- who else is there ------------------------------------------------------------------------


def test_threads_take_turns(
    bundle: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    others: list[str] = []  # what happened between a start and the end of its run

    class Watched(Fragile):
        owner: int | None = None

        def _around(self, access: Callable[..., Any], *arguments: Any) -> Any:
            if self.owner not in (None, threading.get_ident()):
                others.append(access.__name__)
            return super()._around(access, *arguments)

        def write32(self, offset: int, value: int) -> None:
            super().write32(offset, value)
            if offset == OFFSETS["control"] and value == Control.START:
                self.owner = threading.get_ident()
                time.sleep(2e-3)

        def from_device(self, memory: Any) -> None:
            super().from_device(memory)
            self.owner = None

    board = Watched(GRAPH, PLAN)
    found: list[Any] = []

    def work(network: driver.Network, image: int) -> None:
        for _ in range(5):
            result = network.run(IMAGES[image : image + 1])
            found.append(np.array_equal(result, RESULTS[image : image + 1]))

    with driver.Engine(board) as engine:
        shared, own = engine.load(bundle), engine.load(bundle)
        places = [(shared, 0), (shared, 1), (own, 2), (own, 3)]
        threads = [threading.Thread(target=work, args=place) for place in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert others == []
    assert found == [True] * 20


def test_a_forked_process_does_not_have_the_engine(
    board: Fragile,
    bundle: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lock of a file is shared with a child: multiprocessing would start the engine twice."""
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        own = os.getpid()
        with monkeypatch.context() as patch:
            patch.setattr(lock.os, "getpid", lambda: own + 1)
            with pytest.raises(errors.BusyError, match=f"process {own}, which started this one"):
                network.run(IMAGES[:1])
        assert np.array_equal(network.run(IMAGES), RESULTS)
