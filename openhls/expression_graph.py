# SPDX-License-Identifier: Apache-2.0
"""A hash-consed graph of expressions on bit vectors: equal expressions are one node.

Operations have XLS names. Builders narrow: an operation is done in as few bits as the ranges of
its operands need, and extended again, so that a product of an 8-bit and a 25-bit number becomes a
multiplier of that size even though C++ computes in 33 bits or in `int`.

    add(sign_ext(a: 8, 32), sign_ext(b: 8, 32)) -> sign_ext(add(a: 9, b: 9), 32)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Ref = int  # index of a node

ASSOCIATIVE = ("and", "or", "xor")
SHIFTED_TERMS = 3  # a factor of so many signed digits becomes adders, not a multiplier
SHIFTS = {"shl": "shll", "lshr": "shrl", "ashr": "shra"}


class Expression(NamedTuple):
    """`extra`: the value of a literal, the name of a state or channel, the start of a slice."""

    op: str
    width: int
    operands: tuple[Ref, ...] = ()
    extra: int | str = 0


class Range(NamedTuple):
    """A value fits in `unsigned` bits without and in `signed` bits with a sign."""

    unsigned: int
    signed: int

    def union(self, other: Range) -> Range:
        return Range(max(self.unsigned, other.unsigned), max(self.signed, other.signed))


def literal_range(value: int, width: int) -> Range:
    signed = value - (1 << width) if value >> (width - 1) else value
    size = (signed if signed >= 0 else ~signed).bit_length() + 1
    return Range(value.bit_length(), min(width, size))


def _signed(node: Expression) -> int:
    value = int(node.extra)
    return value - (1 << node.width) if value >> (node.width - 1) else value


def signed_digits(constant: int, width: int) -> list[tuple[int, int]]:
    """Return the non-adjacent form of a constant modulo 2^width: (place, +1 or -1).

    31 -> [(0, -1), (5, 1)]
    """
    value = constant - (1 << width) if constant >> (width - 1) else constant
    digits, place = [], 0
    while value and place < width:
        if value & 1:
            digit = 2 - (value & 3)
            digits.append((place, digit))
            value -= digit
        value >>= 1
        place += 1
    return digits


_COMPARISONS = {"lt": int.__lt__, "le": int.__le__, "gt": int.__gt__, "ge": int.__ge__}


def fold(node: Expression, operands: Sequence[Expression]) -> int | None:
    """Return the value of an operation on literals, None when it is not worth knowing."""
    values = [int(x.extra) for x in operands]
    if node.op in ("and", "or", "xor"):
        pairs = {"and": int.__and__, "or": int.__or__, "xor": int.__xor__}
        return pairs[node.op](values[0], values[1])
    if node.op in ("eq", "ne"):
        return int((values[0] == values[1]) == (node.op == "eq"))
    if node.op[0] in "su" and node.op[1:] in _COMPARISONS:
        sides = [_signed(x) for x in operands] if node.op[0] == "s" else values
        return int(_COMPARISONS[node.op[1:]](sides[0], sides[1]))
    if node.op in ("add", "sub"):
        return values[0] + values[1] if node.op == "add" else values[0] - values[1]
    if node.op in ("smul", "umul"):
        return _signed(operands[0]) * _signed(operands[1])
    if node.op == "concat":
        result = 0
        for value, operand in zip(values, operands, strict=True):
            result = (result << operand.width) | value
        return result
    return None


class ExpressionGraph:
    """The nodes, and what is known about the states they read."""

    def __init__(self, state_ranges: Mapping[str, Range] | None = None) -> None:
        self.nodes: list[Expression] = []
        self._index: dict[Expression, Ref] = {}
        self._ranges: dict[Ref, Range] = {}
        self.state_ranges = dict(state_ranges or {})

    def forget_ranges(self, state_ranges: Mapping[str, Range]) -> None:
        """Start the range analysis again with other assumptions about states."""
        self._ranges.clear()
        self.state_ranges = dict(state_ranges)

    # Access

    def width(self, ref: Ref) -> int:
        return self.nodes[ref].width

    def literal_value(self, ref: Ref) -> int | None:
        node = self.nodes[ref]
        return int(node.extra) if node.op == "literal" else None

    def is_true(self, ref: Ref) -> bool:
        return self.literal_value(ref) == 1 and self.width(ref) == 1

    def is_false(self, ref: Ref) -> bool:
        return self.literal_value(ref) == 0

    # Leaves

    def node(self, op: str, width: int, operands: Iterable[Ref] = (), extra: int | str = 0) -> Ref:
        node = Expression(op, width, tuple(operands), extra)
        if node.operands and all(self.nodes[x].op == "literal" for x in node.operands):
            value = fold(node, [self.nodes[x] for x in node.operands])
            if value is not None:
                return self.literal(width, value)
        if node not in self._index:
            self._index[node] = len(self.nodes)
            self.nodes.append(node)
        return self._index[node]

    def literal(self, width: int, value: int) -> Ref:
        return self.node("literal", width, (), value & ((1 << width) - 1))

    @property
    def true(self) -> Ref:
        return self.literal(1, 1)

    @property
    def false(self) -> Ref:
        return self.literal(1, 0)

    def state(self, name: str, width: int) -> Ref:
        return self.node("state", width, (), name)

    def received(self, channel: str, width: int) -> Ref:
        return self.node("receive", width, (), channel)

    # Logic

    def and_(self, a: Ref, b: Ref) -> Ref:
        for x, y in ((a, b), (b, a)):
            if self.literal_value(x) == 0:
                return x
            if self.literal_value(x) == (1 << self.width(x)) - 1:
                return y
        return a if a == b else self.node("and", self.width(a), (a, b))

    def or_(self, a: Ref, b: Ref) -> Ref:
        for x, y in ((a, b), (b, a)):
            if self.literal_value(x) == 0:
                return y
            if self.literal_value(x) == (1 << self.width(x)) - 1:
                return x
        left, right = self.nodes[a], self.nodes[b]
        if left.op == right.op == "and":  # (p & c) | (p & ~c) = p
            for i in (0, 1):
                for j in (0, 1):
                    opposite = self.not_(left.operands[1 - i]) == right.operands[1 - j]
                    if left.operands[i] == right.operands[j] and opposite:
                        return left.operands[i]
        return a if a == b else self.node("or", self.width(a), (a, b))

    def any_of(self, refs: Iterable[Ref]) -> Ref:
        result = self.false
        for ref in refs:
            result = self.or_(result, ref)
        return result

    def not_(self, a: Ref) -> Ref:
        value = self.literal_value(a)
        if value is not None:
            return self.literal(self.width(a), ~value)
        node = self.nodes[a]
        return node.operands[0] if node.op == "not" else self.node("not", node.width, (a,))

    def xor(self, a: Ref, b: Ref) -> Ref:
        width = self.width(a)
        if self.literal_value(b) == (1 << width) - 1:
            return self.not_(a)
        return a if self.literal_value(b) == 0 else self.node("xor", width, (a, b))

    def mask(self, a: Ref, mask: int) -> Ref:
        """Return a & mask; the mask of the low bits is wiring."""
        width = self.width(a)
        low = mask.bit_length()
        if mask & (mask + 1) == 0 and low:
            return self.extend(self.slice(a, 0, low), width, signed=False)
        return self.and_(a, self.literal(width, mask))

    def select(self, condition: Ref, when_true: Ref, when_false: Ref) -> Ref:
        if when_true == when_false:
            return when_true
        value = self.literal_value(condition)
        if value is not None:
            return when_true if value else when_false
        if self.width(when_true) == 1:
            if self.is_false(when_false):
                return self.and_(condition, when_true)
            if self.is_true(when_true):
                return self.or_(condition, when_false)
        width = self.width(when_true)
        return self.node("sel", width, (condition, when_true, when_false))

    def choose(self, cases: Sequence[tuple[Ref, Ref]]) -> Ref:
        """Return the value of the first pair (condition, value) that holds; one has to hold.

        So a factor of all conditions decides nothing: (p & c, x), (p & ~c, y) is c ? x : y.
        """
        factors = [self.factors(condition) for condition, _ in cases]
        common = set(factors[0]).intersection(*factors)
        result = cases[-1][1]
        for factor, (_, value) in reversed([*zip(factors[:-1], cases[:-1], strict=True)]):
            condition = self.true
            for ref in factor:
                condition = condition if ref in common else self.and_(condition, ref)
            result = self.select(condition, value, result)
        return result

    def cone(self, roots: Iterable[Ref]) -> set[Ref]:
        """Return everything that expressions are made of, themselves included."""
        seen = set(roots)
        stack = list(seen)
        while stack:
            fresh = set(self.nodes[stack.pop()].operands) - seen
            seen |= fresh
            stack += fresh
        return seen

    def factors(self, condition: Ref) -> list[Ref]:
        """Return the operands of a tree of ands, in order."""
        node = self.nodes[condition]
        if node.op != "and":
            return [condition]
        return list(dict.fromkeys(ref for x in node.operands for ref in self.factors(x)))

    # Wiring

    def slice(self, a: Ref, start: int, width: int) -> Ref:
        node = self.nodes[a]
        if start == 0 and width == node.width:
            return a
        if node.op == "literal":
            return self.literal(width, int(node.extra) >> start)
        if node.op == "bit_slice":
            return self.slice(node.operands[0], int(node.extra) + start, width)
        if node.op in ("zero_ext", "sign_ext") and start == 0:
            inner = node.operands[0]
            if width <= self.width(inner):
                return self.slice(inner, 0, width)
            return self.extend(inner, width, signed=node.op == "sign_ext")
        if node.op == "shll" and start == 0:
            low = self.slice(node.operands[0], 0, width)
            return self.node("shll", width, (low, node.operands[1]))
        return self.node("bit_slice", width, (a,), start)

    def extend(self, a: Ref, width: int, *, signed: bool) -> Ref:
        node = self.nodes[a]
        if width == node.width:
            return a
        op = "sign_ext" if signed else "zero_ext"
        if node.op == "literal":
            value = int(node.extra)
            negative = signed and value >> (node.width - 1)
            return self.literal(width, value - (1 << node.width) if negative else value)
        if node.op in (op, "zero_ext"):
            return self.node(node.op, width, node.operands)
        return self.node(op, width, (a,))

    def resize(self, a: Ref, width: int, *, signed: bool) -> Ref:
        """Truncate or extend to `width` bits."""
        if self.width(a) >= width:
            return self.slice(a, 0, width)
        return self.extend(a, width, signed=signed)

    def concat(self, parts: Sequence[Ref]) -> Ref:
        """Join the parts, highest first."""
        if len(parts) == 1:
            return parts[0]
        return self.node("concat", sum(self.width(part) for part in parts), parts)

    # Arithmetic

    def add(self, op: str, a: Ref, b: Ref) -> Ref:
        """Return a + b or a - b (op "add", "sub")."""
        width = self.width(a)
        if self.literal_value(b) == 0:
            return a
        if op == "add" and self.literal_value(a) == 0:
            return b
        narrow = max(self.range(a).signed, self.range(b).signed) + 1
        if narrow >= width:
            return self.node(op, width, (a, b))
        total = self.node(op, narrow, (self.slice(a, 0, narrow), self.slice(b, 0, narrow)))
        return self.extend(total, width, signed=True)

    def multiply(self, a: Ref, b: Ref) -> Ref:
        width = self.width(a)
        for factor, value in ((b, a), (a, b)):
            constant = self.literal_value(factor)
            if constant is not None:
                digits = signed_digits(constant, width)
                if len(digits) <= SHIFTED_TERMS:
                    return self._sum_of_shifts(value, digits)
        bits_a, bits_b = self.range(a).signed, self.range(b).signed
        if bits_a + bits_b > width and bits_a == width and bits_b == width:
            return self.node("umul", width, (a, b))
        narrow = min(width, bits_a + bits_b)
        operands = (self.slice(a, 0, bits_a), self.slice(b, 0, bits_b))
        return self.extend(self.node("smul", narrow, operands), width, signed=True)

    def _sum_of_shifts(self, value: Ref, digits: Sequence[tuple[int, int]]) -> Ref:
        total = self.literal(self.width(value), 0)
        for place, sign in sorted(digits, key=lambda digit: -digit[1]):
            total = self.add(
                "add" if sign > 0 else "sub", total, self._shift_by("shl", value, place)
            )
        return total

    def shift(self, op: str, a: Ref, amount: Ref) -> Ref:
        """Return a shifted by `amount` (op "shl", "lshr", "ashr")."""
        count = self.literal_value(amount)
        if count is not None:
            return self._shift_by(op, a, count)
        width, range_ = self.width(a), self.range(a)
        amount = self.slice(amount, 0, max(1, self.range(amount).unsigned))
        signed = op == "ashr" and range_.unsigned == width
        narrow = range_.signed if signed else max(1, range_.unsigned)
        if op == "shl" or narrow >= width:
            return self.node(SHIFTS[op], width, (a, amount))
        low = self.slice(a, 0, narrow)
        shifted = self.node("shra" if signed else "shrl", narrow, (low, amount))
        return self.extend(shifted, width, signed=signed)

    def _shift_by(self, op: str, a: Ref, count: int) -> Ref:
        width = self.width(a)
        if count == 0:
            return a
        if count >= width:  # undefined in LLVM
            return self.literal(width, 0)
        if op != "shl":
            return self._shift_right(a, count, signed=op == "ashr")
        zeros = self.literal(count, 0)
        narrow = self.range(a).signed
        if narrow + count < width:
            return self.extend(self.concat([self.slice(a, 0, narrow), zeros]), width, signed=True)
        return self.concat([self.slice(a, 0, width - count), zeros])

    def _shift_right(self, a: Ref, count: int, *, signed: bool) -> Ref:
        """Wiring; a shift left before (as in (x << 24) >> 24) is undone, not stacked."""
        node, width = self.nodes[a], self.width(a)
        if node.op == "concat" and len(node.operands) == 2 and self.is_false(node.operands[1]):
            left = self.width(node.operands[1])
            if left <= count:
                kept = self.slice(node.operands[0], count - left, width - count)
                return self.extend(kept, width, signed=signed)
        return self.extend(self.slice(a, count, width - count), width, signed=signed)

    def compare(self, predicate: str, a: Ref, b: Ref) -> Ref:
        """Return the XLS comparison `predicate` (eq, ne, slt, ... uge) of a and b."""
        literal = self.literal_value(b)
        if self.width(a) == 1 and predicate in ("eq", "ne") and literal is not None:
            return a if (literal == 1) == (predicate == "eq") else self.not_(a)
        left, right = self.range(a), self.range(b)
        narrow = max(left.signed, right.signed)
        if not predicate.startswith("s"):
            narrow = max(1, min(narrow, max(left.unsigned, right.unsigned)))
        if narrow < self.width(a):
            a, b = self.slice(a, 0, narrow), self.slice(b, 0, narrow)
        x, y = self.literal_value(a), self.literal_value(b)
        if x is not None and y is not None and predicate in ("eq", "ne"):
            return self.literal(1, int((x == y) == (predicate == "eq")))
        return self.node(predicate, 1, (a, b))

    # Ranges

    def range(self, ref: Ref) -> Range:
        """Return how many bits the value needs."""
        stack = [ref]
        while stack:
            top = stack[-1]
            missing = [x for x in self.nodes[top].operands if x not in self._ranges]
            if top in self._ranges:
                stack.pop()
            elif missing:
                stack += missing
            else:
                self._ranges[top] = self._range(self.nodes[top])
                stack.pop()
        return self._ranges[ref]

    def _range(self, node: Expression) -> Range:
        width = node.width
        if node.op == "literal":
            return literal_range(int(node.extra), width)
        if node.op == "state":
            return self.state_ranges.get(str(node.extra), Range(width, width))
        rule = _RANGE_RULES.get(node.op)
        if rule is None:
            return Range(width, width)
        found = rule(node, [self._ranges[x] for x in node.operands], self)
        unsigned, signed = min(width, found.unsigned), min(width, found.signed)
        if unsigned < width:
            signed = min(signed, unsigned + 1)
        return Range(unsigned, signed)


def _range_extend(node: Expression, of: list[Range], graph: ExpressionGraph) -> Range:
    inner = graph.width(node.operands[0])
    if node.op == "zero_ext":
        return Range(of[0].unsigned, of[0].unsigned + 1)
    return Range(of[0].unsigned if of[0].unsigned < inner else node.width, of[0].signed)


def _range_slice(node: Expression, of: list[Range], _: ExpressionGraph) -> Range:
    start = int(node.extra)
    return Range(max(0, of[0].unsigned - start), max(1, of[0].signed - start))


def _range_and(_: Expression, of: list[Range], __: ExpressionGraph) -> Range:
    return Range(min(x.unsigned for x in of), max(x.signed for x in of))


def _range_union(node: Expression, of: list[Range], _: ExpressionGraph) -> Range:
    values = of[1:] if node.op == "sel" else of
    return Range(max(x.unsigned for x in values), max(x.signed for x in values))


def _range_sum(node: Expression, of: list[Range], _: ExpressionGraph) -> Range:
    unsigned = max(x.unsigned for x in of) + 1 if node.op == "add" else node.width
    return Range(unsigned, max(x.signed for x in of) + 1)


def _range_product(node: Expression, of: list[Range], graph: ExpressionGraph) -> Range:
    known = all(x.unsigned < graph.width(ref) for x, ref in zip(of, node.operands, strict=True))
    unsigned = sum(x.unsigned for x in of) if known else node.width
    return Range(unsigned, sum(x.signed for x in of))


def _range_shift_right(node: Expression, of: list[Range], _: ExpressionGraph) -> Range:
    if node.op == "shrl":
        return Range(of[0].unsigned, node.width)
    return Range(of[0].unsigned, of[0].signed)


def _range_concat(node: Expression, of: list[Range], graph: ExpressionGraph) -> Range:
    below = node.width - graph.width(node.operands[0])
    return Range(of[0].unsigned + below, of[0].signed + below)


_RANGE_RULES = {
    "zero_ext": _range_extend,
    "sign_ext": _range_extend,
    "bit_slice": _range_slice,
    "and": _range_and,
    "or": _range_union,
    "xor": _range_union,
    "sel": _range_union,
    "add": _range_sum,
    "sub": _range_sum,
    "smul": _range_product,
    "shrl": _range_shift_right,
    "shra": _range_shift_right,
    "concat": _range_concat,
}
