# SPDX-License-Identifier: Apache-2.0
"""A board that exists only in simulation, for the driver in this process: no pynq, no network.

    with virtual_board(harness, rtl_folder) as backend, Engine(backend) as engine:
        network = engine.load("bundle")

A buffer has two copies, the processor's and memory's; only to_device and from_device move data
between them, whole buffers at a time.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bus import Bus
from deploy.device import DeviceError, open_device
from deploy.driver.winnow_pynq.errors import MemoryFullError
from sim.rtl import Harness, rtl_sources
from winnow.artefact import sha256_file, sha256_value

NOISE = 0x5A
LOOK_SECONDS = 1e-3  # between looks at the interrupt
_numbers = itertools.count()


class _Buffer(np.ndarray[Any, np.dtype[np.uint8]]):
    """Memory as the processor sees it; a part of one has no `address`."""

    address: int | None = None


class VirtualBoard:
    """The driver's backend on a bus."""

    def __init__(self, bus: Bus, *, has_interrupts: bool = False) -> None:
        self.bus = bus
        self.name = f"virtual-{os.getpid()}-{next(_numbers)}"
        self.has_added_registers, self.has_interrupts = True, has_interrupts

    def clock_mhz(self) -> float | None:
        """Return None: a simulation has no clock."""
        return None

    def read32(self, offset: int) -> int:
        """Read a register."""
        return self.bus.read(offset)

    def write32(self, offset: int, value: int) -> None:
        """Write a register."""
        self.bus.write(offset, value.to_bytes(4, "little"))

    def pause(self, seconds: float) -> None:
        """Sleep, while the simulation goes on; an interrupt ends it."""
        limit = time.monotonic() + seconds
        while not (self.has_interrupts and self.bus.interrupt) and time.monotonic() < limit:
            time.sleep(min(seconds, LOOK_SECONDS))

    def allocate(self, num_bytes: int) -> Any:
        """Return memory, noise on both sides."""
        try:
            address = self.bus.allocate(num_bytes)
        except MemoryError as error:
            raise MemoryFullError(f"no {num_bytes} bytes of contiguous memory") from error
        buffer = np.full(num_bytes, NOISE, np.uint8).view(_Buffer)
        buffer.address = address
        return buffer

    def free(self, memory: Any) -> None:
        """Give memory back."""
        self.bus.free(self.address(memory))
        memory.address = None

    def address(self, memory: Any) -> int:
        """Return where the engine sees memory; DeviceError for a part or what was freed."""
        if memory.address is None:
            raise DeviceError("a part of a buffer, or a freed one, has no place of its own")
        return int(memory.address)

    def to_device(self, memory: Any) -> None:
        """Copy a buffer to memory."""
        self.bus.store(self.address(memory), memory.tobytes())

    def from_device(self, memory: Any) -> None:
        """Copy memory to a buffer."""
        memory[:] = np.frombuffer(self.bus.load(self.address(memory), memory.size), np.uint8)


def rtl_digest(folder: Path) -> bytes:
    """Return the hash of an RTL folder's sources, which its bitstream carries."""
    return bytes.fromhex(sha256_value([sha256_file(path) for path in rtl_sources(folder)]))


@contextmanager
def virtual_board(harness: Harness, rtl: Path) -> Iterator[VirtualBoard]:
    """Start a board of an RTL folder's harness and load its bitstream."""
    digest = rtl_digest(rtl)
    with open_device(harness.binary) as device:
        board = VirtualBoard(Bus(device, digest))
        board.bus.configure(digest)
        yield board
