# SPDX-License-Identifier: Apache-2.0
"""The engine's pins: arguments of the top function, memory ports and registers.

This is the only definition. The top function and its pragmas, `abi.hpp` of both C++ hosts, the
benches, `memory.json` and docs/program.md follow from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntFlag

from winnow.engine import EngineConfig

TOP = "winnow_engine"
CONTROL_BUNDLE = "control"  # the AXI4-Lite slave of all registers
REGISTER_BYTES = 4
ADDRESS_BITS = 64
WORD_BITS = 64


class Direction(Enum):
    """The AXI4 channels of a port: AR and R, or AW, W and B."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True)
class Port:
    """An argument that is an AXI4 master; its register holds the master's base address.

    Members:
        bundle: the name of the master; `gmem<i>` for the port with bit i in register `axi_error`.
        token: the C++ type of a beat: `Word` of 64 bits or `Beat` of `engine.axi_bits` bits.
        outstanding: how many bursts may await their answer.
        burst: the longest burst, in beats.
        process: what uses the port during a layer; empty for the program, which the top reads.
        memory: what the address points to; two ports may share a memory.
    """

    name: str
    bundle: str
    direction: Direction
    token: str
    outstanding: int
    burst: int
    process: str
    memory: str
    doc: str

    @property
    def register_bits(self) -> int:
        return ADDRESS_BITS

    def bits(self, engine: EngineConfig) -> int:
        """Return the width of a beat."""
        return engine.axi_bits if self.token == "Beat" else WORD_BITS


@dataclass(frozen=True)
class Output:
    """An argument that the engine writes once, at the end of a run; read only for the host."""

    name: str
    register_bits: int
    doc: str


@dataclass(frozen=True)
class Input:
    """An argument that the engine reads through a pointer: a number of the host for the run."""

    name: str
    register_bits: int
    doc: str


# Words or beats of a memory that the cosimulation of Vitis HLS copies for every run: `depth` of the
# interface pragmas. Larger networks cannot be cosimulated.
MEMORY_DEPTHS = {"program": 1 << 13, "weights": 1 << 16, "features": 1 << 17}


# In the order of the top function's arguments, and of their registers. A new port goes behind
# `status`, so that no register moves.
ARGUMENTS: tuple[Port | Output | Input, ...] = (
    Port(
        name="program",
        bundle="gmem0",
        direction=Direction.READ,
        token="Word",
        outstanding=4,
        burst=16,
        process="",
        memory="program",
        doc="address of the program",
    ),
    Port(
        name="weights",
        bundle="gmem1",
        direction=Direction.READ,
        token="Beat",
        outstanding=16,
        burst=256,
        process="read_weights",
        memory="weights",
        doc="address of the packed weights",
    ),
    Port(
        name="features",
        bundle="gmem2",
        direction=Direction.READ,
        token="Word",
        outstanding=16,
        burst=64,
        process="read_features",
        memory="features",
        doc="address of the feature maps, for reading",
    ),
    Port(
        name="results",
        bundle="gmem3",
        direction=Direction.WRITE,
        token="Word",
        outstanding=16,
        burst=64,
        process="write_bursts",
        memory="features",
        doc="address of the feature maps, for writing",
    ),
    Output("status", 32, "how the run ended, read only"),
    Port(
        name="shortcuts",
        bundle="gmem4",
        direction=Direction.READ,
        token="Word",
        outstanding=16,
        burst=64,
        process="read_shortcuts",
        memory="features",
        doc="address of the feature maps, for reading what is added",
    ),
    Input("program_words", 32, "words of the program that may be read"),
    Input("weight_beats", 32, "beats of the weights that may be read"),
    Input("feature_words", 32, "words of the feature maps that may be read and written"),
)
PORTS = tuple(argument for argument in ARGUMENTS if isinstance(argument, Port))
OUTPUTS = tuple(argument for argument in ARGUMENTS if isinstance(argument, Output))
INPUTS = tuple(argument for argument in ARGUMENTS if isinstance(argument, Input))


@dataclass(frozen=True)
class Register:
    """A place in the AXI4-Lite slave; `offset` is in bytes."""

    name: str
    offset: int
    bits: int
    doc: str


class Control(IntFlag):
    """Bits of the register `control`."""

    START = 1 << 0
    DONE = 1 << 1
    IDLE = 1 << 2
    READY = 1 << 3
    AUTO_RESTART = 1 << 7
    ABORT = 1 << 16  # openhls only


# The layout of Vitis HLS: these first, then the arguments.
CONTROL_REGISTERS = (
    Register("control", 0x00, 32, "start and state of a run"),
    Register("global_interrupt", 0x04, 32, "bit 0 lets the engine raise its interrupt"),
    Register("interrupt_enable", 0x08, 32, "bit 0: at the end of a run"),
    Register("interrupt_status", 0x0C, 32, "bit 0 is set at the end of a run; toggle on write"),
)


def _next_offset(last: Register) -> int:
    """Return the offset behind an argument and its reserved word."""
    words = -(-last.bits // (8 * REGISTER_BYTES))
    return last.offset + (words + 1) * REGISTER_BYTES


def _argument_registers() -> Iterator[Register]:
    offset = CONTROL_REGISTERS[-1].offset + REGISTER_BYTES
    for argument in ARGUMENTS:
        register = Register(argument.name, offset, argument.register_bits, argument.doc)
        yield register
        offset = _next_offset(register)


REGISTERS = tuple(_argument_registers())

# Added by openhls behind the arguments; RTL exported by Vitis HLS has no such registers.
_ADDED = (
    ("axi_error", 32, "bit i: master gmem<i> saw an error response, read only"),
    (
        "ended_by",
        32,
        "what stopped the run: 1 watchdog, 2 host; plus 4: memory owes answers; read only",
    ),
    ("engine_id", 64, "signature of the engine, read only"),
    ("cycles", 32, "of the last run, read only"),
    ("watchdog", 32, "cycles without a beat on any master that stop a run; 0: none do"),
)


def _added_registers() -> Iterator[Register]:
    offset = _next_offset(REGISTERS[-1])
    for name, bits, doc in _ADDED:
        yield Register(name, offset, bits, doc)
        offset += bits // 8


ADDED_REGISTERS = tuple(_added_registers())
ALL_REGISTERS = (*CONTROL_REGISTERS, *REGISTERS, *ADDED_REGISTERS)
OFFSETS = {register.name: register.offset for register in ALL_REGISTERS}
