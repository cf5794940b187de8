# SPDX-License-Identifier: Apache-2.0
"""Cases of the ladder (`tests/ladder.py`) with a convolution in groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from codegen.abi import MAX_ADD_SHIFT
from codegen.ir import INPUT, Add, Direct, Graph, Node, Winograd
from tests.ladder import _Place, _random_feature, _random_layer, _random_sum, _spread
from winnow.srbs import max_keep, without_groups
from winnow.window import Axis, Window


def random_grouped_graph(seed: int, engine_m: int) -> Graph:
    """Return a graph of a random convolution in groups, half of them depthwise, with what is near.

    Half the time another layer makes its map or reads its result; some pool or add.
    """
    rng = np.random.default_rng([seed, engine_m, 12])
    while True:
        graph = _random_grouped_graph(rng, engine_m)
        if all(_spread(graph, node) <= MAX_ADD_SHIFT for node in graph.nodes):
            return graph


def _random_grouped_graph(rng: np.random.Generator, engine_m: int) -> Graph:
    height, width = rng.integers(1, 14, size=2).tolist()
    reads, gives = (1, int(rng.choice([1, 1, 1, 2, 3])))  # channels of a group
    if rng.random() < 0.5:
        reads, gives = rng.integers(1, 13, size=2).tolist()
    adds = rng.random() < 0.35
    gives = reads if adds else gives
    groups = int(rng.integers(2, max(2, 104 // max(reads, gives)) + 1))
    kind = _random_feature(rng, groups * reads, height, width)
    graph = Graph(kind, ())
    if rng.random() < 0.3:
        place = _Place("before", INPUT, replace(kind, channels=int(rng.integers(1, 17))))
        made = _random_layer(
            rng, place, Direct, engine_m, raw=False, channels=kind.channels, window=Window()
        )
        graph = Graph(place.input, made)
    source = graph.nodes[-1].name if graph.nodes else INPUT
    nodes = _random_grouped(rng, graph, source, (groups, groups * gives), engine_m, keeps=adds)
    graph = replace(graph, nodes=(*graph.nodes, *nodes))
    if adds:
        last, other = graph.nodes[-1], graph.type_of(source)
        total = _random_sum(rng, last.output, other)
        add = Add(name="sum", inputs=(last.name, source), output=total)
        graph = replace(graph, nodes=(*graph.nodes, add))
    if rng.random() < 0.7:
        last = graph.nodes[-1]
        op = Winograd if rng.integers(2) else Direct
        place = _Place("behind", last.name, last.output)
        behind = _random_layer(rng, place, op, engine_m, raw=False, window=Window())
        graph = replace(graph, nodes=(*graph.nodes, *behind))
    return graph


def _random_grouped(
    rng: np.random.Generator,
    graph: Graph,
    source: str,
    sizes: tuple[int, int],
    engine_m: int,
    *,
    keeps: bool,
) -> tuple[Node, ...]:
    """Return a random convolution in groups of a map, and perhaps a pool behind it.

    `sizes` are groups and output channels; one that `keeps` the size of the map is 3x3.
    """
    kind, (groups, channels) = graph.type_of(source), sizes
    op = Winograd if rng.integers(2) else Direct
    window, pool = None, bool(rng.random() < 0.7)
    if keeps:
        axis = Axis(3, before=1, after=1) if op is Direct else Axis()
        window, pool = Window(axis, axis), False
    place = _Place("grouped", source, replace(kind, channels=kind.channels // groups))
    made = _random_layer(
        rng, place, op, engine_m, raw=False, pool=pool, channels=channels, window=window
    )
    node, *pools = made
    assert isinstance(node, Winograd | Direct)
    whole = without_groups(node.weight.reshape(*node.weight.shape[:2], -1), groups)
    return replace(node, groups=groups, keep=max_keep(whole)), *pools
