# SPDX-License-Identifier: Apache-2.0
"""The record that each process is sent at the start of a layer, made from the table of fields.

Fields and flags with their reads -> C++ structs and what fills their members:

    _bound("sub_rows", ..., "plan_reads.planes sequence")
 -> struct PlanRowsConfig { Bound planes; ... }  c.planes = layer.sub_rows;   for plan_reads
    struct SequenceConfig { Bound sub_rows; ... }  c.sub_rows = layer.sub_rows;

Processes of one C++ function share its struct; a member that one of them reads nothing into is 0
there. Members are in the order of their fields in the descriptor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from codegen.descriptor import (
    CHECKER,
    FLAGS,
    GIVEN,
    PROCESSES,
    Field,
    Flag,
    Given,
    Process,
    layer_fields,
)
from winnow.engine import EngineConfig

Source: TypeAlias = Field | Flag | Given

# A part of a record is a C++ struct of strips.hpp, known by the names of its members.
_PARTS = {frozenset({"down", "across"}): "Strips", frozenset({"first", "middle", "last"}): "Places"}


@dataclass(frozen=True)
class Member:
    """A member of a struct: its C++ type, and its length if it is an array, else 1."""

    name: str
    type: str
    count: int = 1


@dataclass(frozen=True)
class Struct:
    """A C++ struct of a generated header."""

    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Copy:
    """What fills a member of a record: a field, a flag, the host, or nothing, which is 0."""

    member: str
    count: int = 1
    field: Field | None = None
    flag: Flag | None = None
    given: Given | None = None


@dataclass(frozen=True)
class ProcessConfig:
    """What one process is sent: a struct and what fills it."""

    process: str
    struct: str
    copies: tuple[Copy, ...]


def struct_name(process: Process) -> str:
    """Return the struct of a process: PlanRowsConfig for one that runs `plan_rows`."""
    return "".join(word.capitalize() for word in process.function.split("_")) + "Config"


def _sources(engine: EngineConfig) -> Iterator[Source]:
    """Yield fields in order, behind `op` the flags that follow from it, and the host's numbers."""
    for field in layer_fields(engine):
        yield field
        if field.name == "op":
            yield from FLAGS
    yield from GIVEN


def _reads(engine: EngineConfig, names: set[str]) -> Iterator[tuple[str, str, Source]]:
    """Yield (process, member, what it reads) of the processes named."""
    for source in _sources(engine):
        for read in source.reads:
            if read.process in names:
                yield read.process, read.member, source


def _leaves(engine: EngineConfig, struct: str) -> dict[str, Member]:
    """Return the members of a struct that are numbers, by their place in it."""
    leaves: dict[str, Member] = {}
    names = {process.name for process in PROCESSES if struct_name(process) == struct}
    for _, place, source in _reads(engine, names):
        member = Member(place.split(".")[-1], source.held, source.count)
        if leaves.setdefault(place, member) != member:
            raise AssertionError(f"{struct}.{place} is {leaves[place].type} and {source.held}")
    return leaves


def _members(leaves: dict[str, Member]) -> Iterator[Member]:
    """Yield the members of a struct, parts as one."""
    parts: dict[str, set[str]] = {}
    for place in leaves:
        part, _, name = place.rpartition(".")
        parts.setdefault(part or name, set()).update({name} if part else ())
    for name, inner in parts.items():
        yield Member(name, _PARTS[frozenset(inner)]) if inner else leaves[name]


def config_structs(engine: EngineConfig) -> list[Struct]:
    """Return the structs of all processes, each once."""
    names = dict.fromkeys(struct_name(process) for process in PROCESSES)
    return [Struct(name, tuple(_members(_leaves(engine, name)))) for name in names]


def _copies(engine: EngineConfig, process: Process) -> Iterator[Copy]:
    sources: dict[str, Source] = {}
    for _, place, source in _reads(engine, {process.name}):
        if place in sources:
            raise AssertionError(f"{process.name}.{place} is read from two fields")
        sources[place] = source
    for place, member in _leaves(engine, struct_name(process)).items():
        found = sources.get(place)
        field = found if isinstance(found, Field) else None
        flag = found if isinstance(found, Flag) else None
        given = found if isinstance(found, Given) else None
        yield Copy(place, member.count, field, flag, given)


def process_configs(engine: EngineConfig) -> list[ProcessConfig]:
    """Return what every process is sent, in the order in which `configure` sends it."""
    known = {CHECKER, *(process.name for process in PROCESSES)}
    for source in _sources(engine):
        unknown = {read.process for read in source.reads} - known
        if unknown:
            raise AssertionError(f"{source.name} is read by {min(unknown)}, which is no process")
    return [
        ProcessConfig(process.name, struct_name(process), tuple(_copies(engine, process)))
        for process in PROCESSES
    ]
