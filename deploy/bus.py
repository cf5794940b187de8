# SPDX-License-Identifier: Apache-2.0
"""What the processor of a virtual board reaches: the engine's registers, and memory.

It is stricter than a board. Registers are words of 4 bytes; the engine is out of reach until a
bitstream with the hash of its RTL was loaded; memory is of noise until it is written, ends at the
byte that was asked for, and is a decode error for the engine once it is freed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from codegen.ports import ALL_REGISTERS, OFFSETS, REGISTER_BYTES
from deploy.device import DeviceError, RtlDevice

PAGE = 4096
MEMORY_BASE, MEMORY_BYTES = 0x1000_0000, 128 << 20
REGISTER_RANGE = 0x1_0000
_LAST = max(register.offset + register.bits // 8 for register in ALL_REGISTERS)


def _word_swapped(content: bytes) -> bytes:
    """Return words of 4 bytes in the other byte order, as pynq writes a .bit into a .bin."""
    return b"".join(content[i : i + 4][::-1] for i in range(0, len(content), 4))


class Bus:
    """One virtual board: an engine whose bitstream carries `digest`, and memory."""

    def __init__(self, device: RtlDevice, digest: bytes) -> None:
        self._device, self._digest, self._configured = device, digest, False
        self._free = [(MEMORY_BASE, MEMORY_BYTES)]
        self._taken: dict[int, int] = {}
        self._lock = threading.Lock()
        self._pin = threading.Lock()  # one look at the pin `interrupt` at a time, in their order
        self._watchers: list[Callable[[bool], None]] = []

    def configure(self, bitstream: bytes) -> None:
        """Load a bitstream; DeviceError if it is not that of the engine."""
        if self._digest not in bitstream and _word_swapped(self._digest) not in bitstream:
            raise DeviceError("the bitstream is of another build; make it again: make overlay")
        self._device.configure()
        self._configured = True

    def read(self, offset: int, num_bytes: int = REGISTER_BYTES) -> int:
        """Read a register."""
        self._require_register(offset, num_bytes)
        return self._device.read_register(offset)

    def write(self, offset: int, content: bytes) -> None:
        """Write a register, lowest byte first."""
        self._require_register(offset, len(content))
        with self._pin:  # only a write lets the pin fall: no edge is missed on either side of it
            self._tell()
            self._device.write_register(offset, int.from_bytes(content, "little"))
            self._tell()

    def _require_register(self, offset: int, num_bytes: int) -> None:
        if not self._configured:
            raise DeviceError("the bus hangs: no bitstream is loaded")
        if num_bytes != REGISTER_BYTES or offset % REGISTER_BYTES:
            raise DeviceError(f"a register has 4 bytes, got {num_bytes} at {offset:#x}")
        if not 0 <= offset < _LAST:
            raise DeviceError(f"no register is at {offset:#x}")

    @property
    def interrupt(self) -> bool:
        """Return the engine's pin `interrupt`, by the registers that drive it."""
        if not self._configured:
            return False
        enabled, pending = (self.read(OFFSETS[n]) for n in ("global_interrupt", "interrupt_status"))
        return bool(enabled & 1 and pending)

    def watch(self, watcher: Callable[[bool], None]) -> None:
        """Tell `watcher` the level of the pin around every write, and at every `look`."""
        self._watchers.append(watcher)

    def look(self) -> None:
        """Look at the pin."""
        with self._pin:
            self._tell()

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher(self.interrupt)

    @property
    def live(self) -> int:
        """Return how many buffers are allocated."""
        return len(self._taken)

    def allocate(self, num_bytes: int) -> int:
        """Return the address of contiguous memory; MemoryError where there is none left."""
        pages = max(1, -(-num_bytes // PAGE)) * PAGE
        with self._lock:
            for i, (start, count) in enumerate(self._free):
                if count >= pages:
                    self._free[i] = (start + pages, count - pages)
                    self._taken[start] = pages
                    break
            else:
                raise MemoryError("no contiguous memory left")
        self._device.map(start, num_bytes)
        return start

    def free(self, address: int) -> None:
        """Give memory back; DeviceError if it is not allocated."""
        with self._lock:
            if address not in self._taken:
                raise DeviceError(f"no buffer is at {address:#x}")
            self._free.append((address, self._taken.pop(address)))
        self._device.unmap(address)

    def store(self, address: int, content: bytes) -> None:
        """Write memory, as a flush of the processor's cache does."""
        self._device.store(address, content)

    def load(self, address: int, num_bytes: int) -> bytes:
        """Read memory, as the processor does after it dropped its cache."""
        return self._device.load(address, num_bytes)
