# SPDX-License-Identifier: Apache-2.0
"""The driver's backends of real boards, on files and modules that stand in for Linux and pynq."""

from __future__ import annotations

import errno
import importlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from codegen.ports import OFFSETS, Control
from deploy.driver import winnow_pynq as driver
from deploy.driver.winnow_pynq import errors, uio_board
from deploy.driver.winnow_pynq.bundle import VLNV
from deploy.driver.winnow_pynq.uio_board import UioBoard
from tests.fake_board import FakeBoard
from tests.test_deploy_driver import GRAPH, LAST, PLAN, bundle, golden  # noqa: F401

PYNQ_BOARD = "deploy.driver.winnow_pynq.pynq_board"
PHYSICAL = 0x3000_0000
MEMORY_BYTES = 1 << 16

# --- UIO and u-dma-buf ------------------------------------------------------------------------


class NoInterrupts:
    """What a UIO device without an interrupt answers."""

    def write(self, _: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder with device files that are plain files, for a device without an interrupt."""
    monkeypatch.setattr(uio_board, "_opened", lambda _: NoInterrupts())
    folder = tmp_path / "root"
    maps, memory = folder / "sys/class/uio/uio0/maps/map0", folder / "sys/class/u-dma-buf/udmabuf0"
    for place in (maps, memory, folder / "dev"):
        place.mkdir(parents=True)
    (maps / "size").write_text("0x00010000\n")
    (memory / "phys_addr").write_text(f"{PHYSICAL:#x}\n")
    (memory / "size").write_text(f"{MEMORY_BYTES}\n")
    (folder / "dev/uio0").write_bytes(bytes(1 << 16))
    (folder / "dev/udmabuf0").write_bytes(bytes(MEMORY_BYTES))
    return folder


def test_uio_reads_and_writes_registers_and_memory(root: Path) -> None:
    board = UioBoard("uio0", "udmabuf0", root=root, mhz=100.0)
    board.write32(0x40, 0xFEDCBA98)
    assert board.read32(0x40) == 0xFEDCBA98
    assert (root / "dev/uio0").read_bytes()[0x40:0x44] == bytes.fromhex("98badcfe")
    assert board.clock_mhz() == 100.0
    first, second = board.allocate(100), board.allocate(5000)
    assert board.address(first) == PHYSICAL
    assert board.address(second) == PHYSICAL + 4096
    second[:] = 7
    board.to_device(second)
    assert (root / "dev/udmabuf0").read_bytes()[4096:9096] == bytes([7]) * 5000
    synced = root / "sys/class/u-dma-buf/udmabuf0"
    names = ("sync_offset", "sync_size", "sync_direction", "sync_for_device")
    assert [(synced / name).read_text() for name in names] == ["4096", "5000", "0", "1"]
    board.from_device(first)
    assert (synced / "sync_for_cpu").read_text() == "1"
    assert (synced / "sync_offset").read_text() == "0"


def test_uio_memory_is_used_again_and_runs_out(root: Path) -> None:
    board = UioBoard("uio0", "udmabuf0", root=root)
    first, second, third = (board.allocate(4096 * n) for n in (4, 4, 8))
    with pytest.raises(errors.MemoryFullError, match="no 1 bytes left of the 65536 of udmabuf0"):
        board.allocate(1)
    board.free(second)
    again = board.allocate(4096)
    assert board.address(again) == PHYSICAL + 4 * 4096
    for buffer in (first, again, third):
        board.free(buffer)
    assert board.address(board.allocate(MEMORY_BYTES)) == PHYSICAL


def test_uio_names_what_is_missing(root: Path) -> None:
    with pytest.raises(errors.NotFoundError, match=r"cannot read '.*uio1/maps/map0/size': No such"):
        UioBoard("uio1", "udmabuf0", root=root)
    (root / "dev/udmabuf0").unlink()
    with pytest.raises(errors.NotFoundError, match=r"cannot map '.*dev/udmabuf0': No such file"):
        UioBoard("uio0", "udmabuf0", root=root)


@pytest.fixture
def line(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:  # noqa: ARG001
    """The kernel's end of a UIO device with an interrupt: it counts them, we let them through."""
    kernel, device = socket.socketpair()
    with kernel, device, device.makefile("rwb", buffering=0) as file:
        monkeypatch.setattr(uio_board, "_opened", lambda _: file)
        yield kernel


def test_uio_waits_for_the_interrupt_and_lets_the_next_one_through(
    root: Path, line: socket.socket
) -> None:
    through = (1).to_bytes(4, "little")
    board = UioBoard("uio0", "udmabuf0", root=root)
    assert board.has_interrupts
    assert line.recv(8) == through
    started = time.monotonic()
    board.pause(0.05)
    assert time.monotonic() - started > 0.04
    assert line.recv(8) == through
    line.send((7).to_bytes(4, "little"))
    started = time.monotonic()
    board.pause(60.0)
    assert time.monotonic() - started < 30
    assert line.recv(8) == through


def test_uio_sleeps_where_there_is_no_interrupt(root: Path) -> None:
    board = UioBoard("uio0", "udmabuf0", root=root)
    assert not board.has_interrupts
    started = time.monotonic()
    board.pause(0.05)
    assert time.monotonic() - started > 0.04


def test_an_interrupt_too_early_ends_no_run(
    root: Path,
    line: socket.socket,
    bundle: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """axi_intc on levels lets a wait return at once (PYNQ #1315): the driver looks again."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    board = Started(root)
    board.fake.looks = 3  # at the register before it has the bit of the end
    line.send((1).to_bytes(4, "little") * 2)
    with driver.Engine(board) as engine, engine.load(bundle) as network:
        assert np.array_equal(network.run(golden().images), golden().layers[LAST])
    assert board.fake.looks == 0


class Started(UioBoard):
    """A UIO board whose engine is the fake board's: a start runs it on the device files."""

    def __init__(self, root: Path) -> None:
        self.fake = FakeBoard(GRAPH, PLAN)
        super().__init__("uio0", "udmabuf0", root=root)
        self.fake.has_interrupts = self.has_interrupts
        self.live: list[Any] = []

    def allocate(self, num_bytes: int) -> Any:
        self.live.append(super().allocate(num_bytes))
        return self.live[-1]

    def read32(self, offset: int) -> int:
        known = ("control", "status", "axi_error", "cycles", "interrupt_status")
        if offset in (*(OFFSETS[n] for n in known), *range(OFFSETS["engine_id"], 0x7C, 4)):
            return self.fake.read32(offset)
        return super().read32(offset)

    def write32(self, offset: int, value: int) -> None:
        super().write32(offset, value)
        if offset == OFFSETS["control"] and value & Control.START:
            seen = [SimpleNamespace(address=self.address(b), there=bytearray(b)) for b in self.live]
            self.fake.buffers = seen  # type: ignore[assignment]
            self.fake.write32(offset, value)
            for buffer, there in zip(self.live, seen, strict=True):
                buffer[:] = np.frombuffer(there.there, np.uint8)
        else:
            self.fake.write32(offset, value)


def test_a_network_runs_over_uio(
    root: Path,
    bundle: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with driver.Engine(Started(root)) as engine, engine.load(bundle) as network:
        assert np.array_equal(network.run(golden().images), golden().layers[LAST])


# --- pynq -------------------------------------------------------------------------------------


class Ip:
    """What pynq.DefaultIP gives a driver."""

    def __init__(self, registers: dict[str, Any]) -> None:
        self.device = SimpleNamespace(name="Pynq-Z2")
        self._registers = registers
        self.interrupt: Any
        self.values: dict[int, int] = {}
        self.mmio = SimpleNamespace(
            base_addr=0x40000000,
            read=lambda offset: self.values[offset],
            write=self.values.__setitem__,
        )


@pytest.fixture
def pynq_board(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The backend of pynq, on a module that stands in for pynq and for numpy 1."""
    module: Any = ModuleType("pynq")
    module.DefaultIP = object
    module.Clocks = SimpleNamespace(fclk0_mhz=142.857)
    monkeypatch.setitem(sys.modules, "pynq", module)
    monkeypatch.setattr(np, "__version__", "1.26.4")
    monkeypatch.delitem(sys.modules, PYNQ_BOARD, raising=False)
    yield importlib.import_module(PYNQ_BOARD)
    sys.modules.pop(PYNQ_BOARD, None)


def test_numpy_2_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, PYNQ_BOARD, raising=False)
    monkeypatch.setattr(np, "__version__", "2.4.6")
    with pytest.raises(ImportError, match=r"pynq needs numpy 1, this is 2\.4\.6: pip install 'num"):
        importlib.import_module(PYNQ_BOARD)


def test_pynq_registers_are_unsigned_and_written_as_plain_integers(pynq_board: Any) -> None:
    ip = Ip({"CTRL": {}, "engine_id_1": {}})
    backend = pynq_board.PynqBackend(ip)
    ip.values[0x74] = -0x15B6A4D0  # what remote pynq 3.1.2 makes of 0xEA495B30
    assert backend.read32(0x74) == 0xEA495B30
    backend.write32(0x10, np.uint32(5))
    assert type(ip.values[0x10]) is int
    assert backend.has_added_registers
    assert not pynq_board.PynqBackend(Ip({"CTRL": {}})).has_added_registers
    assert backend.name == "Pynq-Z2-40000000"
    assert backend.clock_mhz() == 142.857
    pynq_board.pynq.Clocks = SimpleNamespace(fclk0_mhz=None)  # as pynq 3.1.2 has it at times
    assert backend.clock_mhz() is None


class Uio:
    """A line's end, as pynq's UioController: it lets an interrupt through once somebody waits."""

    def __init__(self, uio: Any) -> None:
        self.uio, self.wait_events, self.opened = uio, list[Any](), 0

    def add_event(self, event: Any, _: int) -> None:
        self.opened += not self.wait_events
        self.wait_events.append(event)


class Intc:
    """A controller between, as pynq has it: what is set sets those that wait."""

    def __init__(self, parent: Uio) -> None:
        self.parent, self.events = parent, list[Any]()

    def add_event(self, event: Any, number: int) -> None:
        assert number == 3
        self.events.append(event)
        self.parent.add_event(self, 0)

    def set(self) -> None:
        events, self.events = self.events, []
        for event in events:
            event.set()


@pytest.mark.parametrize("between", [False, True])
def test_pynq_waits_for_an_interrupt_without_a_loop(between: bool, pynq_board: Any) -> None:
    """A notebook's loop waits for its cell, which is us: the line's file is looked at instead."""
    kernel, device = socket.socketpair()
    with kernel, device, device.makefile("rwb", buffering=0) as file:
        root = Uio(file)
        parent, ip = Intc(root) if between else root, Ip({})
        ip.interrupt = SimpleNamespace(parent=lambda: parent, number=3)
        backend = pynq_board.PynqBackend(ip)
        assert backend.has_interrupts
        for count in (1, 2):
            for _ in range(3):  # waits in vain, and does not ask twice
                backend.pause(0.01)
            assert root.opened == count
            kernel.send(count.to_bytes(4, "little"))
            started = time.monotonic()
            backend.pause(60.0)
            assert time.monotonic() - started < 30
        backend.pause(0.0)
        kernel.send(b"1234")
        assert file.read(4) == b"1234"  # by pynq's loop, in another thread
        parent.add_event(ip, 3)
        backend.pause(0.01)
        assert root.opened == 3


def test_pynq_polls_where_no_interrupt_is_wired_or_it_is_remote(pynq_board: Any) -> None:
    for interrupt in (None, SimpleNamespace(fullpath="engine/interrupt"), ...):
        ip = Ip({})
        if interrupt is not ...:
            ip.interrupt = interrupt
        backend = pynq_board.PynqBackend(ip)
        assert not backend.has_interrupts
        started = time.monotonic()
        backend.pause(0.02)
        assert time.monotonic() - started > 0.01


def test_memory_that_fails_late_is_told_at_once(pynq_board: Any) -> None:
    class Late:
        @property
        def device_address(self) -> int:
            raise RuntimeError("grpc")

    pynq_board.pynq.allocate = lambda **_: Late()
    ip = Ip({})
    ip.values[0x04] = 0
    with pytest.raises(errors.MemoryFullError, match=r"no 8 bytes of contiguous memory \(CmaFree"):
        pynq_board.PynqBackend(ip).allocate(8)


def test_a_board_out_of_reach_is_told_in_a_line_whatever_pynq_raises(pynq_board: Any) -> None:
    class RpcError(Exception):
        """As grpc has them: of several lines, the reason apart."""

        def __str__(self) -> str:
            return "<RPC that terminated with:\n\tstatus\n>"

        def details(self) -> str:
            return "Connection refused"

    def gone(*_: Any, **__: Any) -> Any:
        raise RpcError

    ip = Ip({})
    ip.mmio.read = ip.mmio.write = pynq_board.pynq.allocate = gone
    memory = SimpleNamespace(sync_to_device=gone, sync_from_device=gone, freebuffer=gone)
    backend = pynq_board.PynqBackend(ip)
    for use in (
        lambda: backend.read32(0),
        lambda: backend.write32(0, 1),
        lambda: backend.to_device(memory),
        lambda: backend.from_device(memory),
        lambda: backend.allocate(8),
    ):
        text = (
            r"pynq does not reach the board \(RpcError: Connection refused\): is it on, its server"
        )
        with pytest.raises(errors.NotFoundError, match=text) as caught:
            use()
        assert "\n" not in str(caught.value)
    backend.free(memory)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("No Devices Found"), "RuntimeError: No Devices Found"),
        (OSError("Root permissions required."), "OSError: Root permissions required."),
        (
            PermissionError(13, "Permission denied", "/lib/firmware/a.bin"),
            "PermissionError: .Errno",
        ),
        (SyntaxError("no element found\nline 1"), "SyntaxError: no element found"),
    ],
)
def test_an_overlay_that_pynq_cannot_load_is_told_with_two_commands(
    error: Exception, text: str, pynq_board: Any, tmp_path: Path
) -> None:
    """No device, not as root, a .hwh that was cut short: whatever pynq raises."""
    bit = tmp_path / "design.bit"
    for path in (bit, bit.with_suffix(".hwh")):
        path.write_bytes(b"")

    def refuse() -> None:
        raise error

    pynq_board.pynq.Overlay = overlay_that(refuse)
    with pytest.raises(
        errors.NotFoundError, match=rf"design.bit' \({text}.*\); on a board"
    ) as told:
        pynq_board.open_overlay(bit)
    assert "\n" not in str(told.value)
    assert "source /etc/profile.d/pynq_venv.sh; elsewhere set PYNQ_REMOTE_DEVICES" in str(
        told.value
    )


def overlay_that(action: Callable[[], Any]) -> Callable[..., Any]:
    return lambda *_, **__: action()


def test_overlay_needs_both_files_and_the_engine(pynq_board: Any, tmp_path: Path) -> None:
    bit = tmp_path / "design.bit"
    bit.write_bytes(b"")
    with pytest.raises(errors.NotFoundError, match=r"design\.hwh' is missing; a \.bit and its"):
        pynq_board.open_overlay(bit)
    bit.with_suffix(".hwh").write_bytes(b"")

    blocks = {"dma": {"type": "xilinx.com:ip:axi_dma:7.1"}}
    pynq_board.pynq.Overlay = overlay_that(lambda: SimpleNamespace(ip_dict=blocks))
    with pytest.raises(errors.NotFoundError, match=r"it has dma \(xilinx\.com:ip:axi_dma:7\.1\)"):
        pynq_board.open_overlay(bit)
    ours = {**blocks, "renamed": {"type": VLNV}}
    found = SimpleNamespace(ip_dict=ours, renamed=SimpleNamespace(open=lambda: "the engine"))
    pynq_board.pynq.Overlay = overlay_that(lambda: found)
    assert pynq_board.open_overlay(bit) == "the engine"
    assert pynq_board.WinnowEngine.bindto == (VLNV,)
