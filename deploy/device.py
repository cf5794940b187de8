# SPDX-License-Identifier: Apache-2.0
"""The Verilated engine as a device on a bus: a process, driven over a Unix socket.

The other end, and the commands, are in sim/harness/device.hpp.
"""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from winnow import process
from winnow.errors import ToolError, WinnowError

_END_SECONDS = 10.0
_LOOK_SECONDS = 0.1


class DeviceError(WinnowError):
    """A simulated board refused what a real one would not survive."""


class RtlDevice:
    """One engine and the memory that it sees; calls may come from several threads."""

    def __init__(self, connection: socket.socket, ended: Future[process.Finished]) -> None:
        self._connection, self._ended = connection, ended
        self._lock = threading.Lock()

    def read_register(self, offset: int) -> int:
        """Read a register."""
        return int.from_bytes(self._call("r", offset, 4), "little")

    def write_register(self, offset: int, value: int) -> None:
        """Write a register."""
        self._call("w", offset, 4, value.to_bytes(4, "little"))

    def map(self, address: int, num_bytes: int) -> None:
        """Put memory of noise at an address."""
        self._call("m", address, num_bytes)

    def unmap(self, address: int) -> None:
        """Take memory away: the engine sees a decode error where it was."""
        self._call("u", address)

    def load(self, address: int, num_bytes: int) -> bytes:
        """Read memory."""
        return self._call("l", address, num_bytes)

    def store(self, address: int, content: bytes) -> None:
        """Write memory."""
        self._call("s", address, len(content), content)

    def configure(self) -> None:
        """Load the bitstream: an engine fresh from its reset."""
        self._call("z")

    def _call(self, code: str, address: int = 0, count: int = 0, content: bytes = b"") -> bytes:
        head = struct.pack("<c3xIQ", code.encode(), count, address)
        with self._lock:
            try:
                self._connection.sendall(head + content)
                failed, length = struct.unpack("<II", self._receive(8))
                answer = self._receive(length)
            except OSError as error:
                raise _ended(self._ended) from error
        if failed:
            raise DeviceError(f"{answer.decode()}, at {address:#x}")
        return answer

    def _receive(self, count: int) -> bytes:
        parts = []
        while count:
            part = self._connection.recv(min(count, 1 << 20))
            if not part:
                raise ConnectionResetError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


@contextmanager
def open_device(binary: Path) -> Iterator[RtlDevice]:
    """Start a binary of `sim.rtl.build` as a device; it ends with the block, and with us."""
    with (
        tempfile.TemporaryDirectory(prefix="winnow-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
        ThreadPoolExecutor(1) as pool,
    ):
        path = Path(folder) / "device"
        listener.bind(str(path))
        listener.listen(1)
        ended = pool.submit(process.run, [binary, path])
        with _accepted(listener, ended) as connection:
            yield RtlDevice(connection, ended)


def _accepted(listener: socket.socket, ended: Future[process.Finished]) -> socket.socket:
    listener.settimeout(_LOOK_SECONDS)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if ended.done():
                raise _ended(ended) from None
            continue
        connection.setblocking(True)
        return connection


def _ended(ended: Future[process.Finished]) -> ToolError:
    """Return why the process is gone."""
    finished = ended.result(_END_SECONDS)
    return ToolError(
        f"the simulated engine ended with code {finished.code}: {finished.last_line}",
        exit_code=finished.code,
    )
