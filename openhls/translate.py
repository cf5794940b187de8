# SPDX-License-Identifier: Apache-2.0
"""LLVM function -> state machine with a control step for every state boundary.

A step runs the blocks from its boundary to the next ones, predicated. Values that live across steps
become states, as do the phis at the boundaries. The machine is built twice: the first time to learn
how wide its states must be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from openhls import llvm
from openhls.accesses import POINTER_USE, Accesses, ProcessOptions, lower_tokens
from openhls.channels import (
    ACCESSES,
    LEAF,
    READ,
    SEND,
    WRITE,
    Object,
    Pointers,
    Port,
    Role,
    address_bits,
)
from openhls.control_flow import ControlFlow, port_of
from openhls.expression_graph import ExpressionGraph, Ref
from openhls.machine import Machine, State
from openhls.operations import INSTEAD, UnsupportedError, evaluate
from openhls.ranges import FSM, Narrow, narrow_states

_CASTS = ("zext", "sext", "trunc", "freeze")
_WIRING = (*_CASTS, "and", "xor", "shl", "lshr", "ashr")  # the latter with a constant
_BRANCHES = ("br", "switch", "ret", "unreachable")


@dataclass
class _ControlStep:
    """What is known while the blocks between two state boundaries are translated."""

    boundary: str
    active: Ref
    blocks: list[str]
    inside: set[str]
    above: dict[str, set[str]]  # dominators within the step
    below: dict[str, set[str]]  # what can still be reached within the step
    runs: dict[str, Ref] = field(default_factory=dict)
    edges: dict[tuple[str, str], Ref] = field(default_factory=dict)
    values: dict[str, Ref] = field(default_factory=dict)
    undefined: set[str] = field(default_factory=set)


class Translator:
    """Translates one function."""

    def __init__(
        self, module: llvm.Module, function: llvm.Function, options: ProcessOptions
    ) -> None:
        self.function = lower_tokens(function, options)
        self.pointers = Pointers(self.function)
        self.accesses = Accesses(module, self.function, self.pointers)
        self.flow = ControlFlow(self.function, self.pointers)
        self.narrow: dict[str, Narrow] = {}
        self.initial: dict[str, int] = {}
        self.folded: str | None = None
        self.entry_acquires: list[Port] = []
        self.wiring: set[str] = set()
        self.split_memories: set[Object] = set()  # memories whose answers come in the next step
        # Memories that remember their last write, for a read of the next step.
        written, read = self.accesses.written(), self.accesses.read()
        self.forwarded = written & read - self.accesses.independent(function)

    def split_reads(self, memory: Object) -> None:
        """Let answers of a memory come a step after the reads, so that an address can use them."""
        self.forwarded.discard(memory)
        self.split_memories.add(memory)
        self.flow.split_reads(memory)

    # The two builds

    def run(self) -> Machine:
        """Return the machine with states as narrow as can be."""
        self.flow.split_conflicts()
        self.narrow, self.wiring = {}, set()
        self.initial, self.folded, self.entry_acquires = {}, None, []
        self.build()
        if self.fold_entry():
            self.build()
        self.wiring = self._find_wiring()
        self.narrow = narrow_states(self.build())
        return self.build()

    def _find_wiring(self) -> set[str]:
        """Return the kept values that are mere wiring of other kept ones: they need no state."""
        found: set[str] = set()
        for name in self.live:
            definition = self.definitions[name][1]
            if definition.opcode not in _WIRING or name in self.accesses.handles:
                continue
            operands = [x.name for x in definition.operands]
            variables = [x for x in operands if llvm.literal(x) is None]
            constant = definition.opcode in _CASTS or len(variables) < len(operands)
            if constant and all(x in self.live or self._is_state(x) for x in variables):
                found.add(name)
        return found

    def _is_state(self, name: str) -> bool:
        home, definition = self.definitions.get(name, ("", None))
        return (
            definition is not None and definition.opcode == "phi" and home in self.flow.boundaries
        )

    def build(self) -> Machine:
        self.definitions = {
            instruction.result: (node.name, instruction)
            for node in self.flow.blocks.values()
            for instruction in node.instructions
            if instruction.result
        }
        self.machine = Machine(
            ExpressionGraph(), widths=self.accesses.widths, depths=self.accesses.depths
        )
        self.machine.num_steps = len(self.flow.boundaries)
        self.live: dict[str, int] = {}
        self.deferred: dict[Port, list[Ref]] = defaultdict(list)
        self.steps: list[_ControlStep] = []
        self.fsm_bits = max(1, (len(self.flow.boundaries) - 1).bit_length())
        for number, boundary in enumerate(self.flow.boundaries):
            self._run_step(number, boundary)
        self._keep_live_values()
        self._acquire_deferred()
        for name, pairs in self.machine.nexts.items():
            width = self.machine.states[name].width
            self.machine.nexts[name] = [
                (condition, self.machine.graph.slice(value, 0, width))
                for condition, value in pairs
                if not self.machine.graph.is_false(condition)
            ]
        return self.machine

    def fold_entry(self) -> bool:
        """Make a start that only sets constants the reset value, not a step of its own."""
        entry = self.flow.entry
        straight = all(
            len(self.flow.blocks[x].successors) == 1 for x in self.flow.step_blocks(entry)
        )
        if len(self.flow.boundaries) != 2 or not straight or self.flow.boundaries[0] != entry:
            return False
        graph, machine, active = self.machine.graph, self.machine, self.steps[0].active
        uses = [c for conditions in machine.receives.values() for c in conditions]
        uses += [c for pairs in machine.sends.values() for c, _ in pairs]
        constants = {}
        for name, pairs in machine.nexts.items():
            found = [
                graph.literal_value(value) for condition, value in pairs if condition == active
            ]
            if name != FSM and None in found:
                return False
            if found:
                constants[name] = int(found[-1] or 0)
        if active in uses:
            return False
        self.initial = {name: value for name, value in constants.items() if name != FSM}
        self.entry_acquires = [port for port, found in self.deferred.items() if active in found]
        self.folded = self.flow.boundaries.pop()
        self.flow.boundaries = [self.folded]
        return True

    # States

    def state(self, name: str, width: int) -> Ref:
        """Return the value of a state, which may be kept in fewer bits."""
        narrow = self.narrow.get(name, Narrow(width, False))
        initial = self.initial.get(name, 0)
        self.machine.states.setdefault(name, State(narrow.width, initial))
        kept = self.machine.graph.state(name, narrow.width)
        return self.machine.graph.extend(kept, width, signed=narrow.signed)

    def _set(self, name: str, width: int, condition: Ref, value: Ref) -> None:
        self.state(name, width)
        self.machine.nexts[name].append((condition, value))

    def _keep_live_values(self) -> None:
        """Save what a later step uses, in every step that computes it."""
        for name in self.live:
            if name not in self.definitions:
                raise AssertionError(f"{name} has no definition in {self.function.name}")
            block = self.definitions[name][0]
            for step in self.steps:
                if name in step.values:
                    self.machine.nexts[name].append((step.runs[block], step.values[name]))

    def _pending(self, port: Port) -> str:
        return f"@pending_{self.pointers.name(port)}"

    def _acquire_deferred(self) -> None:
        graph = self.machine.graph
        for port, conditions in self.deferred.items():
            name = self._pending(port)
            if self.folded and port in self.entry_acquires:
                self.initial[name] = 1
            pending = self.state(name, 1)
            self.machine.receives[port].append(pending)
            self.machine.nexts[name].append((graph.true, graph.any_of(conditions)))

    # Control steps

    def _run_step(self, number: int, boundary: str) -> None:
        graph = self.machine.graph
        active = graph.true
        if len(self.flow.boundaries) > 1:
            state = self.state(FSM, self.fsm_bits)
            active = graph.compare("eq", state, graph.literal(self.fsm_bits, number))
        blocks = self.flow.step_blocks(boundary)
        inside = set(blocks)
        before: dict[str, list[str]] = {name: [] for name in blocks}
        for name in blocks:
            for target in self._inner(name, inside):
                before[target].append(name)
        above: dict[str, set[str]] = {}
        for name in blocks:
            shared = [above[p] for p in before[name]]
            above[name] = {name} | (set.intersection(*shared) if shared else set())
        below: dict[str, set[str]] = {}
        for name in reversed(blocks):
            below[name] = {name}.union(*(below[t] for t in self._inner(name, inside)))
        step = _ControlStep(boundary, active, blocks, inside, above, below)
        self.steps.append(step)
        for name in blocks:
            arriving = (step.edges[p, name] for p in before[name])
            step.runs[name] = active if name == boundary else graph.any_of(arriving)
            for index, instruction in enumerate(self.flow.blocks[name].instructions):
                self._run(step, name, index, instruction)

    def _inner(self, name: str, inside: set[str]) -> list[str]:
        targets = self.flow.blocks[name].successors
        return [t for t in targets if t in inside and t not in self.flow.boundaries]

    def _run(
        self, step: _ControlStep, block: str, index: int, instruction: llvm.Instruction
    ) -> None:
        opcode = instruction.opcode
        if opcode == "phi":
            if block not in self.flow.boundaries:
                self._phi(step, block, instruction)
        elif opcode in _BRANCHES:
            self._branch(step, block, instruction)
        elif opcode == "store":
            self._send_result(step, block, instruction)
        elif opcode == "load":
            port = Port(Object(instruction.operands[0].name), Role.STREAM)
            self._receive(step, instruction, port, step.runs[block])
        elif opcode == "call" and instruction.detail in (*ACCESSES, LEAF):
            self._access(step, block, index, instruction)
        elif opcode not in ("alloca", "getelementptr"):
            self._compute(step, block, instruction)

    def _compute(self, step: _ControlStep, block: str, instruction: llvm.Instruction) -> None:
        if instruction.opcode == "call":
            known = [v for v in instruction.operands if llvm.integer_width(v.type)]
        else:
            known = list(instruction.operands)
        try:
            operands = [self._look(step, value, block, instruction) for value in known]
            result = evaluate(self.machine.graph, instruction, operands)
        except UnsupportedError as error:
            raise self.accesses.fail(instruction, str(error)) from error
        step.values[instruction.result] = result

    def _look(
        self, step: _ControlStep, value: llvm.Value, block: str, user: llvm.Instruction
    ) -> Ref:
        """Return a value as seen at the end of `block`."""
        graph, name = self.machine.graph, value.name
        width = llvm.integer_width(value.type)
        if name in self.accesses.handles:
            width = self.accesses.widths[self.accesses.handles[name]]
        if width is None:
            if value.type == "ptr":
                raise self.accesses.fail(user, f"{user.opcode} of {POINTER_USE}")
            raise UnsupportedError(f"type '{value.type}' is not supported; {INSTEAD}")
        constant = llvm.literal(name)
        if constant is not None:
            return graph.literal(width, constant)
        if name not in self.definitions:
            raise self.accesses.fail(
                user, f"'{name}' is not a channel; pass numbers through a stream"
            )
        home, definition = self.definitions[name]
        if definition.opcode == "phi" and home in self.flow.boundaries:
            return self.state(name, width)
        if home in step.inside and block in step.below[home]:
            if home in step.above[block]:
                return step.values[name]
            return graph.select(
                step.runs[home], step.values[name], self._kept(step, name, width, block)
            )
        return self._kept(step, name, width, block)

    def _kept(self, step: _ControlStep, name: str, width: int, block: str) -> Ref:
        """Return a value of an earlier step."""
        if name not in self.wiring:
            self.live[name] = width
            return self.state(name, width)
        definition = self.definitions[name][1]
        operands = [self._look(step, x, block, definition) for x in definition.operands]
        return evaluate(self.machine.graph, definition, operands)

    def _phi(self, step: _ControlStep, block: str, phi: llvm.Instruction) -> None:
        cases: list[tuple[Ref, Ref]] = []
        for value, origin in zip(phi.operands, phi.labels, strict=True):
            if (origin, block) in step.edges and not self._is_undefined(step, value):
                found = self._look(step, value, origin, phi)
                cases.append((step.edges[origin, block], found))
        graph = self.machine.graph
        width = llvm.integer_width(phi.type)
        if not cases and width is None:
            raise self.accesses.fail(phi, f"a choice of {POINTER_USE}")
        if not cases:
            step.undefined.add(phi.result)
        step.values[phi.result] = graph.choose(cases) if cases else graph.literal(width or 1, 0)

    def _is_undefined(self, step: _ControlStep, value: llvm.Value) -> bool:
        return value.name in ("undef", "poison") or value.name in step.undefined

    # Branches

    def _branch(self, step: _ControlStep, block: str, branch: llvm.Instruction) -> None:
        graph, run = self.machine.graph, step.runs[block]
        if branch.opcode == "ret":
            self._return(run)
        elif branch.opcode == "switch":
            self._switch(step, block, branch)
        elif len(set(branch.labels)) == 1:
            self._edge(step, block, branch.labels[0], run)
        elif len(branch.labels) == 2:
            condition = self._look(step, branch.operands[0], block, branch)
            self._edge(step, block, branch.labels[0], graph.and_(run, condition))
            self._edge(step, block, branch.labels[1], graph.and_(run, graph.not_(condition)))

    def _switch(self, step: _ControlStep, block: str, branch: llvm.Instruction) -> None:
        graph, run = self.machine.graph, step.runs[block]
        value = self._look(step, branch.operands[0], block, branch)
        taken: dict[str, list[Ref]] = defaultdict(list)
        for case, label in zip(branch.cases, branch.labels[1:], strict=True):
            literal = graph.literal(graph.width(value), case)
            taken[label].append(graph.compare("eq", value, literal))
        none = graph.not_(graph.any_of(x for tests in taken.values() for x in tests))
        taken[branch.labels[0]].append(none)
        for label, tests in taken.items():
            self._edge(step, block, label, graph.and_(run, graph.any_of(tests)))

    def _edge(self, step: _ControlStep, source: str, target: str, condition: Ref) -> None:
        graph = self.machine.graph
        if target not in self.flow.boundaries:
            known = step.edges.get((source, target), graph.false)
            step.edges[source, target] = graph.or_(known, condition)
            return
        self._go_to(target, condition)
        for phi in self.flow.blocks[target].instructions:
            if phi.opcode == "phi":
                value = phi.operands[phi.labels.index(source)]
                if self._is_undefined(step, value):
                    self.machine.undefined[phi.result].append(condition)
                else:
                    found = self._look(step, value, source, phi)
                    self._set(phi.result, graph.width(found), condition, found)

    def _go_to(self, boundary: str, condition: Ref) -> None:
        if len(self.flow.boundaries) > 1:
            number = self.machine.graph.literal(self.fsm_bits, self.flow.boundaries.index(boundary))
            self._set(FSM, self.fsm_bits, condition, number)

    def _return(self, condition: Ref) -> None:
        """Start again: at the entry, or where the entry would lead to."""
        if not self.folded:
            self._go_to(self.flow.boundaries[0], condition)
            return
        for name, constant in self.initial.items():
            if not name.startswith("@"):
                width = llvm.integer_width(self.definitions[name][1].type) or 1
                value = self.machine.graph.literal(width, constant)
                self._set(name, width, condition, value)
        for port in self.entry_acquires:
            self.deferred[port].append(condition)

    # Accesses

    def _access(self, step: _ControlStep, block: str, index: int, access: llvm.Instruction) -> None:
        graph, run = self.machine.graph, step.runs[block]
        if access.detail == LEAF:
            whole = self._look(step, access.operands[0], block, access)
            start, width = (int(llvm.literal(x.name) or 0) for x in access.operands[1:3])
            leaf = graph.slice(whole, start, width)
            step.values[access.result] = graph.extend(leaf, 64, signed=False)
            return
        port = port_of(access, self.pointers)
        if port is None:
            raise AssertionError(access.text)
        if access.detail == SEND:
            value = self._leaves(step, block, access, access.operands[3:])
            self.machine.sends[port].append((run, value))
        elif access.detail == WRITE:
            bits = address_bits(self.accesses.depths[port])
            address = graph.slice(self._look(step, access.operands[2], block, access), 0, bits)
            data = self._leaves(step, block, access, access.operands[4:])
            self.machine.sends[port].append((run, graph.concat([data, address])))
            if port.object in self.forwarded:
                self._remember(port, run, address, data)
        elif access.detail == READ:
            address = self._look(step, access.operands[3], block, access)
            address = graph.slice(address, 0, self.accesses.widths[port])
            self.machine.sends[port].append((run, address))
            if port.object not in self.split_memories:
                self._receive(step, access, Port(port.object, Role.RESPONSE), run)
            if port.object in self.forwarded:
                word = step.values[access.result]
                step.values[access.result] = self._forward(port, address, word)
        elif self.flow.is_deferred(step.boundary, block, index):
            self.deferred[port].append(run)
            step.values[access.result] = graph.literal(1, 0)
        else:
            self._receive(step, access, port, run)

    def _receive(self, step: _ControlStep, access: llvm.Instruction, port: Port, run: Ref) -> None:
        self.machine.receives[port].append(run)
        step.values[access.result] = self.machine.input_node(port)

    def _last_write(self, port: Port) -> tuple[str, str]:
        name = self.pointers.name(Port(port.object, Role.STREAM))
        return f"@address_{name}", f"@word_{name}"

    def _remember(self, port: Port, run: Ref, address: Ref, word: Ref) -> None:
        """Keep the last write of a memory, which a read of the next step comes too early for."""
        graph = self.machine.graph
        for name, value in zip(self._last_write(port), (address, word), strict=True):
            self._set(name, graph.width(value), run, value)

    def _forward(self, port: Port, address: Ref, word: Ref) -> Ref:
        """Return the word at an address: the one last written, if that was there.

        Before the first write it may be any: no word of the memory is defined then.
        """
        graph = self.machine.graph
        last_address, last_word = self._last_write(port)
        hit = graph.compare("eq", self.state(last_address, graph.width(address)), address)
        return graph.select(hit, self.state(last_word, graph.width(word)), word)

    def _leaves(
        self, step: _ControlStep, block: str, access: llvm.Instruction, pairs: Sequence[llvm.Value]
    ) -> Ref:
        graph = self.machine.graph
        parts = []
        for value, bits in zip(pairs[::2], pairs[1::2], strict=True):
            found = self._look(step, value, block, access)
            parts.append(graph.slice(found, 0, int(llvm.literal(bits.name) or 0)))
        return graph.concat(parts[::-1])

    def _send_result(self, step: _ControlStep, block: str, store: llvm.Instruction) -> None:
        value = self._look(step, store.operands[0], block, store)
        port = Port(Object(store.operands[1].name), Role.STREAM)
        self.machine.sends[port].append((step.runs[block], value))
