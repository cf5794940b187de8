# SPDX-License-Identifier: Apache-2.0
"""Netlist of a dataflow design: which process instance talks to which through which channel.

Enters what the compiler found in the top function: local channel objects and the calls of
processes on them. Leaves instances, FIFOs, banks, memories and AXI ports, every end connected
exactly once.

    Stream<int> a[2];  produce(a);  consume(a[0]);  consume(a[1]);
 -> FIFOs a_0, a_1; instances produce, consume_0, consume_1
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openhls.errors import HlsError

CONTROL = "control"
_ROLES = ("acquire", "release", "rd_req", "rd_resp", "wr_req", "ar", "aw", "r", "w", "b")


@dataclass(frozen=True)
class Port:
    """A ready/valid port of a process module: `name`_data, `name`_vld, `name`_rdy.

    `is_output` tells whether the process sends on it.
    """

    name: str
    width: int
    is_output: bool


@dataclass(frozen=True)
class Module:
    """A compiled process: its ports, and the arguments of its function in order."""

    name: str
    formals: tuple[str, ...]
    ports: tuple[Port, ...]


@dataclass(frozen=True)
class Actual:
    """A channel object of the top function: element `element` of `base`."""

    base: str
    element: int


@dataclass(frozen=True)
class Call:
    """A call of a process with one channel object per formal argument."""

    process: str
    actuals: tuple[Actual, ...]


@dataclass(frozen=True)
class Link:
    """One end of a channel: a port of an instance, and its role ("" for a stream)."""

    instance: str
    port: Port
    role: str


@dataclass(frozen=True)
class Instance:
    """A process instance. `nets` gives the net of every port: `net`_data, `net`_vld, `net`_rdy."""

    name: str
    module: str
    nets: Mapping[str, str]


@dataclass(frozen=True)
class Fifo:
    """A stream: from net `name`_in to net `name`_out."""

    name: str
    width: int
    depth: int


@dataclass(frozen=True)
class Bank:
    """A ping-pong bank; its nets are `name`_w_acquire, `name`_wr_req, ... `name`_r_release."""

    name: str
    width: int
    address_bits: int


@dataclass(frozen=True)
class Memory:
    """A local RAM; its nets are `name`_rd_req, `name`_rd_resp, `name`_wr_req."""

    name: str
    width: int
    address_bits: int


@dataclass(frozen=True)
class AxiPort:
    """An AXI4 master of the top: a reader (nets ar, r) or a writer (nets aw, w, b)."""

    name: str
    width: int
    writes: bool


@dataclass(frozen=True)
class Netlist:
    """The whole design."""

    instances: tuple[Instance, ...]
    fifos: tuple[Fifo, ...]
    banks: tuple[Bank, ...]
    memories: tuple[Memory, ...]
    axi_ports: tuple[AxiPort, ...]
    results: tuple[Port, ...]


def _split(port: str, formals: Sequence[str]) -> tuple[str, int, str] | None:
    """Split a port name into (formal, element, role); None when it belongs to no formal."""
    for formal in sorted(formals, key=len, reverse=True):
        pattern = rf"{re.escape(formal)}(?:_(\d+))?(?:_({'|'.join(_ROLES)}))?"
        match = re.fullmatch(pattern, port)
        if match:
            return formal, int(match.group(1) or 0), match.group(2) or ""
    return None


def _instance_names(calls: Sequence[Call]) -> list[str]:
    """Number the instances of a process that is called more than once."""
    total = Counter(call.process for call in calls)
    seen: Counter[str] = Counter()
    names = []
    for call in calls:
        names.append(
            f"{call.process}_{seen[call.process]}" if total[call.process] > 1 else call.process
        )
        seen[call.process] += 1
    return names


class _Builder:
    def __init__(self, arrays: Mapping[str, int], depths: Mapping[str, int]) -> None:
        self.arrays = arrays
        self.depths = depths
        self.nets: dict[str, dict[str, str]] = defaultdict(dict)
        self.links: dict[Actual, list[Link]] = defaultdict(list)
        self.memories: dict[str, Memory] = {}
        self.memory_ports: dict[str, list[Port]] = defaultdict(list)

    def label(self, actual: Actual) -> str:
        single = self.arrays.get(actual.base, 1) == 1
        return actual.base if single else f"{actual.base}_{actual.element}"

    def add(self, instance: str, module: Module, actuals: Sequence[Actual]) -> None:
        places = dict(zip(module.formals, actuals, strict=True))
        for port in module.ports:
            if port.name in self.nets[instance]:
                continue  # a start or done token
            found = _split(port.name, module.formals)
            if found is None:
                self.add_local(instance, port)
                continue
            formal, element, role = found
            place = places[formal]
            actual = Actual(place.base, place.element + element)
            self.links[actual].append(Link(instance, port, role))

    def add_local(self, instance: str, port: Port) -> None:
        """Connect a port that is no argument: a local RAM."""
        match = re.fullmatch(r"(\w+?)_(rd_req|rd_resp|wr_req)", port.name)
        if match is None:
            raise HlsError(f"process '{instance}': port '{port.name}' is connected to nothing")
        memory = f"{instance}_{match.group(1)}"
        self.nets[instance][port.name] = f"{memory}_{match.group(2)}"
        self.memory_ports[memory].append(port)

    def add_done_channels(
        self, modules: Mapping[str, Module], calls: Sequence[Call], names: Sequence[str]
    ) -> list[Fifo]:
        """Let the control process wait for every process that has a done port."""
        fifos = []
        for call, name in zip(calls, names, strict=True):
            if any(port.name == "done" for port in modules[call.process].ports):
                self.nets[name]["done"] = f"{name}_done_in"
                self.nets[CONTROL][f"{call.process}_done"] = f"{name}_done_out"
                fifos.append(Fifo(f"{name}_done", 1, 2))
        return fifos

    def add_control(self, control: Module) -> tuple[Port, ...]:
        """Connect the control process; return its scalar results."""
        nets = self.nets[CONTROL]
        for name in ("start", "done"):
            nets[name] = f"{CONTROL}_{name}"
        local = [port for port in control.ports if port.name not in nets]
        channels = [port for port in local if _split(port.name, control.formals) is not None]
        results = tuple(port for port in local if port not in channels)
        for port in results:
            nets[port.name] = f"{port.name}_result"
        actuals = [Actual(formal, 0) for formal in control.formals]
        self.add(CONTROL, Module(CONTROL, control.formals, tuple(channels)), actuals)
        return results

    def local_memories(self) -> tuple[Memory, ...]:
        memories = []
        for name, ports in self.memory_ports.items():
            roles = {"_".join(port.name.rsplit("_", 2)[1:]): port for port in ports}
            if roles.keys() != {"rd_req", "rd_resp", "wr_req"}:
                raise HlsError(f"RAM '{name}' must be both read and written by its process")
            memories.append(Memory(name, roles["rd_resp"].width, roles["rd_req"].width))
        return tuple(memories)

    def one(self, actual: Actual, ends: Sequence[Link], what: str) -> Link:
        if len(ends) != 1:
            users = ", ".join(sorted(e.instance for e in ends)) or "none"
            raise HlsError(
                f"channel '{self.label(actual)}' must have exactly one {what}, got {users}"
            )
        return ends[0]

    def connect(self, link: Link, net: str) -> None:
        self.nets[link.instance][link.port.name] = net

    def fifo(self, actual: Actual, links: Sequence[Link]) -> Fifo:
        name = self.label(actual)
        writer = self.one(actual, [x for x in links if x.port.is_output], "writer")
        reader = self.one(actual, [x for x in links if not x.port.is_output], "reader")
        if writer.port.width != reader.port.width:
            raise HlsError(
                f"channel '{name}': the writer sends {writer.port.width} bits, the reader takes "
                f"{reader.port.width}"
            )
        self.connect(writer, f"{name}_in")
        self.connect(reader, f"{name}_out")
        return Fifo(name, writer.port.width, self.depths.get(actual.base, 2))

    def bank(self, actual: Actual, links: Sequence[Link]) -> Bank:
        name = self.label(actual)
        writer = self.one(actual, [x for x in links if x.role == "wr_req"], "writer")
        reader = self.one(actual, [x for x in links if x.role == "rd_req"], "reader")
        for link in links:
            side = "w_" if link.instance == writer.instance else "r_"
            whole = link.role in ("acquire", "release")
            self.connect(link, f"{name}_{side if whole else ''}{link.role}")
        address_bits = reader.port.width
        return Bank(name, writer.port.width - address_bits, address_bits)

    def axi(self, actual: Actual, links: Sequence[Link]) -> AxiPort:
        name = self.label(actual)
        owners = {link.instance for link in links}
        data = self.one(actual, [x for x in links if x.role in ("r", "w")], "user")
        if len(owners) != 1:
            raise HlsError(f"AXI port '{name}' must be used by one process, got {sorted(owners)}")
        for link in links:
            self.connect(link, f"{name}_{link.role}")
        return AxiPort(name, data.port.width, data.role == "w")


def build_netlist(
    modules: Mapping[str, Module],
    calls: Sequence[Call],
    control: Module,
    arrays: Mapping[str, int],
    depths: Mapping[str, int],
) -> Netlist:
    """Connect the instances.

    `control` is the top function's own process, whose formals are the channel objects it uses
    itself. `arrays` gives the number of elements of every channel object, `depths` the FIFO depths
    (2 unless stated). Raises HlsError for a channel without exactly one writer and one reader.
    """
    builder = _Builder(arrays, depths)
    names = _instance_names(calls)
    fifos = builder.add_done_channels(modules, calls, names)
    for call, name in zip(calls, names, strict=True):
        builder.add(name, modules[call.process], call.actuals)
    results = builder.add_control(control)
    banks, axi_ports = [], []
    for actual, links in builder.links.items():
        roles = {link.role for link in links}
        if roles & {"ar", "aw"}:
            axi_ports.append(builder.axi(actual, links))
        elif roles == {""}:
            fifos.append(builder.fifo(actual, links))
        else:
            banks.append(builder.bank(actual, links))
    instances = [
        Instance(name, call.process, builder.nets[name])
        for call, name in zip(calls, names, strict=True)
    ]
    instances.append(Instance(CONTROL, control.name, builder.nets[CONTROL]))
    return Netlist(
        tuple(instances),
        tuple(fifos),
        tuple(banks),
        builder.local_memories(),
        tuple(axi_ports),
        results,
    )
