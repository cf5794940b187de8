# SPDX-License-Identifier: Apache-2.0
"""Concatenation without copying: which maps must lie side by side in feature memory.

A map lies there by groups of 8 channels, so the channels of two maps are one map when the second
begins where the first ends. Graph -> Joined; the scheduler places the maps.

    c = concat(a, b), d = concat(c, e)  ->  a, b, e side by side; c and d both begin with a
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from codegen.ir import INPUT, Concat, Graph, TensorType
from winnow.errors import ScheduleError
from winnow.srbs import SUB_ROW


@dataclass(frozen=True)
class Joined:
    """What lies side by side.

    Members:
        rows: names of the nodes whose maps do, in order; no name is in two rows.
        maps: of every concatenation, the node whose map it begins with, and its type.
    """

    rows: tuple[tuple[str, ...], ...] = ()
    maps: dict[str, tuple[str, TensorType]] = field(default_factory=dict)


NOTHING = Joined()


def parts_of(graph: Graph, name: str) -> tuple[str, ...]:
    """Return the nodes whose maps make up a map: itself, or what a concatenation joins."""
    node = next((node for node in graph.nodes if node.name == name), None)
    if not isinstance(node, Concat):
        return (name,)
    return tuple(part for source in node.inputs for part in parts_of(graph, source))


def joined(graph: Graph) -> Joined:
    """Return what lies side by side; ScheduleError for a map that would have two neighbours."""
    behind: dict[str, str] = {}
    before: dict[str, str] = {}
    maps = {}
    for node in graph.nodes:
        if not isinstance(node, Concat):
            continue
        parts = parts_of(graph, node.name)
        maps[node.name] = (parts[0], node.output)
        for first, second in pairwise(parts):
            if behind.get(first, second) != second or before.get(second, first) != first:
                raise ScheduleError(
                    f"node '{node.name}': it puts '{second}' behind '{first}', another "
                    "concatenation joins one of them otherwise; join them in one order, or let "
                    "another convolution make one of them"
                )
            behind[first], before[second] = second, first
    heads = [name for name in behind if name not in before]
    if len({*behind, *before}) != sum(len(_row(name, behind)) for name in heads):
        raise ScheduleError(
            f"node '{next(iter(maps))}': its concatenations join maps in a circle; join them in "
            "one order"
        )
    return Joined(tuple(_row(name, behind) for name in heads), maps)


def _row(name: str, behind: dict[str, str]) -> tuple[str, ...]:
    row = [name]
    while row[-1] in behind:
        row.append(behind[row[-1]])
    return tuple(row)


def check_concat(node: Concat, graph: Graph, written: set[str]) -> None:
    """Raise ScheduleError unless layers write what is joined: the nodes `written`, so far."""
    parts = parts_of(graph, node.name)
    if len(set(parts)) < len(parts):
        twice = next(part for part in parts if parts.count(part) > 1)
        raise ScheduleError(
            f"node '{node.name}': it joins '{twice}' twice; let another convolution make one"
        )
    for part in parts:
        if part == INPUT or part not in written:
            raise ScheduleError(
                f"node '{node.name}': the engine joins maps that its layers write, '{part}' is "
                "none; let a convolution make it"
            )
    for part in parts[:-1]:
        channels = graph.type_of(part).channels
        if channels % SUB_ROW:
            raise ScheduleError(
                f"node '{node.name}': all maps it joins but the last must have a multiple of "
                f"{SUB_ROW} channels, '{part}' has {channels}; give it more"
            )
