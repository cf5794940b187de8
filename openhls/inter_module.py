# SPDX-License-Identifier: Apache-2.0
"""The longest path of a design, over the boundaries of its modules.

Arcs of every module by itself (`openhls/timing.py`) and the instances in each -> the longest path
from state to state. The delay of a net that crosses a module boundary is counted on the side of its
sinks; ports of the top count as flip-flops.

    a: state -> q 2 ns;  b: d -> state 3 ns;  top: x.q -> y.d 0 ns, x an `a`, y a `b`
 -> 5 ns over x.q, y.d
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from openhls.errors import HlsError
from openhls.timing import CLOCK_TO_Q, NET, SETUP, STATE, Arcs

Children = Mapping[str, Mapping[str, str]]  # module -> instance -> module
Place = tuple[str, str]  # instance with those around it ("" is the top) and its port


class InterModulePath(NamedTuple):
    """A path: estimated ns, levels, carry chains, the pins at module boundaries on its way."""

    ns: float
    levels: int
    chains: int
    pins: tuple[str, ...]


END = InterModulePath(0.0, 0, 0, ())


def _name(place: Place) -> str:
    return ".".join(part for part in place if part)


class _Design:
    """Every arc of every instance: from where to where, and how long it is."""

    def __init__(self, arcs: Mapping[str, Arcs], children: Children, top: str) -> None:
        self.arcs: dict[Place, list[tuple[Place, InterModulePath]]] = {}
        self.rest: dict[Place, InterModulePath | None] = {}  # None: in work
        stack = [("", top)]
        while stack:
            path, module = stack.pop()
            kids = {name.lstrip("\\"): kind for name, kind in children[module].items()}
            stack += [(f"{path}.{name}".lstrip("."), kind) for name, kind in kids.items()]
            for (start, end), arc in arcs[module].items():
                ends = (self._place(path, start), self._place(path, end))
                step = InterModulePath(arc.ns, arc.levels, arc.chains, ())
                self.arcs.setdefault(ends[0], []).append((ends[1], step))

    def _place(self, path: str, pin: str) -> Place:
        """Return the place that a module in instance `path` calls `pin`."""
        instance, _, port = pin.rpartition(".")
        return f"{path}.{instance}".strip("."), port

    def longest(self, place: Place) -> InterModulePath:
        """Return the longest path from a place to state, or to a port of the top."""
        if place not in self.rest:
            self.rest[place] = None
            paths = [self._step(end, step) for end, step in self.arcs.get(place, [])]
            self.rest[place] = max(paths, default=END, key=lambda path: path.ns)
        found = self.rest[place]
        if found is None:
            raise HlsError(f"combinational loop over module boundaries, at '{_name(place)}'")
        return found

    def _step(self, end: Place, step: InterModulePath) -> InterModulePath:
        if end[1] == STATE:
            return step
        if end[0] == "":
            return step._replace(ns=step.ns + SETUP["FD"] + NET, pins=(_name(end),))
        ns, levels, chains, pins = self.longest(end)
        passed = (_name(end), *pins)
        return InterModulePath(step.ns + ns, step.levels + levels, step.chains + chains, passed)


def longest_inter_module_path(
    arcs: Mapping[str, Arcs], children: Children, top: str
) -> InterModulePath:
    """Return the longest path between state, or ports of the top, over all module boundaries.

    Raises HlsError for a combinational loop over module boundaries.
    """
    design = _Design(arcs, children, top)
    found = [END]
    for instance, port in list(design.arcs):
        if port == STATE:
            path = design.longest((instance, port))
            found.append(path._replace(pins=(_name((instance, "")), *path.pins)))
        elif instance == "":
            path = design.longest((instance, port))
            pins = (port, *path.pins)
            found.append(path._replace(ns=path.ns + CLOCK_TO_Q["FD"], pins=pins))
    return max(found, key=lambda path: path.ns)
