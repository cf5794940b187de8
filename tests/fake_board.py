# SPDX-License-Identifier: Apache-2.0
"""A board without hardware or simulation: the interpreter behind the driver's backend protocol.

It keeps two copies of every buffer, so a missing sync shows, and can be told to fail.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codegen import abi, ports
from codegen.fuse import fuse, written_maps
from codegen.interpret import interpret
from codegen.ir import Graph
from codegen.layout import pack_features, unpack_features
from codegen.ports import OFFSETS, Control
from codegen.program import program_words
from codegen.schedule import LayerPlan, Schedule
from deploy.driver.winnow_pynq.errors import MemoryFullError

NOISE = 0xA5
LAYER_CYCLES = 100


class Buffer(np.ndarray):
    """Memory as the processor sees it; `there` is what the engine sees."""

    address: int
    there: bytearray


@dataclass
class FakeBoard:
    """An engine that a network was scheduled for.

    Members that make it fail: `hangs` never ends a run, `axi_error` and `status` are what the
    registers hold after one, `room` is how many bytes can be allocated, `mhz` its clock, `looks`
    how often the register `control` is read before it tells the end of a run.
    """

    graph: Graph
    plan: Schedule
    name: str = "fake"
    has_added_registers: bool = True
    has_interrupts: bool = False
    hangs: bool = False
    axi_error: int = 0
    status: int | None = None
    room: int = 1 << 24
    mhz: float | None = None
    engine_id: int | None = None
    looks: int = 0
    registers: dict[int, int] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    writes: list[tuple[int, int]] = field(default_factory=list)
    control: int = int(Control.IDLE)

    def clock_mhz(self) -> float | None:
        return self.mhz

    def read32(self, offset: int) -> int:
        assert type(offset) is int
        if offset == OFFSETS["control"]:
            if self.control & Control.DONE and self.looks:
                self.looks -= 1
                return 0
            found, self.control = self.control, self.control & ~int(Control.DONE)
            return found
        own = abi.engine_signature(self.plan.engine) if self.engine_id is None else self.engine_id
        if offset == OFFSETS["engine_id"]:
            return own & 0xFFFFFFFF
        if offset == OFFSETS["engine_id"] + 4:
            return own >> 32
        return self.registers.get(offset, 0)

    def write32(self, offset: int, value: int) -> None:
        assert type(offset) is int
        assert type(value) is int
        assert 0 <= value < 1 << 32
        self.writes.append((offset, value))
        if offset == OFFSETS["interrupt_status"]:
            self.registers[offset] = self.registers.get(offset, 0) ^ value
        elif offset != OFFSETS["control"]:
            self.registers[offset] = value
        elif value & Control.ABORT:
            self.control = int(Control.IDLE | Control.DONE)
        elif value & Control.START:
            self.control = 0 if self.hangs else int(Control.DONE | Control.IDLE)
            assert not self.interrupt, "the next one is no edge"
            if not self.hangs:
                self._finish(self._run())

    @property
    def interrupt(self) -> bool:
        """Return the pin."""
        names = ("global_interrupt", "interrupt_enable", "interrupt_status")
        return all(self.registers.get(OFFSETS[name], 0) & 1 for name in names)

    def pause(self, seconds: float) -> None:
        if not self.interrupt:
            time.sleep(seconds)

    def allocate(self, num_bytes: int) -> Any:
        if num_bytes > self.room:
            raise MemoryFullError(f"no {num_bytes} bytes of contiguous memory")
        self.room -= num_bytes
        buffer = np.full(num_bytes, NOISE, np.uint8).view(Buffer)
        buffer.there = bytearray([NOISE ^ 0xFF]) * num_bytes
        buffer.address = 0x1_0000_0000 + 0x10000 * len(self.buffers)
        self.buffers.append(buffer)
        return buffer

    def free(self, memory: Any) -> None:
        self.room += memory.size
        (index,) = (i for i, buffer in enumerate(self.buffers) if buffer is memory)
        self.buffers.pop(index)

    def address(self, memory: Any) -> int:
        return int(memory.address)

    def to_device(self, memory: Any) -> None:
        assert any(memory is buffer for buffer in self.buffers), "a part of a buffer was synced"
        memory.there[:] = memory.tobytes()

    def from_device(self, memory: Any) -> None:
        assert any(memory is buffer for buffer in self.buffers), "a part of a buffer was synced"
        memory[:] = np.frombuffer(memory.there, np.uint8)

    def _at(self, register: str) -> bytearray:
        low, high = (self.registers[OFFSETS[register] + i] for i in (0, 4))
        (found,) = (b.there for b in self.buffers if b.address == low | high << 32)
        return found

    def _finish(self, status: int) -> None:
        self.registers[OFFSETS["status"]] = status if self.status is None else self.status
        self.registers[OFFSETS["axi_error"]] = self.axi_error
        if self.registers.get(OFFSETS["interrupt_enable"], 0) & 1:
            self.registers[OFFSETS["interrupt_status"]] = 1

    def _run(self) -> int:
        """Run the layers that the program counts; return the register `status`."""
        program, weights, features = map(self._at, ("program", "weights", "features"))
        assert self._at("results") is features
        assert self._at("shortcuts") is features
        limits = {name: self.registers[OFFSETS[name]] for name in ports_of_limits()}
        assert limits["feature_words"] * 8 == len(features)
        assert limits["program_words"] * 8 == len(program)
        assert limits["weight_beats"] * self.plan.engine.axi_bits // 8 == len(weights)
        words = np.frombuffer(bytes(program), "<u8")[: abi.HEADER_WORDS]
        if zlib.crc32(words[:-1].tobytes()) != words[-1]:
            return int(abi.Status.BAD_HEADER)
        count, images, slot = int(words[0]) >> 48, int(words[6]) & 0xFF, (int(words[6]) >> 32) * 8
        assert images * slot <= len(features)
        layers = self._layers(bytes(program)[8 * abi.HEADER_WORDS :], count)
        for number, layer in enumerate(layers):
            beat = self.plan.engine.axi_bits // 8
            start = layer.weight_base * beat
            if weights[start : start + layer.packed.size] != layer.packed.tobytes():
                return int(abi.Status.BAD_WEIGHTS) | number << abi.STATUS_CODE_BITS
        for image in range(images):
            self._run_image(memoryview(features)[image * slot :], layers)
        self.registers[OFFSETS["cycles"]] = LAYER_CYCLES * count * images
        return count << abi.STATUS_CODE_BITS | images << 24

    def _layers(self, descriptors: bytes, count: int) -> tuple[LayerPlan, ...]:
        """Return the layers of a program, which are some of the network's in a row."""
        every, size = (
            program_words(self.plan).tobytes()[8 * abi.HEADER_WORDS :],
            8 * abi.LAYER_WORDS,
        )
        first = every.index(descriptors[:size]) // size
        found = self.plan.layers[first : first + count]
        assert descriptors[: count * size] == every[first * size :][: count * size]
        assert len(found) == count
        return found

    def _run_image(self, features: memoryview, layers: tuple[LayerPlan, ...]) -> None:
        """Read an image and write the maps of some layers."""
        source = self.plan.input
        at = slice(source.base * 8, (source.base + source.words) * 8)
        image = np.frombuffer(bytes(features[at]), np.uint8)[None]
        results = interpret(self.graph, unpack_features(source.tensor, image))
        maps = written_maps(fuse(self.graph), results)
        for layer in layers:
            result = layer.result
            packed = pack_region(result.tensor, maps[layer.name])
            features[result.base * 8 : (result.base + result.words) * 8] = packed


def ports_of_limits() -> tuple[str, ...]:
    """Return the registers that say how much the engine may access."""
    return tuple(argument.name for argument in ports.INPUTS)


def pack_region(tensor: Any, maps: Any) -> bytes:
    """Return a map as the engine writes it; a raw one in four byte planes."""
    if not tensor.is_raw:
        return pack_features(tensor, maps).tobytes()
    groups = -(-tensor.channels // 8)
    values = np.zeros(groups * 8, "<i4")
    values[: tensor.channels] = maps[0, :, 0, 0]
    return values.view(np.uint8).reshape(groups, 8, 4).transpose(0, 2, 1).tobytes()
