# SPDX-License-Identifier: Apache-2.0
"""The longest paths of a mapped 7-series module: logic levels, carry chains, estimated delay.

A module of a Yosys JSON netlist -> the longest path between every two of its boundary pins. A
boundary pin is a port, a pin of an instance of another module, or state (flip-flop, shift register,
RAM, DSP): named "port", "instance.port" and "". `openhls/inter_module.py` joins the modules.

Nothing is placed: cells have delays of the slowest speed grade (-1), a net has what critical nets
had on average after routing, and more for many sinks. So the result compares variants of a design
and says what to ask a router for; it is not a clock that one has reached.

A level is a LUT, inverter or MUXF; carry cells linked by CO -> CI are one chain. The slowest
path need not be the one of the most levels, so these are counted besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from openhls.errors import HlsError

# Nanoseconds of a -1 part of the Artix-7 fabric (XC7Z010, XC7Z020), as vendor reports print them
# for -1 (cells) and DS187 tabulates them (RAM, DSP, clock to output, setup), compared with the slow
# corner of the public SDF files of prjxray-db; of two that differ the larger one.
LUT = 0.124
MUXF, MUXF_SELECT = 0.22, 0.3
CARRY_IN = {"CO": 0.53, "O": 0.62}  # from S or DI
CARRY_INIT = {"CO": 0.6, "O": 0.66}  # from CYINIT
CARRY_HOP = 0.117  # from CI to CO[3]
CARRY_OUT = 0.33  # from CI to O
CLOCK_TO_Q = {"FD": 0.456, "SRL": 1.63, "RAMB": 2.46, "RAM": 1.31}  # SDF: 0.34 for a flip-flop
RAMB_REGISTERED = 0.88  # clock to output of a block RAM with its output register
SETUP = {"FD": 0.08, "SRL": 0.17, "RAMB": 0.6, "RAM": 0.3}
SETUP_PIN = {"CE": 0.2, "R": 0.43, "S": 0.43, "CLR": 0.43, "PRE": 0.43}  # of flip-flops
RAMB_DATA = 0.74  # setup of what is written to a block RAM
DSP_SETUP = 0.4  # to an input register, or a control input
DSP_TO_M, DSP_TO_P = 3.3, 5.4  # from A, B or D to the register of the product, of the sum
DSP_ADD = 1.8  # from C or a cascade to the register of the sum
DSP_OUT = {"P": 0.44, "M": 1.96, "A": 5.4}  # clock to P, from the last register on the way

# Not a data sheet's: what one sink takes, and what twice the fan-out adds, the double over MANY
# sinks, which lie further apart. One hop to a neighbour takes 0.45 ns before any wire; critical
# nets averaged 1.01 ns after routing on an ECP5.
NET, NET_DOUBLING, MANY = 0.85, 0.1, 64

STATE = ""  # the boundary pin that stands for all state inside a module
Bit = int | str
Netlist = Mapping[str, Any]  # one module of `write_json`


class TimingPath(NamedTuple):
    """A path: estimated ns, levels, carry chains, the cells on the way (newest first, linked)."""

    ns: float
    levels: int
    chains: int
    cells: tuple[str, Any] | None = None

    @classmethod
    def over(cls, ns: float, levels: int, chains: int, cells: Sequence[str]) -> TimingPath:
        """Return a path over cells in their order."""
        link: tuple[str, Any] | None = None
        for cell in cells:
            link = (cell, link)
        return cls(ns, levels, chains, link)

    def then(self, ns: float, levels: int = 0, chains: int = 0, cell: str = "") -> TimingPath:
        """Return this path with one more step."""
        cells = (cell, self.cells) if cell else self.cells
        return TimingPath(self.ns + ns, self.levels + levels, self.chains + chains, cells)

    def through(self) -> tuple[str, ...]:
        """Return the names of the cells in order."""
        names, link = [], self.cells
        while link is not None:
            names.append(link[0])
            link = link[1]
        return tuple(reversed(names))


NONE = TimingPath(0.0, 0, 0)
Arcs = dict[tuple[str, str], TimingPath]  # longest path from boundary pin to boundary pin


@dataclass(frozen=True)
class ModulePaths:
    """Of a module: the longest path between every two boundary pins, the most levels."""

    arcs: Arcs
    levels: int


@dataclass(frozen=True)
class _Pin:
    cell: str
    kind: str
    port: str


@dataclass(frozen=True)
class _Step:
    """One input bit of an output bit, and what the way costs."""

    source: Bit
    ns: float
    levels: int
    chains: int


def net_delay(fan_out: int) -> float:
    """Return what a net of general routing is taken for, in ns."""
    doublings = math.log2(max(fan_out, 1)) + math.log2(max(fan_out / MANY, 1))
    return NET + NET_DOUBLING * doublings


def _family(kind: str) -> str:
    """Return the key of CLOCK_TO_Q for a cell with state, else an empty text."""
    if kind.startswith("FD"):
        return "FD"
    return next((name for name in ("SRL", "RAMB", "RAM") if kind.startswith(name)), "")


def _is_logic(kind: str) -> bool:
    return kind.startswith(("LUT", "MUXF")) or kind in ("INV", "CARRY4")


def _dedicated(driver: _Pin | None, sink: _Pin, fan_out: int) -> bool:
    """Tell whether a net stays in the slice or in the carry chain: no routing."""
    if driver is None:
        return False
    lut = driver.kind.startswith("LUT") or driver.kind == "INV"
    if sink.kind == "CARRY4":
        if sink.port == "CI":
            return driver.kind == "CARRY4"
        return lut and (sink.port == "S" or (sink.port == "DI" and fan_out == 1))
    if sink.kind.startswith("MUXF"):
        return sink.port != "S" and (lut or driver.kind.startswith("MUXF"))
    if sink.kind.startswith("FD") and sink.port == "D":
        return fan_out == 1 and _is_logic(driver.kind)
    return False


class _Module:
    """Longest paths inside one module, by memoised search back from every end."""

    def __init__(self, name: str, netlist: Netlist) -> None:
        self.name = name
        self.cells = netlist["cells"]
        self.ports = netlist["ports"]
        self.drivers: dict[Bit, _Pin] = {}
        self.place: dict[Bit, int] = {}  # position of a driven bit in its output
        self.fan_out: dict[Bit, int] = {}
        self.starts: dict[Bit, tuple[str, TimingPath]] = {}
        self.arrivals: dict[Bit, dict[str, TimingPath]] = {}
        self.levels: dict[Bit, int] = {}  # most on any path to a bit that has arrived
        for cell, port, bits in self._pins("output"):
            pin = _Pin(cell, self.cells[cell]["type"], port)
            for index, bit in enumerate(bits):
                self.drivers[bit], self.place[bit] = pin, index
        for _, _, bits in self._pins("input"):
            for bit in bits:
                self.fan_out[bit] = self.fan_out.get(bit, 0) + 1
        self.names = _public_names(netlist)
        self._find_starts()

    def label(self, cell: str) -> str:
        """Return a cell's type and the net that it drives, if that has a name in the source."""
        about = self.cells[cell]
        for port, way in about["port_directions"].items():
            if way == "output":
                named = (self.names.get(bit) for bit in about["connections"][port])
                return " ".join([about["type"], *sorted(n for n in named if n)[:1]])
        return str(about["type"])

    def _pins(self, direction: str) -> Iterator[tuple[str, str, list[Bit]]]:
        for name, cell in self.cells.items():
            for port, way in cell["port_directions"].items():
                if way == direction:
                    yield name, port, cell["connections"][port]

    def _find_starts(self) -> None:
        for port, about in self.ports.items():
            if about["direction"] == "input":
                self.starts |= dict.fromkeys(about["bits"], (port, NONE))
        for name, port, bits in self._pins("output"):
            cell = self.cells[name]
            delay = _clock_to_output(cell)
            if _is_logic(cell["type"]) or delay is None:
                continue
            if delay < 0:
                start = (f"{name}.{port}", NONE)
            else:
                start = (STATE, NONE.then(delay, cell=self.label(name)))
            self.starts |= dict.fromkeys(bits, start)

    def _net(self, bit: Bit, sink: _Pin) -> float:
        fan_out = self.fan_out.get(bit, 1)
        return 0.0 if _dedicated(self.drivers.get(bit), sink, fan_out) else net_delay(fan_out)

    def steps(self, bit: Bit) -> list[_Step]:
        """Return the inputs that decide a driven bit within the same cycle."""
        driver = self.drivers.get(bit)
        if driver is None:
            return []
        cell = self.cells[driver.cell]
        found = []
        for port, way in cell["port_directions"].items():
            if way != "input":
                continue
            sink = _Pin(driver.cell, driver.kind, port)
            for index, source in enumerate(cell["connections"][port]):
                cost = _cost(cell, port, index, driver.port, self.place[bit])
                if cost is not None and not isinstance(source, str):
                    chains = cost[2]
                    if port == "CI":  # a chain that starts at CI is entered from the fabric
                        before = self.drivers.get(source)
                        chains = 0 if before is not None and before.kind == "CARRY4" else 1
                    ns = cost[0] + self._net(source, sink)
                    found.append(_Step(source, ns, cost[1], chains))
        return found

    def arrival(self, target: Bit) -> dict[str, TimingPath]:
        """Return the longest path to a bit from every boundary pin that reaches it."""
        if target in self.arrivals:
            return self.arrivals[target]
        stack, open_bits = [target], set[Bit]()
        while stack:
            bit = stack[-1]
            if bit in self.arrivals:
                stack.pop()
                continue
            steps = self.steps(bit)
            missing = [step.source for step in steps if step.source not in self.arrivals]
            if missing and bit not in open_bits:
                open_bits.add(bit)
                stack += missing
                continue
            if missing:
                raise HlsError(
                    f"module '{self.name}' has a combinational loop through "
                    f"'{self.drivers[bit].cell}'"
                )
            self.arrivals[bit] = self._combine(bit, steps)
            stack.pop()
        return self.arrivals[target]

    def _combine(self, bit: Bit, steps: list[_Step]) -> dict[str, TimingPath]:
        best: dict[str, TimingPath] = {}
        self.levels[bit] = max((self.levels[s.source] + s.levels for s in steps), default=0)
        if bit in self.starts:
            origin, start = self.starts[bit]
            best[origin] = start
        cell = self.label(self.drivers[bit].cell) if steps else ""
        for step in steps:
            for origin, path in self.arrivals[step.source].items():
                ns = path.ns + step.ns
                if origin not in best or ns > best[origin].ns:
                    best[origin] = path.then(step.ns, step.levels, step.chains, cell)
        return best

    def ends(self) -> Iterator[tuple[Bit, str, float, str]]:
        """Yield every end of a path: bit, boundary pin, delay up to and with the setup, cell."""
        for port, about in self.ports.items():
            if about["direction"] == "output":
                yield from ((bit, port, 0.0, "") for bit in about["bits"])
        for name, port, bits in self._pins("input"):
            cell = self.cells[name]
            kind = cell["type"]
            if _is_logic(kind):
                continue
            setup = _setup(cell, port)
            if setup is None:
                continue
            if setup < 0:  # an instance of another module
                yield from ((bit, f"{name}.{port}", 0.0, "") for bit in bits)
            else:
                pin = _Pin(name, kind, port)
                label = self.label(name)
                yield from ((bit, STATE, setup + self._net(bit, pin), label) for bit in bits)


def _public_names(netlist: Netlist) -> dict[Bit, str]:
    """Return a name from the source for every bit that has one."""
    names: dict[Bit, str] = {}
    for name, net in netlist.get("netnames", {}).items():
        if not net.get("hide_name"):
            for index, bit in enumerate(net["bits"]):
                names.setdefault(bit, name if len(net["bits"]) == 1 else f"{name}[{index}]")
    return names


def _parameter(cell: Netlist, name: str, default: int) -> int:
    value = cell.get("parameters", {}).get(name)
    return default if value is None else int(str(value), 2)


def _is_known(kind: str) -> bool:
    return kind.startswith("DSP48") or _family(kind) != "" or _is_logic(kind)


def _dsp_last(cell: Netlist) -> str:
    """Return the last register between the factors of a DSP and P; empty when there is none."""
    for letter in "PMA":
        if _parameter(cell, f"{letter}REG", 1):
            return letter
    return ""


def _clock_to_output(cell: Netlist) -> float | None:
    """Return a cell's delay from clock to output, None without state, -1 for an instance."""
    kind = cell["type"]
    if not _is_known(kind):
        return -1.0
    if kind.startswith("DSP48"):
        last = _dsp_last(cell)
        return DSP_OUT[last] if last else None
    family = _family(kind)
    if family == "RAMB" and _parameter(cell, "DOA_REG", 0):
        return RAMB_REGISTERED
    return CLOCK_TO_Q.get(family)


_CLOCKS = ("CLK", "WCLK", "CLKARDCLK", "CLKBWRCLK")


def _setup(cell: Netlist, port: str) -> float | None:
    """Return what an input needs before the clock, None for a clock, -1 for an instance's."""
    kind = cell["type"]
    if not _is_known(kind):
        return -1.0
    if port in _CLOCKS or (port == "C" and kind.startswith("FD")):
        return None
    if kind.startswith("DSP48"):
        return _dsp_setup(cell, port)
    family = _family(kind)
    if family == "FD":
        return SETUP_PIN.get(port, SETUP["FD"])
    if family == "RAMB" and port.startswith("DI"):
        return RAMB_DATA
    return SETUP[family]


def _dsp_setup(cell: Netlist, port: str) -> float:
    if port in ("A", "B", "D") and not _parameter(cell, f"{port}REG", 1):
        if _parameter(cell, "MREG", 1):
            return DSP_TO_M
        return DSP_TO_P
    if (port == "C" and not _parameter(cell, "CREG", 1)) or port in ("PCIN", "CARRYIN"):
        return DSP_ADD
    return DSP_SETUP


def _cost(
    cell: Netlist, port: str, index: int, output: str, place: int
) -> tuple[float, int, int] | None:
    """Return ns, levels and chains from an input bit to an output bit; None without a way."""
    kind = cell["type"]
    if kind == "CARRY4":
        return _carry_cost(port, index, output, place)
    if kind.startswith("LUT") or kind == "INV":
        return LUT, 1, 0
    if kind.startswith("MUXF"):
        return (MUXF_SELECT if port == "S" else MUXF), 1, 0
    if kind.startswith("DSP48"):
        combinational = output == "P" and not _dsp_last(cell) and port in ("A", "B", "C", "D")
        return (DSP_TO_P, 0, 0) if combinational else None
    if kind.startswith("SRL") and port.startswith("A"):
        return LUT, 1, 0
    if kind.startswith("RAM") and not kind.startswith("RAMB") and _reads(port, output):
        return LUT, 1, 0
    return None


def _reads(port: str, output: str) -> bool:
    """Tell whether an address port of a LUT RAM reads an output: ADDRB -> DOB, DPRA0 -> DPO."""
    if port.startswith("ADDR"):
        return output in ("O", f"DO{port[4:5]}")
    if port.startswith("DPRA"):
        return output == "DPO"
    return port.rstrip("0123456789") == "A" and output in ("O", "SPO")


def _carry_cost(port: str, index: int, output: str, place: int) -> tuple[float, int, int] | None:
    if port == "CI":
        return (CARRY_HOP if output == "CO" else CARRY_OUT), 0, 0
    if port == "CYINIT":
        return CARRY_INIT[output], 0, 1
    reaches = index <= place if port == "S" or output == "CO" else index < place
    return (CARRY_IN[output], 0, 1) if reaches else None


def module_paths(name: str, netlist: Netlist) -> ModulePaths:
    """Return the longest paths between the boundary pins of a mapped module.

    `netlist` is the module in the JSON of Yosys. A path from state begins at the clock and one to
    state ends with the setup; one from or to a pin has neither, and the net belongs to its sinks.
    Raises HlsError for a combinational loop.
    """
    module = _Module(name, netlist)
    best: Arcs = {}
    levels = 0
    for bit, end, delay, cell in module.ends():
        if isinstance(bit, str):
            continue  # a constant
        for start, path in module.arrival(bit).items():
            whole = path.then(delay, cell=cell)
            if (start, end) not in best or whole.ns > best[start, end].ns:
                best[start, end] = whole
        levels = max(levels, module.levels[bit])
    return ModulePaths(best, levels)


def longest(arcs: Arcs) -> TimingPath:
    """Return the longest path of a module alone: every port and instance counts as a flip-flop."""
    found = NONE
    for (start, end), path in arcs.items():
        before = 0.0 if start == STATE else CLOCK_TO_Q["FD"]
        after = 0.0 if end == STATE else SETUP["FD"] + NET
        if path.ns + before + after > found.ns:
            found = path._replace(ns=path.ns + before + after)
    return found
