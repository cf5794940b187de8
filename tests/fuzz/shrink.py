# SPDX-License-Identifier: Apache-2.0
"""Makes a failing design small: fewer statements, simpler expressions, shorter loops and inputs.

Every edit of a tree leaves a legal design. The edits of one family are tried in groups, large ones
first; those that each still fail alone are then made together if that fails too (Zeller &
Hildebrandt 2002, with all groups of a size judged at once, as one batch costs little more than one
design).

    for (...) { a = b + c; d++; out.write(a); }  ->  out.write(b);
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from tests.fuzz.case import EXTRA_CALLS
from tests.fuzz.generate import num_receives
from tests.fuzz.program import (
    Assign,
    Binary,
    Choose,
    Design,
    Expr,
    If,
    Literal,
    Loop,
    Name,
    Process,
    Stmt,
    Switch,
    Unary,
    as_ap,
    operation,
)

Fails = Callable[[Sequence[Design]], list[bool]]
Path = tuple[str | int, ...]  # fields and indices from the design to a statement or expression
Edits = Mapping[Path, Any]  # what stands there instead: a body for a statement
Family = Callable[[Design], Edits]
WIDTH = 24  # designs that are judged at a time


def shrink(design: Design, fails: Fails, *, passes: int = 2) -> Design:
    """Return a smaller design that fails; `fails` judges several designs at a time."""
    for _ in range(passes):
        before = design
        design = _smallest([*_alone_variants(design), *_fewer_calls(design)], design, fails)
        for family in (_removals, _zeros, _unwrapped, _removals, _simpler):
            design = _thin_out(design, family, fails)
        if design == before:
            break
    return design


def _thin_out(design: Design, family: Family, fails: Fails) -> Design:
    """Make as many edits of a family as leave the design failing."""
    start = 0
    while groups := _groups(family(design))[start : start + WIDTH]:
        found = [apply_edits(design, group) for group in groups]
        good = [i for i, failed in enumerate(fails(found)) if failed]
        candidates = [found[i] for i in good]
        if len(good) > 1:
            together = apply_edits(design, {p: x for i in good for p, x in groups[i].items()})
            candidates += [together] if fails([together])[0] else []
        best = min([*candidates, design], key=_size)
        start = start + WIDTH if best is design else 0
        design = best
    return design


def _groups(edits: Edits) -> list[Edits]:
    """Return runs of edits: all, halves or thirds, ..., single ones."""
    items, size, found = list(edits.items()), len(edits), list[Edits]()
    while size:
        found += [dict(items[i : i + size]) for i in range(0, len(items), size)]
        size //= 3 if size > 8 else 2
    return found


def _smallest(candidates: Sequence[Design], design: Design, fails: Fails) -> Design:
    """Return the smallest candidate that fails, the design itself if none does."""
    judged = fails(candidates) if candidates else []
    failing = [x for x, failed in zip(candidates, judged, strict=True) if failed]
    return min([*failing, design], key=_size)


def _size(design: Design) -> int:
    return len(design.text()) + design.calls


# Whole processes


def _fewer_calls(design: Design) -> list[Design]:
    return [tidy(replace(design, calls=1))] if design.calls > 1 else []


def _alone_variants(design: Design) -> list[Design]:
    """Return each process of a chain alone; what joined it goes to the outside."""
    if len(design.processes) == 1:
        return []
    return [_alone(design, process) for process in design.processes if not process.banks]


def _alone(design: Design, process: Process) -> Design:
    inputs = tuple(replace(x, depth=0) for x in process.inputs)
    outputs = tuple(replace(x, depth=0) for x in process.outputs)
    known, most = dict(design.tokens), design.calls + EXTRA_CALLS
    tokens = tuple(
        (
            x.name,
            known.get(x.name) or _counted(x.token.bits, most * num_receives(process.body, x.name)),
        )
        for x in inputs
    )
    return replace(
        design, processes=(replace(process, inputs=inputs, outputs=outputs),), tokens=tokens
    )


def _counted(bits: int, count: int) -> tuple[int, ...]:
    """Return tokens for a stream that had none of its own: a number in every byte."""
    ones = int("01" * (bits // 8 + 1), 16)
    return tuple((ones * (i % 256)) & ((1 << bits) - 1) for i in range(count))


# Edits


def apply_edits(design: Design, edits: Edits) -> Design:
    """Return the design with the edits made; one inside of another is lost."""
    changed = _rebuild(design, edits, ())
    assert isinstance(changed, Design)
    return tidy(changed)


def _rebuild(node: Any, edits: Edits, path: Path) -> Any:
    if isinstance(node, tuple):
        parts: list[Any] = []
        for i, item in enumerate(node):
            here = (*path, i)
            if here in edits and isinstance(item, Stmt):
                parts += edits[here]
            else:
                parts.append(_rebuild(item, edits, here))
        return tuple(parts)
    if path in edits:
        return edits[path]
    if isinstance(node, (Stmt, Expr, Process, Design)):
        changed = {n: _rebuild(x, edits, (*path, n)) for n, x in _parts(node)}
        if isinstance(node, Binary | Unary):
            return _defined(replace(node, **changed))
        return replace(node, **changed)
    return node


def _parts(node: Any) -> Iterator[tuple[str, Any]]:
    kinds = (tuple, Stmt, Expr, Process)
    yield from ((f.name, x) for f in fields(node) if isinstance(x := getattr(node, f.name), kinds))


def _defined(node: Expr) -> Expr:
    """Return an operation whose first operand is an ap_int again: then it is defined."""
    if isinstance(node, Unary):
        return replace(node, value=as_ap(node.value))
    if isinstance(node, Binary):
        return operation(node.type, node.op, node.left, node.right)
    return node


def _walk(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every statement and expression that may be replaced, outer ones first."""
    if isinstance(node, (Stmt, Expr)):
        yield path, node
    if isinstance(node, tuple):
        for i, item in enumerate(node):
            yield from _walk(item, (*path, i))
    elif isinstance(node, (Stmt, Expr, Process, Design)):
        for name, item in _parts(node):
            if name not in ("target", "whole"):
                yield from _walk(item, (*path, name))


def _removals(design: Design) -> Edits:
    return {p: () for p, x in _walk(design) if isinstance(x, Stmt) and not x.pinned}


def _unwrapped(design: Design) -> Edits:
    """What holds statements becomes the first ones it holds."""
    edits: dict[Path, Any] = {}
    for path, node in _walk(design):
        if isinstance(node, Stmt) and not node.pinned:
            if isinstance(node, If):
                edits[path] = node.yes
            elif isinstance(node, Switch):
                edits[path] = node.cases[0]
            elif isinstance(node, Loop):
                edits[path] = _without_counter(node.body, node.counter)
    return edits


def _without_counter(node: Any, counter: str) -> Any:
    """Return a part of a program with 0 for the counter of a loop that is gone."""
    if isinstance(node, Name):
        if node.text == counter:
            return Literal(node.type, 0)
        return replace(node, text=node.text.replace(f"[{counter}]", "[0]"))
    if isinstance(node, tuple):
        return tuple(_without_counter(x, counter) for x in node)
    if isinstance(node, (Stmt, Expr)):
        return replace(node, **{n: _without_counter(v, counter) for n, v in _parts(node)})
    return node


def _zeros(design: Design) -> Edits:
    return {
        path: Literal(node.type, 0)
        for path, node in _walk(design)
        if isinstance(node, Expr) and not isinstance(node, Literal)
    }


def _simpler(design: Design) -> Edits:
    """An expression becomes one of its operands; loops become short."""
    edits: dict[Path, Any] = {}
    for path, node in _walk(design):
        if isinstance(node, Expr):
            operands = [x for n, x in _parts(node) if n not in ("whole", "condition")]
            if operands and not (isinstance(node, Choose) and path[-1] == "whole"):
                edits[path] = operands[0]
        elif isinstance(node, Loop) and not node.pinned and node.count > 2:
            edits[path] = (replace(node, count=2),)
        elif isinstance(node, Assign) and node.op != "=":
            edits[path] = (replace(node, op="="),)
    return edits


# What is no longer needed


def tidy(design: Design) -> Design:
    """Return the design without unused variables, memories, streams and tokens."""
    processes = tuple(_tidy_process(process) for process in design.processes)
    most = design.calls + EXTRA_CALLS
    tokens = tuple(
        (stream.name, dict(design.tokens)[stream.name][: most * num_receives(p.body, stream.name)])
        for p in processes
        for stream in p.inputs
        if not stream.depth
    )
    return replace(design, processes=processes, tokens=tokens)


def _tidy_process(process: Process) -> Process:
    text = "\n".join(line for statement in process.body for line in statement.lines())
    words = set(re.findall(r"\w+", text))
    return replace(
        process,
        inputs=tuple(x for x in process.inputs if x.name in words or x.depth),
        outputs=tuple(x for x in process.outputs if x.name in words or x.depth),
        variables=tuple(x for x in process.variables if x.name in words),
        memories=tuple(x for x in process.memories if x.name in words),
    )
