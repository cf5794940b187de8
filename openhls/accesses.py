# SPDX-License-Identifier: Apache-2.0
"""What a function does with its channels: ports, their widths and directions, refusals.

Start, done and calls of processes become accesses like all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from openhls import llvm
from openhls.channels import (
    ACCESSES,
    DONE,
    INDEPENDENT,
    LEAF,
    MARKERS,
    READ,
    RECV,
    SEND,
    START,
    Object,
    Pointers,
    Port,
    Role,
    address_bits,
)
from openhls.control_flow import port_of
from openhls.errors import HlsError
from openhls.operations import IGNORED_CALLS

POINTER_USE = (
    "an address that is not known at compile time; keep arrays in hls::ram, or index them by "
    "constants of unrolled loops"
)


@dataclass(frozen=True)
class ProcessOptions:
    """How a function is started: on a token of `start`, with a token on `done` at its end.

    `calls` maps the functions that are processes of their own to the port whose token ends the
    wait for them, or to "" when there is nothing to wait for.
    """

    start: bool = False
    done: bool = False
    calls: Mapping[str, str] = field(default_factory=dict)


def _token(opcode: str, port: str) -> llvm.Instruction:
    pointer = llvm.Value("ptr", port)
    zero, one = llvm.Value("i32", "0"), llvm.Value("i32", "1")
    if opcode == RECV:
        return llvm.Instruction("call", "i64", "", (pointer, zero, one), RECV)
    leaf = (llvm.Value("i64", "1"), llvm.Value("i64", "1"))
    return llvm.Instruction("call", "void", "", (pointer, zero, one, *leaf), SEND)


def lower_tokens(function: llvm.Function, options: ProcessOptions) -> llvm.Function:
    """Write start, done and calls of processes as accesses of channels; drop what has no effect."""
    blocks = []
    for position, block in enumerate(function.blocks):
        body: list[llvm.Instruction] = []
        if position == 0 and options.start:
            body.append(_token(RECV, START))
        for instruction in block.instructions:
            if instruction.opcode == "call":
                if instruction.detail in options.calls:
                    waits = options.calls[instruction.detail]
                    body += [_token(RECV, f"@{waits}")] if waits else []
                    continue
                if instruction.detail in MARKERS or IGNORED_CALLS.match(instruction.detail):
                    continue
            if instruction.opcode == "ret" and options.done:
                body.append(_token(SEND, DONE))
            body.append(instruction)
        blocks.append(llvm.Block(block.name, tuple(body)))
    return replace(function, blocks=tuple(blocks))


def _is_known(callee: str) -> bool:
    return callee in (*ACCESSES, LEAF) or callee.startswith("llvm.")


class Accesses:
    """The ports of a function, learned from its accesses; refuses what cannot be a channel.

    Members:
        widths: bits of a token of each port.
        depths: words of the memory behind a port.
        handles: the port whose token an instruction returns.
    """

    def __init__(self, module: llvm.Module, function: llvm.Function, pointers: Pointers) -> None:
        self.module = module
        self.function = function
        self.pointers = pointers
        self.widths: dict[Port, int] = {}
        self.depths: dict[Port, int] = {}
        self.handles: dict[str, Port] = {}
        self._directions: dict[Port, bool] = {}
        self._learn_all()

    def written(self) -> set[Object]:
        """Return the memories that are written."""
        return {port.object for port in self.widths if port.role is Role.WRITE_REQUEST}

    def read(self) -> set[Object]:
        """Return the memories that are read."""
        return {port.object for port in self.widths if port.role is Role.READ_REQUEST}

    def independent(self, function: llvm.Function) -> set[Object]:
        """Return the memories of which a pragma says that iterations do not meet."""
        marks = [x for x in function.instructions() if x.detail == INDEPENDENT]
        found = (self.pointers.find(x.operands[0].name) for x in marks)
        return {memory for memory in found if memory is not None}

    def fail(self, instruction: llvm.Instruction, message: str) -> HlsError:
        """Return the error for an instruction, with its file and line."""
        where = self.module.location(instruction.debug)
        name = self.module.short_name(self.function)
        return HlsError(f"{where or self.function.name}: {message} (in '{name}')")

    def _learn_all(self) -> None:
        for instruction in self.function.instructions():
            if instruction.opcode == "call" and not _is_known(instruction.detail):
                raise self.fail(
                    instruction,
                    f"a call of '{instruction.detail}' remains; recursion, the heap, virtual "
                    "functions and library functions are not supported, use loops, arrays and "
                    "functions defined in this file",
                )
        for instruction in self.function.instructions():
            if instruction.opcode == "call" and instruction.detail in ACCESSES:
                self._learn(instruction)
            elif instruction.opcode in ("load", "store"):
                self._learn_scalar(instruction)

    def _learn(self, access: llvm.Instruction) -> None:
        port = port_of(access, self.pointers)
        if port is None:
            raise self.fail(
                access,
                "the channel of this access depends on a condition; write the access once for "
                "every channel, under its condition",
            )
        numbers = [llvm.literal(operand.name) for operand in access.operands]
        if access.detail == RECV:
            width = numbers[2] or 0
            self.handles[access.result] = port
        elif access.detail == SEND:
            width = sum(int(bits or 0) for bits in numbers[4::2])
        elif access.detail == READ:
            depth, bits = int(numbers[1] or 0), int(numbers[2] or 0)
            width = address_bits(depth)
            response = Port(port.object, Role.RESPONSE)
            self.widths[response] = bits
            self.handles[access.result] = response
            self.depths[port] = self.depths[response] = depth
        else:
            depth = int(numbers[1] or 0)
            width = sum(int(bits or 0) for bits in numbers[5::2]) + address_bits(depth)
            self.depths[port] = depth
        if self.widths.setdefault(port, width) != width:
            raise self.fail(access, "a channel must carry one type of token")
        self._check_direction(access, port)

    def _check_direction(self, access: llvm.Instruction, port: Port) -> None:
        if port.role is not Role.STREAM or access.detail not in (RECV, SEND):
            return
        is_output = access.detail == SEND
        if self._directions.setdefault(port, is_output) != is_output:
            raise self.fail(
                access,
                f"stream '{self.pointers.name(port)}' is both read and written; a process may "
                "do one of them",
            )

    def _learn_scalar(self, access: llvm.Instruction) -> None:
        """Learn a scalar that the top function takes or gives through a pointer."""
        pointer, writes = access.operands[-1], access.opcode == "store"
        found = self.pointers.find(pointer.name)
        width = llvm.integer_width(access.operands[0].type if writes else access.type)
        parameter = any(pointer.name == x.name for x in self.function.parameters)
        if found is None or width is None or not parameter:
            raise self.fail(access, f"a {'write' if writes else 'read'} through {POINTER_USE}")
        port = Port(found, Role.STREAM)
        self.widths[port] = width
        if self._directions.setdefault(port, writes) != writes:
            raise self.fail(
                access, f"scalar '{self.pointers.name(port)}' is both read and written; do one"
            )
