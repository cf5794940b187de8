# SPDX-License-Identifier: Apache-2.0
"""The engine through pynq: on a board, or on a remote or virtual one. Needs pynq and numpy 1."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import VLNV
from .engine import Engine
from .errors import DriverError, MemoryFullError, NotFoundError
from .pynq_interrupt import line_of

if int(np.__version__.split(".")[0]) >= 2:
    raise ImportError(f"pynq needs numpy 1, this is {np.__version__}: pip install 'numpy<2'")

import pynq

HARMLESS = 0x04  # a register of every engine that may be read at any time
ADDED = "engine_id"  # a register that the .hwh lists for RTL of openhls only


class WinnowEngine(pynq.DefaultIP):  # type: ignore[misc]
    """What pynq binds to the engine of an overlay: `overlay.winnow_engine_0.open()`."""

    bindto = (VLNV,)

    def open(self) -> Engine:
        """Return the engine, for this process alone."""
        return Engine(PynqBackend(self))


class PynqBackend:
    """Registers and memory of an overlay's engine."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        place = getattr(ip.device, "name", "pynq")
        self.name = f"{place}-{ip.mmio.base_addr:x}"
        self.has_added_registers = any(name.startswith(ADDED) for name in ip._registers or {})
        self._line = line_of(ip)
        self.has_interrupts = self._line is not None

    def clock_mhz(self) -> float | None:
        """Return PL clock 0; None where pynq cannot tell, as on some remote boards."""
        try:
            return float(pynq.Clocks.fclk0_mhz) or None
        except Exception:  # noqa: BLE001 (pynq raises whatever its platform does)
            return None

    def read32(self, offset: int) -> int:
        """Read a register; remote pynq 3.1.2 gives its highest bit as a sign."""
        return int(_asked(self._ip.mmio.read, offset)) & 0xFFFFFFFF

    def write32(self, offset: int, value: int) -> None:
        """Write a register."""
        _asked(self._ip.mmio.write, offset, int(value))

    def pause(self, seconds: float) -> None:
        """Wait for the interrupt that the overlay connects to the processor, or sleep."""
        time.sleep(seconds) if self._line is None else self._line.wait(seconds)

    def allocate(self, num_bytes: int) -> Any:
        """Return memory of `pynq.allocate`; where there is none left, remote pynq tells it late."""
        try:
            memory = pynq.allocate(shape=(num_bytes,), dtype=np.uint8, target=self._ip.device)
            int(memory.device_address)
        except Exception as error:
            self.read32(HARMLESS)  # is anybody there?
            raise MemoryFullError(
                f"no {num_bytes} bytes of contiguous memory ({cma_free()}); close other networks "
                f"and notebooks, or boot with a larger cma="
            ) from error
        return memory

    def free(self, memory: Any) -> None:
        """Give memory back; a board that is gone has none."""
        with contextlib.suppress(NotFoundError):
            _asked(memory.freebuffer)

    def address(self, memory: Any) -> int:
        """Return the physical address."""
        return int(memory.device_address)

    def to_device(self, memory: Any) -> None:
        """Flush the processor's cache."""
        _asked(memory.sync_to_device)

    def from_device(self, memory: Any) -> None:
        """Invalidate the processor's cache."""
        _asked(memory.sync_from_device)


def _asked(action: Callable[..., Any], *arguments: Any) -> Any:
    """Return what pynq answers; NotFoundError where it cannot, with the reason of pynq or grpc."""
    try:
        return action(*arguments)
    except Exception as error:
        raise NotFoundError(
            f"pynq does not reach the board ({_reason(error)}): is it on, its server running? load "
            f"the overlay again"
        ) from error


def _reason(error: Exception) -> str:
    """Return an error's kind and the first line of its text; grpc has the reason apart."""
    reason = error.details() if hasattr(error, "details") else error
    return f"{type(error).__name__}: {reason}".partition("\n")[0]


def cma_free() -> str:
    """Return what Linux says of free contiguous memory on this machine."""
    try:
        found = re.search(r"CmaFree: *(\d+ kB)", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return f"CmaFree {found[1]}" if found else "CmaFree unknown"


def open_overlay(bit: Any, **options: Any) -> Engine:
    """Load an overlay and return its engine. `options` are those of `pynq.Overlay`.

    Raises NotFoundError when a file, a device or the engine is missing, or pynq cannot load it.
    """
    bit = Path(bit)
    for path in (bit, bit.with_suffix(".hwh")):
        if not path.is_file():
            raise NotFoundError(f"'{path}' is missing; a .bit and its .hwh go together")
    try:
        return find_engine(pynq.Overlay(str(bit), **options)).open()
    except DriverError:
        raise
    except Exception as error:
        raise NotFoundError(
            f"pynq cannot load '{bit}' ({_reason(error)}); on a board: sudo -i, then "
            f"source /etc/profile.d/pynq_venv.sh; elsewhere set PYNQ_REMOTE_DEVICES before import"
        ) from error


def find_engine(overlay: Any) -> WinnowEngine:
    """Return an overlay's engine, whatever its name; NotFoundError lists what is there."""
    found = {name: str(block.get("type")) for name, block in overlay.ip_dict.items()}
    for name, kind in found.items():
        if kind == VLNV:
            engine: WinnowEngine = getattr(overlay, name)
            return engine
    listed = ", ".join(f"{name} ({kind})" for name, kind in found.items()) or "nothing"
    raise NotFoundError(f"the overlay has no {VLNV}; it has {listed}: is the .hwh of this .bit?")
