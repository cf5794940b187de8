# SPDX-License-Identifier: Apache-2.0
"""A case: C++ processes, how they are joined, and tokens; what the bench runs and a file keeps.

// in k0_in0: ap_uint<17> = :17                        type and leaves, lowest bits first
// in k0_in1: k0_In1 = .m0:5 .m1[0]:70 .m1[1]:70
// out k0_out0: bool = :1
// fifo k0_link0: ap_int<9> = 4                        depth
// bank k0_bank0: k0_bank0_block
// call k0_p0: k0_in0 k0_link0 k0_bank0                arguments
// calls: 3
// tokens k0_in0: 1f 3 0                               hexadecimal
... C++ ...
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.fuzz.program import Design, Token

EXTRA_CALLS = 4  # that the C++ makes beyond those compared: RTL works ahead
Leaf = tuple[str, int, int]  # how C++ reaches it in a token, its lowest bit, its bits
_LINE = re.compile(r"^// (in|out|fifo|bank|call|calls|tokens|refused)(?: (\w+))?: (.*)$")


@dataclass(frozen=True)
class Case:
    """C++ and what is around it; `types` of all channels by name."""

    name: str
    source: str
    calls: tuple[tuple[str, tuple[str, ...]], ...]
    num_calls: int
    types: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, tuple[Leaf, ...]] = field(default_factory=dict)
    outputs: Mapping[str, tuple[Leaf, ...]] = field(default_factory=dict)
    fifos: Mapping[str, int] = field(default_factory=dict)
    banks: tuple[str, ...] = ()
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    refusal: str = ""  # the message that openhls must give

    def declarations(self) -> list[str]:
        """Return C++ that declares the channels as local objects."""
        return [
            f"  hls::stream{'_of_blocks' if name in self.banks else ''}<{type_} > {name};"
            for name, type_ in self.types.items()
        ]

    def text(self) -> str:
        """Return the case as a file."""
        return "\n".join([*self._head(), "", self.source, ""])

    def _head(self) -> Iterator[str]:
        if self.refusal:
            yield f"// refused: {self.refusal}"
        for kind, streams in (("in", self.inputs), ("out", self.outputs)):
            for name, leaves in streams.items():
                parts = " ".join(f"{leaf}:{bits}" for leaf, _, bits in leaves)
                yield f"// {kind} {name}: {self.types[name]} = {parts}"
        for name, depth in self.fifos.items():
            yield f"// fifo {name}: {self.types[name]} = {depth}"
        yield from (f"// bank {name}: {self.types[name]}" for name in self.banks)
        yield from (f"// call {name}: {' '.join(arguments)}" for name, arguments in self.calls)
        yield f"// calls: {self.num_calls}"
        for name, tokens in self.tokens.items():
            yield f"// tokens {name}: {' '.join(f'{token:x}' for token in tokens)}"


def _leaves(parts: list[tuple[str, int]]) -> tuple[Leaf, ...]:
    found, offset = [], 0
    for leaf, bits in parts:
        found.append((leaf, offset, bits))
        offset += bits
    return tuple(found)


def _token_leaves(token: Token) -> tuple[Leaf, ...]:
    return _leaves([(leaf, type_.bits) for leaf, type_ in token.leaves])


def case_of(design: Design) -> Case:
    """Return a generated design as a case."""
    streams = design.streams()
    outer = {name: s for name, s in streams.items() if not s.depth}
    inputs = {s.name for p in design.processes for s in p.inputs}
    banks = {name: f"{name}_block" for name in design.banks()}
    return Case(
        design.name,
        design.text().strip(),
        tuple((p.name, tuple(p.arguments())) for p in design.processes),
        design.calls,
        {name: str(s.token) for name, s in streams.items()} | banks,
        {name: _token_leaves(s.token) for name, s in outer.items() if name in inputs},
        {name: _token_leaves(s.token) for name, s in outer.items() if name not in inputs},
        {name: s.depth for name, s in streams.items() if s.depth},
        tuple(banks),
        {name: tokens for name, tokens in design.tokens if name in outer},
    )


def read_case(name: str, text: str) -> Case:
    """Read what `Case.text` wrote."""
    found: dict[str, dict[str, str]] = {}
    lines = text.splitlines()
    for line in lines:
        match = _LINE.match(line)
        if match:
            found.setdefault(match.group(1), {})[match.group(2) or ""] = match.group(3)
    types: dict[str, str] = {}
    leaves: dict[str, dict[str, tuple[Leaf, ...]]] = {"in": {}, "out": {}}
    for kind in ("in", "out"):
        for stream, value in found.get(kind, {}).items():
            types[stream], _, parts = value.partition(" = ")
            pairs = (part.rsplit(":", 1) for part in parts.split(" "))
            leaves[kind][stream] = _leaves([(leaf, int(bits)) for leaf, bits in pairs])
    fifos = {}
    for stream, value in found.get("fifo", {}).items():
        types[stream], _, depth = value.partition(" = ")
        fifos[stream] = int(depth)
    types |= found.get("bank", {})
    tokens = {n: tuple(int(t, 16) for t in v.split()) for n, v in found.get("tokens", {}).items()}
    source = "\n".join(line for line in lines if not line.startswith("// ")).strip()
    calls = tuple((n, tuple(v.split())) for n, v in found["call"].items())
    num_calls = int(found["calls"][""])
    return Case(
        name,
        source,
        calls,
        num_calls,
        types,
        leaves["in"],
        leaves["out"],
        fifos,
        tuple(found.get("bank", {})),
        tokens,
        found.get("refused", {}).get("", ""),
    )
