# SPDX-License-Identifier: Apache-2.0
"""State machine -> XLS IR text of one proc, and its ports."""

from __future__ import annotations

import re
from collections import defaultdict

from openhls.channels import Channel, Pointers, Port
from openhls.errors import HlsError
from openhls.expression_graph import Ref
from openhls.liveness import implies_any
from openhls.machine import Machine, Order, ProcessPlan, port_key


def make_channels(machine: Machine, pointers: Pointers) -> dict[Port, Channel]:
    """Name the ports a machine uses, in a stable order."""
    channels = {}
    for port in (*machine.receives, *machine.sends):
        channels[port] = Channel(
            pointers.name(port),
            machine.widths[port],
            port in machine.sends,
            port.role,
            port.object.base,
            port.object.element,
            machine.depths.get(port, 0),
        )
    return dict(sorted(channels.items(), key=lambda item: item[1].name))


def constraint(order: Order, plan: ProcessPlan) -> str:
    """Return the XLS form of an order: "a:send:b:recv:1:none"."""
    names = []
    for port in (order.before, order.after):
        channel = plan.channels[port]
        names.append(f"{channel.name}:{'send' if channel.is_output else 'recv'}")
    limit = str(order.distance) if order.exact else "none"
    return f"{names[0]}:{names[1]}:{order.distance}:{limit}"


class _Writer:
    def __init__(self, plan: ProcessPlan) -> None:
        self.plan = plan
        self.machine = plan.machine
        self.graph = plan.machine.graph
        self.lines: list[str] = []
        self.names: dict[Ref, str] = {}
        self.ports = {port_key(port): port for port in plan.channels}
        self.conditions = {
            port: self.graph.any_of(refs) for port, refs in self.machine.receives.items()
        }
        self.state_names = self._name_states()

    def _name_states(self) -> dict[str, str]:
        names: dict[str, str] = {}
        used: set[str] = set()
        for state in self.machine.states:
            stem = "s_" + re.sub(r"\W+", "_", state.lstrip("%@").strip('"')).strip("_")
            name, number = stem, 1
            while name in used:
                number += 1
                name = f"{stem}_{number}"
            used.add(name)
            names[state] = name
        return names

    def line(self, name: str, type_: str, expression: str) -> str:
        self.lines.append(f"  {name}: {type_} = {expression}")
        return name

    def fresh(self) -> str:
        return f"n{len(self.lines)}"

    def emit(self, root: Ref) -> str:
        """Write an expression after those it needs; return its name."""
        stack, entered = [root], set()
        while stack:
            ref = stack[-1]
            if ref in self.names:
                stack.pop()
                continue
            missing = [x for x in self._needs(ref) if x not in self.names]
            if not missing:
                self.names[ref] = self._write(ref)
                stack.pop()
                continue
            if ref in entered:
                self._refuse_cycle(stack)
            entered.add(ref)
            stack += missing
        return self.names[root]

    def _refuse_cycle(self, stack: list[Ref]) -> None:
        keys = [str(n.extra) for n in (self.graph.nodes[x] for x in stack) if n.op == "receive"]
        names = sorted({self.plan.channels[self.ports[key]].name for key in keys})
        raise HlsError(
            f"process reads {' and '.join(repr(name) for name in names)} in opposite orders, each "
            "under a condition that depends on the other; read them in one order everywhere"
        )

    def _needs(self, ref: Ref) -> tuple[Ref, ...]:
        node = self.graph.nodes[ref]
        if node.op == "receive":
            return (self.conditions[self.ports[str(node.extra)]],)
        return node.operands

    def _predicate(self, condition: Ref) -> str:
        return "" if self.graph.is_true(condition) else f"predicate={self.names[condition]}, "

    def _write(self, ref: Ref) -> str:
        node = self.graph.nodes[ref]
        type_ = f"bits[{node.width}]"
        operands = [self.names[x] for x in node.operands]
        if node.op == "receive":
            return self._write_receive(self.ports[str(node.extra)], type_)
        if node.op == "literal":
            expression = f"literal(value={node.extra})"
        elif node.op == "state":
            name = self.state_names[str(node.extra)]
            return self.line(f"{name}_v", type_, f"state_read(state_element={name})")
        elif node.op == "sel":
            expression = f"sel({operands[0]}, cases=[{operands[2]}, {operands[1]}])"
        elif node.op == "bit_slice":
            expression = f"bit_slice({operands[0]}, start={node.extra}, width={node.width})"
        elif node.op in ("zero_ext", "sign_ext"):
            expression = f"{node.op}({operands[0]}, new_bit_count={node.width})"
        else:
            expression = f"{node.op}({', '.join(operands)})"
        return self.line(self.fresh(), type_, expression)

    def _write_receive(self, port: Port, type_: str) -> str:
        channel = self.plan.channels[port].name
        predicate = self._predicate(self.conditions[port])
        pair = self.line(
            f"{channel}_token", f"(token, {type_})", f"receive(tok, {predicate}channel={channel})"
        )
        return self.line(self.fresh(), type_, f"tuple_index({pair}, index=1)")

    def write_body(self) -> None:
        self.line("tok", "token", "literal(value=token)")
        for port in self.machine.receives:
            self.emit(self.machine.input_node(port))
        for port, pairs in self.machine.sends.items():
            condition = self.graph.any_of(c for c, _ in pairs)
            value = self.emit(self.graph.choose(pairs))
            self.emit(condition)
            name = self.plan.channels[port].name
            predicate = self._predicate(condition)
            self.line(self.fresh(), "token", f"send(tok, {value}, {predicate}channel={name})")
        for state in self.machine.states:
            self._write_next(state)

    def _write_next(self, state: str) -> None:
        """One assignment per state: constants first, the data path as the default."""
        width = self.machine.states[state].width
        kept = self.graph.state(state, width)
        self.emit(kept)
        conditions: dict[Ref, list[Ref]] = defaultdict(list)
        for condition, value in self.machine.nexts.get(state, []):
            conditions[value].append(condition)
        cases = [
            (self.graph.any_of(found), value)
            for value, found in conditions.items()
            if value != kept
        ]
        if not cases:
            return
        cases.sort(key=lambda c: (self.graph.literal_value(c[1]) is None, len(conditions[c[1]])))
        dead = self.machine.dead.get(state, [])
        wanted = [c for c, _ in cases if not implies_any(self.graph, c, dead)]
        condition = self.graph.any_of([*dead, *wanted])
        chosen = self.emit(self.graph.choose(cases))
        self.emit(condition)
        predicate = "" if self.graph.is_true(condition) else f", predicate={self.names[condition]}"
        name = self.state_names[state]
        self.line(self.fresh(), "()", f"next_value(param={name}, value={chosen}{predicate})")


def write_xls_ir(name: str, plan: ProcessPlan) -> str:
    """Return a package with one proc `name`."""
    writer = _Writer(plan)
    writer.write_body()
    lines = [f"package {name}", ""]
    for identifier, channel in enumerate(plan.channels.values()):
        kind = "send_only" if channel.is_output else "receive_only"
        lines.append(
            f"chan {channel.name}(bits[{channel.width}], id={identifier}, kind=streaming, "
            f"ops={kind}, flow_control=ready_valid)"
        )
    states = plan.machine.states
    declared = [f"{writer.state_names[s]}: bits[{x.width}]" for s, x in states.items()]
    initial = [str(x.initial & ((1 << x.width) - 1)) for x in states.values()]
    parameters = ", ".join([*declared, f"init={{{', '.join(initial)}}}"])
    return "\n".join([*lines, "", f"top proc {name}({parameters}) {{", *writer.lines, "}", ""])
