# SPDX-License-Identifier: Apache-2.0
"""A virtual PYNQ board on the network: pynq's remote protocol (gRPC) in front of the RTL.

Runs in .venv-pynq, where pynq and grpc are; `python -m deploy board` starts it. An unmodified
client of pynq 4.0.0 or 3.1.2 with PYNQ_REMOTE_DEVICES loads the overlay, allocates, starts, waits.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from pynq.remote import (
    buffer_pb2,
    buffer_pb2_grpc,
    mmio_pb2,
    mmio_pb2_grpc,
    remote_device_pb2,
    remote_device_pb2_grpc,
)

from deploy.bus import Bus
from deploy.device import DeviceError, open_device
from deploy.processor import Addresses
from winnow.boards import Board, find_board
from winnow.cli import Parser, guard
from winnow.errors import ToolError

PORT = 7967  # fixed in pynq's client
CHUNK = 1 << 20
MESSAGE_BYTES = 64 << 20
FIRMWARE = "/sys/class/fpga_manager/fpga0/firmware"
NOISE = 0x5A
WORKERS = 8


class Files(remote_device_pb2_grpc.RemoteDeviceServicer):  # type: ignore[misc]
    """The board's files that pynq looks at; writing the firmware's name loads the bitstream."""

    def __init__(self, board: Board, configure: Callable[[bytes], None]) -> None:
        self._configure = configure
        self._files = {
            "/proc/version": f"Linux version 6.6.0-xilinx ({board.arch})".encode(),
            "/proc/device-tree/chosen/pynq_board": board.pynq_name.encode() + b"\0",
            "/sys/class/fpga_manager/fpga0/state": b"operating\n",
            "/sys/class/fpga_manager/fpga0/flags": b"0\n",
        }

    def existsfile(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return remote_device_pb2.ExistsFileResponse(exists=request.file_path in self._files)

    def readfile(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: ARG002
        content = self._files.get(request.file_path, b"")
        for start in range(0, len(content), CHUNK):
            yield remote_device_pb2.ReadFileResponse(data=content[start : start + CHUNK])

    def writefile(self, requests: Any, context: Any) -> Any:
        path, content = "", bytearray()
        for request in requests:
            path = request.file_path
            content += request.data
        self._files[path] = bytes(content)
        if path == FIRMWARE:
            try:
                self._configure(self._files.get(f"/lib/firmware/{content.decode()}", b""))
            except DeviceError as error:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return remote_device_pb2.WriteFileResponse()

    def set_bitstream_attrs(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return remote_device_pb2.SetBitstreamAttrsResponse(status=True)


class Registers(mmio_pb2_grpc.MmioServicer):  # type: ignore[misc]
    """Memory-mapped ranges of the board's addresses."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._ranges: dict[str, tuple[int, int]] = {}
        self._numbers = itertools.count()

    def get_mmio(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        name = str(next(self._numbers))
        self._ranges[name] = (request.base_addr, request.length)
        return mmio_pb2.GetMmioResponse(status=True, mmio_id=name)

    def _place(self, request: Any, num_bytes: int) -> int:
        """Return the address of an access."""
        base, length = self._ranges[request.mmio_id]
        if request.offset + num_bytes > length:
            raise DeviceError(f"offset {request.offset:#x} is outside of {length} bytes")
        return int(base + request.offset)

    def read(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        try:
            value = self._addresses.read(self._place(request, request.length), request.length)
        except DeviceError as error:
            return mmio_pb2.ReadResponse(status=False, msg=str(error))
        return mmio_pb2.ReadResponse(status=True, data=_as_sent(value))

    def write(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        try:
            self._addresses.write(self._place(request, len(request.data)), request.data)
        except DeviceError as error:
            return mmio_pb2.WriteResponse(status=False, msg=str(error))
        return mmio_pb2.WriteResponse(status=True)


def _as_sent(value: int) -> int:
    """Return a register's value as the protocol has it: signed in pynq 3.1.2."""
    field = mmio_pb2.ReadResponse.DESCRIPTOR.fields_by_name["data"]
    signed = field.type == field.TYPE_INT32 and value >= 1 << 31
    return value - (1 << 32) if signed else value


@dataclass
class Buffer:
    """Contiguous memory; `cached` is the processor's copy, the bus holds memory's."""

    address: int
    cached: bytearray


class Buffers(buffer_pb2_grpc.RemoteBufferServicer):  # type: ignore[misc]
    """Memory that the client allocates."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._buffers: dict[str, Buffer] = {}
        self._numbers = itertools.count()

    def allocate(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        try:
            address = self._bus.allocate(request.size)
        except MemoryError as error:
            return buffer_pb2.AllocateResponse(msg=str(error))
        name = str(next(self._numbers))
        self._buffers[name] = Buffer(address, bytearray([NOISE]) * request.size)
        return buffer_pb2.AllocateResponse(buffer_id=name)

    def write(self, requests: Any, context: Any) -> Any:  # noqa: ARG002
        start = 0
        for request in requests:
            cached = self._buffers[request.buffer_id].cached
            end = start + len(request.data)
            if end > len(cached):
                return buffer_pb2.BufferWriteResponse(msg="more bytes than the buffer holds")
            cached[start:end] = request.data
            start = end
        return buffer_pb2.BufferWriteResponse()

    def read(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: ARG002
        content = bytes(self._buffers[request.buffer_id].cached)
        for start in range(0, len(content), CHUNK):
            yield buffer_pb2.BufferReadResponse(data=content[start : start + CHUNK])

    def flush(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        buffer = self._buffers[request.buffer_id]
        self._bus.store(buffer.address, bytes(buffer.cached))
        return buffer_pb2.FlushResponse()

    def invalidate(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        buffer = self._buffers[request.buffer_id]
        buffer.cached[:] = self._bus.load(buffer.address, len(buffer.cached))
        return buffer_pb2.InvalidateResponse()

    def physical_address(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return buffer_pb2.AddressResponse(address=self._buffers[request.buffer_id].address)

    def virtual_address(self, request: Any, context: Any) -> Any:
        return self.physical_address(request, context)

    def freebuffer(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        buffer = self._buffers.pop(request.buffer_id, None)
        if buffer is None:
            return buffer_pb2.FreeBufferResponse(msg="no such buffer")
        self._bus.free(buffer.address)
        return buffer_pb2.FreeBufferResponse()


def serve(board: Board, bus: Bus, host: str) -> Any:
    """Start a board's services on `host`; return the server."""
    limits = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(WORKERS), options=limits)
    files = Files(board, bus.configure)
    remote_device_pb2_grpc.add_RemoteDeviceServicer_to_server(files, server)
    mmio_pb2_grpc.add_MmioServicer_to_server(Registers(Addresses(board, bus)), server)
    buffer_pb2_grpc.add_RemoteBufferServicer_to_server(Buffers(bus), server)
    try:
        server.add_insecure_port(f"{host}:{PORT}")
    except RuntimeError as error:
        raise ToolError(
            f"port {PORT} of {host} is taken, by another board? give another: --host 127.0.0.2"
        ) from error
    server.start()
    return server


def main() -> None:
    """Serve one board until somebody ends it."""
    parser = Parser(prog="python -m deploy.server", description=__doc__)
    parser.add_argument("binary", type=Path, help="the engine's harness")
    parser.add_argument("digest", help="hash of the RTL that its bitstream must carry")
    parser.add_argument("--board", required=True)
    parser.add_argument("--host", required=True, help="address to listen on")
    options = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    with open_device(options.binary) as device:
        bus = Bus(device, bytes.fromhex(options.digest))
        server = serve(find_board(options.board), bus, options.host)
        print("board: ready", flush=True)
        ended.wait()
        server.stop(0)


if __name__ == "__main__":
    sys.exit(guard(main))
