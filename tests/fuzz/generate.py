# SPDX-License-Identifier: Apache-2.0
"""Random designs: a seed and a number give one design, always the same.

A design is one process, or a chain of 2 to 4 that FIFOs and banks join. Processes between which
tokens flow send and receive a fixed number per call, so that nothing can wait forever for a reason
of its own. The first statement of a process waits for a token: it stops after its last call.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.fuzz.case import EXTRA_CALLS
from tests.fuzz.program import (
    BOOL,
    BUILTINS,
    COUNTER,
    Assign,
    Binary,
    Bit,
    Body,
    Cast,
    Choose,
    Design,
    Expr,
    If,
    Literal,
    Load,
    Locked,
    Loop,
    Memory,
    Name,
    Process,
    Receive,
    Send,
    SetBit,
    SetSlice,
    Slice,
    Step,
    Stmt,
    Store,
    Stream,
    Switch,
    Token,
    Type,
    Unary,
    Variable,
    as_ap,
    operation,
    unsigned,
)

DESIGNS_PER_PALETTE = 50
WIDEST = 128  # bits of a number; operators may give a few more
MAX_TOKEN_BITS = 400
MAX_ITERATIONS = 96  # of all loops around a statement, per call
NEVER = Literal(BOOL, 0)
_ZERO = Literal(COUNTER, 0)


class Palette:
    """The integer types of a few dozen designs; few, or g++ takes long over AMD's templates."""

    def __init__(self, seed: int, number: int) -> None:
        rng = random.Random(f"palette {seed}:{number // DESIGNS_PER_PALETTE}")
        narrow = [rng.randint(2, 12), rng.randint(9, 24), rng.randint(20, 40)]
        wide = [rng.choice([63, 64, 65]), rng.randint(66, WIDEST)]
        self._signed = [Type(bits, True) for bits in (*narrow, *wide)]
        bits = [1, rng.randint(2, 9), rng.randint(9, 20), rng.randint(20, 40), *wide]
        self._unsigned = [unsigned(x) for x in sorted(bits)]

    def ap_type(self, rng: random.Random) -> Type:
        """Return an ap_int or ap_uint; more than 64 bits are rare."""
        types = self._signed if rng.random() < 0.5 else self._unsigned
        return rng.choice(types if rng.random() < 0.2 else types[:-2])

    def type(self, rng: random.Random) -> Type:
        return rng.choice(BUILTINS) if rng.random() < 0.2 else self.ap_type(rng)

    def holding(self, bits: int) -> Type:
        """Return an ap_uint of at least so many bits, if there is one."""
        return next((t for t in self._unsigned if t.bits >= bits), self._unsigned[-1])


def random_bits(rng: random.Random, bits: int) -> int:
    """Return a pattern: a corner case as often as a random one."""
    top = 1 << bits
    corners = [0, 1, top - 1, top >> 1, (top >> 1) - 1, rng.randrange(min(8, top))]
    return rng.choice(corners) & (top - 1) if rng.random() < 0.4 else rng.getrandbits(bits)


def random_token(rng: random.Random, palette: Palette, struct: str) -> Token:
    """Return a token type; `struct` names it if it becomes a struct."""
    if rng.random() < 0.6:
        return Token("", (("", palette.type(rng)),))
    leaves: list[tuple[str, Type]] = []
    for number in range(rng.randint(1, 3)):
        type_, count = palette.type(rng), rng.choice([0, 0, 0, 2, 3])
        indices = [f"[{i}]" for i in range(count)] or [""]
        leaves += [(f".m{number}{index}", type_) for index in indices]
    while sum(t.bits for _, t in leaves) > MAX_TOKEN_BITS:
        leaves.pop()
    return Token(struct, tuple(leaves))


def binary_type(op: str, a: Type, b: Type) -> Type:
    """Return the type of a op b for operands of which one is an ap_int."""
    if op in ("<", "<=", ">", ">=", "==", "!=", "&&", "||"):
        return BOOL
    signed = a.signed or b.signed
    bits = max(a.bits + (signed and not a.signed), b.bits + (signed and not b.signed))
    if op in "+-":
        return Type(bits + 1, signed or op == "-")
    return Type(a.bits + b.bits if op == "*" else bits, signed)


@dataclass
class _Scope:
    """What statements of a process can use."""

    numbers: list[Name] = field(default_factory=list)  # may be assigned
    counters: list[Name] = field(default_factory=list)
    arrays: list[Variable] = field(default_factory=list)
    unrolled: dict[str, int] = field(default_factory=dict)  # counters that may index arrays
    structs: list[Variable] = field(default_factory=list)
    memories: list[Memory] = field(default_factory=list)
    inputs: list[Stream] = field(default_factory=list)
    outputs: list[Stream] = field(default_factory=list)
    iterations: int = 1
    depth: int = 0


class _Writer:
    """Writes the statements of one process."""

    def __init__(self, rng: random.Random, palette: Palette, scope: _Scope) -> None:
        self.rng, self.palette, self.scope = rng, palette, scope
        self._numbers = 0

    def fresh(self, stem: str) -> str:
        self._numbers += 1
        return f"{stem}{self._numbers}"

    # Expressions

    def literal(self) -> Expr:
        type_ = self.palette.type(self.rng)
        top = 1 << min(type_.bits, 62)
        value = random_bits(self.rng, min(type_.bits, 62))
        if type_.signed and value >= top >> 1:
            value -= top
        return Literal(type_, value)

    def elements(self) -> list[Name]:
        """Return the elements of arrays that are known by constants here."""
        found = []
        for array in self.scope.arrays:
            indices = [str(self.rng.randrange(array.count))]
            indices += [i for i, count in self.scope.unrolled.items() if count <= array.count]
            found += [Name(array.token.leaves[0][1], f"{array.name}[{i}]") for i in indices]
        return found

    def leaf(self) -> Expr:
        names = self.scope.numbers + self.scope.counters + self.elements()
        if not names or self.rng.random() < 0.15:
            return self.literal()
        return self.rng.choice(names)

    def expr(self, depth: int) -> Expr:
        rng = self.rng
        if depth == 0 or rng.random() < 0.1:
            return self.leaf()
        make = rng.choice(
            [self._arithmetic] * 6
            + [self._compare] * 2
            + [self._cast] * 3
            + [self._shift] * 3
            + [self._choose] * 2
            + [self._slice] * 2
            + [self._bit, self._unary]
        )
        found = make(depth - 1)
        if found.type.bits > WIDEST:
            return Cast(self.palette.ap_type(rng), found)
        return found

    def _arithmetic(self, depth: int) -> Expr:
        op = self.rng.choice("+++---**&|^")
        left, right = as_ap(self.expr(depth)), self.expr(depth)
        if self.rng.random() < 0.2 and right.type.builtin:
            left, right = right, left
        type_ = binary_type(op, left.type, right.type)
        return operation(type_, op, left, right)

    def _compare(self, depth: int) -> Expr:
        if self.rng.random() < 0.3:
            left, right = self.condition(depth), self.condition(depth)
            return Binary(BOOL, self.rng.choice(["&&", "||"]), left, right)
        op = self.rng.choice(["<", "<=", ">", ">=", "==", "!="])
        return operation(BOOL, op, as_ap(self.expr(depth)), self.expr(depth))

    def condition(self, depth: int) -> Expr:
        found = self.expr(depth)
        return found if found.type == BOOL else operation(BOOL, "!=", as_ap(found), _ZERO)

    def _cast(self, depth: int) -> Expr:
        return Cast(self.palette.type(self.rng), self.expr(depth))

    def _shift(self, depth: int) -> Expr:
        type_ = self.palette.ap_type(self.rng)
        if self.rng.random() < 0.5:
            amount: Expr = Literal(COUNTER, self.rng.randrange(type_.bits))
        else:
            amount = Cast(unsigned(self.rng.randint(1, 6)), self.expr(depth))
        return Binary(type_, self.rng.choice(["<<", ">>"]), Cast(type_, self.expr(depth)), amount)

    def _choose(self, depth: int) -> Expr:
        type_ = self.palette.type(self.rng)
        return Choose(type_, self.condition(depth), self.expr(depth), self.expr(depth))

    def _wholes(self) -> list[Name]:
        return [x for x in self.scope.numbers + self.elements() if not x.type.builtin]

    def _slice(self, depth: int) -> Expr:
        wholes = self._wholes()
        if not wholes:
            return self._cast(depth)
        whole = self.rng.choice(wholes)
        low = self.rng.randrange(whole.type.bits)
        high = self.rng.randrange(low, whole.type.bits)
        return Slice(self.palette.holding(high - low + 1), whole, high, low)

    def _bit(self, depth: int) -> Expr:
        wholes = self._wholes()
        if not wholes:
            return self._cast(depth)
        return Bit(BOOL, self.rng.choice(wholes), self.expr(depth))

    def _unary(self, depth: int) -> Expr:
        op, value = self.rng.choice("~-!"), as_ap(self.expr(depth))
        if op == "!":
            return Unary(BOOL, op, value)
        bits = value.type.bits + (op == "-")
        return Unary(
            Type(max(2, bits) if op == "-" else bits, value.type.signed or op == "-"), op, value
        )

    # Statements

    def body(self, count: int) -> Body:
        return tuple(x for _ in range(count) for x in self.statement())

    def statement(self) -> Body:
        rng, scope = self.rng, self.scope
        makers = [self._assign] * 8 + [self._set_part] * 2 + [self._send] * 3
        if scope.inputs:
            makers += [self._receive] * 3
        if scope.memories:
            makers += [self._load] * 3 + [self._store] * 2
        if scope.depth < 3:
            makers += [self._if] * 3 + [self._switch] + [self._loop] * 3
        return rng.choice(makers)()

    def _targets(self) -> list[Name]:
        return self.scope.numbers + self.elements()

    def _assign(self) -> Body:
        rng = self.rng
        target = rng.choice(self._targets())
        if rng.random() < 0.12 and not target.type.builtin:
            return (Step(False, target, rng.choice(["++", "--"])),)
        op, value = "=", self.expr(rng.choice([1, 1, 2, 2, 3]))
        if rng.random() < 0.25 and not target.type.builtin:
            op = rng.choice(["+=", "-=", "*=", "&=", "|=", "^="])
        return (Assign(False, target, op, value, exact=rng.random() < 0.8),)

    def _set_part(self) -> Body:
        wholes = self._wholes()
        if not wholes:
            return self._assign()
        whole, value = self.rng.choice(wholes), self.expr(2)
        if self.rng.random() < 0.4:
            return (SetBit(False, whole, self.expr(1), value),)
        low = self.rng.randrange(whole.type.bits)
        high = self.rng.randrange(low, whole.type.bits)
        return (SetSlice(False, whole, high, low, Cast(self.palette.ap_type(self.rng), value)),)

    def send(self, stream: Stream, *, pinned: bool) -> Stmt:
        values = tuple(self.expr(self.rng.choice([0, 0, 1, 2])) for _ in stream.token.leaves)
        return Send(pinned, stream.name, stream.token, values)

    def _send(self) -> Body:
        outputs = self.scope.outputs
        if not outputs:
            return self._assign()
        return (self.send(self.rng.choice(outputs), pinned=False),)

    def receive(self, stream: Stream, *, pinned: bool) -> Stmt:
        """Read into a variable that holds the whole token."""
        places = [x for x in self.scope.structs if x.token == stream.token]
        if stream.token.struct:
            return Receive(pinned, self.rng.choice(places).name, stream.name)
        type_ = stream.token.leaves[0][1]
        names = [x for x in self.scope.numbers if x.type == type_ and "." not in x.text]
        return Receive(pinned, self.rng.choice(names).text, stream.name)

    def _receive(self) -> Body:
        return (self.receive(self.rng.choice(self.scope.inputs), pinned=False),)

    def load(self, memory: Memory) -> Stmt:
        target = self.rng.choice(self.scope.numbers)
        return Load(False, target, memory, self.expr(self.rng.randint(0, 1)))

    def _load(self) -> Body:
        return (self.load(self.rng.choice(self.scope.memories)),)

    def _store(self) -> Body:
        memory = self.rng.choice(self.scope.memories)
        return (Store(False, memory, self.expr(self.rng.randint(0, 1)), self.expr(2)),)

    def _nested(self, count: int) -> Body:
        self.scope.depth += 1
        found = self.body(count)
        self.scope.depth -= 1
        return found

    def _if(self) -> Body:
        yes = self._nested(self.rng.randint(1, 3))
        no = self._nested(self.rng.randint(1, 2)) if self.rng.random() < 0.5 else ()
        return (If(False, self.condition(2), yes, no),)

    def _switch(self) -> Body:
        cases = tuple(self._nested(self.rng.randint(0, 2)) for _ in range(self.rng.randint(2, 4)))
        return (Switch(False, self.expr(1), cases),)

    def _loop(self) -> Body:
        rng, scope = self.rng, self.scope
        most = MAX_ITERATIONS // scope.iterations
        if most < 2:
            return self._assign()
        kind = rng.choice(["for", "for", "do", "do", "while"])
        mode = rng.choice(["pipeline", "pipeline", "pipeline", "unroll", ""])
        if mode == "unroll":
            kind = "for"
        counts = [c for c in ((2, 3, 4) if mode == "unroll" else (2, 3, 4, 8)) if c <= most]
        return (self.loop(kind, mode, rng.choice(counts)),)

    def loop(self, kind: str, mode: str, count: int, pinned: Body = ()) -> Stmt:
        """Return a loop whose body begins and ends with the pinned statements."""
        rng, scope = self.rng, self.scope
        counter = self.fresh("i")
        type_ = COUNTER if kind == "for" else unsigned(count.bit_length())
        scope.counters.append(Name(type_, counter))
        scope.iterations *= count
        if mode == "unroll":
            scope.unrolled[counter] = count
        bound = _ZERO if kind == "for" else self.leaf()
        body = self._nested(rng.randint(1, 2 if mode == "unroll" else 3))
        stop = self.condition(1) if rng.random() < 0.15 and not pinned else NEVER
        scope.unrolled.pop(counter, None)
        scope.iterations //= count
        scope.counters.pop()
        return Loop(
            bool(pinned), counter, count, kind, mode, bound, stop, (*pinned[:1], *body, *pinned[1:])
        )


def _variables(
    rng: random.Random, palette: Palette, tokens: list[Token]
) -> tuple[list[Variable], _Scope]:
    """Return variables, one at least for every token that is received."""
    scope = _Scope()
    variables = [Variable(f"v{i}", token) for i, token in enumerate(dict.fromkeys(tokens))]
    for _ in range(rng.randint(2, 4)):
        token = Token("", (("", palette.type(rng)),))
        variables.append(Variable(f"v{len(variables)}", token))
    for variable in variables:
        scope.numbers += [Name(t, f"{variable.name}{leaf}") for leaf, t in variable.token.leaves]
        if variable.token.struct:
            scope.structs.append(variable)
    if rng.random() < 0.4:
        token = Token("", (("", palette.type(rng)),))
        scope.arrays.append(Variable("array", token, rng.randint(2, 5)))
    return variables + scope.arrays, scope


@dataclass(frozen=True)
class _Links:
    """What joins a process to its neighbours, and how often per call."""

    source: Stream | None = None
    target: Stream | None = None
    bank_in: Memory | None = None
    bank_out: Memory | None = None
    iterations: int = 0


def _clear(writer: _Writer, memory: Memory) -> Stmt:
    """Set every word of a memory, in some order."""
    counter = writer.fresh("i")
    i = Name(COUNTER, counter)
    address: Expr = i
    if memory.depth & (memory.depth - 1) == 0:
        address = Binary(COUNTER, "^", i, Literal(COUNTER, writer.rng.randrange(memory.depth)))
    writer.scope.counters.append(i)
    store = Store(True, memory, address, writer.expr(2))
    writer.scope.counters.pop()
    return Loop(True, counter, memory.depth, "for", "pipeline", _ZERO, NEVER, (store,))


def _with_bank(writer: _Writer, links: _Links, body: Body) -> Body:
    """Put the locks of banks around what fills or reads them."""
    if links.bank_out is not None:
        lock = Memory("lock_out", links.bank_out.type, links.bank_out.depth, is_ram=False)
        filled = (_clear(writer, lock),)
        body += (Locked(True, links.bank_out.name, "write_lock", lock.name, filled),)
    if links.bank_in is not None:
        lock = Memory("lock_in", links.bank_in.type, links.bank_in.depth, is_ram=False)
        writer.scope.counters.append(Name(COUNTER, "k"))
        inside = (writer.load(lock), *writer.body(writer.rng.randint(1, 3)))
        writer.scope.counters.pop()
        count = writer.rng.randint(2, 9)
        loop = Loop(True, "k", count, "for", "pipeline", _ZERO, NEVER, inside)
        body += (Locked(True, links.bank_in.name, "read_lock", lock.name, (loop,)),)
    return body


def random_process(rng: random.Random, palette: Palette, name: str, links: _Links) -> Process:
    """Return a process with 1 to 3 streams of its own on each side."""
    inputs = [
        Stream(f"{name}_in{i}", random_token(rng, palette, f"{name}_In{i}"))
        for i in range(rng.randint(1, 2))
    ]
    outputs = [
        Stream(f"{name}_out{i}", random_token(rng, palette, f"{name}_Out{i}"))
        for i in range(rng.randint(1, 2))
    ]
    sources = [links.source] if links.source else []
    targets = [links.target] if links.target else []
    variables, scope = _variables(rng, palette, [x.token for x in (*inputs, *sources)])
    writer = _Writer(rng, palette, scope)
    rams = [
        Memory(f"ram{i}", palette.ap_type(rng), rng.randint(2, 16), is_ram=True)
        for i in range(rng.choice([0, 0, 0, 1, 1, 2]))
    ]
    body: Body = (writer.receive(inputs[0], pinned=True), *(_clear(writer, ram) for ram in rams))
    scope.inputs, scope.outputs, scope.memories = inputs, outputs, list(rams)
    if links.source or links.target:
        pinned = tuple(writer.receive(x, pinned=True) for x in sources)
        pinned += tuple(writer.send(x, pinned=True) for x in targets)
        body += (writer.loop("for", "pipeline", links.iterations, pinned),)
    body = _with_bank(writer, links, body)
    body += writer.body(rng.randint(1, 4))
    body += tuple(writer.send(x, pinned=False) for x in outputs if rng.random() < 0.7)
    banks = tuple(bank for bank in (links.bank_in, links.bank_out) if bank)
    return Process(
        name,
        (*inputs, *sources),
        (*outputs, *targets),
        banks,
        tuple(variables),
        tuple(rams),
        body,
    )


def _chain(rng: random.Random, palette: Palette, prefix: str, count: int) -> list[Process]:
    """Return processes of which each feeds the next one, through a FIFO, a bank or both."""
    streams: list[Stream | None] = [None]
    banks: list[Memory | None] = [None]
    for i in range(count - 1):
        kind = rng.choice(["stream", "stream", "bank", "both"])
        token, depth = (
            random_token(rng, palette, f"{prefix}_Link{i}"),
            rng.choice([1, 2, 2, 3, 7, 16]),
        )
        streams.append(Stream(f"{prefix}_link{i}", token, depth) if kind != "bank" else None)
        memory = Memory(f"{prefix}_bank{i}", palette.ap_type(rng), rng.randint(2, 12), is_ram=False)
        banks.append(memory if kind != "stream" else None)
    streams.append(None)
    banks.append(None)
    iterations = rng.choice([2, 5, 8, 12])
    return [
        random_process(
            rng,
            palette,
            f"{prefix}_p{i}",
            _Links(streams[i], streams[i + 1], banks[i], banks[i + 1], iterations),
        )
        for i in range(count)
    ]


def num_receives(body: Body, stream: str) -> int:
    """Return how often a body reads a stream at most."""
    total = 0
    for statement in body:
        if isinstance(statement, Receive):
            total += statement.stream == stream
        elif isinstance(statement, If):
            total += max(num_receives(x, stream) for x in (statement.yes, statement.no))
        elif isinstance(statement, Switch):
            total += max(num_receives(x, stream) for x in statement.cases)
        elif isinstance(statement, Loop):
            total += statement.count * num_receives(statement.body, stream)
        elif isinstance(statement, Locked):
            total += num_receives(statement.body, stream)
    return total


def random_design(seed: int, number: int) -> Design:
    """Return design `number` of a seed."""
    rng = random.Random(f"{seed}:{number}")
    prefix = f"s{seed}k{number}"
    count = rng.choice([1] * 7 + [2, 2, 3, 4])
    processes = _chain(rng, Palette(seed, number), prefix, count)
    calls = rng.randint(2, 4)
    tokens = []
    for process in processes:
        for stream in process.inputs:
            if not stream.depth:
                most = num_receives(process.body, stream.name) * (calls + EXTRA_CALLS)
                leaves = [t.bits for _, t in stream.token.leaves]
                tokens.append((stream.name, tuple(_random_tokens(rng, leaves, most))))
    return Design(prefix, tuple(processes), tuple(tokens), calls)


def _random_tokens(rng: random.Random, leaves: list[int], count: int) -> list[int]:
    found = []
    for _ in range(count):
        token, offset = 0, 0
        for bits in leaves:
            token |= random_bits(rng, bits) << offset
            offset += bits
        found.append(token)
    return found
