# SPDX-License-Identifier: Apache-2.0
"""AXI4 and AXI4-Lite models for cocotb: memory behind the engine's masters, and its registers.

All channels of all masters are served by one loop per clock cycle. Every channel can be stalled at
random. What a slave can see of the protocol is checked: bursts within 4 KiB, aligned addresses,
VALID held until READY, WLAST on the last beat.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from cocotb.triggers import RisingEdge

OKAY, SLVERR, DECERR = 0, 2, 3
PAGE_BYTES = 4096
MAX_OUTSTANDING = 16
PINS = (
    *("AWADDR", "AWVALID", "AWREADY", "WDATA", "WSTRB", "WVALID", "WREADY"),
    *("BVALID", "BREADY", "BRESP", "ARADDR", "ARVALID", "ARREADY"),
    *("RDATA", "RVALID", "RREADY", "RRESP"),
)


class AxiError(AssertionError):
    """The design broke a rule of the AXI protocol."""


@dataclass
class Region:
    """A piece of memory; `error` makes every access to it answer with that response."""

    base: int
    data: bytearray
    error: int = OKAY


@dataclass
class Memory:
    """Regions of memory; an access outside of all answers DECERR."""

    regions: list[Region] = field(default_factory=list)

    def find(self, address: int, num_bytes: int) -> Region | None:
        """Return the region that holds the bytes, or None."""
        for region in self.regions:
            if region.base <= address and address + num_bytes <= region.base + len(region.data):
                return region
        return None

    def read(self, address: int, num_bytes: int) -> tuple[int, int]:
        """Return (little-endian value, response)."""
        region = self.find(address, num_bytes)
        if region is None:
            return 0, DECERR
        first = address - region.base
        return int.from_bytes(region.data[first : first + num_bytes], "little"), region.error

    def write(self, address: int, value: int, strobe: int, num_bytes: int) -> int:
        """Write the strobed bytes; return the response."""
        region = self.find(address, num_bytes)
        if region is None:
            return DECERR
        first = address - region.base
        data = value.to_bytes(num_bytes, "little")
        for i in range(num_bytes):
            if strobe >> i & 1:
                region.data[first + i] = data[i]
        return region.error


class Stall:
    """Random back-pressure: true `percent` of the time, repeatable by its seed."""

    def __init__(self, percent: int, seed: int) -> None:
        self.percent = percent
        self.random = random.Random(seed)

    def __call__(self) -> bool:
        return self.percent > 0 and self.random.randrange(100) < self.percent


def pin(dut: Any, name: str) -> Any:
    """Return a top-level pin; AttributeError names it when the design has none."""
    return getattr(dut, name)


@dataclass
class Burst:
    """An accepted burst: next address and beats left."""

    address: int
    beats: int
    response: int = OKAY


def _check_burst(name: str, address: int, beats: int, width: int) -> None:
    if address % width:
        raise AxiError(f"{name}: address {address:#x} is not aligned to {width} bytes")
    if address // PAGE_BYTES != (address + beats * width - 1) // PAGE_BYTES:
        raise AxiError(f"{name}: burst at {address:#x} of {beats} beats crosses 4 KiB")


class ReadSlave:
    """Answers the read channels of master `name`."""

    def __init__(self, dut: Any, name: str, memory: Memory, stall: Stall) -> None:
        self.name, self.memory, self.stall = name, memory, stall
        p = f"m_axi_{name}_"
        self.ar_valid, self.ar_ready = pin(dut, p + "ARVALID"), pin(dut, p + "ARREADY")
        self.ar_addr, self.ar_len = pin(dut, p + "ARADDR"), pin(dut, p + "ARLEN")
        self.r_valid, self.r_ready = pin(dut, p + "RVALID"), pin(dut, p + "RREADY")
        self.r_data, self.r_resp = pin(dut, p + "RDATA"), pin(dut, p + "RRESP")
        self.r_last = pin(dut, p + "RLAST")
        self.width = len(self.r_data) // 8
        self.bursts: deque[Burst] = deque()
        self.addresses: list[int] = []
        self.beats = 0
        self.reset()

    def reset(self) -> None:
        """Forget all bursts and lower the outputs."""
        self.bursts.clear()
        self.ready = self.offered = self.waiting = False
        self.ar_ready.value = 0
        self.r_valid.value = 0

    def step(self) -> None:
        """Sample this cycle's pins and drive the next cycle's."""
        valid = bool(self.ar_valid.value)
        if valid and self.ready:
            address, beats = int(self.ar_addr.value), int(self.ar_len.value) + 1
            _check_burst(self.name, address, beats, self.width)
            self.bursts.append(Burst(address, beats))
            self.addresses.append(address)
        elif self.waiting and not valid:
            raise AxiError(f"{self.name}: ARVALID was withdrawn before ARREADY")
        self.waiting = valid and not self.ready
        if self.offered and self.r_ready.value:
            self._take_beat()
        ready = len(self.bursts) < MAX_OUTSTANDING and not self.stall()
        if ready != self.ready:
            self.ready = ready
            self.ar_ready.value = ready
        if not self.offered and self.bursts and not self.stall():
            self._offer_beat()

    def _take_beat(self) -> None:
        self.beats += 1
        self.offered = False
        burst = self.bursts[0]
        burst.address += self.width
        burst.beats -= 1
        if burst.beats == 0:
            self.bursts.popleft()
        if self.bursts and not self.stall():
            self._offer_beat()
        else:
            self.r_valid.value = 0

    def _offer_beat(self) -> None:
        burst = self.bursts[0]
        value, response = self.memory.read(burst.address, self.width)
        self.r_data.value = value
        self.r_resp.value = response
        self.r_last.value = burst.beats == 1
        self.r_valid.value = 1
        self.offered = True


class WriteSlave:
    """Answers the write channels of master `name`."""

    def __init__(self, dut: Any, name: str, memory: Memory, stall: Stall) -> None:
        self.name, self.memory, self.stall = name, memory, stall
        p = f"m_axi_{name}_"
        self.aw_valid, self.aw_ready = pin(dut, p + "AWVALID"), pin(dut, p + "AWREADY")
        self.aw_addr, self.aw_len = pin(dut, p + "AWADDR"), pin(dut, p + "AWLEN")
        self.w_valid, self.w_ready = pin(dut, p + "WVALID"), pin(dut, p + "WREADY")
        self.w_data, self.w_strb = pin(dut, p + "WDATA"), pin(dut, p + "WSTRB")
        self.w_last = pin(dut, p + "WLAST")
        self.b_valid, self.b_ready = pin(dut, p + "BVALID"), pin(dut, p + "BREADY")
        self.b_resp = pin(dut, p + "BRESP")
        self.width = len(self.w_data) // 8
        self.bursts: deque[Burst] = deque()
        self.responses: deque[int] = deque()
        self.beats = 0
        self.reset()

    def reset(self) -> None:
        """Forget all bursts and lower the outputs."""
        self.bursts.clear()
        self.responses.clear()
        self.address_ready = self.data_ready = self.offered = self.waiting = False
        for output in (self.aw_ready, self.w_ready, self.b_valid):
            output.value = 0

    def step(self) -> None:
        """Sample this cycle's pins and drive the next cycle's."""
        valid = bool(self.aw_valid.value)
        if valid and self.address_ready:
            address, beats = int(self.aw_addr.value), int(self.aw_len.value) + 1
            _check_burst(self.name, address, beats, self.width)
            self.bursts.append(Burst(address, beats))
        elif self.waiting and not valid:
            raise AxiError(f"{self.name}: AWVALID was withdrawn before AWREADY")
        self.waiting = valid and not self.address_ready
        if self.data_ready and self.w_valid.value:
            self._take_beat()
        if self.offered and self.b_ready.value:
            self.offered = False
            self.b_valid.value = 0
        self._drive()

    def _take_beat(self) -> None:
        self.beats += 1
        burst = self.bursts[0]
        response = self.memory.write(
            burst.address, int(self.w_data.value), int(self.w_strb.value), self.width
        )
        burst.response = max(burst.response, response)
        burst.address += self.width
        burst.beats -= 1
        if bool(self.w_last.value) != (burst.beats == 0):
            raise AxiError(f"{self.name}: WLAST on the wrong beat")
        if burst.beats == 0:
            self.responses.append(burst.response)
            self.bursts.popleft()

    def _drive(self) -> None:
        address_ready = len(self.bursts) < MAX_OUTSTANDING and not self.stall()
        if address_ready != self.address_ready:
            self.address_ready = address_ready
            self.aw_ready.value = address_ready
        data_ready = bool(self.bursts) and not self.stall()
        if data_ready != self.data_ready:
            self.data_ready = data_ready
            self.w_ready.value = data_ready
        if not self.offered and self.responses and not self.stall():
            self.b_resp.value = self.responses.popleft()
            self.b_valid.value = 1
            self.offered = True


class Registers:
    """A master on the AXI4-Lite slave `s_axi_control`."""

    TIMEOUT_CYCLES = 1000

    def __init__(self, dut: Any, clock: Any) -> None:
        self.clock = clock
        self.pins = {name: pin(dut, f"s_axi_control_{name}") for name in PINS}
        for name in ("AWVALID", "WVALID", "BREADY", "ARVALID", "RREADY"):
            self.pins[name].value = 0

    async def _until(self, name: str) -> None:
        for _ in range(self.TIMEOUT_CYCLES):
            await RisingEdge(self.clock)
            if self.pins[name].value:
                return
        raise AxiError(f"s_axi_control: {name} stayed low for {self.TIMEOUT_CYCLES} cycles")

    async def write(self, offset: int, value: int, strobe: int = 0xF) -> None:
        """Write a 32-bit register."""
        pins = self.pins
        pins["AWADDR"].value = offset
        pins["AWVALID"].value = 1
        await self._until("AWREADY")
        pins["AWVALID"].value = 0
        pins["WDATA"].value = value
        pins["WSTRB"].value = strobe
        pins["WVALID"].value = 1
        await self._until("WREADY")
        pins["WVALID"].value = 0
        pins["BREADY"].value = 1
        await self._until("BVALID")
        pins["BREADY"].value = 0

    async def read(self, offset: int) -> int:
        """Read a 32-bit register."""
        pins = self.pins
        pins["ARADDR"].value = offset
        pins["ARVALID"].value = 1
        await self._until("ARREADY")
        pins["ARVALID"].value = 0
        pins["RREADY"].value = 1
        await self._until("RVALID")
        value = int(pins["RDATA"].value)
        pins["RREADY"].value = 0
        return value
