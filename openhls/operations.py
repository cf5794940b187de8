# SPDX-License-Identifier: Apache-2.0
"""LLVM integer instructions as expressions of a graph."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from openhls.expression_graph import ExpressionGraph, Ref
from openhls.llvm import Instruction, integer_width

INSTEAD = "use ap_int or a built-in integer"
_FLOATING = (
    *("fadd", "fsub", "fmul", "fdiv", "frem", "fneg", "fcmp"),
    *("sitofp", "uitofp", "fptosi", "fptoui", "fpext", "fptrunc"),
)
_SHIFTS = ("shl", "lshr", "ashr")
_MIN_MAX = {"smin": "slt", "smax": "sgt", "umin": "ult", "umax": "ugt"}
IGNORED_CALLS = re.compile(
    r"llvm\.(lifetime|assume|dbg|donothing|experimental\.noalias|invariant|sideeffect)\b"
)


class UnsupportedError(Exception):
    """What is not supported and what to use instead; the caller adds where it was."""


def _width(type_: str) -> int:
    width = integer_width(type_)
    if width is None:
        raise UnsupportedError(f"type '{type_}' is not supported; {INSTEAD}")
    return width


def evaluate(graph: ExpressionGraph, instruction: Instruction, operands: Sequence[Ref]) -> Ref:
    """Return the value of an instruction that only computes."""
    opcode = instruction.opcode
    if opcode in ("udiv", "sdiv", "urem", "srem"):
        raise UnsupportedError(
            "division and remainder are not supported; use shifts, or a counter that wraps"
        )
    if opcode in _FLOATING:
        raise UnsupportedError(f"floating point is not supported; {INSTEAD}")
    width = _width(instruction.type)
    if opcode in ("add", "sub"):
        return graph.add(opcode, operands[0], operands[1])
    if opcode in ("mul", "and", "or", "xor"):
        return _combine(graph, opcode, operands[0], operands[1])
    if opcode in _SHIFTS:
        return graph.shift(opcode, operands[0], operands[1])
    if opcode == "icmp":
        return graph.compare(instruction.detail, operands[0], operands[1])
    if opcode == "select":
        return graph.select(*operands)
    if opcode == "freeze":
        return operands[0]
    if opcode == "trunc":
        return graph.slice(operands[0], 0, width)
    if opcode in ("zext", "sext"):
        return graph.extend(operands[0], width, signed=opcode == "sext")
    if opcode == "call":
        return _intrinsic(graph, instruction, operands, width)
    raise UnsupportedError(f"'{opcode}' is not supported")


def _combine(graph: ExpressionGraph, opcode: str, a: Ref, b: Ref) -> Ref:
    if opcode == "mul":
        return graph.multiply(a, b)
    if opcode == "and":
        mask = graph.literal_value(b)
        return graph.and_(a, b) if mask is None else graph.mask(a, mask)
    return graph.or_(a, b) if opcode == "or" else graph.xor(a, b)


def _intrinsic(
    graph: ExpressionGraph, instruction: Instruction, of: Sequence[Ref], width: int
) -> Ref:
    parts = instruction.detail.split(".")
    name = ".".join(parts[1:-1])
    if parts[0] != "llvm" or name not in _INTRINSICS:
        raise UnsupportedError(f"a call of '{instruction.detail}' is not supported")
    return _INTRINSICS[name](graph, name, of, width)


def _min_max(graph: ExpressionGraph, name: str, of: Sequence[Ref], _: int) -> Ref:
    return graph.select(graph.compare(_MIN_MAX[name], of[0], of[1]), of[0], of[1])


def _absolute(graph: ExpressionGraph, _: str, of: Sequence[Ref], width: int) -> Ref:
    negated = graph.add("sub", graph.literal(width, 0), of[0])
    return graph.select(graph.slice(of[0], width - 1, 1), negated, of[0])


def _subtract_to_zero(graph: ExpressionGraph, _: str, of: Sequence[Ref], width: int) -> Ref:
    below = graph.compare("ult", of[0], of[1])
    return graph.select(below, graph.literal(width, 0), graph.add("sub", of[0], of[1]))


def _add_to_limit(graph: ExpressionGraph, _: str, of: Sequence[Ref], width: int) -> Ref:
    total = graph.add("add", of[0], of[1])
    return graph.select(graph.compare("ult", total, of[0]), graph.literal(width, -1), total)


def _funnel_shift(graph: ExpressionGraph, name: str, of: Sequence[Ref], width: int) -> Ref:
    """Shift the pair {of[0], of[1]}; the upper word for fshl, the lower one for fshr."""
    pair = graph.concat([of[0], of[1]])
    count = graph.literal_value(of[2])
    if count is not None:
        left = count % width if name == "fshl" else (width - count % width)
        return graph.slice(pair, width - left, width)
    if width & (width - 1):
        raise UnsupportedError("a rotation by a variable needs a width that is a power of two")
    amount = graph.slice(of[2], 0, (width - 1).bit_length())
    if name == "fshr":
        return graph.slice(graph.node("shrl", 2 * width, (pair, amount)), 0, width)
    return graph.slice(graph.node("shll", 2 * width, (pair, amount)), width, width)


def _count_ones(graph: ExpressionGraph, _: str, of: Sequence[Ref], width: int) -> Ref:
    bits = [graph.extend(graph.slice(of[0], i, 1), width, signed=False) for i in range(width)]
    while len(bits) > 1:
        pairs = [graph.add("add", a, b) for a, b in zip(bits[::2], bits[1::2], strict=False)]
        bits = pairs + (bits[-1:] if len(bits) % 2 else [])
    return bits[0]


def _swap_bytes(graph: ExpressionGraph, _: str, of: Sequence[Ref], width: int) -> Ref:
    return graph.concat([graph.slice(of[0], i, 8) for i in range(0, width, 8)])


def _reverse_bits(graph: ExpressionGraph, _: str, of: Sequence[Ref], width: int) -> Ref:
    return graph.concat([graph.slice(of[0], i, 1) for i in range(width)])


_INTRINSICS: dict[str, Callable[[ExpressionGraph, str, Sequence[Ref], int], Ref]] = {
    **dict.fromkeys(_MIN_MAX, _min_max),
    "abs": _absolute,
    "usub.sat": _subtract_to_zero,
    "uadd.sat": _add_to_limit,
    "fshl": _funnel_shift,
    "fshr": _funnel_shift,
    "ctpop": _count_ones,
    "bswap": _swap_bytes,
    "bitreverse": _reverse_bits,
}
