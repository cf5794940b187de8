# SPDX-License-Identifier: Apache-2.0
"""The longest path of a design, across the borders of its modules.

Arcs of every module by itself (`openhls/timing.py`) and the instances in each -> the longest path
from state to state. A net that crosses a border has the delay of its part on either side, where
its sinks are; ports of the top count as flip-flops.

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


class Crossing(NamedTuple):
    """A path: estimated ns, levels, carry chains, the borders on the way as `instance.port`."""

    ns: float
    levels: int
    chains: int
    borders: tuple[str, ...]


END = Crossing(0.0, 0, 0, ())


def _name(place: Place) -> str:
    return ".".join(part for part in place if part)


class _Design:
    """Every arc of every instance: from where to where, and how long it is."""

    def __init__(self, arcs: Mapping[str, Arcs], children: Children, top: str) -> None:
        self.arcs: dict[Place, list[tuple[Place, Crossing]]] = {}
        self.rest: dict[Place, Crossing | None] = {}  # None: in work
        stack = [("", top)]
        while stack:
            path, module = stack.pop()
            kids = {name.lstrip("\\"): kind for name, kind in children[module].items()}
            stack += [(f"{path}.{name}".lstrip("."), kind) for name, kind in kids.items()]
            for (start, end), arc in arcs[module].items():
                ends = (self._place(path, start), self._place(path, end))
                step = Crossing(arc.ns, arc.levels, arc.chains, ())
                self.arcs.setdefault(ends[0], []).append((ends[1], step))

    def _place(self, path: str, border: str) -> Place:
        """Return the place that a module in instance `path` calls `border`."""
        instance, _, port = border.rpartition(".")
        return f"{path}.{instance}".strip("."), port

    def longest(self, place: Place) -> Crossing:
        """Return the longest path from a place to state, or to a port of the top."""
        if place not in self.rest:
            self.rest[place] = None
            paths = [self._step(end, step) for end, step in self.arcs.get(place, [])]
            self.rest[place] = max(paths, default=END, key=lambda path: path.ns)
        found = self.rest[place]
        if found is None:
            raise HlsError(f"combinational loop over the borders of modules, at '{_name(place)}'")
        return found

    def _step(self, end: Place, step: Crossing) -> Crossing:
        if end[1] == STATE:
            return step
        if end[0] == "":
            return step._replace(ns=step.ns + SETUP["FD"] + NET, borders=(_name(end),))
        ns, levels, chains, borders = self.longest(end)
        passed = (_name(end), *borders)
        return Crossing(step.ns + ns, step.levels + levels, step.chains + chains, passed)


def longest_crossing(arcs: Mapping[str, Arcs], children: Children, top: str) -> Crossing:
    """Return the longest path between state, or ports of the top, over all borders on its way.

    Raises HlsError for a combinational loop over borders.
    """
    design = _Design(arcs, children, top)
    found = [END]
    for instance, port in list(design.arcs):
        if port == STATE:
            path = design.longest((instance, port))
            found.append(path._replace(borders=(_name((instance, "")), *path.borders)))
        elif instance == "":
            path = design.longest((instance, port))
            borders = (port, *path.borders)
            found.append(path._replace(ns=path.ns + CLOCK_TO_Q["FD"], borders=borders))
    return max(found, key=lambda path: path.ns)
