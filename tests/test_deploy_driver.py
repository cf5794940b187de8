# SPDX-License-Identifier: Apache-2.0
"""The driver package on a fake board: its numbers, its errors, what it needs to run.

Complaints that users of other drivers filed are tested by what ours does about them.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen import abi, ports
from codegen.emit import emit_data, sealed_json
from codegen.golden import Golden
from codegen.ir import TensorType
from codegen.layout import pack_features, unpack_features
from codegen.schedule import schedule
from deploy.bundle import write_bundle
from deploy.driver import winnow_pynq as driver
from deploy.driver.winnow_pynq import errors, layout, runner
from deploy.driver.winnow_pynq import network as network_module
from deploy.driver.winnow_pynq.bundle import Bundle
from tests.conftest import ROOT
from tests.engines import ENGINES, chain_case, expected_maps
from tests.fake_board import LAYER_CYCLES, FakeBoard, pack_region
from tests.ladder import random_images

PACKAGE = ROOT / "deploy" / "driver" / "winnow_pynq"
CORE_LINES, OTHER_LINES = 500, 100  # of code: what runs networks, and each module beside it
# Files, times, early exits, unrolled images, boards.
BESIDE = (
    *("bundle.py", "profiles.py", "measure.py", "exits.py", "unrolled.py"),
    *("pynq_board.py", "pynq_interrupt.py", "uio_board.py"),
)
GRAPH = chain_case(15, 4)  # whose results differ from image to image
PLAN = schedule(GRAPH, ENGINES["default"])
LAST = PLAN.layers[-1].name


@cache
def golden() -> Golden:
    images = random_images(GRAPH, 0, 4)
    return Golden(images, np.zeros(len(images), np.int64), expected_maps(GRAPH, images))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    emit_data(tmp_path / "data", PLAN)
    write_bundle(tmp_path / "bundle", tmp_path / "data", golden(), name="chain", clock_mhz=100.0)
    return tmp_path / "bundle"


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where the lock file is
    return FakeBoard(GRAPH, PLAN)


# --- results ----------------------------------------------------------------------------------


def test_run_gives_the_last_map_and_maps_all(board: FakeBoard, bundle: Path) -> None:
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        images = golden().images
        assert np.array_equal(network.run(images), golden().layers[LAST])
        maps = network.maps(images)
        assert list(maps) == [layer.name for layer in PLAN.layers]
        for name, found in maps.items():
            assert np.array_equal(found, golden().layers[name])
        first = PLAN.layers[0].name
        assert list(network.maps(images, [first])) == [first]
        assert network.run(images[:0]).shape == (0, *GRAPH.nodes[-1].output.shape)


def test_classify_takes_floats_and_integers_in_the_models_scale(
    board: FakeBoard, bundle: Path
) -> None:
    entry, last = PLAN.input.tensor, PLAN.layers[-1].result.tensor
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        integers = golden().images.astype(network.bundle.input.dtype)
        labels, scores = network.classify(integers)
        expected = golden().layers[LAST][:, :, 0, 0]
        assert np.array_equal(scores, expected * 2.0**last.exponent)
        assert np.array_equal(labels, expected.argmax(1))
        floats = (integers * 2.0**entry.exponent).astype(np.float32)
        for shift in (0.0, 0.4, -0.4):  # to the nearest integer
            moved = floats + shift * 2.0**entry.exponent
            assert np.array_equal(network.classify(moved)[1], scores)
        low, high = entry.bounds
        beyond = np.where(integers == high, 1e6, floats)  # clamped
        assert np.array_equal(network.classify(beyond)[1], scores)
        assert low <= high


def test_a_constant_channel_may_be_left_out(board: FakeBoard, bundle: Path) -> None:
    high = PLAN.input.tensor.bounds[1]
    images = golden().images.copy()
    images[:, -1] = high
    edited("memory.json", constant=high)(board, bundle)
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        expected = network.run(images)
        assert np.array_equal(network.run(images[:, :-1]), expected)
        floats = images[:, :-1] * 2.0**PLAN.input.tensor.exponent
        scale = 2.0 ** PLAN.layers[-1].result.tensor.exponent
        assert np.array_equal(network.classify(floats)[1], expected[:, :, 0, 0] * scale)


def test_profile_times_every_layer_and_leaves_the_program_whole(
    board: FakeBoard, bundle: Path
) -> None:
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        times = driver.profile(network, golden().images[0])
        assert [time.name for time in times] == [layer.name for layer in PLAN.layers]
        assert [time.cycles for time in times] == [LAYER_CYCLES] * 4
        assert [t.modelled_cycles for t in times] == [p.cycles.total for p in PLAN.layers]
        assert np.array_equal(network.run(golden().images), golden().layers[LAST])
    board.has_added_registers = False
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        assert [time.cycles for time in driver.profile(network, golden().images[0])] == [None] * 4


def test_selftest_counts_what_it_compared_and_names_what_differs(
    board: FakeBoard, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        assert driver.selftest(network) == sum(maps.size for maps in golden().layers.values())
        good = pack_region

        def bad(tensor: Any, maps: Any) -> bytes:
            content = bytearray(good(tensor, maps))
            content[0] ^= 1
            return bytes(content)

        monkeypatch.setattr("tests.fake_board.pack_region", bad)
        with pytest.raises(
            errors.MismatchError,
            match=r"layer 'winograd_0', image 0, channel 0, y 0, x 0: the board gives",
        ):
            driver.selftest(network)


def test_throughput_tells_transfers_apart(board: FakeBoard, bundle: Path) -> None:
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        found = driver.throughput(network, golden().images)
    assert found.images == 4
    assert found.transfer_seconds > 0
    assert found.images_per_second == 4 / (found.transfer_seconds + found.engine_seconds)


@pytest.mark.parametrize(("batch", "starts"), [(1, 4), (3, 2), (4, 1), (255, 1), (None, 1)])
def test_a_start_runs_a_batch(
    batch: int | None, starts: int, board: FakeBoard, bundle: Path
) -> None:
    start = (ports.OFFSETS["control"], int(ports.Control.START))
    with driver.Engine(board) as engine, engine.load(bundle, batch=batch) as network:
        assert np.array_equal(network.run(golden().images), golden().layers[LAST])
        assert board.writes.count(start) == starts
        for name, found in network.maps(golden().images[:2]).items():
            assert np.array_equal(found, golden().layers[name][:2])
        assert network.limits["feature_words"] == network.batch * PLAN.feature_words
        assert driver.throughput(network, golden().images).images == 4
        driver.profile(network, golden().images[0])
        assert np.array_equal(network.run(golden().images), golden().layers[LAST])


@pytest.mark.parametrize("batch", [0, -1, 256, 2.0, "4"])
def test_a_batch_that_no_start_can_run_is_refused(
    batch: Any, board: FakeBoard, bundle: Path
) -> None:
    with (
        driver.Engine(board) as engine,
        pytest.raises(errors.InputError, match=rf"batch must be 1\.\.255, got {batch!r}"),
    ):
        engine.load(bundle, batch=batch)
    assert board.buffers == []


@pytest.mark.parametrize("timeout_s", [-1, -1.5, float("nan"), "1"])
def test_a_timeout_that_never_ends_a_run_is_refused(
    timeout_s: Any, board: FakeBoard, bundle: Path
) -> None:
    with (
        driver.Engine(board) as engine,
        pytest.raises(errors.InputError, match=f"timeout_s must be 0 or more, got {timeout_s}"),
    ):
        engine.load(bundle, timeout_s=timeout_s)


def test_numbers_of_numpy_are_taken(board: FakeBoard, bundle: Path) -> None:
    given: dict[str, Any] = {"batch": np.int64(3), "timeout_s": np.float32(2)}
    with driver.Engine(board) as engine, engine.load(bundle, **given) as network:
        assert np.array_equal(network.run(golden().images), golden().layers[LAST])


def test_no_images_have_no_labels_and_no_speed(board: FakeBoard, bundle: Path) -> None:
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        none = golden().images[:0].astype(network.bundle.input.dtype)
        labels, scores = network.classify(none)
        assert (labels.shape, scores.shape) == ((0,), (0, network.bundle.layers[-1].shape[0]))
        with pytest.raises(errors.InputError, match="throughput needs an image or more, got none"):
            driver.throughput(network, none)


def test_the_usual_batch_is_bounded_by_the_memory_of_its_maps(
    board: FakeBoard, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = PLAN.feature_words
    with driver.Engine(board) as engine:
        for most, batch in ((1 << 30, 16), (3 * words + 1, 3), (1, 1)):
            monkeypatch.setattr(network_module, "USUAL_WORDS", most)
            assert engine.load(bundle).batch == batch


def test_two_networks_take_turns_on_one_engine(board: FakeBoard, bundle: Path) -> None:
    with driver.Engine(board) as engine:
        first, second = engine.load(bundle), engine.load(bundle)
        for network in (first, second, first):
            assert np.array_equal(network.run(golden().images), golden().layers[LAST])
        before = len(board.writes)
        first.run(golden().images[:1])
        assert board.writes[before:] == [(ports.OFFSETS["control"], int(ports.Control.START))]
        second.close()
        assert np.array_equal(first.run(golden().images), golden().layers[LAST])
    assert board.buffers == []


# --- layout -----------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("channels", [1, 7, 8, 20])
def test_layout_is_that_of_the_flow(channels: int, signed: bool) -> None:
    tensor = TensorType(channels, 3, 5, 6, signed, 0)
    rng = np.random.default_rng(channels)
    maps = rng.integers(*tensor.bounds, size=(2, *tensor.shape), endpoint=True)
    region = layout.Region("map", 2, 15 * -(-channels // 8), tensor.shape, 6, signed, 0)
    assert region.bounds == tensor.bounds
    packed = pack_features(tensor, maps)
    for image, content in zip(maps, packed, strict=True):
        assert np.array_equal(layout.pack(image, region), content)
        memory = np.concatenate([np.zeros(16, np.uint8), content, np.ones(8, np.uint8)])
        assert np.array_equal(layout.unpack(memory, region), image)


def test_raw_layout_is_that_of_the_flow() -> None:
    tensor = TensorType(10, 1, 1, 32, True, 0)
    memory = np.random.default_rng(0).integers(0, 256, 64).astype(np.uint8)
    region = layout.Region("scores", 0, 8, (10, 1, 1), 32, True, 0)
    expected = unpack_features(tensor, memory[None])[0]
    assert np.array_equal(layout.unpack(memory, region), expected)


def test_constants_are_those_of_the_interface() -> None:
    for name in ("control", "global_interrupt", "interrupt_enable", "interrupt_status"):
        assert ports.OFFSETS[name] == getattr(runner, name.upper())
    for name in ("START", "DONE", "IDLE", "ABORT"):
        assert getattr(runner, name) == ports.Control[name]
    word = 0x56123456
    code, layers, images = abi.decode_status(word)
    assert word & runner.CODE_MASK == code
    assert word >> runner.IMAGES_SHIFT == images
    assert word >> runner.LAYERS_SHIFT & runner.LAYERS_MASK == layers
    assert abi.Status.HUNG == runner.HUNG
    assert layout.RAW_BITS == 32


# --- errors, each once; the board's memory is free after each -----------------------------------

Break = Callable[[FakeBoard, Path], None]


def edited(name: str, **changes: Any) -> Break:
    """Return what changes numbers of memory.json and seals it again."""

    def change(_: FakeBoard, bundle: Path) -> None:
        content = json.loads((bundle / name).read_text())
        content.pop("seal")
        (bundle / name).write_bytes(sealed_json({**content, **changes}))

    return change


def damaged(name: str) -> Break:
    def change(_: FakeBoard, bundle: Path) -> None:
        content = bytearray((bundle / name).read_bytes())
        content[len(content) // 2] ^= 1
        (bundle / name).write_bytes(content)

    return change


def having(**members: Any) -> Break:
    def change(board: FakeBoard, _: Path) -> None:
        for name, value in members.items():
            setattr(board, name, value)

    return change


def unlinked(board: FakeBoard, bundle: Path) -> None:  # noqa: ARG001
    (bundle / "weights.bin").unlink()


def not_json(board: FakeBoard, bundle: Path) -> None:  # noqa: ARG001
    (bundle / "memory.json").write_text("{")


BROKEN: list[tuple[str, Break, type[Exception], str]] = [
    ("weights missing", unlinked, errors.NotFoundError, r"weights.bin': No such file"),
    ("weights damaged", damaged("weights.bin"), errors.MismatchError, "is damaged or of another"),
    ("program damaged", damaged("program.bin"), errors.MismatchError, "is damaged or of another"),
    ("map damaged", damaged("memory.json"), errors.MismatchError, "memory.json' (is|has|lacks)"),
    ("map is no JSON", not_json, errors.MismatchError, "memory.json' is damaged"),
    ("older", edited("memory.json", format=1), errors.MismatchError, "has format 1, .* reads 3"),
    ("lacking", edited("memory.json", input={}), errors.MismatchError, "lacks something"),
    ("other engine", having(engine_id=5), errors.MismatchError, "engine 0000000000000005, .* is"),
    ("clock", having(mhz=142.857), errors.MismatchError, r"142\.857 MHz, .* at 100 MHz; lower"),
    ("memory", having(room=3000), errors.MemoryFullError, "contiguous memory"),
    ("runs", having(control=0), errors.BusyError, "still runs"),
    ("hangs", having(hangs=True), errors.RunTimeoutError, r"no result after 0\.05 s: control 0x0"),
    ("bus", having(axi_error=0b1010), errors.BusError, "memory answered gmem1, gmem3 with"),
    (
        "status",
        having(status=0x0109),
        errors.EngineError,
        "at layer 'winograd_1' of image 0: the ",
    ),
    ("hung", having(status=0xFFFFFFFF), errors.EngineError, "stopped: the run did not end"),
]


@pytest.mark.parametrize(("name", "change", "kind", "text"), BROKEN, ids=[b[0] for b in BROKEN])
def test_errors_say_what_is_wrong_and_free_the_memory(
    name: str, change: Break, kind: type[Exception], text: str, board: FakeBoard, bundle: Path
) -> None:
    change(board, bundle)
    room = board.room
    with driver.Engine(board) as engine:
        with (
            pytest.raises(kind, match=text) as caught,
            engine.load(bundle, timeout_s=0.05) as network,
        ):
            network.run(golden().images[:1])
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, errors.DriverError)
        assert board.buffers == [], name
        assert board.room == room


def test_an_error_names_code_layer_and_ports(board: FakeBoard, bundle: Path) -> None:
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        board.status = 0x0109
        with pytest.raises(errors.EngineError) as stopped:
            network.run(golden().images[:1])
        assert (stopped.value.code, stopped.value.layer) == (9, PLAN.layers[1].name)
        board.status, board.axi_error = None, 0b100
        with pytest.raises(errors.BusError) as refused:
            network.run(golden().images[:1])
        assert refused.value.ports == ("gmem2",)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((1, 1, 1)), r"images must be \[n, .*\], got \[1, 1, 1\]"),
        (np.zeros((1, *GRAPH.input.shape)), "must be integers, got float64; classify"),
        (np.full((1, *GRAPH.input.shape), 1 << 20), r"must be in -?\d+\.\.\d+, got 1048576"),
    ],
)
def test_wrong_images_are_refused(images: Any, text: str, board: FakeBoard, bundle: Path) -> None:
    with (
        driver.Engine(board) as engine,
        engine.load(bundle) as network,
        pytest.raises(errors.InputError, match=text),
    ):
        network.run(images)


def test_classify_refuses_what_it_cannot_scale(board: FakeBoard, bundle: Path) -> None:
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        shape = (1, *GRAPH.input.shape)
        with pytest.raises(errors.InputError, match="must be finite, got NaN"):
            network.classify(np.full(shape, np.nan))
        with pytest.raises(errors.InputError, match=r"must be floats or u?int8, got int64"):
            network.classify(np.zeros(shape, np.int64))


def test_classify_needs_classes(board: FakeBoard, bundle: Path) -> None:
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        content = network.bundle.layers[0]
        cut = Bundle(**{**network.bundle.__dict__, "layers": (content,)})
        network.bundle = cut
        with pytest.raises(errors.InputError, match="not classes"):
            network.classify(golden().images.astype(network.bundle.input.dtype))


def test_an_unknown_layer_is_named_with_those_there_are(board: FakeBoard, bundle: Path) -> None:
    with (
        driver.Engine(board) as engine,
        engine.load(bundle) as network,
        pytest.raises(errors.NotFoundError, match="no layer 'conv9'; it has winograd_0, "),
    ):
        network.maps(golden().images, ["conv9"])


def test_a_closed_network_or_engine_does_not_run(board: FakeBoard, bundle: Path) -> None:
    with driver.Engine(board) as engine:
        network = engine.load(bundle)
        network.close()
        network.close()
        with pytest.raises(errors.BusyError, match="network was closed"):
            network.run(golden().images)
    closed = runner.Runner(board)
    closed.close()
    with pytest.raises(errors.BusyError, match="engine was closed"):
        closed.run(network, 1.0)


def test_a_hanging_run_is_aborted_where_the_engine_can_be(board: FakeBoard, bundle: Path) -> None:
    board.hangs = True
    abort = (ports.OFFSETS["control"], int(ports.Control.ABORT))
    with driver.Engine(board) as engine, engine.load(bundle, timeout_s=0.01) as network:
        with pytest.raises(errors.RunTimeoutError):
            network.run(golden().images[:1])
        assert board.writes[-1] == abort
        board.hangs = False
        assert np.array_equal(network.run(golden().images), golden().layers[LAST])
        board.hangs, board.has_added_registers = True, False
        board.writes.clear()
        with pytest.raises(errors.RunTimeoutError, match="axi_error not there"):
            network.run(golden().images[:1])
        assert abort not in board.writes


@pytest.mark.parametrize("wired", [False, True])
def test_interrupts_are_enabled_and_taken_back_where_there_are_any(
    wired: bool, board: FakeBoard, bundle: Path
) -> None:
    """The fake board lets no run start whose interrupt would be no edge."""
    board.has_interrupts = wired
    with driver.Engine(board) as engine, engine.load(bundle, batch=1) as network:
        for looks in (0, 3):
            board.looks = looks
            assert np.array_equal(network.run(golden().images), golden().layers[LAST])
        enabled = [board.registers[ports.OFFSETS[n]] for n in ENABLES]
        assert enabled == [int(wired)] * 2
        status = ports.OFFSETS["interrupt_status"]
        assert any(offset == status for offset, _ in board.writes) == wired


def test_a_wait_for_an_interrupt_is_longer_but_never_long(
    board: FakeBoard, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(board, "pause", pauses.append)
    with driver.Engine(board) as engine, engine.load(bundle, timeout_s=60) as network:
        for wired, longest in ((False, runner.LONGEST_PAUSE), (True, runner.LONGEST_WAIT)):
            board.has_interrupts, board.looks = wired, 20
            pauses.clear()
            network.run(golden().images[:1])
            assert pauses[0] == runner.FIRST_PAUSE
            assert max(pauses) == longest


def test_the_time_for_an_image_follows_from_the_model(board: FakeBoard, bundle: Path) -> None:
    with driver.Engine(board) as engine:
        assert engine.load(bundle).timeout_s == 1.0
        board.mhz = 0.001
        assert engine.load(bundle).timeout_s == pytest.approx(20 * PLAN.total_cycles / 1e3)


ENABLES = ("global_interrupt", "interrupt_enable")

# --- one process at a time --------------------------------------------------------------------

SECOND = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from deploy.driver.winnow_pynq.lock import hold
from deploy.driver.winnow_pynq.errors import BusyError
try:
    hold("fake")
except BusyError as error:
    print(error)
"""


def second_process(folder: Path) -> str:
    command = [sys.executable, "-c", SECOND, str(folder)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_second_process_is_told_who_has_the_engine(board: FakeBoard, tmp_path: Path) -> None:
    with driver.Engine(board), driver.Engine(board):  # a notebook's cell that is run again
        assert second_process(tmp_path).startswith(f"process {os.getpid()} uses engine 'fake'")
    assert second_process(tmp_path) == ""


def test_addresses_are_written_again_once_the_overlay_may_be_another(
    board: FakeBoard, bundle: Path
) -> None:
    with driver.Engine(board) as first, first.load(bundle) as network:
        network.run(golden().images[:1])
        board.registers.clear()  # what loading an overlay does
        with driver.Engine(board):
            assert np.array_equal(network.run(golden().images), golden().layers[LAST])


# --- the package ------------------------------------------------------------------------------


def test_package_imports_nothing_of_the_flow() -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "pynq"}
    for path in PACKAGE.glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path
            if isinstance(node, ast.ImportFrom):
                assert node.level == 1 or (node.module or "").split(".")[0] in allowed, path
                assert node.level == 1 or node.module != "pynq" or path.name == "pynq_board.py"


def code_lines(path: Path) -> int:
    """Return the lines that are neither empty, comment nor docstring."""
    text = path.read_text()
    prose: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            prose |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(
        bool(line.strip()) and line.strip()[0] != "#" and i not in prose for i, line in lines
    )


def test_package_is_short() -> None:
    lines = {path.name: code_lines(path) for path in PACKAGE.glob("*.py")}
    others = [lines.pop(name) for name in BESIDE]
    assert sum(lines.values()) < CORE_LINES
    assert max(others) < OTHER_LINES
