# SPDX-License-Identifier: Apache-2.0
"""A process as a state machine: what it keeps, receives and sends in one control step."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from openhls.channels import Channel, Port, Role
from openhls.expression_graph import ExpressionGraph, Ref


@dataclass(slots=True)
class State:
    """A register: its width and its value after reset."""

    width: int
    initial: int = 0


@dataclass(slots=True)
class Machine:
    """In every control step all expressions are evaluated on the old states.

    `receives` holds the conditions under which a port is read; `sends` pairs of condition and
    value; `nexts` pairs of condition and new value of a state, which else stays, unless one of its
    `dead` conditions holds: then it may take any value. When one of
    `undefined` holds nobody needs the value that it had.
    """

    graph: ExpressionGraph
    states: dict[str, State] = field(default_factory=dict)
    nexts: dict[str, list[tuple[Ref, Ref]]] = field(default_factory=lambda: defaultdict(list))
    receives: dict[Port, list[Ref]] = field(default_factory=lambda: defaultdict(list))
    sends: dict[Port, list[tuple[Ref, Ref]]] = field(default_factory=lambda: defaultdict(list))
    widths: dict[Port, int] = field(default_factory=dict)
    depths: dict[Port, int] = field(default_factory=dict)
    dead: dict[str, list[Ref]] = field(default_factory=lambda: defaultdict(list))
    undefined: dict[str, list[Ref]] = field(default_factory=lambda: defaultdict(list))
    num_steps: int = 1

    def roots(self) -> list[Ref]:
        """Return the expressions that are always needed: conditions and what is sent."""
        found = [condition for conditions in self.receives.values() for condition in conditions]
        found += [ref for pairs in self.sends.values() for pair in pairs for ref in pair]
        return found + [condition for pairs in self.nexts.values() for condition, _ in pairs]

    def input_node(self, port: Port) -> Ref:
        """Return the token received on a port."""
        return self.graph.received(port_key(port), self.widths[port])


def port_key(port: Port) -> str:
    """Return a name for a port that is unique in its machine."""
    return f"{port.object.base}:{port.object.element}:{port.role.name}"


@dataclass(frozen=True, slots=True)
class Order:
    """Stages of two ports: `before` at least `distance` (exactly, if `exact`) before `after`."""

    before: Port
    after: Port
    distance: int = 0
    exact: bool = False


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """A translated process, ready to be written as XLS IR."""

    machine: Machine
    channels: dict[Port, Channel]
    orders: tuple[Order, ...]


ACTIVE_SENDS = frozenset(Role) - {Role.READ_REQUEST, Role.WRITE_REQUEST}
BLOCKING_RECEIVES = frozenset(Role) - {Role.RESPONSE}
