# SPDX-License-Identifier: Apache-2.0
"""In which pipeline stage ports may act, relative to each other.

A pipeline works on several control steps at once, so the order of the C++ between two ports holds
only where a constraint says so. It matters
- within a step, for a send before a receive: what is received may be the answer, so the send must
  be a stage earlier (`split_answers` makes it a step earlier if the receive feeds the send);
- for what acts on shared state: memory ports, banks, start and done tokens;
- for the only output of a process, which no receive may follow.
Streams between processes need nothing else: a process that sends early changes no values.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from openhls.channels import DONE, START, Port, Role
from openhls.control_flow import ControlFlow, port_of
from openhls.expression_graph import Ref
from openhls.machine import ACTIVE_SENDS, BLOCKING_RECEIVES, Machine, Order, port_key
from openhls.translate import Translator

Item = Port | str  # or the name of a state
# May run ahead of a write's response: they concern other memory, or none.
_AHEAD = (Role.RELEASE, Role.WRITE_ADDRESS, Role.WRITE_DATA)
_MEMORY_SENDS = (Role.READ_ADDRESS, Role.WRITE_ADDRESS, Role.WRITE_DATA)


@dataclass(frozen=True, slots=True)
class Answer:
    """A receive, and what its step has sent before it."""

    boundary: str
    block: str
    index: int
    receive: Port
    sends: frozenset[Port]


def answers(flow: ControlFlow, machine: Machine) -> list[Answer]:
    """Return the receives that come after sends in a step."""
    found: list[Answer] = []
    for boundary in flow.boundaries:
        sent: dict[str, set[Port]] = defaultdict(set)
        for block in flow.step_blocks(boundary):
            node = flow.blocks[block]
            for index, instruction in enumerate(node.instructions):
                port = port_of(instruction, flow.pointers)
                if port is None or flow.is_deferred(boundary, block, index):
                    continue
                if port in machine.sends and port.role in ACTIVE_SENDS:
                    sent[block].add(port)
                elif port in machine.receives and port.role in BLOCKING_RECEIVES:
                    found.append(Answer(boundary, block, index, port, frozenset(sent[block])))
            for target in node.successors:
                sent[target] |= sent[block]
    return [answer for answer in found if answer.sends]


def split_answers(translator: Translator, machine: Machine) -> bool:
    """Change what a step does where no stages can keep its order; tell whether that was needed.

    A receive gets a step of its own when its token feeds the send before it, over states or
    memories. A wait for another process gets one in any case: what follows it must not run ahead.
    A memory whose answers decide what it reads next answers in the next step.
    """
    found = answers(translator.flow, machine)
    for answer in found:
        base = answer.receive.object.base
        if base.startswith("@") and base != START:
            translator.flow.add_boundary_before(
                answer.boundary, answer.block, answer.index, set(answer.sends)
            )
            return True
    circle = _circle(_constraints(machine, stage_orders(translator, machine)))
    for answer in found:
        if any((send, answer.receive) in circle for send in answer.sends):
            translator.flow.add_boundary_before(
                answer.boundary, answer.block, answer.index, set(answer.sends)
            )
            return True
    return _delay_answers(translator, circle)


def _delay_answers(translator: Translator, circle: set[tuple[Item, Item]]) -> bool:
    """Delay the answers of a memory that is part of a circle."""
    for read, answer in sorted(circle, key=repr):
        if not isinstance(read, Port) or read.role is not Role.READ_REQUEST:
            continue
        memory = read.object
        if answer != Port(memory, Role.RESPONSE) or memory in translator.split_memories:
            continue
        translator.split_reads(memory)
        return True
    return False


def _constraints(machine: Machine, orders: tuple[Order, ...]) -> dict[tuple[Item, Item], int]:
    """Return least distances of stages: of ports, and of states, which live in one stage each."""
    least: dict[tuple[Item, Item], int] = {}

    def add(before: Item, after: Item, distance: int) -> None:
        least[before, after] = max(least.get((before, after), distance), distance)

    for order in orders:
        add(order.before, order.after, order.distance)
        if order.exact:
            add(order.after, order.before, -order.distance)
    sources, items = _sources(machine)
    uses: list[tuple[Item, list[tuple[Ref, Ref]]]] = [*machine.sends.items()]
    uses += machine.nexts.items()
    uses += [(port, [(c, c) for c in found]) for port, found in machine.receives.items()]
    for user, pairs in uses:
        mask = 0
        for ref in (x for pair in pairs for x in pair):
            mask |= sources[ref]
        for number, item in enumerate(items):
            if mask >> number & 1 and item != user:
                add(item, user, 0)
    return least


def _sources(machine: Machine) -> tuple[list[int], list[Item]]:
    """Return, per node, a bit set of the states and received ports it is computed from."""
    ports = {port_key(port): port for port in machine.receives}
    numbers: dict[Item, int] = {}
    sources: list[int] = []
    for node in machine.graph.nodes:
        mask = 0
        if node.op in ("state", "receive"):
            name = str(node.extra)
            item: Item = name if node.op == "state" else ports[name]
            mask = 1 << numbers.setdefault(item, len(numbers))
        for operand in node.operands:
            mask |= sources[operand]
        sources.append(mask)
    return sources, list(numbers)


def _circle(least: dict[tuple[Item, Item], int]) -> set[tuple[Item, Item]]:
    """Return the pairs of a circle that demands a stage after itself; empty if there is none."""
    stage: dict[Item, int] = defaultdict(int)
    origin: dict[Item, Item] = {}
    for _ in range(len({item for pair in least for item in pair}) + 1):
        moved = None
        for (before, after), distance in least.items():
            if stage[before] + distance > stage[after]:
                stage[after] = stage[before] + distance
                origin[after] = before
                moved = after
        if moved is None:
            return set()
        path = [moved]
        while path[-1] in origin and origin[path[-1]] not in path:
            path.append(origin[path[-1]])
        if path[-1] in origin:
            start = path.index(origin[path[-1]])
            ring = path[start:]
            return {(origin[item], item) for item in ring}
    return set()


def stage_orders(translator: Translator, machine: Machine) -> tuple[Order, ...]:
    """Return all constraints on the stages of the ports."""
    found = answers(translator.flow, machine)
    strict = {(send, x.receive) for x in found for send in sorted(x.sends, key=port_key)}
    orders = [Order(send, receive, 1) for send, receive in sorted(strict, key=repr)]
    orders += _effects(machine, strict)
    orders += _receives_before_the_only_send(machine)
    for port in machine.sends:
        if port.role is Role.READ_REQUEST:
            distance = 0 if port.object in translator.split_memories else 1
            orders.append(Order(port, Port(port.object, Role.RESPONSE), distance, exact=True))
    objects = dict.fromkeys(port.object for port in (*machine.sends, *machine.receives))
    for object_ in objects:
        acquire, release = Port(object_, Role.ACQUIRE), Port(object_, Role.RELEASE)
        read, write = Port(object_, Role.READ_REQUEST), Port(object_, Role.WRITE_REQUEST)
        if acquire in machine.receives:
            orders += _bank_orders(machine, acquire, [read, write, release])
        elif read in machine.sends and write in machine.sends:
            # A write after the read of its own step and before that of the one after the next,
            # even when stages wait; what the next one reads is forwarded. Where answers come in
            # the next step no step does both, and one stage keeps the steps in order.
            distance = 0 if object_ in translator.split_memories else 1
            orders.append(Order(read, write, distance, exact=True))
    return tuple(dict.fromkeys(orders))


def _receives_before_the_only_send(machine: Machine) -> list[Order]:
    """No stage after the only send waits, as XLS then repeats its token (xls-python 0.1.9934).

    With two outputs or more it notes which ones were sent.
    """
    if len(machine.sends) != 1:
        return []
    (send,) = machine.sends
    return [Order(receive, send, 0) for receive in machine.receives]


def _bank_orders(machine: Machine, acquire: Port, sends: list[Port]) -> list[Order]:
    """A bank is used and handed over in one stage, so that steps do it in order.

    A reader takes it there as well: what it asks for must not be of the half before. A writer may
    take the next half early; its words go to the old one until that is handed over.
    """
    used = [port for port in sends if port in machine.sends]
    if any(port.role is Role.READ_REQUEST for port in used):
        return [Order(acquire, port, 0, exact=True) for port in used]
    orders = [Order(acquire, port, 0) for port in used]
    return orders + [Order(used[0], port, 0, exact=True) for port in used[1:]]


def _effects(machine: Machine, strict: set[tuple[Port, Port]]) -> list[Order]:
    """Sends that act on shared state come after the receives that permit them."""
    orders = []
    for receive in machine.receives:
        token = receive.object.base.startswith("@") or receive.role is Role.WRITE_RESPONSE
        if receive.role in (Role.RESPONSE, Role.READ_DATA):
            continue
        for send in machine.sends:
            acts = send.role in _MEMORY_SENDS or send.object.base == DONE
            if send.role not in ACTIVE_SENDS or (send, receive) in strict:
                continue
            if receive.role is Role.WRITE_RESPONSE and send.role in _AHEAD:
                continue
            if token or acts:
                orders.append(Order(receive, send, 0))
    return orders
