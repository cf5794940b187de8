# SPDX-License-Identifier: Apache-2.0
"""The engine without pynq: its registers through Linux' UIO, memory through u-dma-buf.

    with Engine(UioBoard("uio0", "udmabuf0")) as engine: ...

The bitstream must be loaded, the device tree must name both devices, and the user may open them.
"""

from __future__ import annotations

import mmap
import select
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MemoryFullError, NotFoundError

ALIGNED = 4096  # bytes between allocations, more than a cache line
BOTH_WAYS = "0"  # sync_direction


class _Buffer(np.ndarray):
    """A part of the u-dma-buf; `offset` is where it begins, None once it is freed."""

    offset: int | None = None


class UioBoard:
    """Registers of /dev/UIO and memory of /dev/MEMORY.

    `mhz` is the clock of the engine, if it is known; `has_added_registers` is false for RTL of
    Vitis HLS. `root` is the root folder, another one for tests.
    """

    def __init__(
        self,
        uio: str,
        memory: str,
        *,
        mhz: float | None = None,
        has_added_registers: bool = True,
        root: Any = "/",
    ) -> None:
        root = Path(root)
        self.name, self._mhz, self.has_added_registers = uio, mhz, has_added_registers
        num_bytes = int(_text(root / "sys/class/uio" / uio / "maps/map0/size"), 16)
        self._registers: NDArray[np.uint32] = _mapped(root / "dev" / uio, num_bytes).view(np.uint32)
        self._class = root / "sys/class/u-dma-buf" / memory
        self._base = int(_text(self._class / "phys_addr"), 16)
        self._memory = _mapped(root / "dev" / memory, int(_text(self._class / "size")))
        self._taken: dict[int, int] = {}
        self._device = _opened(root / "dev" / uio)
        self.has_interrupts = self._listen()

    def clock_mhz(self) -> float | None:
        """Return the clock that was given."""
        return self._mhz

    def read32(self, offset: int) -> int:
        """Read a register, in one access of 4 bytes."""
        return int(self._registers[offset // 4])

    def write32(self, offset: int, value: int) -> None:
        """Write a register, in one access of 4 bytes."""
        self._registers[offset // 4] = value

    def pause(self, seconds: float) -> None:
        """Wait for an interrupt, or sleep where the device tree has none."""
        if not self.has_interrupts:
            time.sleep(seconds)
        elif self._listen() and select.select([self._device], [], [], seconds)[0]:
            self._device.read(4)

    def _listen(self) -> bool:
        """Let the next interrupt through; tell whether there can be one."""
        try:
            return bool(self._device.write((1).to_bytes(4, "little")))
        except OSError:
            return False

    def allocate(self, num_bytes: int) -> Any:
        """Return the first part of the u-dma-buf that is free."""
        start = 0
        for offset in sorted(self._taken):
            if start + num_bytes <= offset:
                break
            start = -(-(offset + self._taken[offset]) // ALIGNED) * ALIGNED
        if start + num_bytes > self._memory.size:
            raise MemoryFullError(
                f"no {num_bytes} bytes left of the {self._memory.size} of {self._class.name}; make "
                f"it larger when its module is loaded"
            )
        buffer = self._memory[start : start + num_bytes].view(_Buffer)
        buffer.offset = start
        self._taken[start] = num_bytes
        return buffer

    def free(self, memory: Any) -> None:
        """Give a part back."""
        del self._taken[memory.offset]
        memory.offset = None

    def address(self, memory: Any) -> int:
        """Return the physical address."""
        return self._base + int(memory.offset)

    def to_device(self, memory: Any) -> None:
        """Flush the processor's cache."""
        self._sync(memory, "sync_for_device")

    def from_device(self, memory: Any) -> None:
        """Invalidate the processor's cache."""
        self._sync(memory, "sync_for_cpu")

    def _sync(self, memory: Any, action: str) -> None:
        values = {"sync_offset": memory.offset, "sync_size": memory.size}
        for name, value in {**values, "sync_direction": BOTH_WAYS, action: 1}.items():
            (self._class / name).write_text(str(value))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise NotFoundError(
            f"cannot read '{path}': {error.strerror}; is the device in the device tree, and its "
            f"module loaded?"
        ) from error


def _opened(path: Path) -> Any:
    return path.open("r+b", buffering=0)


def _mapped(path: Path, num_bytes: int) -> NDArray[np.uint8]:
    try:
        with path.open("r+b", buffering=0) as file:
            return np.frombuffer(mmap.mmap(file.fileno(), num_bytes), np.uint8)
    except OSError as error:
        raise NotFoundError(f"cannot map '{path}': {error.strerror}; run as root") from error
