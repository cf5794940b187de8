# SPDX-License-Identifier: Apache-2.0
"""The cocotb bench of the engine: everything through AXI4-Lite and AXI4 memory, nothing else.

Loaded by the simulator. `+bench=FILE` names a JSON file with

    data      folder of program.bin, weights.bin, memory.json
    golden    .npz with `images` [n, c, h, w] and `layer.<name>` [n, c, h, w]
    images    how many images to run
    stall     percent of cycles in which a channel is stalled
    seed      of the stalls
    waits     openhls' wait_for_graph.json of this RTL; null for RTL that has neither its wires nor
              its register of AXI errors
    watchdog  cycles without a beat on any AXI port after which a run has hung
    results   file for the cycles per image, as JSON

The RTL may come from openhls or be exported by Vitis HLS: only documented pins are used.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from codegen.abi import (
    HEADER,
    HEADER_WORDS,
    LAYER_WORDS,
    MAGIC,
    VERSION,
    Status,
    checksum,
    decode_status,
)
from codegen.descriptor import layer_fields
from codegen.emit import input_region
from codegen.ir import TensorType
from codegen.layout import unpack_features
from codegen.ports import OFFSETS, PORTS, Control, Direction, Port
from codegen.split import join_maps, layer_of
from sim.axi import OKAY, SLVERR, AddressRange, Memory, ReadSlave, Registers, Stall, WriteSlave
from sim.contract import axi_error_ports
from sim.probe import explain_hang
from winnow.artefact import write_text
from winnow.compare import require_equal
from winnow.engine import EngineConfig
from winnow.errors import MismatchError
from winnow.fixed_point import IntArray

# Where the bench puts each memory, and an address outside of all.
BASES = {"program": 0x1000_0000, "weights": 0x2000_0000, "features": 0x4000_0000}
NO_MEMORY = 0x7000_0000
RESET_CYCLES = 8
IMAGES_OF_A_START = 3
HEADER_FIELDS = {field.name: field for field in HEADER}
FIELDS = {field.name: field for field in layer_fields(EngineConfig()) if not field.is_array}


class Setup:
    """The job of the run, from the JSON file."""

    def __init__(self) -> None:
        job = json.loads(Path(str(cocotb.plusargs["bench"])).read_text())
        folder = Path(job["data"])
        self.memory_map = json.loads((folder / "memory.json").read_text())
        self.program = (folder / "program.bin").read_bytes()
        self.weights = (folder / "weights.bin").read_bytes()
        with np.load(job["golden"], allow_pickle=False) as golden:
            self.arrays = {name: golden[name] for name in golden.files}
        self.images: int = job["images"]
        self.stall: int = job["stall"]
        self.seed: int = job["seed"]
        self.waits = Path(job["waits"]) if job["waits"] else None
        self.watchdog: int = job["watchdog"]
        self.results = Path(job["results"])

    @staticmethod
    def tensor(region: dict[str, Any]) -> TensorType:
        """Return the type of a region of memory.json."""
        channels, height, width = region["shape"]
        numbers = (region["bits"], region["signed"], region["exponent"])
        return TensorType(channels, height, width, *numbers)

    def image_bytes(self, index: int) -> bytes:
        """Return an image as the engine reads it."""
        region = input_region(self.memory_map["input"])
        image = self.arrays["images"][index : index + 1].astype(np.int64)
        return region.pack(image).tobytes()

    def expected(self, index: int) -> dict[str, IntArray]:
        """Return every layer's golden map of an image, [1, c, h, w]."""
        names = dict.fromkeys(map(layer_of, self.memory_map["layers"]))
        return {n: self.arrays[f"layer.{n}"][index : index + 1].astype(np.int64) for n in names}


class Bench:
    """Clock, reset, registers and the memory behind the four masters."""

    def __init__(self, dut: Any, setup: Setup, stall: int) -> None:
        self.dut, self.setup = dut, setup
        empty = bytes(setup.memory_map["feature_words"] * 8)
        content = {"program": setup.program, "weights": setup.weights, "features": empty}
        self.regions = {name: AddressRange(BASES[name], bytearray(content[name])) for name in BASES}
        self.program, self.features = self.regions["program"], self.regions["features"]
        self.memory = Memory(list(self.regions.values()))
        stalls = (Stall(stall, setup.seed + i) for i in range(len(PORTS)))
        self.slaves = list(map(self._slave, PORTS, stalls))
        self.registers = Registers(dut, dut.ap_clk)
        self.clock = Clock(dut.ap_clk, 2, "step")
        self.cycles = 0
        self.last_beat = 0

    def _slave(self, port: Port, stall: Stall) -> ReadSlave | WriteSlave:
        kind = ReadSlave if port.direction is Direction.READ else WriteSlave
        return kind(self.dut, port.bundle, self.memory, stall)

    async def start(self) -> None:
        """Start the clock and the memory, reset, write the pointers."""
        self.clock.start()
        cocotb.start_soon(self._serve())
        await self.reset()

    async def reset(self) -> None:
        """Reset the engine and write the pointers."""
        self.dut.ap_rst_n.value = 0
        for _ in range(RESET_CYCLES):
            await RisingEdge(self.dut.ap_clk)
        for slave in self.slaves:
            slave.reset()
        self.dut.ap_rst_n.value = 1
        for _ in range(RESET_CYCLES):
            await RisingEdge(self.dut.ap_clk)
        for port in PORTS:
            offset, address = OFFSETS[port.name], BASES[port.memory]
            await self.registers.write(offset, address & 0xFFFF_FFFF)
            await self.registers.write(offset + 4, address >> 32)
        await self.registers.write(OFFSETS["program_words"], len(self.program.data) // 8)
        beats = len(self.regions["weights"].data) * 8 // PORTS[1].bits(EngineConfig())
        await self.registers.write(OFFSETS["weight_beats"], beats)
        await self.registers.write(OFFSETS["feature_words"], len(self.features.data) // 8)
        await self.registers.write(OFFSETS["global_interrupt"], 1)
        await self.registers.write(OFFSETS["interrupt_enable"], 1)

    async def _serve(self) -> None:
        edge = RisingEdge(self.dut.ap_clk)
        before = 0
        while True:
            await edge
            self.cycles += 1
            if self.dut.ap_rst_n.value:
                for slave in self.slaves:
                    slave.step()
            beats = sum(slave.beats for slave in self.slaves)
            if beats != before:
                before, self.last_beat = beats, self.cycles

    def load_image(self, index: int) -> None:
        """Fill the feature memory with a pattern and put an image in its place."""
        words = len(self.features.data) // 8
        self.features.data[:] = bytes((0x5A ^ (i * 37)) & 0xFF for i in range(8)) * words
        self.put_image(index)

    def put_image(self, index: int, place: int = 0) -> None:
        """Put an image where that number `place` of a start lies."""
        image = self.setup.image_bytes(index)
        words = self.setup.memory_map["input"]["base"]
        first = (place * self.setup.memory_map["feature_words"] + words) * 8
        self.features.data[first : first + len(image)] = image

    async def run(self) -> int:
        """Start the engine and wait for its interrupt; return the cycles in between."""
        await self.registers.write(OFFSETS["control"], Control.START)
        return await self.wait()

    async def wait(self) -> int:
        """Wait for the interrupt; AssertionError when no beat moves for long."""
        started = self.last_beat = self.cycles
        while not self.dut.interrupt.value:
            await RisingEdge(self.dut.ap_clk)
            if self.cycles - self.last_beat >= self.setup.watchdog:
                raise AssertionError(await self.hang())
        cycles = self.cycles - started
        assert await self.registers.read(OFFSETS["control"]) & Control.DONE, (
            "interrupt without the done bit"
        )
        await self.registers.write(OFFSETS["interrupt_status"], 1)
        return cycles

    async def hang(self) -> str:
        """Say that nothing moves, and who waits for whom if the RTL can tell."""
        text = f"the engine hangs (no AXI beat for {self.setup.watchdog} cycles)"
        if self.setup.waits is None:
            return text
        return f"{text}: {await explain_hang(self.dut, self.clock, self.setup.waits)}"

    async def until_idle(self) -> None:
        """Wait for the end of a run that may be going on; acknowledge its interrupt."""
        started = self.cycles
        while not await self.registers.read(OFFSETS["control"]) & Control.IDLE:
            assert self.cycles - started < self.setup.watchdog, "the engine does not become idle"
        if await self.registers.read(OFFSETS["interrupt_status"]):
            await self.registers.write(OFFSETS["interrupt_status"], 1)

    async def status(self) -> tuple[Status, int]:
        """Return (status code, layers that ran)."""
        word = await self.registers.read(OFFSETS["status"])
        code, layers, _ = decode_status(word)
        return Status(code), layers

    async def axi_error(self) -> int:
        """Return a bit per master that saw an error response; RTL of Vitis ignores them: 0."""
        return 0 if self.setup.waits is None else await self.registers.read(OFFSETS["axi_error"])

    def check_layers(self, index: int, place: int = 0) -> None:
        """Compare every layer's map of image number `place` of a start with the golden one."""
        actual = {}
        slot = self.setup.memory_map["feature_words"] * 8
        content = bytes(self.features.data)[place * slot : (place + 1) * slot]
        memory = np.frombuffer(content, dtype=np.uint8)[None]
        for name, region in self.setup.memory_map["layers"].items():
            first = region["base"] * 8
            part = memory[:, first : first + region["words"] * 8]
            actual[name] = unpack_features(self.setup.tensor(region), part)
        actual = join_maps(actual)
        try:
            require_equal(self.setup.expected(index), actual)
        except MismatchError as error:  # it was shown one image and calls it 0
            text = str(error).replace("image 0,", f"image {index},", 1)
            raise MismatchError(text) from None

    async def check_image(self, index: int) -> int:
        """Run one image and compare every layer; return the cycles."""
        self.load_image(index)
        cycles = await self.run()
        errors = await self.axi_error()
        assert not errors, f"the engine saw an error response on {axi_error_ports(errors)}"
        assert await self.status() == (Status.OK, len(self.setup.memory_map["layers"]))
        self.check_layers(index)
        return cycles

    def first_layer(self, name: str, value: int) -> tuple[int, int]:
        """Return (word, its value) of the program with another field in the first descriptor."""
        field = FIELDS[name]
        return self._with(HEADER_WORDS + field.word, field.low, field.bits, value - field.bias)

    def header(self, name: str, value: int) -> tuple[int, int]:
        """Return (word, its value) of the program with another field in the header."""
        field = HEADER_FIELDS[name]
        return self._with(field.word, field.low, field.bits, value)

    def _with(self, word: int, low: int, bits: int, value: int) -> tuple[int, int]:
        before = int.from_bytes(self.program.data[8 * word : 8 * word + 8], "little")
        mask = (1 << bits) - 1
        return word, before & ~(mask << low) | (value & mask) << low

    def edit_program(self, word: int, value: int) -> None:
        """Replace a 64-bit word of the program and repair the checksum of its record."""
        words = [
            int.from_bytes(self.program.data[i : i + 8], "little")
            for i in range(0, len(self.program.data), 8)
        ]
        words[word] = value
        in_header = word < HEADER_WORDS
        first = 0 if in_header else word - (word - HEADER_WORDS) % LAYER_WORDS
        last = first + (HEADER_WORDS if in_header else LAYER_WORDS) - 1
        words[last] = checksum(words[first:last])
        self.program.data[:] = b"".join(w.to_bytes(8, "little") for w in words)


async def make_bench(dut: Any, stall: int | None = None) -> Bench:
    """Return a started bench."""
    setup = Setup()
    bench = Bench(dut, setup, setup.stall if stall is None else stall)
    await bench.start()
    return bench


@cocotb.test()
async def network_equals_the_model(dut: Any) -> None:
    """Every layer's map of every image equals the golden model."""
    bench = await make_bench(dut)
    started, first = time.monotonic(), bench.cycles
    cycles = [await bench.check_image(i) for i in range(bench.setup.images)]
    rate = (bench.cycles - first) / (time.monotonic() - started)
    numbers = {"cycles": cycles, "cycles_per_second": round(rate)}
    write_text(bench.setup.results, json.dumps(numbers) + "\n")


@cocotb.test()
async def one_start_runs_several_images(dut: Any) -> None:
    """Each in memory of its own, at a distance that the header has; then one again."""
    bench = await make_bench(dut)
    images = min(IMAGES_OF_A_START, len(bench.setup.arrays["images"]))
    bench.features.data *= images
    await bench.registers.write(OFFSETS["feature_words"], len(bench.features.data) // 8)
    bench.load_image(0)
    for place in range(images):
        bench.put_image(place, place)
    bench.edit_program(*bench.header("num_images", images))
    await bench.run()
    word = await bench.registers.read(OFFSETS["status"])
    assert decode_status(word) == (Status.OK, len(bench.setup.memory_map["layers"]), images)
    for place in range(images):
        bench.check_layers(place, place)
    bench.edit_program(*bench.header("num_images", 1))
    await bench.check_image(0)


@cocotb.test()
async def reset_in_mid_run_recovers(dut: Any) -> None:
    """A run that is cut off by reset leaves nothing behind that disturbs the next."""
    bench = await make_bench(dut)
    for delay in (50, 400, 1500):
        bench.load_image(0)
        await bench.registers.write(OFFSETS["control"], Control.START)
        for _ in range(delay):
            await RisingEdge(dut.ap_clk)
        await bench.reset()
        assert await bench.registers.read(OFFSETS["control"]) & Control.IDLE
    await bench.check_image(0)


@cocotb.test()
async def start_while_busy_is_harmless(dut: Any) -> None:
    """A second start during a run causes at most one more run of the same program."""
    bench = await make_bench(dut)
    bench.load_image(0)
    await bench.registers.write(OFFSETS["control"], Control.START)
    for _ in range(100):
        await RisingEdge(dut.ap_clk)
    assert not await bench.registers.read(OFFSETS["control"]) & Control.IDLE
    await bench.registers.write(OFFSETS["control"], Control.START)
    await bench.wait()
    bench.check_layers(0)
    await bench.until_idle()
    bench.check_layers(0)
    await bench.check_image(0)


@cocotb.test()
async def registers_take_address_and_data_in_any_order(dut: Any) -> None:
    """Together, or one of them up to 3 cycles before the other; each strobe writes its byte."""
    bench = await make_bench(dut)
    registers, offset, want = bench.registers, OFFSETS["weights"], 0
    for turn, lead in enumerate((0, 1, -1, 3, -3, 0)):
        value, byte = 0x01020304 * (turn + 1), turn % 4
        await registers.write(offset, value, 1 << byte, lead=lead)
        mask = 0xFF << 8 * byte
        want = (want if turn else BASES["weights"]) & ~mask | value & mask
        assert await registers.read(offset) == want, f"address {lead} cycles before data"
    await registers.write(offset, BASES["weights"], lead=-1)
    await bench.check_image(0)


@cocotb.test()
async def corrupt_program_ends_with_its_status(dut: Any) -> None:
    """Every damage of the program has its code, and the next good program runs."""
    bench = await make_bench(dut)
    good = bytes(bench.program.data)
    cases = (
        (*bench.header("magic", MAGIC ^ 1), Status.BAD_MAGIC),
        (*bench.header("version", VERSION ^ 1), Status.BAD_VERSION),
        (*bench.header("signature", 0), Status.WRONG_ENGINE),
        (*bench.header("num_layers", 0), Status.BAD_LAYER_COUNT),
        (*bench.header("num_images", 0), Status.BAD_IMAGE_COUNT),
        (*bench.first_layer("op", 0xFF), Status.BAD_OPCODE),
        (*bench.first_layer("keep", 0), Status.BAD_SIZE),
    )
    for word, value, status in cases:
        bench.program.data[:] = good
        bench.edit_program(word, value)
        bench.load_image(0)
        await bench.run()
        assert (await bench.status())[0] is status, f"word {word} = {value:#x}"
    bench.program.data[:] = good
    bench.program.data[100] ^= 4
    await bench.run()
    assert (await bench.status())[0] is Status.BAD_DESCRIPTOR
    bench.program.data[:] = good
    await bench.check_image(0)


@cocotb.test()
async def memory_errors_are_reported(dut: Any) -> None:
    """Error responses and addresses without memory end the run with the error register set."""
    bench = await make_bench(dut)

    async def run_with_error(masters: int) -> None:
        bench.load_image(0)
        await bench.run()
        if bench.setup.waits is not None:
            assert await bench.axi_error() == masters

    await bench.check_image(0)  # then every slave that the network uses has moved beats
    used = [slave.beats > 0 for slave in bench.slaves]
    for name in ("weights", "features"):
        masters = sum(1 << i for i, port in enumerate(PORTS) if port.memory == name and used[i])
        bench.regions[name].error = SLVERR
        await run_with_error(masters)
        bench.regions[name].error = OKAY
    weights = next(i for i, port in enumerate(PORTS) if port.name == "weights")
    await bench.registers.write(OFFSETS["weights"], NO_MEMORY)  # answers DECERR
    await run_with_error(1 << weights)
    await bench.registers.write(OFFSETS["weights"], BASES["weights"])
    await run_with_error(0)
    bench.check_layers(0)


async def start_and_wait(bench: Bench, cycles: int) -> None:
    """Start a run of the first image and let it run for some cycles."""
    bench.load_image(0)
    await bench.registers.write(OFFSETS["control"], Control.START)
    for _ in range(cycles):
        await RisingEdge(bench.dut.ap_clk)


async def require_stopped(bench: Bench, ended_by: int) -> None:
    """Wait for the end of a run that openhls' guard must have stopped."""
    await bench.wait()
    assert await bench.registers.read(OFFSETS["status"]) == 0xFFFF_FFFF
    assert (await bench.status())[0] is Status.HUNG
    assert await bench.registers.read(OFFSETS["ended_by"]) == ended_by
    assert await bench.registers.read(OFFSETS["cycles"]) > 0


@cocotb.test()
async def engine_is_identified(dut: Any) -> None:
    """Registers name the engine that the program is for, and count the cycles of a run."""
    bench = await make_bench(dut)
    if bench.setup.waits is None:  # RTL of Vitis has no such registers
        return
    halves = [await bench.registers.read(OFFSETS["engine_id"] + 4 * i) for i in range(2)]
    field = HEADER_FIELDS["signature"]
    first = 8 * field.word
    assert halves[0] | halves[1] << 32 == int.from_bytes(
        bench.program.data[first : first + 8], "little"
    )
    cycles = await bench.check_image(0)
    counted = await bench.registers.read(OFFSETS["cycles"])
    assert cycles - 16 < counted <= cycles + 16
    assert await bench.registers.read(OFFSETS["ended_by"]) == 0


@cocotb.test()
async def abort_ends_a_run(dut: Any) -> None:
    """At any time, without breaking a rule of AXI, and the next start needs no reset."""
    bench = await make_bench(dut)
    if bench.setup.waits is None:
        return
    for cycles in (0, 20, 60, 400, 900, 1500):
        await start_and_wait(bench, cycles)
        assert not await bench.registers.read(OFFSETS["control"]) & Control.IDLE
        await bench.registers.write(OFFSETS["control"], Control.ABORT)
        await require_stopped(bench, 2)
        assert all(not slave.bursts for slave in bench.slaves)
        await bench.check_image(0)


@cocotb.test()
async def run_without_end_is_stopped(dut: Any) -> None:
    """A memory that falls silent ends the run; once it has answered, the next one is right."""
    bench = await make_bench(dut)
    if bench.setup.waits is None:
        return
    await bench.registers.write(OFFSETS["watchdog"], 4000)
    await bench.check_image(0)  # then every slave that the network uses has moved beats
    for slave in (each for each in bench.slaves if each.beats):
        await start_and_wait(bench, 200)
        slave.stall.silent = True
        await require_stopped(bench, 1 | 4)
        await start_and_wait(bench, 0)
        await require_stopped(bench, 1 | 4)
        slave.stall.silent = False
        await bench.check_image(0)
