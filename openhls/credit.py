# SPDX-License-Identifier: Apache-2.0
"""Space in a FIFO is promised before a control step begins, so that nothing waits to send.

A stage that sends has to know that all its streams are ready, and every stage in front of it has to
know that: one bit, late, at thousands of registers. With credits a process takes one for every word
that it is going to send, beside the words that it receives; the send then waits for nothing. What
is behind the last stage that waits needs no enable at all (`openhls/handshake.py`).

    send(x, c)  ->  receive(x_credit, c); send(x, c), which never waits

The FIFO gets deeper by the stages of the process: it holds what the stages would have held.
A FIFO of one word, a register, keeps its handshake; a process that writes many of them together
waits for one bit that says that all are free (`join_requests` in `openhls/handshake.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from openhls import llvm
from openhls.channels import Pointers, Port, Role
from openhls.expression_graph import ExpressionGraph, Ref
from openhls.machine import BLOCKING_RECEIVES, Machine, Order, port_key

DEFAULT_DEPTH = 2  # of a stream without a pragma
MOST_DEPTH = 16  # with the stages of a process that is still one row of LUT RAM, 32 words
CREDITED = range(2, MOST_DEPTH + 1)  # depths of FIFOs fit for credits
REGISTERS = range(1, 2)  # of those that are a register


def credited_depth(depth: int, stages: int) -> int:
    """Return the words of a FIFO whose writer has a number of stages."""
    return depth + stages


def find_fifos(
    top: llvm.Function, pointers: Pointers, depths: Mapping[str, int], fit: range
) -> dict[str, set[int]]:
    """Return by process the arguments that are FIFOs of a fit depth in all its calls."""
    found_by: dict[str, set[int]] = {}
    for instruction in top.instructions():
        if instruction.opcode != "call":
            continue
        found = [pointers.find(operand.name) for operand in instruction.operands]
        names = [None if x is None else pointers.base_name(x.base) for x in found]
        here = {
            number
            for number, name in enumerate(names)
            if name is not None and depths.get(name, DEFAULT_DEPTH) in fit
        }
        found_by[instruction.detail] = found_by.get(instruction.detail, here) & here
    return found_by


def add_credits(machine: Machine, bases: set[str]) -> None:
    """Let a machine take a credit for every word that it sends on streams of `bases`."""
    for port, pairs in machine.sends.items():
        if port.role is Role.STREAM and port.object.base in bases:
            credit = Port(port.object, Role.CREDIT)
            machine.receives[credit] = [condition for condition, _ in pairs]
            machine.widths[credit] = 1


def credit_orders(machine: Machine, orders: tuple[Order, ...]) -> tuple[Order, ...]:
    """Return the orders, and those that put a process' waits into one stage.

    A credit comes before its word. It waits, like the half of a bank that is to be filled, in the
    stage that receives, as far as no wait depends on a received word or on a send.
    """
    taken = [port for port in machine.receives if port.role is Role.CREDIT]
    found = [Order(port, Port(port.object, Role.STREAM)) for port in taken]
    late = {order.after for order in orders if order.distance > 0}
    bound = {order.before for order in orders if order.exact}
    early = [
        port
        for port, conditions in machine.receives.items()
        if port.role in BLOCKING_RECEIVES
        and port not in late
        and port not in bound
        and not _received(machine.graph, conditions)
    ]
    early.sort(key=port_key)
    found += [Order(early[0], port, 0, exact=True) for port in early[1:]]
    return (*orders, *found)


def _received(graph: ExpressionGraph, roots: list[Ref]) -> bool:
    """Tell whether expressions depend on a received token."""
    return any(graph.nodes[ref].op == "receive" for ref in graph.cone(roots))
