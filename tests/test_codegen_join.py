# SPDX-License-Identifier: Apache-2.0
"""Concatenation without copying: which maps lie side by side, and what cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codegen.check import check_graph
from codegen.fuse import fuse
from codegen.ir import INPUT, Add, Concat, Direct, Graph, Node, TensorType
from codegen.join import Joined, joined, parts_of
from codegen.schedule import Region, schedule
from tests.ladder import pool_of
from tests.test_codegen_fuse import conv
from winnow.engine import EngineConfig
from winnow.errors import ScheduleError

KIND = TensorType(8, 6, 6, 8, False, -8)


def mix(name: str, kind: TensorType, source: str = INPUT, channels: int = 8) -> Direct:
    """Return a 1x1 convolution of a map of type `kind`."""
    return Direct(
        name=name,
        inputs=(source,),
        output=replace(kind, channels=channels),
        v_bits=8,
        weight_bits=8,
        keep=1,
        acc_exponent=-8,
        weight=np.eye(channels, kind.channels, dtype=np.int64)[:, :, None, None],
        bias=np.zeros(channels, dtype=np.int64),
        v_exponent=np.array([-8]),
        weight_exponent=np.array([0]),
    )


def cat(name: str, *sources: str, channels: int) -> Concat:
    return Concat(name=name, inputs=sources, output=replace(KIND, channels=channels))


def graph_of(*nodes: Node) -> Graph:
    graph = Graph(KIND, nodes)
    check_graph(graph)
    return graph


def dense_block() -> Graph:
    """c = concat(a, b), d = concat(c, e), and layers that read them."""
    a, b, c = mix("a", KIND), mix("b", KIND, channels=16), cat("c", "a", "b", channels=24)
    e = mix("e", c.output, "c", channels=5)
    d = cat("d", "c", "e", channels=29)
    return graph_of(a, b, c, mix("other", KIND), e, d, mix("last", d.output, "d"))


def test_joined_maps_lie_side_by_side() -> None:
    graph = dense_block()
    assert parts_of(graph, "d") == ("a", "b", "e")
    types = {name: graph.type_of(name) for name in "cd"}
    assert joined(graph) == Joined((("a", "b", "e"),), {name: ("a", types[name]) for name in "cd"})
    plan = schedule(graph, EngineConfig())
    bases = {layer.name: layer.result.base for layer in plan.layers}
    assert bases == {"a": 36, "b": 72, "e": 144, "other": 180, "last": 216}
    assert plan.feature_words == 252
    sources = {layer.name: layer.source for layer in plan.layers}
    assert sources["e"] == Region(36, types["c"])
    assert sources["last"] == Region(36, types["d"])


def test_graph_without_concatenations_has_nothing_side_by_side() -> None:
    assert joined(graph_of(mix("a", KIND), mix("b", KIND, "a"))) == Joined()


def test_sum_of_joined_maps_comes_behind_all_of_them() -> None:
    """The layer that adds them runs later than it is listed."""
    wide = mix("wide", KIND, channels=16)
    a, b, c = mix("a", KIND), mix("b", KIND), cat("c", "a", "b", channels=16)
    total = Add(name="sum", inputs=("wide", "c"), output=wide.output)
    layers = fuse(graph_of(wide, a, b, c, total))
    assert [layer.name for layer in layers] == ["a", "b", "wide"]
    assert layers[-1].shortcut_source == "c"


def refused(*nodes: Node) -> str:
    graph = graph_of(*nodes)
    with pytest.raises(ScheduleError) as error:
        schedule(graph, EngineConfig())
    return str(error.value)


def test_what_cannot_lie_side_by_side_is_refused() -> None:
    a, b, e = mix("a", KIND), mix("b", KIND), mix("e", KIND)
    c = cat("c", "a", "b", channels=16)
    last = mix("last", c.output, "c")
    behind = "another concatenation joins one of them otherwise; join them in one order"
    other = replace(mix("f", c.output, "d"), name="f")
    for sources, pair in ((("a", "e"), "'e' behind 'a'"), (("e", "b"), "'b' behind 'e'")):
        told = refused(a, b, e, c, cat("d", *sources, channels=16), last, other)
        assert told.startswith(f"node 'd': it puts {pair}, {behind}")
    assert refused(a, b, c, cat("d", "b", "a", channels=16), last, other) == (
        "node 'c': its concatenations join maps in a circle; join them in one order"
    )
    assert refused(a, cat("c", "a", "a", channels=16), last) == (
        "node 'c': it joins 'a' twice; let another convolution make one"
    )
    assert refused(a, cat("c", INPUT, "a", channels=16), last) == (
        "node 'c': the engine joins maps that its layers write, 'input' is none; let a "
        "convolution make it"
    )
    odd = cat("c", "a", "b", channels=13)
    assert refused(mix("a", KIND, channels=5), b, odd, mix("last", odd.output, "c")) == (
        "node 'c': all maps it joins but the last must have a multiple of 8 channels, 'a' has 5; "
        "give it more"
    )
    assert refused(a, b, c) == (
        "node 'c': the engine's result is the map of one layer; end with a layer that reads the "
        "concatenation"
    )


def test_pool_of_joined_maps_stands_alone() -> None:
    a, b, c = mix("a", KIND), mix("b", KIND), cat("c", "a", "b", channels=16)
    plan = schedule(graph_of(a, b, c, pool_of(c)), EngineConfig())
    assert [layer.name for layer in plan.layers] == ["a", "b", "c_pool"]
    assert plan.layers[2].source == Region(36, c.output)


def test_map_that_is_joined_is_pooled_by_a_layer_of_its_own() -> None:
    a = conv("a", INPUT)
    both = Concat(name="c", inputs=("b", "a"), output=replace(a.output, channels=12))
    layers = fuse(Graph(a.output, (a, mix("b", a.output), both, pool_of(a))))
    assert [layer.name for layer in layers] == ["a", "b", "a_pool"]
