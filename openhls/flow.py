# SPDX-License-Identifier: Apache-2.0
"""Control flow of a process: where its function is cut into ticks.

A tick runs from one cut to the next. There is a cut at every loop that no inner cut breaks
already, before the second use of a port on the same path, before a read of a memory that the tick
wrote, and, where the next address depends on what was read, between a read and its answer.

    do { do { body } while (a); tail } while (b);
 -> one cut, at the body: tick = body, then tail if !a, then the body's next tick
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from openhls import llvm
from openhls.channels import ACCESSES, ANSWER, READ, RECV, ROLES, SEND, Object, Pointers, Port, Role


@dataclass(slots=True)
class Node:
    """A block that may still be split."""

    name: str
    instructions: list[llvm.Instruction]

    @property
    def successors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.instructions[-1].labels))


def port_of(instruction: llvm.Instruction, pointers: Pointers) -> Port | None:
    """Return the port that an instruction uses."""
    if instruction.opcode == "store":
        found = pointers.find(instruction.operands[1].name)
        return None if found is None else Port(found, Role.STREAM)
    if instruction.opcode != "call" or instruction.detail not in ACCESSES:
        return None
    found = pointers.find(instruction.operands[0].name)
    if found is None:
        return None
    if instruction.detail in (RECV, SEND):
        return Port(found, ROLES[llvm.literal(instruction.operands[1].name) or 0])
    if instruction.detail == ANSWER:
        return Port(found, Role.RESPONSE)
    return Port(found, Role.READ_REQUEST if instruction.detail == READ else Role.WRITE_REQUEST)


def _ends_tick_of(port: Port) -> tuple[Port, ...]:
    """Return the ports whose use a use of `port` cannot follow in one tick."""
    released, written = Port(port.object, Role.RELEASE), Port(port.object, Role.WRITE_REQUEST)
    if port.role is Role.READ_REQUEST:
        return port, released, written
    if port.role is Role.RESPONSE:
        return port, released, Port(port.object, Role.READ_REQUEST)
    return port, released


class Flow:
    """The blocks of a function in reverse post-order, and its cuts. The first cut is the entry."""

    def __init__(self, function: llvm.Function, pointers: Pointers) -> None:
        self.pointers = pointers
        self.nodes = {b.name: Node(b.name, list(b.instructions)) for b in function.blocks}
        self.entry = function.blocks[0].name
        self._drop_unreachable()
        self._part_loops()
        self._loops = {header: self._loop_body(header) for header in self._headers()}
        self.cuts = self._loop_cuts()
        self._loop_headers = frozenset(self.cuts)

    def _drop_unreachable(self) -> None:
        reached = {self.entry}
        work = [self.entry]
        while work:
            for target in self.nodes[work.pop()].successors:
                if target not in reached:
                    reached.add(target)
                    work.append(target)
        self.nodes = {name: node for name, node in self.nodes.items() if name in reached}

    def predecessors(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for node in self.nodes.values():
            for target in node.successors:
                found[target].append(node.name)
        return found

    def region(self, cut: str) -> list[str]:
        """Return the blocks between a cut and the next ones, sources before targets."""
        done: list[str] = []
        seen = {cut}
        stack = [(cut, iter(self.nodes[cut].successors))]
        while stack:
            name, targets = stack[-1]
            for target in targets:
                if target not in seen and target not in self.cuts:
                    seen.add(target)
                    stack.append((target, iter(self.nodes[target].successors)))
                    break
            else:
                done.append(name)
                stack.pop()
        return done[::-1]

    # Loops

    def _headers(self) -> list[str]:
        """Return the targets of backward edges, in depth-first order."""
        state, headers = {self.entry: 1}, []
        stack = [(self.entry, iter(self.nodes[self.entry].successors))]
        while stack:
            name, targets = stack[-1]
            for target in targets:
                if target not in state:
                    state[target] = 1
                    stack.append((target, iter(self.nodes[target].successors)))
                    break
                if state[target] == 1 and target not in headers:
                    headers.append(target)
            else:
                state[name] = 2
                stack.pop()
        return headers

    def _loop_body(self, header: str) -> set[str]:
        """Return the blocks that can come back to the header without passing another way in."""
        ahead = self._reach([header], lambda name: self.nodes[name].successors, set())
        before = self.predecessors()
        latches = [p for p in before[header] if p in ahead and self._dominates(header, p)]
        return {header} | (self._reach(latches, lambda name: before[name], {header}) & ahead)

    def _part_loops(self) -> None:
        """Give every way into and out of a loop a block of its own, where it can be cut."""
        bodies = {header: self._loop_body(header) for header in self._headers()}
        edges = {(name, target) for name, node in self.nodes.items() for target in node.successors}
        for name, target in sorted(edges):
            leaves = any(name in body and target not in body for body in bodies.values())
            enters = target in bodies and name not in bodies[target]
            if leaves or enters:
                self._part(name, target)

    def _part(self, source: str, target: str) -> None:
        name = f"{source}.{len(self.nodes)}"
        jump = llvm.Instruction("br", labels=(target,), text=f"br label {target}")
        self.nodes[name] = Node(name, [jump])
        last = self.nodes[source].instructions[-1]
        labels = tuple(name if label == target else label for label in last.labels)
        self.nodes[source].instructions[-1] = replace(last, labels=labels)
        self._rename_origin(target, source, name)

    def _rename_origin(self, target: str, old: str, new: str) -> None:
        body = self.nodes[target].instructions
        for i, phi in enumerate(body):
            if phi.opcode == "phi":
                labels = tuple(new if label == old else label for label in phi.labels)
                body[i] = replace(phi, labels=labels)

    def _dominates(self, header: str, name: str) -> bool:
        if header == self.entry:
            return True
        reached = self._reach([self.entry], lambda n: self.nodes[n].successors, {header})
        return name == header or name not in reached

    def _reach(
        self, start: Iterable[str], step: Callable[[str], Iterable[str]], barrier: set[str]
    ) -> set[str]:
        seen = {name for name in start if name not in barrier}
        work = list(seen)
        while work:
            for target in step(work.pop()):
                if target not in seen and target not in barrier:
                    seen.add(target)
                    work.append(target)
        return seen

    def _on_cycle(self, header: str, cuts: set[str]) -> bool:
        seen = self._reach(
            [t for t in self.nodes[header].successors if t not in cuts],
            lambda name: self.nodes[name].successors,
            cuts,
        )
        return header in seen

    def _loop_cuts(self) -> list[str]:
        cuts = [self.entry]
        for header in sorted(self._loops, key=lambda name: len(self._loops[name])):
            if header != self.entry and self._on_cycle(header, set(cuts)):
                cuts.append(header)
        return cuts

    def interval(self) -> int:
        """Return how many ticks an iteration of a loop takes at most: 1 unless it was split."""
        longest = 1
        for header in self._loop_headers & set(self.cuts):
            paths = [(header, frozenset({header}))]
            while paths:
                cut, passed = paths.pop()
                for target in self._next_cuts(cut):
                    if target == header:
                        longest = max(longest, len(passed))
                    elif target not in passed and target not in self._loop_headers:
                        paths.append((target, passed | {target}))
        return longest

    def _next_cuts(self, cut: str) -> set[str]:
        blocks = self.region(cut)
        return {t for name in blocks for t in self.nodes[name].successors if t in self.cuts}

    # Splitting

    def split(self, block: str, index: int) -> str:
        """Cut before instruction `index` of a block; return the new block's name."""
        node = self.nodes[block]
        name = f"{block}.{len(self.nodes)}"
        self.nodes[name] = Node(name, node.instructions[index:])
        jump = llvm.Instruction("br", labels=(name,), text=f"br label {name}")
        node.instructions = [*node.instructions[:index], jump]
        for target in self.nodes[name].successors:
            self._rename_origin(target, block, name)
        self.cuts.append(name)
        return name

    def part_reads(self, memory: Object) -> None:
        """Make the answer of every read of a memory an access of its own, in the next tick."""
        for node in self.nodes.values():
            body = list[llvm.Instruction]()
            for x in node.instructions:
                port = port_of(x, self.pointers) if x.detail == READ else None
                if port is None or port.object != memory:
                    body.append(x)
                    continue
                body += [replace(x, type="void", result=""), replace(x, detail=ANSWER)]
            node.instructions = body

    def split_conflicts(self) -> None:
        """Add cuts until no tick can use a port twice."""
        while True:
            conflict = next(filter(None, map(self._conflict, self.cuts)), None)
            if conflict is None:
                return
            self.cut_before(*conflict)

    def cut_before(self, cut: str, block: str, index: int, first: set[Port]) -> None:
        """Cut between the uses of `first` in a tick and an instruction that needs a later tick.

        The best place is a block that lies behind all such uses on every way to the instruction,
        outside of as many loops as possible: so a loop keeps its ticks when only the way into or
        out of it has a conflict.
        """
        inside = self.region(cut)
        users = {name for name in inside if self._uses(name, first)}
        users = {name for name in users if self._leads_to(name, {block})}
        between = [] if self._uses(block, first, index) else inside[1 : inside.index(block) + 1]
        places = [
            name
            for name in between
            if self._commands(cut, name, block) and not self._leads_to(name, users - {block})
        ]
        if places:
            self.cuts.append(min(places, key=self._loop_depth))
        else:
            self.split(block, index)

    def _loop_depth(self, name: str) -> int:
        """Return how many loops a block is in."""
        return sum(name in body for body in self._loops.values())

    def _uses(self, name: str, ports: set[Port], end: int | None = None) -> bool:
        body = self.nodes[name].instructions[:end]
        return any(port_of(x, self.pointers) in ports for x in body)

    def _within(self, name: str) -> list[str]:
        return [t for t in self.nodes[name].successors if t not in self.cuts]

    def _commands(self, cut: str, name: str, block: str) -> bool:
        """Tell whether every way from the cut to the block goes through `name`."""
        return name == block or block not in self._reach([cut], self._within, {name})

    def _leads_to(self, name: str, others: set[str]) -> bool:
        return bool(self._reach([name], self._within, set()) & others)

    def _conflict(self, cut: str) -> tuple[str, str, int, set[Port]] | None:
        """Return the first instruction of a tick that needs a later one, and what it waits for."""
        used: dict[str, set[Port]] = defaultdict(set)
        blocks = self.region(cut)
        for block in blocks:
            node = self.nodes[block]
            for i, instruction in enumerate(node.instructions):
                port = port_of(instruction, self.pointers)
                if port is None or self.is_deferred(cut, block, i):
                    continue
                for before in _ends_tick_of(port):
                    if before in used[block]:
                        return cut, block, i, {before}
                used[block].add(port)
            for target in node.successors:
                used[target] |= used[block]
        return None

    def is_deferred(self, cut: str, block: str, index: int) -> bool:
        """Tell whether an acquire can wait for the next tick: nothing of this one needs it.

        An acquire in the tick of the release before it would wait for the other side, which may
        itself wait for that release.
        """
        instruction = self.nodes[block].instructions[index]
        port = port_of(instruction, self.pointers)
        if port is None or port.role is not Role.ACQUIRE:
            return False
        inside = set(self.region(cut))
        after = self._reach(
            [t for t in self.nodes[block].successors if t in inside and t not in self.cuts],
            lambda name: [t for t in self.nodes[name].successors if t in inside],
            set(self.cuts),
        )
        later = list(self.nodes[block].instructions[index + 1 :])
        for name in after:
            later += self.nodes[name].instructions
        return not any(self._touches(x, port.object) for x in later)

    def _touches(self, instruction: llvm.Instruction, object_: Object) -> bool:
        port = port_of(instruction, self.pointers)
        return port is not None and port.object == object_
