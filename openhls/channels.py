# SPDX-License-Identifier: Apache-2.0
"""Channels: what the intrinsics of `include/openhls_channel.h` say, and the ports they become.

A channel object is known by the pointer it is reached through: an argument or a local object of
the function, plus a constant offset, which is the element's index because objects have size 1.

    call void @__openhls_send(ptr %steps.3, i32 0, ...)     with %steps.3 = gep i8, ptr %steps, 3
 -> Port(Object("%steps", 3), Role.STREAM), name "steps_3"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from openhls import llvm


class Role(Enum):
    """What a port is for; the value is its suffix."""

    STREAM = ""
    ACQUIRE = "_acquire"
    RELEASE = "_release"
    READ_ADDRESS = "_ar"
    READ_DATA = "_r"
    WRITE_ADDRESS = "_aw"
    WRITE_DATA = "_w"
    WRITE_RESPONSE = "_b"
    READ_REQUEST = "_rd_req"
    RESPONSE = "_rd_resp"
    WRITE_REQUEST = "_wr_req"
    CREDIT = "_credit"


# In the order of `openhls_role` in include/openhls_channel.h.
ROLES = tuple(Role)[:8]
START, DONE = "@start", "@done"

RECV, SEND = "__openhls_recv", "__openhls_send"
LEAF, READ, WRITE = "__openhls_leaf", "__openhls_read", "__openhls_write"
ANSWER = "__openhls_answer"  # of a read that only asks, see ControlFlow.split_reads
ACCESSES = (RECV, SEND, READ, WRITE, ANSWER)
INDEPENDENT = "__openhls_independent"
MARKERS = ("__openhls_dataflow", "__openhls_depth", INDEPENDENT)


@dataclass(frozen=True, slots=True, order=True)
class Object:
    """A channel object: element `element` of what the pointer `base` points to."""

    base: str
    element: int = 0


@dataclass(frozen=True, slots=True)
class Port:
    """One ready/valid port of an object."""

    object: Object
    role: Role


@dataclass(frozen=True, slots=True)
class Channel:
    """A port of the finished process: its name, width and direction.

    `base` and `element` say which channel object of the function it belongs to; `depth` is the
    number of words of a memory.
    """

    name: str
    width: int
    is_output: bool
    role: Role
    base: str
    element: int
    depth: int = 0


_ARRAY = re.compile(r"\[(\d+) x ")


def address_bits(depth: int) -> int:
    """Return the width of an index below `depth`."""
    return max(1, (depth - 1).bit_length())


def source_name(pointer: str) -> str:
    """Return an identifier for an LLVM pointer: "%memory.coerce" -> "memory"."""
    name = re.sub(r"(\.(coerce|addr|i\d*))+$", "", pointer.lstrip("%@").strip('"'))
    return re.sub(r"\W", "_", name)


class Pointers:
    """Resolves the pointers of a function to objects, and names their ports."""

    def __init__(self, function: llvm.Function) -> None:
        self._objects: dict[str, Object] = {}
        self._arrays: set[str] = set()
        self._names: dict[str, str] = {}
        self.allocas: dict[str, str] = {}
        for parameter in function.parameters:
            if parameter.type == "ptr":
                self._add(parameter.name)
        for instruction in function.instructions():
            if instruction.opcode == "alloca":
                self.allocas[instruction.result] = instruction.detail
                self._add(instruction.result)
            elif instruction.opcode == "getelementptr":
                self._element(instruction)

    def _add(self, base: str) -> None:
        self._objects[base] = Object(base)
        name, taken = source_name(base), set(self._names.values())
        number = 1
        while name in taken:
            number += 1
            name = f"{source_name(base)}_{number}"
        self._names[base] = name

    def _element(self, gep: llvm.Instruction) -> None:
        base = self._objects.get(gep.operands[0].name)
        offset = llvm.literal(gep.operands[-1].name)
        if base is None or offset is None or len(gep.operands) > 3:
            return
        self._objects[gep.result] = Object(base.base, base.element + offset)
        if offset:
            self._arrays.add(base.base)

    def find(self, pointer: str) -> Object | None:
        """Return the object behind a pointer, None when it is not known at compile time."""
        return Object(pointer) if pointer.startswith("@") else self._objects.get(pointer)

    def base_name(self, base: str) -> str:
        """Return the identifier of an argument or local object."""
        return self._names.get(base) or source_name(base)

    def arrays(self) -> dict[str, int]:
        """Return the local channel objects by name, with their number of elements."""
        return {
            self._names[base]: int(count.group(1)) if (count := _ARRAY.match(type_)) else 1
            for base, type_ in self.allocas.items()
        }

    def name(self, port: Port) -> str:
        base = port.object.base
        name = self.base_name(base)
        element = f"_{port.object.element}" if base in self._arrays else ""
        return f"{name}{element}{port.role.value}"
