# SPDX-License-Identifier: Apache-2.0
"""The driver on a virtual board: the last rung of the ladder, and what such a board refuses.

The engine is the RTL in its Verilator harness, cached under build/.cache/tests.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.abi import Status
from codegen.emit import emit_data
from codegen.fuse import LayerMaps
from codegen.golden import Golden
from codegen.ports import OFFSETS, Control
from codegen.schedule import Schedule, schedule
from deploy.bundle import write_bundle
from deploy.bus import REGISTER_RANGE, Bus
from deploy.device import DeviceError, RtlDevice, open_device
from deploy.driver.winnow_pynq import Engine, errors, profile, runner, selftest
from deploy.driver.winnow_pynq import network as network_module
from deploy.interrupts import LOOK_SECONDS, interrupts
from deploy.processor import Addresses
from deploy.stages.bundle import drive
from deploy.virtual_board import VirtualBoard, rtl_digest, virtual_board
from sim import csim, rtl
from tests.engines import chain_case, compiled, expected_maps
from tests.ladder import random_images
from tests.test_sim_rtl import ENGINES, harness, rtl_folder
from winnow.boards import BOARDS
from winnow.compare import require_equal
from winnow.errors import ToolError
from winnow.fixed_point import IntArray

ENGINE = "default"
GRAPH = chain_case(15, 4)  # whose results differ from image to image
PLAN = schedule(GRAPH, ENGINES[ENGINE])
LAST = PLAN.layers[-1].name
IMAGES = random_images(GRAPH, 0, 2)
MAPS = expected_maps(GRAPH, IMAGES)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    emit_data(folder / "data", PLAN)
    golden = Golden(IMAGES, np.zeros(len(IMAGES), np.int64), MAPS)
    write_bundle(folder / "bundle", folder / "data", golden, name="chain")
    return folder / "bundle"


@pytest.fixture
def board() -> Iterator[VirtualBoard]:
    with virtual_board(harness(ENGINE), rtl_folder(ENGINE)) as found:
        yield found
        assert found.bus.live == 0, "a buffer was not freed"


# --- the hosts of the engine: the same program, the same integers -------------------------------

Host = Callable[[Schedule, Path, IntArray], LayerMaps]


def by_driver(_: Schedule, bundle: Path, images: IntArray, batch: int = 1) -> LayerMaps:
    with (
        virtual_board(harness(ENGINE), rtl_folder(ENGINE)) as found,
        Engine(found) as engine,
        engine.load(bundle, batch=batch) as network,
    ):
        return {name: maps.astype(np.int64) for name, maps in network.maps(images).items()}


HOSTS: dict[str, Host] = {
    "csim": lambda plan, _, images: csim.run(compiled(ENGINE), plan, images),
    "harness": lambda plan, _, images: rtl.run(harness(ENGINE), plan, images).maps,
    "driver": by_driver,
    "csim, one start": lambda plan, _, images: csim.run(
        compiled(ENGINE), plan, images, per_start=len(images)
    ),
    "harness, one start": lambda plan, _, images: (
        rtl.run(harness(ENGINE), plan, images, per_start=len(images)).maps
    ),
    "driver, one start": lambda plan, bundle, images: by_driver(
        plan, bundle, images, batch=len(images)
    ),
}


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_gives_the_interpreters_maps(host: str, bundle: Path) -> None:
    require_equal(MAPS, HOSTS[host](PLAN, bundle, IMAGES))


def test_stage_waits_for_a_simulator_that_is_slower_than_any_board(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_module, "LEAST_SECONDS", 0)
    monkeypatch.setattr(network_module, "TIMES_MODELLED", 0)
    with pytest.raises(errors.RunTimeoutError):
        by_driver(PLAN, bundle, IMAGES)
    require_equal(MAPS, drive(harness(ENGINE), rtl_folder(ENGINE), bundle, IMAGES)[0])


def test_profile_counts_the_cycles_of_the_harness(board: VirtualBoard, bundle: Path) -> None:
    with Engine(board) as engine, engine.load(bundle) as network:
        times = profile(network, IMAGES[0])
        assert selftest(network) == sum(maps.size for maps in MAPS.values())
    found = rtl.run(harness(ENGINE), PLAN, IMAGES[:1])
    assert sum(time.cycles or 0 for time in times) == found.counted[0]
    assert [time.name for time in times] == [layer.name for layer in PLAN.layers]


def test_a_run_ends_with_its_interrupt(
    board: VirtualBoard, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_PAUSE", "LONGEST_WAIT"):
        monkeypatch.setattr(runner, name, 600.0)
    board.has_interrupts = True
    started = time.monotonic()
    with Engine(board) as engine, engine.load(bundle, batch=1) as network:
        assert np.array_equal(network.run(IMAGES), MAPS[LAST])
        assert np.array_equal(network.run(IMAGES), MAPS[LAST])
    assert time.monotonic() - started < 300


def test_an_interrupt_reaches_a_file_as_edges(board: VirtualBoard, bundle: Path) -> None:
    """Controller and Linux' file, as pynq uses them: an edge is kept until it is let through."""
    place = BOARDS["PYNQ-Z2"]
    addresses = Addresses(place, board.bus)
    base, words = place.base + REGISTER_RANGE, {"IPR": 0x04, "IAR": 0x0C, "SIE": 0x10, "MER": 0x1C}

    def write(name: str, value: int) -> None:
        addresses.write(base + words[name], value.to_bytes(4, "little"))

    board.has_interrupts = True
    with (
        interrupts(board.bus, addresses.controller) as path,
        Path(path).open("r+b", buffering=0) as file,
        Engine(board) as engine,
        engine.load(bundle, batch=1) as network,
    ):
        network.run(IMAGES[:1])  # before the controller takes edges
        write("MER", 3)
        for count in (1, 2):
            board.write32(OFFSETS["interrupt_status"], board.read32(OFFSETS["interrupt_status"]))
            network.run(IMAGES[:1])
            assert not select.select([file], [], [], 20 * LOOK_SECONDS)[0]  # nobody waits yet
            write("SIE", 1)
            file.write(b"\1\0\0\0")
            assert select.select([file], [], [], 60.0)[0]
            assert file.read(4) == count.to_bytes(4, "little")
            assert addresses.read(base + words["IPR"], 4) == 1
            assert not select.select([file], [], [], 20 * LOOK_SECONDS)[0]  # until it is let again
            write("IAR", 1)
            addresses.write(base + 0x14, b"\1\0\0\0")  # CIE
            assert addresses.read(base + words["IPR"], 4) == 0


def test_networks_and_boards_do_not_mix(board: VirtualBoard, bundle: Path) -> None:
    with (
        virtual_board(harness(ENGINE), rtl_folder(ENGINE)) as other,
        Engine(board) as first,
        Engine(other) as second,
    ):
        networks = [first.load(bundle), second.load(bundle), first.load(bundle)]
        for image in (IMAGES[:1], IMAGES[1:]):
            results = [network.run(image) for network in networks]
            assert all(np.array_equal(result, results[0]) for result in results)


# --- what goes wrong ----------------------------------------------------------------------------


def test_a_missing_sync_is_seen(
    board: VirtualBoard, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(board) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(board, "to_device", lambda _: None)
            network = engine.load(bundle)
            with pytest.raises(errors.EngineError, match="does not start with the magic number"):
                network.run(IMAGES[:1])
        network.close()
        with engine.load(bundle) as network, monkeypatch.context() as patch:
            patch.setattr(board, "from_device", lambda _: None)
            assert not np.array_equal(network.run(IMAGES[:1]), MAPS[LAST][:1])


def test_a_freed_buffer_is_a_bus_error(board: VirtualBoard, bundle: Path) -> None:
    with Engine(board) as engine, engine.load(bundle) as network:
        network.run(IMAGES[:1])
        board.bus.free(network.memories.pop("weights").address)  # type: ignore[attr-defined]
        with pytest.raises(errors.BusError, match="gmem1"):
            network.run(IMAGES[:1])


def test_damaged_memory_is_named(board: VirtualBoard, bundle: Path) -> None:
    with Engine(board) as engine, engine.load(bundle, batch=1) as network:
        for name, at, code in (
            ("weights", -1, Status.BAD_WEIGHTS),
            ("program", 100, Status.BAD_DESCRIPTOR),
            ("program", 40, Status.BAD_HEADER),
            ("program", 0, Status.BAD_MAGIC),
        ):
            memory = network.memories[name]
            memory[at] ^= 1
            board.to_device(memory)
            with pytest.raises(errors.EngineError) as caught:
                network.run(IMAGES[:1])
            assert caught.value.code == code
            memory[at] ^= 1
            board.to_device(memory)
            assert np.array_equal(network.run(IMAGES), MAPS[LAST])


def test_a_run_that_takes_too_long_is_aborted_and_the_next_one_is_right(
    board: VirtualBoard, bundle: Path
) -> None:
    with Engine(board) as engine, engine.load(bundle, timeout_s=0.0) as network:
        with pytest.raises(errors.RunTimeoutError, match=r"no result after 0 s: control 0x"):
            network.run(IMAGES)
        network.timeout_s = 60.0
        assert np.array_equal(network.run(IMAGES), MAPS[LAST])


def test_a_run_of_somebody_else_is_not_disturbed(board: VirtualBoard, bundle: Path) -> None:
    with Engine(board) as engine, engine.load(bundle) as network:
        network.run(IMAGES[:1])
        board.write32(OFFSETS["control"], int(Control.START))
        with pytest.raises(errors.BusyError, match="still runs"):
            network.run(IMAGES[:1])


def test_memory_runs_out(board: VirtualBoard) -> None:
    with pytest.raises(errors.MemoryFullError, match="no 268435456 bytes"):
        board.allocate(256 << 20)
    first = board.allocate(100 << 20)
    with pytest.raises(errors.MemoryFullError):
        board.allocate(100 << 20)
    board.free(first)
    with pytest.raises(DeviceError, match="freed one"):
        board.to_device(first)
    second = board.allocate(100)
    with pytest.raises(DeviceError, match="a part of a buffer"):
        board.to_device(second[8:])
    board.free(second)


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda bus: bus.read(0x10, 8), "a register has 4 bytes, got 8 at 0x10"),
        (lambda bus: bus.read(0x11), "a register has 4 bytes, got 4 at 0x11"),
        (lambda bus: bus.write(0x10, b"12345678"), "a register has 4 bytes, got 8"),
        (lambda bus: bus.read(0x10000), "no register is at 0x10000"),
        (lambda bus: bus.free(0x10), "no buffer is at 0x10"),
        (lambda bus: bus.load(0x10, 4), "no memory is mapped here, at 0x10"),
        (lambda bus: bus.configure(b"other"), "the bitstream is of another build"),
    ],
)
def test_the_bus_refuses(use: Callable[[Bus], Any], text: str, board: VirtualBoard) -> None:
    with pytest.raises(DeviceError, match=text):
        use(board.bus)


def test_no_bitstream_no_engine(bundle: Path) -> None:
    with open_device(harness(ENGINE).binary) as device:
        found = VirtualBoard(Bus(device, rtl_digest(rtl_folder(ENGINE))))
        with Engine(found) as engine, pytest.raises(DeviceError, match="no bitstream is loaded"):
            engine.load(bundle)


def test_fresh_memory_is_noise_and_a_bitstream_resets_the_engine(board: VirtualBoard) -> None:
    memory = board.allocate(64)
    before = memory.copy()
    board.from_device(memory)
    assert len(set(memory.tolist())) > 32
    assert not np.array_equal(memory, before)
    board.free(memory)
    board.write32(OFFSETS["watchdog"], 5)
    assert board.read32(OFFSETS["watchdog"]) == 5
    board.bus.configure(rtl_digest(rtl_folder(ENGINE)))
    assert board.read32(OFFSETS["watchdog"]) == 0


def test_a_device_that_dies_is_reported(tmp_path: Path) -> None:
    script = tmp_path / "rtlsim"
    script.write_text("#!/bin/sh\necho 'error: it broke' >&2\nexit 3\n")
    script.chmod(0o755)
    text = "the simulated engine ended with code 3: error: it broke"
    with pytest.raises(ToolError, match=text), open_device(script):
        pass


def test_a_device_that_is_killed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    real = rtl.process._start

    def spy(*arguments: Any) -> Any:
        started.append(real(*arguments))
        return started[-1]

    monkeypatch.setattr(rtl.process, "_start", spy)
    with open_device(harness(ENGINE).binary) as device:
        assert isinstance(device, RtlDevice)
        device.map(0, 8)
        os.kill(started[0].pid, signal.SIGKILL)
        started[0].wait()
        with pytest.raises(ToolError, match="the simulated engine ended with code -9"):
            device.load(0, 8)
