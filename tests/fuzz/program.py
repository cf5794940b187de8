# SPDX-License-Identifier: Apache-2.0
"""Programs of the C++ subset as trees, and their text.

Whatever a tree holds is defined behaviour: indices are cut to size, loops count to a bound, every
variable is set where it is declared. So any tree can be compiled and compared, a shrunken one too.
`pinned` statements keep the flow of tokens between processes; shrinking leaves them alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HEADER = """#include <ap_int.h>
#include <hls_ram.h>
#include <hls_stream.h>
#include <hls_streamofblocks.h>
"""
_INDENT = "  "


@dataclass(frozen=True)
class Type:
    """An integer: ap_int, ap_uint, or the built-in type named."""

    bits: int
    signed: bool
    builtin: str = ""

    def __str__(self) -> str:
        return self.builtin or f"ap_{'int' if self.signed else 'uint'}<{self.bits}>"


BOOL = Type(1, False, "bool")
BUILTINS = (
    BOOL,
    *(Type(8, True, "signed char"), Type(8, False, "unsigned char")),
    *(Type(16, True, "short"), Type(16, False, "unsigned short")),
    *(Type(32, True, "int"), Type(32, False, "unsigned")),
    *(Type(64, True, "long long"), Type(64, False, "unsigned long long")),
)
COUNTER = Type(32, True, "int")


def unsigned(bits: int) -> Type:
    return Type(bits, False)


# Expressions


@dataclass(frozen=True)
class Expr:
    """An expression; `type` is what C++ gives it."""

    type: Type


@dataclass(frozen=True)
class Name(Expr):
    """A variable, a member of one, or an element of an array."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Literal(Expr):
    value: int

    def __str__(self) -> str:
        suffix = "" if -(2**31) <= self.value < 2**31 else "LL" if self.value < 2**63 else "ULL"
        return f"{_constructor(self.type)}({self.value}{suffix})"


@dataclass(frozen=True)
class Cast(Expr):
    value: Expr

    def __str__(self) -> str:
        return f"{_constructor(self.type)}({self.value})"


def _constructor(type_: Type) -> str:
    return f"({type_})" if " " in str(type_) else str(type_)


@dataclass(frozen=True)
class Binary(Expr):
    op: str
    left: Expr
    right: Expr

    def __str__(self) -> str:
        return f"({self.left} {self.op} {self.right})"


COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
LOGICAL = ("&&", "||")


def as_ap(value: Expr) -> Expr:
    """Return the value as an ap_int, for which operators are defined with any operand."""
    if not value.type.builtin:
        return value
    return Cast(Type(max(value.type.bits, 1 + value.type.signed), value.type.signed), value)


def _is_natural(value: Expr) -> bool:
    return isinstance(value, Literal) and value.value >= 0


def operation(type_: Type, op: str, left: Expr, right: Expr) -> Binary:
    """Return left op right with operands for which AMD's headers compute what they say.

    One operand of an operator is an ap_int, the left one of a shift. Where an unsigned operand has
    32 bits or more, AMD's headers compare with a negative one as C does: ap_uint<40>(5) < int(-1)
    holds there. openhls compares the numbers, so the fuzzer casts.
    """
    if op in LOGICAL:
        return Binary(type_, op, left, right)
    if right.type.builtin or op in ("<<", ">>"):
        left = as_ap(left)
    widest = max((x.type.bits for x in (left, right) if not x.type.signed), default=0)
    signed = left.type.signed or (right.type.signed and not _is_natural(right))
    if op in COMPARISONS and signed and widest >= 32:
        right = Cast(left.type, right)
    return Binary(type_, op, left, right)


@dataclass(frozen=True)
class Unary(Expr):
    op: str
    value: Expr

    def __str__(self) -> str:
        return f"({self.op}{self.value})"


@dataclass(frozen=True)
class Slice(Expr):
    """Bits high..low of a variable, as an ap_uint that may be wider."""

    whole: Name
    high: int
    low: int

    def __str__(self) -> str:
        return f"{self.type}({self.whole}.range({self.high}, {self.low}))"


@dataclass(frozen=True)
class Bit(Expr):
    """One bit of a variable; the index is cut so that it is inside."""

    whole: Name
    index: Expr

    def __str__(self) -> str:
        return f"bool({self.whole}[int({cut_index(self.index, self.whole.type.bits)})])"


@dataclass(frozen=True)
class Choose(Expr):
    condition: Expr
    yes: Expr
    no: Expr

    def __str__(self) -> str:
        make = _constructor(self.type)
        return f"({truth(self.condition)} ? {make}({self.yes}) : {make}({self.no}))"


def truth(condition: Expr) -> str:
    """Return a condition as text: numbers are compared with zero."""
    return str(condition) if condition.type == BOOL else f"({condition} != 0)"


def cut_index(index: Expr, count: int) -> str:
    """Return an index as text that is below `count`."""
    bits = count.bit_length() - 1
    return f"ap_uint<{bits}>({index})" if bits else "0"


# Statements


@dataclass(frozen=True)
class Stmt:
    """A statement."""

    pinned: bool

    def lines(self) -> Iterator[str]:
        raise NotImplementedError


Body = tuple[Stmt, ...]


def _block(head: str, body: Sequence[Stmt], tail: str = "}") -> Iterator[str]:
    yield f"{head} {{"
    for statement in body:
        for line in statement.lines():
            yield line if line.startswith("#") else _INDENT + line
    yield tail


@dataclass(frozen=True)
class Assign(Stmt):
    """target op value, with op "=", "+=", ...; `exact` casts the value to the target's type."""

    target: Name
    op: str
    value: Expr
    exact: bool

    def lines(self) -> Iterator[str]:
        value = Cast(self.target.type, self.value) if self.exact else self.value
        yield f"{self.target} {self.op} {value};"


@dataclass(frozen=True)
class Step(Stmt):
    target: Name
    op: str

    def lines(self) -> Iterator[str]:
        yield f"{self.target}{self.op};"


@dataclass(frozen=True)
class SetSlice(Stmt):
    target: Name
    high: int
    low: int
    value: Expr

    def lines(self) -> Iterator[str]:
        yield f"{self.target}.range({self.high}, {self.low}) = {self.value};"


@dataclass(frozen=True)
class SetBit(Stmt):
    target: Name
    index: Expr
    value: Expr

    def lines(self) -> Iterator[str]:
        index = cut_index(self.index, self.target.type.bits)
        yield f"{self.target}[int({index})] = {Cast(unsigned(1), self.value)};"


@dataclass(frozen=True)
class Receive(Stmt):
    """target = stream.read(); the target is a whole variable, maybe a struct."""

    target: str
    stream: str

    def lines(self) -> Iterator[str]:
        yield f"{self.target} = {self.stream}.read();"


@dataclass(frozen=True)
class Send(Stmt):
    """Write a token: one value per leaf of its type."""

    stream: str
    token: Token
    values: tuple[Expr, ...]

    def lines(self) -> Iterator[str]:
        if not self.token.struct:
            yield f"{self.stream}.write({Cast(self.token.leaves[0][1], self.values[0])});"
            return
        yield "{"
        yield f"{_INDENT}{self.token} token;"
        for (leaf, type_), value in zip(self.token.leaves, self.values, strict=True):
            yield f"{_INDENT}token{leaf} = {Cast(type_, value)};"
        yield f"{_INDENT}{self.stream}.write(token);"
        yield "}"


@dataclass(frozen=True)
class If(Stmt):
    condition: Expr
    yes: Body
    no: Body

    def lines(self) -> Iterator[str]:
        *inside, end = _block(f"if ({truth(self.condition)})", self.yes)
        yield from inside
        if not self.no:
            yield end
            return
        yield from _block("} else", self.no)


@dataclass(frozen=True)
class Switch(Stmt):
    """Two bits of the value choose a case."""

    value: Expr
    cases: tuple[Body, ...]

    def lines(self) -> Iterator[str]:
        yield f"switch (int(ap_uint<2>({self.value}))) {{"
        last = len(self.cases) - 1
        for number, body in enumerate(self.cases):
            label = "default" if number == last else f"case {number}"
            yield from (_INDENT + line for line in _block(f"{label}:", body))
            yield f"{_INDENT}break;"
        yield "}"


@dataclass(frozen=True)
class Loop(Stmt):
    """A loop of at most `count` iterations.

    kind: "for" runs `count` times, "do" and "while" until the counter reaches the bound, which is
    cut to less than `count`. mode: "pipeline", "unroll" or "" (neither). A true `stop` leaves it.
    """

    counter: str
    count: int
    kind: str
    mode: str
    bound: Expr
    stop: Expr
    body: Body

    def lines(self) -> Iterator[str]:
        head, tail = self._frame()
        if self.kind != "for":
            yield f"ap_uint<{self.count.bit_length()}> {self.counter} = 0;"
        pragma = f"#pragma HLS {self.mode}{' II = 1' if self.mode == 'pipeline' else ''}"
        inside = list(_block(head, self.body, tail))
        stop = [f"{_INDENT}if ({truth(self.stop)}) break;"] if self._can_stop() else []
        step = [f"{_INDENT}{self.counter}++;"] if self.kind != "for" else []
        yield inside[0]
        yield from [pragma] if self.mode else []
        yield from [*inside[1:-1], *step, *stop, inside[-1]]

    def _can_stop(self) -> bool:
        return not (isinstance(self.stop, Literal) and self.stop.value == 0)

    def _frame(self) -> tuple[str, str]:
        i = self.counter
        if self.kind == "for":
            return f"for (int {i} = 0; {i} < {self.count}; {i}++)", "}"
        condition = f"{i} < {cut_index(self.bound, self.count)}"
        if self.kind == "do":
            return "do", f"}} while ({condition});"
        return f"while ({condition})", "}"


@dataclass(frozen=True)
class Load(Stmt):
    """target = memory[address], of a RAM or a locked block."""

    target: Name
    memory: Memory
    address: Expr

    def lines(self) -> Iterator[str]:
        yield f"{self.target} = {self.memory.at(self.address)};"


@dataclass(frozen=True)
class Store(Stmt):
    """memory[address] = value."""

    memory: Memory
    address: Expr
    value: Expr

    def lines(self) -> Iterator[str]:
        yield self.memory.put(self.address, Cast(self.memory.type, self.value))


@dataclass(frozen=True)
class Locked(Stmt):
    """Hold a block of a bank."""

    bank: str
    kind: str
    lock: str
    body: Body

    def lines(self) -> Iterator[str]:
        yield "{"
        yield f"{_INDENT}hls::{self.kind}<{self.bank}_block> {self.lock}({self.bank});"
        yield from list(_block("", self.body))[1:]


# Declarations


@dataclass(frozen=True)
class Memory:
    """A RAM of the process, or a block while it is locked."""

    name: str
    type: Type
    depth: int
    is_ram: bool

    def at(self, address: Expr) -> str:
        index = cut_index(address, self.depth)
        if self.is_ram:
            return f"{self.name}.read(unsigned({index}))"
        return f"{self.name}[{index}]"

    def put(self, address: Expr, value: Expr) -> str:
        index = cut_index(address, self.depth)
        if self.is_ram:
            return f"{self.name}.write(unsigned({index}), {value});"
        return f"{self.name}[{index}] = {value};"


@dataclass(frozen=True)
class Token:
    """What a stream carries: a number (no `struct`, one leaf named "") or a struct's leaves."""

    struct: str
    leaves: tuple[tuple[str, Type], ...]

    def __str__(self) -> str:
        return self.struct or str(self.leaves[0][1])

    @property
    def bits(self) -> int:
        return sum(type_.bits for _, type_ in self.leaves)

    def declaration(self) -> str:
        """Return the struct; leaves of an array are `.c[0]`, `.c[1]`, ..."""
        members: dict[str, tuple[Type, int]] = {}
        for leaf, type_ in self.leaves:
            name, _, index = leaf.removeprefix(".").partition("[")
            members[name] = (type_, int(index.rstrip("]")) + 1 if index else 0)
        fields = (f"{t} {n}{f'[{count}]' if count else ''};" for n, (t, count) in members.items())
        return f"struct {self.struct} {{ {' '.join(fields)} }};"


@dataclass(frozen=True)
class Variable:
    """A variable: a number, a struct, or (`count`) an array of numbers; all leaves start at 0."""

    name: str
    token: Token
    count: int = 0

    def lines(self) -> Iterator[str]:
        yield f"{self.token} {self.name}{f'[{self.count}]' if self.count else ''};"
        for i in range(self.count):
            yield f"{self.name}[{i}] = 0;"
        for leaf, _ in () if self.count else self.token.leaves:
            yield f"{self.name}{leaf} = 0;"


@dataclass(frozen=True)
class Stream:
    """A stream between processes (`depth` words) or to the outside (`depth` 0)."""

    name: str
    token: Token
    depth: int = 0


@dataclass(frozen=True)
class Process:
    """A function: its inputs and outputs, banks, variables, memories and statements."""

    name: str
    inputs: tuple[Stream, ...]
    outputs: tuple[Stream, ...]
    banks: tuple[Memory, ...]
    variables: tuple[Variable, ...]
    memories: tuple[Memory, ...]
    body: Body

    def arguments(self) -> list[str]:
        return [x.name for x in (*self.inputs, *self.outputs, *self.banks)]

    def text(self) -> str:
        streams = [f"hls::stream<{x.token} >& {x.name}" for x in (*self.inputs, *self.outputs)]
        banks = [f"hls::stream_of_blocks<{x.name}_block>& {x.name}" for x in self.banks]
        lines = [line for variable in self.variables for line in variable.lines()]
        lines += [f"hls::ram<{x.type}, {x.depth}> {x.name};" for x in self.memories]
        lines += [line for statement in self.body for line in statement.lines()]
        body = (line if line.startswith("#") else _INDENT + line for line in lines)
        return "\n".join([f"void {self.name}({', '.join(streams + banks)}) {{", *body, "}", ""])


@dataclass(frozen=True)
class Design:
    """Processes, each called `calls` times, and the tokens at the inputs (more than needed)."""

    name: str
    processes: tuple[Process, ...]
    tokens: tuple[tuple[str, tuple[int, ...]], ...]
    calls: int

    def streams(self) -> dict[str, Stream]:
        return {s.name: s for p in self.processes for s in (*p.inputs, *p.outputs)}

    def banks(self) -> dict[str, Memory]:
        return {bank.name: bank for p in self.processes for bank in p.banks}

    def text(self) -> str:
        """Return the C++ without its includes."""
        structs = dict.fromkeys(
            token.declaration()
            for p in self.processes
            for token in [x.token for x in (*p.inputs, *p.outputs, *p.variables)]
            if token.struct
        )
        banks = [f"typedef {x.type} {x.name}_block[{x.depth}];" for x in self.banks().values()]
        return "\n".join([*structs, *banks, *(process.text() for process in self.processes)])
