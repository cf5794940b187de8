# SPDX-License-Identifier: Apache-2.0
"""The virtual board as a device of pynq in this process: no network, so also for pynq 3.0.1.

    with registered(find_board("PYNQ-Z2"), Bus(device, digest)):
        ...                                       # Overlay(...) as on a board

pynq asks every `Device` class for the devices it finds; this one finds the boards registered here.
pynq itself is not changed. It takes the processor from `os.uname` when it is imported: see
deploy/inprocess.py.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pynq.buffer import PynqBuffer
from pynq.interrupt import _InterruptController
from pynq.pl_server.device import Device
from pynq.uio import UioController
from pynqmetadata.frontends import Metadata

from deploy.bus import Bus
from deploy.interrupts import interrupts
from deploy.processor import Addresses
from winnow.boards import Board

try:
    from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser
except ImportError:  # moved in pynq 3.1
    from pynqmetadata.views.runtime import RuntimeMetadataParser

NOISE = 0x5A
WORD = 4


class Buffer(PynqBuffer):  # type: ignore[misc]
    """Memory of a virtual board; views of it own nothing."""

    owns = False

    def freebuffer(self) -> None:
        """Give the memory back."""
        if self.owns:
            self.owns = False
            self.device.bus.free(self.bo)


class VirtualDevice(Device):  # type: ignore[misc]
    """A virtual board. Data crosses between processor and engine in flush and invalidate only."""

    _probe_priority_ = 0  # before boards that are there
    found: list[VirtualDevice] = []  # noqa: RUF012 (of the class)

    def __init__(self, board: Board, bus: Bus) -> None:
        super().__init__(f"winnow-{board.name}")
        self.name = f"{board.pynq_name}-{os.getpid()}"  # of the driver's lock, too
        self.arch, self.bus = board.arch, bus
        self.capabilities = {"REGISTER_RW": True}
        self.default_memory = self
        self.addresses = Addresses(board, bus)
        self.uio = ""  # path of the file that tells interrupts

    @classmethod
    def _probe_(cls) -> list[VirtualDevice]:
        return cls.found

    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False) -> Any:  # noqa: ARG002
        """Return what the .hwh says."""
        return RuntimeMetadataParser(Metadata(input=str(Path(bitfile_name).with_suffix(".hwh"))))

    def read_registers(self, address: int, length: int) -> bytes:
        """Read registers."""
        words = (self.addresses.read(address + i, WORD) for i in range(0, length, WORD))
        return b"".join(word.to_bytes(WORD, "little") for word in words)

    def write_registers(self, address: int, data: Any) -> None:
        """Write registers."""
        content = bytes(data)
        for i in range(0, len(content), WORD):
            self.addresses.write(address + i, content[i : i + WORD])

    def download(self, bitstream: Any, parser: Any = None) -> None:
        """Load a bitstream; DeviceError if it is of another build."""
        self.bus.configure(Path(bitstream.bitfile_name).read_bytes())
        for line in parser.interrupt_controllers.values():  # as if Linux had named this file
            known = _InterruptController._uio_devices
            known.setdefault(line["raw_irq"], UioController(self.uio))
        self.post_download(bitstream, parser, self.name)

    def gen_cache(self, bitstream: Any, parser: Any = None) -> None:
        """Keep nothing: metadata would be used again for another bitstream of the same name."""

    def allocate(self, shape: Any, dtype: Any, **_: Any) -> Buffer:
        """Return memory, noise on both sides; MemoryError where there is none left."""
        num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self.bus.allocate(num_bytes)
        buffer = Buffer(shape, dtype, device=self, device_address=address, bo=address)
        buffer.owns = True
        buffer.view(np.uint8)[:] = NOISE
        return buffer

    def flush(self, bo: int, offset: int, pointer: int, num_bytes: int) -> None:
        """Copy what the processor wrote to the engine's side."""
        self.bus.store(bo + offset, ctypes.string_at(pointer, num_bytes))

    def invalidate(self, bo: int, offset: int, pointer: int, num_bytes: int) -> None:
        """Copy what the engine wrote to the processor's side."""
        ctypes.memmove(pointer, self.bus.load(bo + offset, num_bytes), num_bytes)


@contextmanager
def registered(board: Board, bus: Bus) -> Iterator[None]:
    """Let pynq find a virtual board; before it looks for devices the first time."""
    device = VirtualDevice(board, bus)
    VirtualDevice.found.append(device)
    with interrupts(bus, device.addresses.controller) as device.uio:
        yield
