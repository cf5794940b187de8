# SPDX-License-Identifier: Apache-2.0
"""Enables of registers without needless waits, and sends without needless notes.

XLS has one bit per stage that says that all of its ports are done, and every register of the stage
takes that bit, whatever the control step does. What changes in one step only need not ask for the
ports of another: there the wait, which reads "ready, done already, or not wanted", is true by the
condition of the register itself.

    moves = a_ok & b_ok & c_ok;  b_ok = b_rdy | ~at_2;  c_ok = c_rdy | ~at_3;  e = moves & at_2;
 -> e = a_ok & b_ok & at_2;
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from openhls.handshake import ASSIGN

_ENABLE = re.compile(r"(?:<=|_rdy =) (and_\w+)(?: \?|;)")
_WIDE = re.compile(r"^  (?:input wire|reg|wire) \[(\d+):0\] (\w+)", re.M)
_TOKEN = re.compile(r"\s*(\d+'h[0-9a-f_]+|[A-Za-z_]\w*(?:\[\d+\])?|==|[~&|()])")
_OPERAND = re.compile(r"\w.*")
_DONE = re.compile(r"^ *(__\w+_already_done_reg) <= (\w+) \? (\w+) : \1;\n", re.M)
_MOST_BITS = 4  # of what is compared with a constant, bit by bit
_MOST_STEPS = 300  # of a search for values that make a wait matter


def narrow_enables(verilog: str) -> str:
    """Leave out the waits that the other factors of an enable make true."""
    logic = _logic_of(verilog)
    for name in dict.fromkeys(_ENABLE.findall(verilog)):
        factors = logic.factors(name)
        waits = [factor for factor in factors if logic.is_wait(factor)]
        others = [factor for factor in factors if factor not in waits]
        when = [(factor, True) for factor in others]
        kept = [logic.wait(x, when) for x in waits if logic.satisfiable([(x, False), *when])]
        if kept != waits:
            text = f"  assign {name} = {' & '.join([*kept, *others])};\n"
            verilog = re.sub(rf"^ *assign {name} = .*;\n", text, verilog, flags=re.M)
    return verilog


def drop_done_registers(verilog: str) -> str:
    """Take out the note that a word has left already where it leaves as its stage moves, always.

    XLS keeps one for every send. It is never set where no other port of the stage waits:

        goes = active & rdy;  moves = active & (rdy | done);  early = goes & ~moves;
        done <= goes | moves ? early : done;
     -> done = 0;
    """
    logic = _logic_of(verilog)
    for register, _, stays in _DONE.findall(verilog):
        if not logic.satisfiable([(stays, True)]):
            verilog = re.sub(rf"^ *{register} <= .*\n", "", verilog, flags=re.M)
            verilog = verilog.replace(f"  reg {register};\n", f"  wire {register} = 1'h0;\n")
    return verilog


def _logic_of(verilog: str) -> _Logic:
    """Read the assignments of a module."""
    widths = {name: int(high) + 1 for high, name in _WIDE.findall(verilog)}
    return _Logic(dict(ASSIGN.findall(verilog)), widths)


# An expression: a name or constant, or an operator and its operands.
Tree = str | tuple["Tree", ...]
Known = tuple[bool | None, str]  # a value, else a variable that it depends on
Goal = tuple[str, bool]  # a net and its value


class _Logic:
    """The one-bit nets of a module. What is computed otherwise is a free variable."""

    def __init__(self, sources: Mapping[str, str], widths: Mapping[str, int]) -> None:
        self.sources = sources
        self.widths = widths
        self.trees: dict[str, Tree] = {}

    def factors(self, name: str) -> list[str]:
        """Return the nets whose conjunction a net is, in order."""
        parts = self.sources.get(name, "").split(" & ")
        if len(parts) == 1 or not all(re.fullmatch(r"\w+", part) for part in parts):
            return [name]
        return list(dict.fromkeys(x for part in parts for x in self.factors(part)))

    def is_wait(self, name: str) -> bool:
        """Tell whether a net reads: a pin is ready or valid, or something else holds."""
        source = self.sources.get(name, "")
        return bool(re.fullmatch(r"\w+_(?:rdy|vld)(?: \| \w+)+", source))

    def wait(self, name: str, when: Sequence[Goal]) -> str:
        """Return a wait, without the cases of its port, and their factors, that `when` decides."""
        *ready, idle = self.sources[name].split(" | ")
        wanted = self.sources.get(idle, "").removeprefix("~")
        cases = self.sources.get(wanted, "").split(" | ")
        if not all(re.fullmatch(r"\w+", case) for case in cases):
            cases = [wanted]
        if not self.sources.get(idle, "").startswith("~") or not re.fullmatch(r"\w+", wanted):
            return name
        known = {factor for factor, _ in when}
        kept = [self.factors(case) for case in cases if self.satisfiable([(case, True), *when])]
        left = [[factor for factor in case if factor not in known] for case in kept]
        if len(kept) == len(cases) and left == kept:
            return name
        if all(left):
            ready.append(f"~({' | '.join(' & '.join(case) for case in left)})")
        return f"({' | '.join(ready)})"

    def satisfiable(self, goals: Sequence[Goal]) -> bool:
        """Tell whether registers and pins can have values that give nets theirs; or too hard."""
        stack: list[dict[str, bool]] = [{}]
        for _ in range(_MOST_STEPS):
            if not stack:
                return False
            values = stack.pop()
            known: dict[str, Known] = {name: (value, "") for name, value in values.items()}
            found = [(self._net(name, known), wanted) for name, wanted in goals]
            if any(value is (not wanted) for (value, _), wanted in found):
                continue
            free = [variable for (_, variable), _ in found if variable]
            if not free:
                return True
            stack += [values | {free[0]: value} for value in (False, True)]
        return True

    def _net(self, name: str, known: dict[str, Known]) -> Known:
        if name not in known:
            if "'" in name:
                known[name] = (_number(name) != 0, "")
            else:
                tree = self._tree(name)
                known[name] = (None, name) if tree == name else self._value(tree, known)
        return known[name]

    def _tree(self, name: str) -> Tree:
        if name not in self.trees:
            source = self.sources.get(name, "") if self.widths.get(name, 1) == 1 else ""
            self.trees[name] = _parse(source) or name
        return self.trees[name]

    def _value(self, tree: Tree, known: dict[str, Known]) -> Known:
        if isinstance(tree, str):
            return self._net(tree, known)
        if tree[0] == "==":
            return self._equal(str(tree[1]), str(tree[2]), known)
        operands = [self._value(operand, known) for operand in tree[1:]]
        if tree[0] == "~":
            value, free = operands[0]
            return (None if value is None else not value), free
        decisive = tree[0] == "|"
        if any(value is decisive for value, _ in operands):
            return decisive, ""
        free = next((variable for _, variable in operands if variable), "")
        return (None, free) if free else (not decisive, "")

    def _equal(self, a: str, b: str, known: dict[str, Known]) -> Known:
        """Compare a narrow net with a constant, bit by bit."""
        constant = self.sources.get(b, b)
        width = self.widths.get(a, 1)
        if "'" not in constant or width > _MOST_BITS:
            key = f"{a} == {b}"
            return known.get(key, (None, key))
        bits = [f"{a}[{bit}]" if width > 1 else a for bit in range(width)]
        found = [known.get(bit, (None, bit)) for bit in bits]
        wanted = [bool(_number(constant) >> bit & 1) for bit in range(width)]
        if any(value is (not want) for (value, _), want in zip(found, wanted, strict=True)):
            return False, ""
        free = next((variable for _, variable in found if variable), "")
        return (None, free) if free else (True, "")


def _number(literal: str) -> int:
    return int(literal.split("'h")[1].replace("_", ""), 16)


def _parse(text: str) -> Tree:
    """Return the tree of an expression of ~ & | ==, names, bits and constants; else nothing."""
    tokens, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            return ""
        tokens.append(match.group(1))
        place = match.end()
    try:
        tree = _operands(tokens, "|&=")
    except (IndexError, ValueError):
        return ""
    return "" if tokens else tree


def _operands(tokens: list[str], operators: str) -> Tree:
    """Take what binds at least as loosely as the first of `operators`."""
    if not operators:
        return _operand(tokens)
    operator = "==" if operators[0] == "=" else operators[0]
    found = [_operands(tokens, operators[1:])]
    while tokens and tokens[0] == operator:
        tokens.pop(0)
        found.append(_operands(tokens, operators[1:]))
    if operator == "==" and len(found) > 1 and not all(isinstance(x, str) for x in found):
        raise ValueError("comparison of expressions")
    return (operator, *found) if len(found) > 1 else found[0]


def _operand(tokens: list[str]) -> Tree:
    token = tokens.pop(0)
    if token == "~":
        return ("~", _operand(tokens))
    if token == "(":
        tree = _operands(tokens, "|&=")
        if tokens.pop(0) != ")":
            raise ValueError("a parenthesis is open")
        return tree
    if not _OPERAND.fullmatch(token):
        raise ValueError(f"not an operand: {token}")
    return token
