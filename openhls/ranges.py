# SPDX-License-Identifier: Apache-2.0
"""How many bits of every state a process needs.

Ranges give an upper bound from the values a state takes (least fixed point over all states);
demand gives one from the bits that can reach an output.

    state i: i32, counts 0..9 through an 8-bit comparison -> 8 bits
"""

from __future__ import annotations

from dataclasses import dataclass

from openhls.expression_graph import Expression, ExpressionGraph, Range, Ref, literal_range
from openhls.machine import Machine

FSM = "@state"


@dataclass(frozen=True, slots=True)
class Narrow:
    """Keep a state in `width` bits; `signed` tells how to extend it again."""

    width: int
    signed: bool


def state_ranges(machine: Machine) -> dict[str, Range]:
    """Return the range of every state, from the optimistic assumption that all stay zero."""
    graph = machine.graph
    ranges = {
        name: literal_range(state.initial & ((1 << state.width) - 1), state.width)
        for name, state in machine.states.items()
    }
    while True:
        graph.forget_ranges(ranges)
        wider = {
            name: _union([ranges[name], *(graph.range(v) for _, v in machine.nexts[name])])
            for name in machine.states
        }
        if wider == ranges:
            return ranges
        ranges = wider


def _union(ranges: list[Range]) -> Range:
    result = ranges[0]
    for item in ranges[1:]:
        result = result.union(item)
    return result


def narrow_states(machine: Machine) -> dict[str, Narrow]:
    """Return the states that need fewer bits than they have."""
    ranges = state_ranges(machine)
    demanded = _demanded_bits(machine)
    narrowed = {}
    for name, state in machine.states.items():
        if name == FSM:
            continue
        unsigned, signed = ranges[name]
        best = Narrow(max(1, unsigned), False)
        if signed < unsigned:
            best = Narrow(max(1, signed), True)
        if demanded[name] < best.width:
            best = Narrow(max(1, demanded[name]), False)
        if best.width < state.width:
            narrowed[name] = best
    return narrowed


def _demanded_bits(machine: Machine) -> dict[str, int]:
    """Return how many low bits of every state can reach an output or a condition."""
    graph = machine.graph
    needed = dict.fromkeys(machine.states, 0)
    roots = machine.roots() + [value for _, value in machine.nexts.get(FSM, [])]
    while True:
        demand = [0] * len(graph.nodes)
        for root in roots:
            demand[root] = graph.width(root)
        for name, pairs in machine.nexts.items():
            for _, value in pairs:
                demand[value] = max(demand[value], needed.get(name, 0))
        found = dict(needed)
        for ref in reversed(range(len(graph.nodes))):
            if demand[ref]:
                _push_demand(graph, ref, demand, found)
        if found == needed:
            return needed
        needed = found


def _push_demand(
    graph: ExpressionGraph, ref: Ref, demand: list[int], states: dict[str, int]
) -> None:
    """Hand the demand on a node's low bits to its operands, which come before it."""
    node, wanted = graph.nodes[ref], demand[ref]
    if node.op == "state":
        states[str(node.extra)] = max(states.get(str(node.extra), 0), wanted)
    for operand, bits in zip(node.operands, _wanted_of(graph, node, wanted), strict=True):
        demand[operand] = max(demand[operand], min(bits, graph.width(operand)))


def _wanted_of(graph: ExpressionGraph, node: Expression, wanted: int) -> list[int]:
    if node.op in ("add", "sub", "and", "or", "xor", "not", "umul", "smul"):
        return [wanted] * len(node.operands)
    if node.op == "sel":
        return [1, wanted, wanted]
    if node.op == "shll":
        return [wanted, graph.width(node.operands[1])]
    if node.op == "bit_slice":
        return [int(node.extra) + wanted]
    if node.op in ("zero_ext", "sign_ext"):
        return [wanted]
    if node.op == "concat":
        bits, below = [], 0
        for operand in reversed(node.operands):
            bits.append(max(0, wanted - below))
            below += graph.width(operand)
        return bits[::-1]
    return [graph.width(operand) for operand in node.operands]
