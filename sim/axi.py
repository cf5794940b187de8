# SPDX-License-Identifier: Apache-2.0
"""AXI4 and AXI4-Lite models for cocotb: memory behind the engine's masters, and its registers.

All channels of all masters are served by one loop per clock cycle. Every channel can be stalled at
random. What a slave can see of the protocol is checked: bursts within 4 KiB, aligned addresses,
VALID and its payload held until READY, WLAST on the last beat.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from cocotb.triggers import RisingEdge

from sim.contract import LITE_PINS, SLAVE

OKAY, SLVERR, DECERR = 0, 2, 3
PAGE_BYTES = 4096
MAX_OUTSTANDING = 16
INCREMENTING = 1  # AxBURST


class AxiError(AssertionError):
    """The design broke a rule of the AXI protocol."""


@dataclass
class AddressRange:
    """A piece of memory; `error` makes every access to it answer with that response."""

    base: int
    data: bytearray
    error: int = OKAY


@dataclass
class Memory:
    """Regions of memory; an access outside of all answers DECERR."""

    regions: list[AddressRange] = field(default_factory=list)

    def find(self, address: int, num_bytes: int) -> AddressRange | None:
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
    """Random back-pressure: true `percent` of the time, repeatable by its seed.

    While it is `silent`, always: a memory that does not answer.
    """

    def __init__(self, percent: int, seed: int) -> None:
        self.share = percent / 100
        self.silent = False
        self.random = random.Random(seed).random

    def __call__(self) -> bool:
        return self.silent or (self.share > 0 and self.random() < self.share)


def pin(dut: Any, name: str) -> Any:
    """Return a top-level pin; AttributeError names it when the design has none."""
    return getattr(dut, name)


@dataclass
class Burst:
    """An accepted burst: next address and beats left."""

    address: int
    beats: int
    response: int = OKAY


class AddressChannel:
    """Accepts bursts on channel `AR` or `AW` of master `name` and checks them."""

    def __init__(self, dut: Any, name: str, channel: str, width: int, stall: Stall) -> None:
        self.name, self.channel, self.width, self.stall = name, channel, width, stall
        p = f"m_axi_{name}_{channel}"
        self.valid_pin, self.ready_pin = pin(dut, p + "VALID"), pin(dut, p + "READY")
        self.request_pins = [pin(dut, p + part) for part in ("ADDR", "LEN", "SIZE", "BURST")]
        self.addresses: list[int] = []

    def reset(self) -> None:
        """Lower READY and forget a request that waits."""
        self.ready = False
        self.waiting: tuple[int, ...] | None = None
        self.ready_pin.value = 0

    def step(self, bursts: deque[Burst]) -> None:
        """Append a burst accepted in this cycle."""
        if self.valid_pin.value:
            request = tuple(int(each.value) for each in self.request_pins)
            if self.waiting not in (None, request):
                raise AxiError(f"{self.name}: {self.channel} changed before {self.channel}READY")
            self.waiting = None if self.ready else request
            if self.ready:
                bursts.append(self._burst(*request))
        elif self.waiting is not None:
            raise AxiError(
                f"{self.name}: {self.channel}VALID was withdrawn before {self.channel}READY"
            )

    def _burst(self, address: int, length: int, size: int, kind: int) -> Burst:
        beats, width = length + 1, self.width
        if 1 << size != width or kind != INCREMENTING:
            raise AxiError(f"{self.name}: size {size}, burst {kind} is not one full word after one")
        if address % width:
            raise AxiError(f"{self.name}: address {address:#x} is not aligned to {width} bytes")
        if address // PAGE_BYTES != (address + beats * width - 1) // PAGE_BYTES:
            raise AxiError(f"{self.name}: burst at {address:#x} of {beats} beats crosses 4 KiB")
        self.addresses.append(address)
        return Burst(address, beats)

    def drive(self, num_bursts: int) -> None:
        """Set READY of the next cycle."""
        ready = num_bursts < MAX_OUTSTANDING and not self.stall()
        if ready != self.ready:
            self.ready = ready
            self.ready_pin.value = ready


class ReadSlave:
    """Answers the read channels of master `name`."""

    def __init__(self, dut: Any, name: str, memory: Memory, stall: Stall) -> None:
        self.name, self.memory, self.stall = name, memory, stall
        p = f"m_axi_{name}_"
        self.r_valid, self.r_ready = pin(dut, p + "RVALID"), pin(dut, p + "RREADY")
        self.r_data, self.r_resp = pin(dut, p + "RDATA"), pin(dut, p + "RRESP")
        self.r_last = pin(dut, p + "RLAST")
        self.width = len(self.r_data) // 8
        self.address = AddressChannel(dut, name, "AR", self.width, stall)
        self.bursts: deque[Burst] = deque()
        self.beats = 0
        self.reset()

    def reset(self) -> None:
        """Forget all bursts and lower the outputs."""
        self.bursts.clear()
        self.address.reset()
        self.offered = False
        self.r_valid.value = 0

    def step(self) -> None:
        """Sample this cycle's pins and drive the next cycle's."""
        self.address.step(self.bursts)
        taken = self.offered and bool(self.r_ready.value)
        if taken:
            self._take_beat()
        self.address.drive(len(self.bursts))
        if not self.offered:
            if self.bursts and not self.stall():
                self._offer_beat()
            elif taken:
                self.r_valid.value = 0

    def _take_beat(self) -> None:
        self.beats += 1
        self.offered = False
        burst = self.bursts[0]
        burst.address += self.width
        burst.beats -= 1
        if burst.beats == 0:
            self.bursts.popleft()

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
        self.w_valid, self.w_ready = pin(dut, p + "WVALID"), pin(dut, p + "WREADY")
        self.w_data, self.w_strb = pin(dut, p + "WDATA"), pin(dut, p + "WSTRB")
        self.w_last = pin(dut, p + "WLAST")
        self.b_valid, self.b_ready = pin(dut, p + "BVALID"), pin(dut, p + "BREADY")
        self.b_resp = pin(dut, p + "BRESP")
        self.width = len(self.w_data) // 8
        self.address = AddressChannel(dut, name, "AW", self.width, stall)
        self.bursts: deque[Burst] = deque()
        self.responses: deque[int] = deque()
        self.beats = 0
        self.reset()

    def reset(self) -> None:
        """Forget all bursts and lower the outputs."""
        self.bursts.clear()
        self.responses.clear()
        self.address.reset()
        self.data_ready = self.offered = False
        self.waiting: tuple[int, ...] | None = None
        for output in (self.w_ready, self.b_valid):
            output.value = 0

    def step(self) -> None:
        """Sample this cycle's pins and drive the next cycle's."""
        self.address.step(self.bursts)
        if self.w_valid.value:
            beat = tuple(int(each.value) for each in (self.w_data, self.w_strb, self.w_last))
            if self.waiting not in (None, beat):
                raise AxiError(f"{self.name}: W changed before WREADY")
            self.waiting = None if self.data_ready else beat
            if self.data_ready:
                self._take_beat(*beat)
        elif self.waiting is not None:
            raise AxiError(f"{self.name}: WVALID was withdrawn before WREADY")
        if self.offered and self.b_ready.value:
            self.offered = False
            self.b_valid.value = 0
        self._drive()

    def _take_beat(self, data: int, strobe: int, last: int) -> None:
        self.beats += 1
        burst = self.bursts[0]
        response = self.memory.write(burst.address, data, strobe, self.width)
        burst.response = max(burst.response, response)
        burst.address += self.width
        burst.beats -= 1
        if bool(last) != (burst.beats == 0):
            raise AxiError(f"{self.name}: WLAST on the wrong beat")
        if burst.beats == 0:
            self.responses.append(burst.response)
            self.bursts.popleft()

    def _drive(self) -> None:
        self.address.drive(len(self.bursts))
        data_ready = bool(self.bursts) and not self.stall()
        if data_ready != self.data_ready:
            self.data_ready = data_ready
            self.w_ready.value = data_ready
        if not self.offered and self.responses and not self.stall():
            self.b_resp.value = self.responses.popleft()
            self.b_valid.value = 1
            self.offered = True


class Registers:
    """A master on the engine's AXI4-Lite slave."""

    TIMEOUT_CYCLES = 1000
    LEADS = (0, 3, -3)  # cycles that a write's address comes before its data

    def __init__(self, dut: Any, clock: Any) -> None:
        self.clock = clock
        self.leads = cycle(self.LEADS)
        self.pins = {name: pin(dut, f"{SLAVE}_{name}") for name in LITE_PINS}
        for name in ("AWVALID", "WVALID", "BREADY", "ARVALID", "RREADY"):
            self.pins[name].value = 0

    async def _until(self, name: str) -> None:
        for _ in range(self.TIMEOUT_CYCLES):
            await RisingEdge(self.clock)
            if self.pins[name].value:
                return
        raise AxiError(f"{SLAVE}: {name} stayed low for {self.TIMEOUT_CYCLES} cycles")

    def _check(self, name: str) -> None:
        response = int(self.pins[name].value)
        if response != OKAY:
            raise AxiError(f"{SLAVE}: {name} must be {OKAY}, got {response}")

    async def write(
        self, offset: int, value: int, strobe: int = 0xF, *, lead: int | None = None
    ) -> None:
        """Write a 32-bit register.

        The address comes `lead` cycles before the data, after it if negative, with it if 0. A slave
        may wait for either; unless stated, calls take turns through all three orders.
        """
        pins = self.pins
        pins["AWADDR"].value, pins["WDATA"].value, pins["WSTRB"].value = offset, value, strobe
        lead = next(self.leads) if lead is None else lead
        starts = {"AW": max(0, -lead), "W": max(0, lead)}
        await self._send(starts)
        pins["BREADY"].value = 1
        await self._until("BVALID")
        self._check("BRESP")
        pins["BREADY"].value = 0

    async def _send(self, starts: dict[str, int]) -> None:
        """Hold VALID of each channel from its cycle on until it is taken."""
        waiting = dict(starts)
        for number in range(self.TIMEOUT_CYCLES):
            for channel, start in waiting.items():
                if start == number:
                    self.pins[f"{channel}VALID"].value = 1
            await RisingEdge(self.clock)
            for channel, start in list(waiting.items()):
                if start <= number and self.pins[f"{channel}READY"].value:
                    self.pins[f"{channel}VALID"].value = 0
                    del waiting[channel]
            if not waiting:
                return
        name = f"{next(iter(waiting))}READY"
        raise AxiError(f"{SLAVE}: {name} stayed low for {self.TIMEOUT_CYCLES} cycles")

    async def read(self, offset: int) -> int:
        """Read a 32-bit register."""
        pins = self.pins
        pins["ARADDR"].value = offset
        pins["ARVALID"].value = 1
        await self._until("ARREADY")
        pins["ARVALID"].value = 0
        pins["RREADY"].value = 1
        await self._until("RVALID")
        self._check("RRESP")
        value = int(pins["RDATA"].value)
        pins["RREADY"].value = 0
        return value
