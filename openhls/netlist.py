# SPDX-License-Identifier: Apache-2.0
"""Netlist of a dataflow design: which process instance talks to which through which channel.

Enters what the compiler found in the top function: local channel objects and the calls of
processes on them. Leaves instances, FIFOs, banks, memories and AXI ports, every end connected
exactly once.

    Stream<int> a[2];  produce(a);  consume(a[0]);  consume(a[1]);
 -> FIFOs a_0, a_1; instances produce, consume_0, consume_1
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openhls.channels import Channel, Role, source_name
from openhls.credit import DEFAULT_DEPTH, credited_depth
from openhls.errors import HlsError

CONTROL = "control"
START, DONE = "start", "done"


@dataclass(frozen=True)
class RtlModule:
    """A compiled process: its channels, the arguments of its function in order, its stages."""

    name: str
    formals: tuple[str, ...]
    channels: tuple[Channel, ...]
    stages: int = 1


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
    """One end of a channel: a port of an instance that has so many stages."""

    instance: str
    port: Channel
    stages: int = 1


@dataclass(frozen=True)
class Instance:
    """A process instance. `nets` gives the net of every port: `net`_data, `net`_vld, `net`_rdy.

    `outputs` are the ports on which the process sends.
    """

    name: str
    module: str
    nets: Mapping[str, str]
    outputs: frozenset[str]


@dataclass(frozen=True)
class Fifo:
    """A stream: from net `name`_in to net `name`_out.

    With credits the writer takes one on net `name`_credit for every word: in the cycle in which it
    sends the word (`stages` = 1) or some cycles before. 0 stages: no credits.
    """

    name: str
    width: int
    depth: int
    stages: int = 0


@dataclass(frozen=True)
class Bank:
    """A ping-pong bank; its nets are `name`_w_acquire, `name`_wr_req, ... `name`_r_release."""

    name: str
    width: int
    depth: int
    address_bits: int


@dataclass(frozen=True)
class LocalMemory:
    """A local RAM; its nets are `name`_rd_req, `name`_rd_resp, `name`_wr_req."""

    name: str
    width: int
    depth: int
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
    memories: tuple[LocalMemory, ...]
    axi_ports: tuple[AxiPort, ...]
    results: tuple[Channel, ...]
    scalars: tuple[Channel, ...]


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
        self.memories: dict[str, dict[Role, Channel]] = defaultdict(dict)

    def label(self, actual: Actual) -> str:
        single = self.arrays.get(actual.base, 1) == 1
        return actual.base if single else f"{actual.base}_{actual.element}"

    def add(self, instance: str, module: RtlModule, actuals: Sequence[Actual]) -> None:
        """Connect an instance whose function was called with `actuals`."""
        places = dict(zip(module.formals, actuals, strict=True))
        for port in module.channels:
            if port.name in self.nets[instance]:
                continue  # a start or done token
            place = places.get(source_name(port.base))
            if place is None:
                self.add_local(instance, port)
            else:
                actual = Actual(place.base, place.element + port.element)
                self.links[actual].append(Link(instance, port, module.stages))

    def instance(self, name: str, module: RtlModule) -> Instance:
        outputs = frozenset(port.name for port in module.channels if port.is_output)
        return Instance(name, module.name, self.nets[name], outputs)

    def add_local(self, instance: str, port: Channel) -> None:
        """Connect a port of a local RAM."""
        suffix = port.role.value
        memory = f"{instance}_{port.name.removesuffix(suffix)}"
        self.nets[instance][port.name] = memory + suffix
        self.memories[memory][port.role] = port

    def add_done_channels(
        self, modules: Mapping[str, RtlModule], calls: Sequence[Call], names: Sequence[str]
    ) -> list[Fifo]:
        """Let the control process wait for every process that has a done port."""
        fifos = []
        for call, name in zip(calls, names, strict=True):
            if any(port.name == DONE for port in modules[call.process].channels):
                self.nets[name][DONE] = f"{name}_done_in"
                self.nets[CONTROL][f"{call.process}_done"] = f"{name}_done_out"
                fifos.append(Fifo(f"{name}_done", 1, 2))
        return fifos

    def add_control(self, control: RtlModule) -> tuple[Channel, ...]:
        """Connect the control process; return what it takes and gives as scalars."""
        nets = self.nets[CONTROL]
        for name in (START, DONE):
            nets[name] = f"{CONTROL}_{name}"
        scalars = []
        for port in control.channels:
            base = source_name(port.base)
            if port.name in nets:
                continue
            if port.role is Role.STREAM and base in control.formals:
                nets[port.name] = f"{port.name}_{'result' if port.is_output else 'scalar'}"
                scalars.append(port)
            else:
                self.links[Actual(base, port.element)].append(Link(CONTROL, port))
        return tuple(scalars)

    def local_memories(self) -> tuple[LocalMemory, ...]:
        found = []
        for name, ports in self.memories.items():
            if ports.keys() != {Role.READ_REQUEST, Role.RESPONSE, Role.WRITE_REQUEST}:
                raise HlsError(f"RAM '{name}' must be both read and written by its process")
            read, word = ports[Role.READ_REQUEST], ports[Role.RESPONSE]
            found.append(LocalMemory(name, word.width, read.depth, read.width))
        return tuple(found)

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
        words = [x for x in links if x.port.role is Role.STREAM]
        writer = self.one(actual, [x for x in words if x.port.is_output], "writer")
        reader = self.one(actual, [x for x in words if not x.port.is_output], "reader")
        if writer.port.width != reader.port.width:
            raise HlsError(
                f"channel '{name}': the writer sends {writer.port.width} bits, the reader takes "
                f"{reader.port.width}"
            )
        self.connect(writer, f"{name}_in")
        self.connect(reader, f"{name}_out")
        depth = self.depths.get(actual.base, DEFAULT_DEPTH)
        taken = [x for x in links if x.port.role is Role.CREDIT]
        if not taken:
            return Fifo(name, writer.port.width, depth)
        self.connect(taken[0], f"{name}_credit")
        depth = credited_depth(depth, writer.stages)
        return Fifo(name, writer.port.width, depth, writer.stages)

    def bank(self, actual: Actual, links: Sequence[Link]) -> Bank:
        name = self.label(actual)
        requests = (Role.WRITE_REQUEST, Role.READ_REQUEST)
        writer, reader = (
            self.one(actual, [x for x in links if x.port.role is role], what)
            for role, what in zip(requests, ("writer", "reader"), strict=True)
        )
        for link in links:
            side = "_w" if link.instance == writer.instance else "_r"
            whole = link.port.role in (Role.ACQUIRE, Role.RELEASE)
            self.connect(link, f"{name}{side if whole else ''}{link.port.role.value}")
        address_bits = reader.port.width
        width = writer.port.width - address_bits
        return Bank(name, width, reader.port.depth, address_bits)

    def axi(self, actual: Actual, links: Sequence[Link]) -> AxiPort:
        name = self.label(actual)
        owners = {link.instance for link in links}
        words = (Role.READ_DATA, Role.WRITE_DATA)
        data = self.one(actual, [x for x in links if x.port.role in words], "user")
        if len(owners) != 1:
            raise HlsError(f"AXI port '{name}' must be used by one process, got {sorted(owners)}")
        for link in links:
            self.connect(link, f"{name}{link.port.role.value}")
        return AxiPort(name, data.port.width, data.port.role is Role.WRITE_DATA)


def build_netlist(
    modules: Mapping[str, RtlModule],
    calls: Sequence[Call],
    control: RtlModule,
    arrays: Mapping[str, int],
    depths: Mapping[str, int],
) -> Netlist:
    """Connect the instances.

    `control` is the top function's own process; its formals are the top's pointer arguments.
    `arrays` gives the number of elements of every channel object, `depths` the FIFO depths
    (2 unless stated). Raises HlsError for a channel without exactly one writer and one reader.
    """
    builder = _Builder(arrays, depths)
    names = _instance_names(calls)
    fifos = builder.add_done_channels(modules, calls, names)
    for call, name in zip(calls, names, strict=True):
        builder.add(name, modules[call.process], call.actuals)
    scalars = builder.add_control(control)
    banks, axi_ports = [], []
    for actual, links in builder.links.items():
        roles = {link.port.role for link in links}
        if roles & {Role.READ_ADDRESS, Role.WRITE_ADDRESS}:
            axi_ports.append(builder.axi(actual, links))
        elif Role.STREAM in roles:
            fifos.append(builder.fifo(actual, links))
        else:
            banks.append(builder.bank(actual, links))
    used = [(name, modules[call.process]) for call, name in zip(calls, names, strict=True)]
    instances = [builder.instance(name, module) for name, module in (*used, (CONTROL, control))]
    return Netlist(
        tuple(instances),
        tuple(fifos),
        tuple(banks),
        builder.local_memories(),
        tuple(axi_ports),
        tuple(port for port in scalars if port.is_output),
        tuple(port for port in scalars if not port.is_output),
    )
