# SPDX-License-Identifier: Apache-2.0
"""Control flow of a process: its control steps and the state boundaries between them.

A control step is what a process does in one cycle of its pipeline; it runs from one state boundary
to the next. There is a boundary at every loop that no inner boundary breaks already, before the
second use of a port on the same path, before a read of a memory that the step wrote, and, where the
next address depends on what was read, between a read and its answer.

    do { do { body } while (a); tail } while (b);
 -> one boundary, at the body: step = body, then tail if !a, then the body's next step
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from openhls import llvm
from openhls.channels import ACCESSES, ANSWER, READ, RECV, ROLES, SEND, Object, Pointers, Port, Role


@dataclass(slots=True)
class BasicBlock:
    """A block that may still be split."""

    name: str
    instructions: list[llvm.Instruction]

    @property
    def successors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.instructions[-1].labels))


def port_of(instruction: llvm.Instruction, pointers: Pointers) -> Port | None:
    """Return the port that an instruction uses."""
    if instruction.opcode in ("load", "store"):
        found = pointers.find(instruction.operands[-1].name)
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


def _must_not_precede(port: Port) -> tuple[Port, ...]:
    """Return the ports whose use a use of `port` cannot follow in one control step."""
    released, written = Port(port.object, Role.RELEASE), Port(port.object, Role.WRITE_REQUEST)
    if port.role is Role.READ_REQUEST:
        return port, released, written
    if port.role is Role.RESPONSE:
        return port, released, Port(port.object, Role.READ_REQUEST)
    return port, released


class ControlFlow:
    """The blocks of a function in reverse post-order, and its state boundaries.

    The first boundary is the entry.
    """

    def __init__(self, function: llvm.Function, pointers: Pointers) -> None:
        self.pointers = pointers
        self.blocks = {b.name: BasicBlock(b.name, list(b.instructions)) for b in function.blocks}
        self.entry = function.blocks[0].name
        self._drop_unreachable()
        self._split_loop_edges()
        self._loops = {header: self._loop_body(header) for header in self._headers()}
        self.boundaries = self._loop_boundaries()
        self._loop_headers = frozenset(self.boundaries)

    def _drop_unreachable(self) -> None:
        reached = {self.entry}
        work = [self.entry]
        while work:
            for target in self.blocks[work.pop()].successors:
                if target not in reached:
                    reached.add(target)
                    work.append(target)
        self.blocks = {name: block for name, block in self.blocks.items() if name in reached}

    def predecessors(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for block in self.blocks.values():
            for target in block.successors:
                found[target].append(block.name)
        return found

    def step_blocks(self, boundary: str) -> list[str]:
        """Return the blocks of the step that begins at a boundary, sources before targets."""
        done: list[str] = []
        seen = {boundary}
        stack = [(boundary, iter(self.blocks[boundary].successors))]
        while stack:
            name, targets = stack[-1]
            for target in targets:
                if target not in seen and target not in self.boundaries:
                    seen.add(target)
                    stack.append((target, iter(self.blocks[target].successors)))
                    break
            else:
                done.append(name)
                stack.pop()
        return done[::-1]

    # Loops

    def _headers(self) -> list[str]:
        """Return the targets of backward edges, in depth-first order."""
        state, headers = {self.entry: 1}, []
        stack = [(self.entry, iter(self.blocks[self.entry].successors))]
        while stack:
            name, targets = stack[-1]
            for target in targets:
                if target not in state:
                    state[target] = 1
                    stack.append((target, iter(self.blocks[target].successors)))
                    break
                if state[target] == 1 and target not in headers:
                    headers.append(target)
            else:
                state[name] = 2
                stack.pop()
        return headers

    def _loop_body(self, header: str) -> set[str]:
        """Return the blocks that can come back to the header without passing another way in."""
        ahead = self._reach([header], lambda name: self.blocks[name].successors, set())
        before = self.predecessors()
        latches = [p for p in before[header] if p in ahead and self._dominates(header, p)]
        return {header} | (self._reach(latches, lambda name: before[name], {header}) & ahead)

    def _split_loop_edges(self) -> None:
        """Give every way into and out of a loop a block of its own, where a boundary can be."""
        bodies = {header: self._loop_body(header) for header in self._headers()}
        items = self.blocks.items()
        edges = {(name, target) for name, block in items for target in block.successors}
        for name, target in sorted(edges):
            leaves = any(name in body and target not in body for body in bodies.values())
            enters = target in bodies and name not in bodies[target]
            if leaves or enters:
                self._split_edge(name, target)

    def _split_edge(self, source: str, target: str) -> None:
        name = f"{source}.{len(self.blocks)}"
        jump = llvm.Instruction("br", labels=(target,), text=f"br label {target}")
        self.blocks[name] = BasicBlock(name, [jump])
        last = self.blocks[source].instructions[-1]
        labels = tuple(name if label == target else label for label in last.labels)
        self.blocks[source].instructions[-1] = replace(last, labels=labels)
        self._rename_origin(target, source, name)

    def _rename_origin(self, target: str, old: str, new: str) -> None:
        body = self.blocks[target].instructions
        for i, phi in enumerate(body):
            if phi.opcode == "phi":
                labels = tuple(new if label == old else label for label in phi.labels)
                body[i] = replace(phi, labels=labels)

    def _dominates(self, header: str, name: str) -> bool:
        if header == self.entry:
            return True
        reached = self._reach([self.entry], lambda n: self.blocks[n].successors, {header})
        return name == header or name not in reached

    def _reach(
        self, start: Iterable[str], follow: Callable[[str], Iterable[str]], barrier: set[str]
    ) -> set[str]:
        seen = {name for name in start if name not in barrier}
        work = list(seen)
        while work:
            for target in follow(work.pop()):
                if target not in seen and target not in barrier:
                    seen.add(target)
                    work.append(target)
        return seen

    def _on_cycle(self, header: str, boundaries: set[str]) -> bool:
        seen = self._reach(
            [t for t in self.blocks[header].successors if t not in boundaries],
            lambda name: self.blocks[name].successors,
            boundaries,
        )
        return header in seen

    def _loop_boundaries(self) -> list[str]:
        boundaries = [self.entry]
        for header in sorted(self._loops, key=lambda name: len(self._loops[name])):
            if header != self.entry and self._on_cycle(header, set(boundaries)):
                boundaries.append(header)
        return boundaries

    def interval(self) -> int:
        """Return how many steps an iteration of a loop takes at most: 1 unless it was split."""
        longest = 1
        for header in self._loop_headers & set(self.boundaries):
            paths = [(header, frozenset({header}))]
            while paths:
                boundary, passed = paths.pop()
                for target in self._next_boundaries(boundary):
                    if target == header:
                        longest = max(longest, len(passed))
                    elif target not in passed and target not in self._loop_headers:
                        paths.append((target, passed | {target}))
        return longest

    def _next_boundaries(self, boundary: str) -> set[str]:
        blocks = self.step_blocks(boundary)
        return {t for name in blocks for t in self.blocks[name].successors if t in self.boundaries}

    # Splitting

    def split_block(self, block: str, index: int) -> str:
        """Add a boundary before instruction `index` of a block; return the new block's name."""
        old = self.blocks[block]
        name = f"{block}.{len(self.blocks)}"
        self.blocks[name] = BasicBlock(name, old.instructions[index:])
        jump = llvm.Instruction("br", labels=(name,), text=f"br label {name}")
        old.instructions = [*old.instructions[:index], jump]
        for target in self.blocks[name].successors:
            self._rename_origin(target, block, name)
        self.boundaries.append(name)
        return name

    def split_reads(self, memory: Object) -> None:
        """Make the answer of every read of a memory an access of its own, in the next step."""
        for block in self.blocks.values():
            body = list[llvm.Instruction]()
            for x in block.instructions:
                port = port_of(x, self.pointers) if x.detail == READ else None
                if port is None or port.object != memory:
                    body.append(x)
                    continue
                body += [replace(x, type="void", result=""), replace(x, detail=ANSWER)]
            block.instructions = body

    def split_conflicts(self) -> None:
        """Add boundaries until no step can use a port twice."""
        while True:
            conflict = next(filter(None, map(self._conflict, self.boundaries)), None)
            if conflict is None:
                return
            self.add_boundary_before(*conflict)

    def add_boundary_before(self, boundary: str, block: str, index: int, first: set[Port]) -> None:
        """Add a boundary between the uses of `first` in a step and an instruction of a later one.

        The best place is a block that lies behind all such uses on every way to the instruction,
        outside of as many loops as possible: so a loop keeps its steps when only the way into or
        out of it has a conflict.
        """
        inside = self.step_blocks(boundary)
        users = {name for name in inside if self._uses(name, first)}
        users = {name for name in users if self._leads_to(name, {block})}
        between = [] if self._uses(block, first, index) else inside[1 : inside.index(block) + 1]
        places = [
            name
            for name in between
            if self._is_on_every_path(boundary, name, block)
            and not self._leads_to(name, users - {block})
        ]
        if places:
            self.boundaries.append(min(places, key=self._loop_depth))
        else:
            self.split_block(block, index)

    def _loop_depth(self, name: str) -> int:
        """Return how many loops a block is in."""
        return sum(name in body for body in self._loops.values())

    def _uses(self, name: str, ports: set[Port], end: int | None = None) -> bool:
        body = self.blocks[name].instructions[:end]
        return any(port_of(x, self.pointers) in ports for x in body)

    def _within(self, name: str) -> list[str]:
        return [t for t in self.blocks[name].successors if t not in self.boundaries]

    def _is_on_every_path(self, boundary: str, name: str, block: str) -> bool:
        """Tell whether every way from the boundary to the block goes through `name`."""
        return name == block or block not in self._reach([boundary], self._within, {name})

    def _leads_to(self, name: str, others: set[str]) -> bool:
        return bool(self._reach([name], self._within, set()) & others)

    def _conflict(self, boundary: str) -> tuple[str, str, int, set[Port]] | None:
        """Return the first instruction of a step that needs a later one, and what it waits for."""
        used: dict[str, set[Port]] = defaultdict(set)
        blocks = self.step_blocks(boundary)
        for block in blocks:
            body = self.blocks[block]
            for i, instruction in enumerate(body.instructions):
                port = port_of(instruction, self.pointers)
                if port is None or self.is_deferred(boundary, block, i):
                    continue
                for before in _must_not_precede(port):
                    if before in used[block]:
                        return boundary, block, i, {before}
                used[block].add(port)
            for target in body.successors:
                used[target] |= used[block]
        return None

    def is_deferred(self, boundary: str, block: str, index: int) -> bool:
        """Tell whether an acquire can wait for the next step: nothing of this one needs it.

        An acquire in the step of the release before it would wait for the other side, which may
        itself wait for that release.
        """
        instruction = self.blocks[block].instructions[index]
        port = port_of(instruction, self.pointers)
        if port is None or port.role is not Role.ACQUIRE:
            return False
        inside = set(self.step_blocks(boundary))
        after = self._reach(
            [t for t in self.blocks[block].successors if t in inside and t not in self.boundaries],
            lambda name: [t for t in self.blocks[name].successors if t in inside],
            set(self.boundaries),
        )
        later = list(self.blocks[block].instructions[index + 1 :])
        for name in after:
            later += self.blocks[name].instructions
        return not any(self._touches(x, port.object) for x in later)

    def _touches(self, instruction: llvm.Instruction, object_: Object) -> bool:
        port = port_of(instruction, self.pointers)
        return port is not None and port.object == object_
