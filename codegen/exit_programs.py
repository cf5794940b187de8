# SPDX-License-Identifier: Apache-2.0
"""Programs of a network with early exits: one to the first exit, and others that go on from there.

The network's graph and the graphs that end at its exits -> one graph -> its parts:

    conv1 | exit_conv exit_fc | conv2 fc  ->  [conv1 exit_conv exit_fc], [conv2 fc]

All parts are of one schedule: every layer has memory of its own and its place among the weights. So
a part finds the maps of those before it where they were left. The host starts a part, reads the
result of its exit and decides whether to start the next one; the engine knows nothing of exits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from codegen.ir import Graph, Node
from codegen.program import Words, program_words
from codegen.schedule import LayerPlan, Region, Schedule, schedule
from winnow.engine import EngineConfig
from winnow.errors import ScheduleError

END = "end"  # what the last part is called


@dataclass(frozen=True, eq=False)
class Part:
    """A part: the exit that it ends at, its layers, its program for one image, and its result."""

    name: str
    layers: tuple[LayerPlan, ...]
    program: Words
    result: Region

    @property
    def cycles(self) -> int:
        """Modelled cycles of the part."""
        return sum(plan.cycles.total for plan in self.layers)


@dataclass(frozen=True, eq=False)
class ExitPrograms:
    """The schedule of a network with its exits, and its parts in the order they run."""

    whole: Schedule
    parts: tuple[Part, ...]


def with_exits(network: Graph, exits: Mapping[str, Graph]) -> Graph:
    """Return the graph of a network and of its exits, whose nodes come before what follows them.

    Nodes of one name must be one node. Raises ScheduleError that names one which is not.
    """
    nodes: dict[str, Node] = {}
    for graph in (*exits.values(), network):
        for node in graph.nodes:
            known = nodes.setdefault(node.name, node)
            if not _same(known, node):
                raise ScheduleError(
                    f"node '{node.name}': the network and its exits must have the same one, got "
                    "two; lower them from one quantized network"
                )
    return Graph(network.input, tuple(nodes.values()))


def _same(first: Node, second: Node) -> bool:
    return type(first) is type(second) and all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name))
        for field in fields(first)
    )


def exit_programs(network: Graph, exits: Mapping[str, Graph], engine: EngineConfig) -> ExitPrograms:
    """Schedule a network with its exits, given in the order of the network, and cut it in parts.

    Raises ScheduleError as `schedule` does.
    """
    whole = schedule(with_exits(network, exits), engine)
    names = [plan.name for plan in whole.layers]
    ends = {name: names.index(graph.nodes[-1].name) + 1 for name, graph in exits.items()}
    ends[END] = len(names)
    parts, first = [], 0
    for name, end in ends.items():
        layers = whole.layers[first:end]
        program = program_words(whole, layers=slice(first, end))
        parts.append(Part(name, layers, program, layers[-1].result))
        first = end
    return ExitPrograms(whole, tuple(parts))
