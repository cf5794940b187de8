# SPDX-License-Identifier: Apache-2.0
"""Updates of states without the question whether their loop goes on.

The last iteration of a loop leaves its variables alone. But nobody reads them any more, so they may
change: what ends a loop, often known late, then is in no enable.

    step 1: goes on = ~last;  sum' = sum + x, if step 1 and ~last     (step 0 sets sum)
 -> step 1:                   sum' = sum + x, if step 1
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from openhls.expression_graph import ExpressionGraph, Ref
from openhls.machine import Machine
from openhls.ranges import FSM

_LOGIC = ("and", "or")


@dataclass
class _StepEffects:
    """A control step: the states it reads, when it updates others, where it leads and when."""

    active: Ref
    reads: set[str] = field(default_factory=set)
    updates: dict[str, set[Ref]] = field(default_factory=lambda: defaultdict(set))
    edges: list[tuple[Ref, int]] = field(default_factory=list)


def update_dead_states(machine: Machine, actives: Sequence[Ref]) -> None:
    """Find where steps may update states that nobody reads afterwards: `machine.dead`.

    `actives` are the conditions of the control steps, in the order of their numbers.
    """
    if len(actives) < 2:
        return
    steps = _find_steps(machine, actives)
    live = _live_states(machine, steps)
    for step in steps:
        for name, conditions in step.updates.items():
            if all(
                name not in live[target] or implies_any(machine.graph, edge, conditions)
                for edge, target in step.edges
            ):
                machine.dead[name].append(step.active)


class _Reader:
    """Shares out what a machine does to its steps; what may happen in any, to all."""

    def __init__(self, machine: Machine, actives: Sequence[Ref]) -> None:
        self.machine = machine
        self.graph = machine.graph
        self.steps = [_StepEffects(active) for active in actives]
        self.numbers = _numbers(self.graph, actives)

    def owners(self, condition: Ref) -> list[_StepEffects]:
        number = self.numbers[condition]
        return self.steps if number is None else [self.steps[number]]

    def read(self, condition: Ref, *values: Ref) -> None:
        """Note what a step reads that uses values under a condition."""
        for step in self.owners(condition):
            for ref in (condition, *values):
                step.reads |= _states(self.graph, ref)

    def update(self, name: str, condition: Ref, value: Ref) -> None:
        if name == FSM:
            self.lead(condition, value)
        elif self.graph.is_true(condition):
            for part in _terms(self.graph, value):
                self.read(part)
        elif value != self.graph.state(name, self.machine.states[name].width):
            for step in self.owners(condition):
                step.updates[name].add(condition)
            self.read(condition, value)

    def lead(self, condition: Ref, value: Ref) -> None:
        target = self.graph.literal_value(value)
        found = self.owners(condition)
        if target is None or len(found) > 1:
            raise AssertionError("the next step must have a number, and come after one step")
        found[0].edges.append((condition, target))
        self.read(condition)


def _find_steps(machine: Machine, actives: Sequence[Ref]) -> list[_StepEffects]:
    reader = _Reader(machine, actives)
    for conditions in machine.receives.values():
        for condition in conditions:
            reader.read(condition)
    for pairs in machine.sends.values():
        for condition, value in pairs:
            reader.read(condition, value)
    for name, pairs in machine.nexts.items():
        for condition, value in pairs:
            reader.update(name, condition, value)
    return reader.steps


def _numbers(graph: ExpressionGraph, actives: Sequence[Ref]) -> list[int | None]:
    """Return by node the number of the only step in which it can hold, if that shows."""
    numbers: list[int | None] = []
    for ref, node in enumerate(graph.nodes):
        found = {numbers[x] for x in node.operands} if node.op in _LOGIC else set()
        if node.op == "and":
            found.discard(None)
        number = found.pop() if len(found) == 1 else None
        numbers.append(actives.index(ref) if ref in actives else number)
    return numbers


def _terms(graph: ExpressionGraph, ref: Ref) -> list[Ref]:
    """Return the operands of a tree of ors."""
    node = graph.nodes[ref]
    return [x for a in node.operands for x in _terms(graph, a)] if node.op == "or" else [ref]


def _states(graph: ExpressionGraph, root: Ref) -> set[str]:
    """Return the states that an expression reads."""
    nodes = (graph.nodes[ref] for ref in graph.cone([root]))
    return {str(node.extra) for node in nodes if node.op == "state"}


def implies_any(graph: ExpressionGraph, condition: Ref, conditions: Collection[Ref]) -> bool:
    """Tell whether a condition has all factors of one of the others."""
    factors = set(graph.factors(condition))
    return any(factors.issuperset(graph.factors(other)) for other in conditions)


def _live_states(machine: Machine, steps: Sequence[_StepEffects]) -> list[set[str]]:
    """Return by step the states that it, or a later one, reads before they are set."""
    graph = machine.graph
    live = [set(step.reads) for step in steps]
    changed = True
    while changed:
        changed = False
        for step, found in zip(steps, live, strict=True):
            for edge, target in step.edges:
                lost = {
                    name
                    for name in live[target] - found
                    if not implies_any(graph, edge, step.updates.get(name, ()))
                    and not implies_any(graph, edge, machine.undefined.get(name, ()))
                }
                changed = changed or bool(lost)
                found |= lost
    return live
