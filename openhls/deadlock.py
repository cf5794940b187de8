# SPDX-License-Identifier: Apache-2.0
"""Deadlock analysis: who waits for whom in a design that stands still, as a sentence.

The wait-for graph has a node per process, AXI master and the host. An edge leads from a process
that waits on a net to the one who must act there. The ready/valid wires say which edges are active.

The top module has, under `OPENHLS_WAIT_FOR`, wires for a simulator: `openhls_valid`,
`openhls_ready`, `openhls_ports`, and `openhls_probe`, `openhls_probe_sends` to set. A process that
cannot send holds its output valid. One that waits for data shows nothing: its ready rises only when
all that it needs is there. So the simulator asks, without a clock edge, what the process would
take: it lets one empty input, or all of them, pretend to be valid, and looks which ready rises.

    Netlist, Interface     -> WaitForGraph, saved as wait_for_graph.json beside the RTL
    WaitForGraph, Snapshot -> "m_axi_gmem1 returns no read data (RVALID is low); 'load' waits ..."
"""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from openhls.interface import Interface
from openhls.netlist import CONTROL, Netlist

FILE = "wait_for_graph.json"
HOST = "host"
MASTER_BITS = 3  # of a master in `ports`: its address waits, its data waits, it has no work
MOST_LINKS = 12  # of a chain that are printed
_NUMBER = re.compile(r"_\d+(?=')")  # of an instance, or an element of an array


@dataclass(frozen=True)
class End:
    """A process' end of a net.

    Members:
        process: the process instance; empty for a net that no process uses.
        sends: whether the process sends on the net.
        peer: who ends a wait here: a process, a master `m_axi_*` or `host`; empty if nobody has to.
        text: what the process does while it waits here.
    """

    process: str
    sends: bool
    peer: str
    text: str


@dataclass(frozen=True)
class AxiMaster:
    """An AXI master, by the prefix of its pins."""

    name: str
    writes: bool


@dataclass(frozen=True)
class WaitForGraph:
    """The possible edges, one per end: ends as the bits of the wires, masters as in `ports`."""

    ends: tuple[End, ...]
    masters: tuple[AxiMaster, ...]

    def text(self) -> str:
        """Return the content of wait_for_graph.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def load(path: Path) -> WaitForGraph:
        """Read wait_for_graph.json."""
        found = json.loads(path.read_text(encoding="utf-8"))
        return WaitForGraph(
            tuple(End(**end) for end in found["ends"]),
            tuple(AxiMaster(**master) for master in found["masters"]),
        )


@dataclass(frozen=True)
class Snapshot:
    """The wires of a design that stands still; bit i of all but `ports` is that of end i.

    `one` and `all` are `ready` while one empty input, or every one, pretends to be valid and every
    output is taken.
    """

    valid: int
    ready: int
    one: int
    all: int
    ports: int

    @staticmethod
    def parse(output: str) -> Snapshot:
        """Read the lines "handshake NAME HEX" of a simulator's output."""
        found = re.findall(r"^handshake (\w+) ([0-9a-f]+)$", output, re.MULTILINE)
        return Snapshot(**{name: int(word, 16) for name, word in found})


def _channels(netlist: Netlist, interface: Interface) -> dict[str, tuple[str, str]]:
    """Return by net: a net of the process that ends a wait (or its name), and the text."""
    found = {"control_start": (HOST, "waits for a start")}
    for fifo in netlist.fifos:
        source, sink = f"{fifo.name}_in", f"{fifo.name}_out"
        found[source] = (sink, f"waits for space in stream '{fifo.name}' (full)")
        found[sink] = (source, f"waits for data on stream '{fifo.name}' (empty)")
        found[f"{fifo.name}_credit"] = found[source]
    for bank in netlist.banks:
        name = bank.name
        found[f"{name}_w_acquire"] = (f"{name}_rd_req", f"waits for a free half of bank '{name}'")
        found[f"{name}_r_acquire"] = (f"{name}_wr_req", f"waits for a full half of bank '{name}'")
    needs = {"ar": "to request a read on", "r": "for read data of", "b": "for a write response of"}
    needs |= {"aw": "to request a write on", "w": "to send write data to"}
    for port in netlist.axi_ports:
        peer = f"m_axi_{interface.masters[port.name]}"
        for role in ("aw", "w", "b") if port.writes else ("ar", "r"):
            found[f"{port.name}_{role}"] = (peer, f"waits {needs[role]} {peer}")
    return found


def wait_for_graph(netlist: Netlist, interface: Interface, nets: Sequence[str]) -> WaitForGraph:
    """Return the ends of `nets`, one each, and the masters in the order of their bundles."""
    owners = {
        net: (instance.name, port in instance.outputs)
        for instance in netlist.instances
        for port, net in instance.nets.items()
    }
    channels = _channels(netlist, interface)
    ends = []
    for net in nets:
        peer, text = channels.get(net, ("", ""))
        process, sends = owners.get(net, ("", False))
        ends.append(End(process, sends, owners.get(peer, (peer, False))[0], text))
    masters = [AxiMaster(f"m_axi_{interface.masters[p.name]}", p.writes) for p in netlist.axi_ports]
    return WaitForGraph(tuple(ends), tuple(sorted(masters, key=lambda master: master.name)))


def _standing(graph: WaitForGraph, snapshot: Snapshot) -> dict[str, list[End]]:
    """Return by process where it waits; an output that is not taken is older than any input."""
    full, one, every = (defaultdict[str, list[End]](list) for _ in range(3))
    for bit, end in enumerate(graph.ends):
        if not end.peer:
            continue
        valid, ready, alone, together = (
            word >> bit & 1 for word in (snapshot.valid, snapshot.ready, snapshot.one, snapshot.all)
        )
        if end.sends and valid and not ready:
            full[end.process].append(end)
        elif not end.sends and not valid and alone:
            one[end.process].append(end)
        elif not end.sends and not valid and together:
            every[end.process].append(end)
    return {**every, **one, **full}


def _chain(standing: Mapping[str, Sequence[End]]) -> list[End]:
    """Return the shortest chain of waits from the control process to one who does not wait.

    If there is none, they wait in a cycle: the chain then ends where it began.
    """
    start = standing.get(CONTROL, ())
    paths = deque([end] for end in start)
    seen = {CONTROL}
    while paths:
        path = paths.popleft()
        peer = path[-1].peer
        if peer not in standing:
            return path
        if peer not in seen:
            seen.add(peer)
            paths.extend([*path, end] for end in standing[peer])
    return _cycle(standing)


def _cycle(standing: Mapping[str, Sequence[End]]) -> list[End]:
    """Follow first waits from the control process until they repeat; return the cycle."""
    path: list[End] = []
    place: dict[str, int] = {}
    name = CONTROL
    while name not in place:
        place[name] = len(path)
        path.append(standing[name][0])
        name = path[-1].peer
    return path[place[name] :]


def _siblings(end: End, standing: Mapping[str, Sequence[End]]) -> int:
    """Return how many processes wait like this one."""
    alike = _NUMBER.sub("", _sentence(end))
    return sum(
        any(_NUMBER.sub("", _sentence(other)) == alike for other in found)
        for found in standing.values()
    )


def _sentence(end: End, count: int = 1) -> str:
    return f"'{end.process}'{f' x{count}' if count > 1 else ''} {end.text}"


def _link(end: End, standing: Mapping[str, Sequence[End]]) -> str:
    """Say where a process waits; several that wait alike lose their numbers."""
    count = _siblings(end, standing)
    return _NUMBER.sub("", _sentence(end, count)) if count > 1 else _sentence(end)


def _root(graph: WaitForGraph, name: str, ports: int) -> str:
    """Say why somebody who does not wait for a process stands still."""
    if name == HOST:
        return "the design is idle"
    for number, master in enumerate(graph.masters):
        if master.name == name:
            address, data, idle = (ports >> MASTER_BITS * number + bit & 1 for bit in range(3))
            return f"{name} {_bus(master.writes, address=address, data=data, idle=idle)}"
    return f"'{name}' neither waits nor moves data"


def _bus(writes: bool, *, address: int, data: int, idle: int) -> str:
    if address:
        return f"takes no address (A{'W' if writes else 'R'}READY is low)"
    if data:
        return "takes no data (WREADY is low)"
    if idle:
        return "has nothing to do: no request is open"
    return "sends no response (BVALID is low)" if writes else "returns no read data (RVALID is low)"


def explain(graph: WaitForGraph, snapshot: Snapshot) -> str:
    """Return one line: first who holds everybody up, then who waits for it, up to the top.

    A cyclic wait is printed as the processes of the cycle. Processes that wait alike are one entry.
    """
    standing = _standing(graph, snapshot)
    if not standing.get(CONTROL):
        return _root(graph, CONTROL, snapshot.ports)
    chain = _chain(standing)
    links = [_link(end, standing) for end in reversed(chain)]
    if len(links) > MOST_LINKS:
        kept = MOST_LINKS // 2
        links[kept:-kept] = [f"{len(links) - 2 * kept} more"]
    last = chain[-1].peer
    if last == chain[0].process:
        return f"cyclic wait: {'; '.join(links)}"
    return "; ".join([_root(graph, last, snapshot.ports), *links])
