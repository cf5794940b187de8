# SPDX-License-Identifier: Apache-2.0
"""LLVM function -> state machine: every tick runs the blocks between two cuts, predicated.

Values that live across ticks become states, as do the phis of the cuts. The machine is built
twice: the first time to learn how wide its states must be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from openhls import llvm
from openhls.accesses import POINTER_USE, Accesses, Options, lower_tokens
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
from openhls.flow import Flow, port_of
from openhls.graph import Graph, Ref
from openhls.machine import Machine, State
from openhls.operations import INSTEAD, UnsupportedError, evaluate
from openhls.ranges import FSM, Narrow, narrow_states

_CASTS = ("zext", "sext", "trunc", "freeze")
_WIRING = (*_CASTS, "and", "xor", "shl", "lshr", "ashr")  # the latter with a constant
_BRANCHES = ("br", "switch", "ret", "unreachable")


@dataclass
class _Tick:
    """What is known while the blocks between two cuts are translated."""

    cut: str
    active: Ref
    blocks: list[str]
    inside: set[str]
    above: dict[str, set[str]]  # dominators within the tick
    below: dict[str, set[str]]  # what can still be reached within the tick
    runs: dict[str, Ref] = field(default_factory=dict)
    edges: dict[tuple[str, str], Ref] = field(default_factory=dict)
    values: dict[str, Ref] = field(default_factory=dict)
    undefined: set[str] = field(default_factory=set)


class Translator:
    """Translates one function."""

    def __init__(self, module: llvm.Module, function: llvm.Function, options: Options) -> None:
        self.function = lower_tokens(function, options)
        self.pointers = Pointers(self.function)
        self.accesses = Accesses(module, self.function, self.pointers)
        self.flow = Flow(self.function, self.pointers)
        self.narrow: dict[str, Narrow] = {}
        self.initial: dict[str, int] = {}
        self.folded: str | None = None
        self.entry_acquires: list[Port] = []
        self.wiring: set[str] = set()
        self.parted: set[Object] = set()  # memories whose answers come in the next tick
        # Memories that remember their last write, for a read of the next tick.
        written, read = self.accesses.written(), self.accesses.read()
        self.forwarded = written & read - self.accesses.independent(function)

    def part_reads(self, memory: Object) -> None:
        """Let answers of a memory come a tick after the reads, so that an address can use them."""
        self.forwarded.discard(memory)
        self.parted.add(memory)
        self.flow.part_reads(memory)

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
        return definition is not None and definition.opcode == "phi" and home in self.flow.cuts

    def build(self) -> Machine:
        self.definitions = {
            instruction.result: (node.name, instruction)
            for node in self.flow.nodes.values()
            for instruction in node.instructions
            if instruction.result
        }
        self.machine = Machine(Graph(), widths=self.accesses.widths, depths=self.accesses.depths)
        self.machine.num_cuts = len(self.flow.cuts)
        self.live: dict[str, int] = {}
        self.deferred: dict[Port, list[Ref]] = defaultdict(list)
        self.ticks: list[_Tick] = []
        self.fsm_bits = max(1, (len(self.flow.cuts) - 1).bit_length())
        for number, cut in enumerate(self.flow.cuts):
            self._run_tick(number, cut)
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
        """Make a start that only sets constants the reset value, not a tick of its own."""
        entry = self.flow.entry
        straight = all(len(self.flow.nodes[x].successors) == 1 for x in self.flow.region(entry))
        if len(self.flow.cuts) != 2 or not straight or self.flow.cuts[0] != entry:
            return False
        graph, machine, active = self.machine.graph, self.machine, self.ticks[0].active
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
        self.folded = self.flow.cuts.pop()
        self.flow.cuts = [self.folded]
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
        """Save what a later tick uses, in every tick that computes it."""
        for name in self.live:
            if name not in self.definitions:
                raise AssertionError(f"{name} has no definition in {self.function.name}")
            block = self.definitions[name][0]
            for tick in self.ticks:
                if name in tick.values:
                    self.machine.nexts[name].append((tick.runs[block], tick.values[name]))

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

    # Ticks

    def _run_tick(self, number: int, cut: str) -> None:
        graph = self.machine.graph
        active = graph.true
        if len(self.flow.cuts) > 1:
            state = self.state(FSM, self.fsm_bits)
            active = graph.compare("eq", state, graph.literal(self.fsm_bits, number))
        blocks = self.flow.region(cut)
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
        tick = _Tick(cut, active, blocks, inside, above, below)
        self.ticks.append(tick)
        for name in blocks:
            arriving = (tick.edges[p, name] for p in before[name])
            tick.runs[name] = active if name == cut else graph.any_of(arriving)
            for index, instruction in enumerate(self.flow.nodes[name].instructions):
                self._run(tick, name, index, instruction)

    def _inner(self, name: str, inside: set[str]) -> list[str]:
        targets = self.flow.nodes[name].successors
        return [t for t in targets if t in inside and t not in self.flow.cuts]

    def _run(self, tick: _Tick, block: str, index: int, instruction: llvm.Instruction) -> None:
        opcode = instruction.opcode
        if opcode == "phi":
            if block not in self.flow.cuts:
                self._phi(tick, block, instruction)
        elif opcode in _BRANCHES:
            self._branch(tick, block, instruction)
        elif opcode == "store":
            self._send_result(tick, block, instruction)
        elif opcode == "call" and instruction.detail in (*ACCESSES, LEAF):
            self._access(tick, block, index, instruction)
        elif opcode not in ("alloca", "getelementptr"):
            self._compute(tick, block, instruction)

    def _compute(self, tick: _Tick, block: str, instruction: llvm.Instruction) -> None:
        if instruction.opcode == "call":
            known = [v for v in instruction.operands if llvm.integer_width(v.type)]
        else:
            known = list(instruction.operands)
        try:
            operands = [self._look(tick, value, block, instruction) for value in known]
            result = evaluate(self.machine.graph, instruction, operands)
        except UnsupportedError as error:
            raise self.accesses.fail(instruction, str(error)) from error
        tick.values[instruction.result] = result

    def _look(self, tick: _Tick, value: llvm.Value, block: str, user: llvm.Instruction) -> Ref:
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
        if definition.opcode == "phi" and home in self.flow.cuts:
            return self.state(name, width)
        if home in tick.inside and block in tick.below[home]:
            if home in tick.above[block]:
                return tick.values[name]
            return graph.select(
                tick.runs[home], tick.values[name], self._kept(tick, name, width, block)
            )
        return self._kept(tick, name, width, block)

    def _kept(self, tick: _Tick, name: str, width: int, block: str) -> Ref:
        """Return a value of an earlier tick."""
        if name not in self.wiring:
            self.live[name] = width
            return self.state(name, width)
        definition = self.definitions[name][1]
        operands = [self._look(tick, x, block, definition) for x in definition.operands]
        return evaluate(self.machine.graph, definition, operands)

    def _phi(self, tick: _Tick, block: str, phi: llvm.Instruction) -> None:
        cases: list[tuple[Ref, Ref]] = []
        for value, origin in zip(phi.operands, phi.labels, strict=True):
            if (origin, block) in tick.edges and not self._is_undefined(tick, value):
                found = self._look(tick, value, origin, phi)
                cases.append((tick.edges[origin, block], found))
        graph = self.machine.graph
        width = llvm.integer_width(phi.type)
        if not cases and width is None:
            raise self.accesses.fail(phi, f"a choice of {POINTER_USE}")
        if not cases:
            tick.undefined.add(phi.result)
        tick.values[phi.result] = graph.choose(cases) if cases else graph.literal(width or 1, 0)

    def _is_undefined(self, tick: _Tick, value: llvm.Value) -> bool:
        return value.name in ("undef", "poison") or value.name in tick.undefined

    # Branches

    def _branch(self, tick: _Tick, block: str, branch: llvm.Instruction) -> None:
        graph, run = self.machine.graph, tick.runs[block]
        if branch.opcode == "ret":
            self._return(run)
        elif branch.opcode == "switch":
            self._switch(tick, block, branch)
        elif len(set(branch.labels)) == 1:
            self._edge(tick, block, branch.labels[0], run)
        elif len(branch.labels) == 2:
            condition = self._look(tick, branch.operands[0], block, branch)
            self._edge(tick, block, branch.labels[0], graph.and_(run, condition))
            self._edge(tick, block, branch.labels[1], graph.and_(run, graph.not_(condition)))

    def _switch(self, tick: _Tick, block: str, branch: llvm.Instruction) -> None:
        graph, run = self.machine.graph, tick.runs[block]
        value = self._look(tick, branch.operands[0], block, branch)
        taken: dict[str, list[Ref]] = defaultdict(list)
        for case, label in zip(branch.cases, branch.labels[1:], strict=True):
            literal = graph.literal(graph.width(value), case)
            taken[label].append(graph.compare("eq", value, literal))
        none = graph.not_(graph.any_of(x for tests in taken.values() for x in tests))
        taken[branch.labels[0]].append(none)
        for label, tests in taken.items():
            self._edge(tick, block, label, graph.and_(run, graph.any_of(tests)))

    def _edge(self, tick: _Tick, source: str, target: str, condition: Ref) -> None:
        graph = self.machine.graph
        if target not in self.flow.cuts:
            known = tick.edges.get((source, target), graph.false)
            tick.edges[source, target] = graph.or_(known, condition)
            return
        self._go_to(target, condition)
        for phi in self.flow.nodes[target].instructions:
            if phi.opcode == "phi":
                value = phi.operands[phi.labels.index(source)]
                if self._is_undefined(tick, value):
                    self.machine.undefined[phi.result].append(condition)
                else:
                    found = self._look(tick, value, source, phi)
                    self._set(phi.result, graph.width(found), condition, found)

    def _go_to(self, cut: str, condition: Ref) -> None:
        if len(self.flow.cuts) > 1:
            number = self.machine.graph.literal(self.fsm_bits, self.flow.cuts.index(cut))
            self._set(FSM, self.fsm_bits, condition, number)

    def _return(self, condition: Ref) -> None:
        """Start again: at the entry, or where the entry would lead to."""
        if not self.folded:
            self._go_to(self.flow.cuts[0], condition)
            return
        for name, constant in self.initial.items():
            if not name.startswith("@"):
                width = llvm.integer_width(self.definitions[name][1].type) or 1
                value = self.machine.graph.literal(width, constant)
                self._set(name, width, condition, value)
        for port in self.entry_acquires:
            self.deferred[port].append(condition)

    # Accesses

    def _access(self, tick: _Tick, block: str, index: int, access: llvm.Instruction) -> None:
        graph, run = self.machine.graph, tick.runs[block]
        if access.detail == LEAF:
            whole = self._look(tick, access.operands[0], block, access)
            start, width = (int(llvm.literal(x.name) or 0) for x in access.operands[1:3])
            leaf = graph.slice(whole, start, width)
            tick.values[access.result] = graph.extend(leaf, 64, signed=False)
            return
        port = port_of(access, self.pointers)
        if port is None:
            raise AssertionError(access.text)
        if access.detail == SEND:
            value = self._leaves(tick, block, access, access.operands[3:])
            self.machine.sends[port].append((run, value))
        elif access.detail == WRITE:
            bits = address_bits(self.accesses.depths[port])
            address = graph.slice(self._look(tick, access.operands[2], block, access), 0, bits)
            data = self._leaves(tick, block, access, access.operands[4:])
            self.machine.sends[port].append((run, graph.concat([data, address])))
            if port.object in self.forwarded:
                self._remember(port, run, address, data)
        elif access.detail == READ:
            address = self._look(tick, access.operands[3], block, access)
            address = graph.slice(address, 0, self.accesses.widths[port])
            self.machine.sends[port].append((run, address))
            if port.object not in self.parted:
                self._receive(tick, access, Port(port.object, Role.RESPONSE), run)
            if port.object in self.forwarded:
                word = tick.values[access.result]
                tick.values[access.result] = self._forward(port, address, word)
        elif self.flow.is_deferred(tick.cut, block, index):
            self.deferred[port].append(run)
            tick.values[access.result] = graph.literal(1, 0)
        else:
            self._receive(tick, access, port, run)

    def _receive(self, tick: _Tick, access: llvm.Instruction, port: Port, run: Ref) -> None:
        self.machine.receives[port].append(run)
        tick.values[access.result] = self.machine.input_node(port)

    def _last_write(self, port: Port) -> tuple[str, str]:
        name = self.pointers.name(Port(port.object, Role.STREAM))
        return f"@address_{name}", f"@word_{name}"

    def _remember(self, port: Port, run: Ref, address: Ref, word: Ref) -> None:
        """Keep the last write of a memory, which a read of the next tick comes too early for."""
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
        self, tick: _Tick, block: str, access: llvm.Instruction, pairs: Sequence[llvm.Value]
    ) -> Ref:
        graph = self.machine.graph
        parts = []
        for value, bits in zip(pairs[::2], pairs[1::2], strict=True):
            found = self._look(tick, value, block, access)
            parts.append(graph.slice(found, 0, int(llvm.literal(bits.name) or 0)))
        return graph.concat(parts[::-1])

    def _send_result(self, tick: _Tick, block: str, store: llvm.Instruction) -> None:
        value = self._look(tick, store.operands[0], block, store)
        port = Port(Object(store.operands[1].name), Role.STREAM)
        self.machine.sends[port].append((tick.runs[block], value))
