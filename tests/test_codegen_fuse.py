# SPDX-License-Identifier: Apache-2.0
"""Fusion: what becomes one layer of the engine, in which order, and what no descriptor can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from codegen.check import check_graph
from codegen.fuse import FUSIONS, EngineLayer, Layers, fuse, written_maps
from codegen.interpret import interpret
from codegen.ir import (
    INPUT,
    NODES,
    Add,
    Dense,
    Direct,
    GlobalAverage,
    Graph,
    MaxPool,
    Multiply,
    Node,
    TensorType,
    Winograd,
)
from codegen.schedule import schedule
from tests.ladder import (
    max_pool_of,
    multiplies,
    pool_of,
    random_chain_graph,
    random_images,
    random_layer_graph,
    random_residual_graph,
)
from winnow.blocking import Op
from winnow.engine import EngineConfig
from winnow.errors import ScheduleError
from winnow.window import Axis, Window

ENTRY = TensorType(4, 6, 6, 8, False, -8)


def conv(name: str, source: str, size: int = 6) -> Winograd:
    return Winograd(
        name=name,
        inputs=(source,),
        output=TensorType(4, size, size, 8, False, -8),
        v_bits=8,
        weight_bits=8,
        keep=4,
        acc_exponent=-8,
        weight=np.ones((4, 4, 16), dtype=np.int64),
        bias=np.zeros(4, dtype=np.int64),
        v_exponent=np.full(16, -8),
        weight_exponent=np.zeros(16, dtype=np.int64),
        m=2,
    )


def mix(name: str, source: str) -> Direct:
    return Direct(
        name=name,
        inputs=(source,),
        output=ENTRY,
        v_bits=8,
        weight_bits=8,
        keep=4,
        acc_exponent=-8,
        weight=np.ones((4, 4, 1, 1), dtype=np.int64),
        bias=np.zeros(4, dtype=np.int64),
        v_exponent=np.array([-8]),
        weight_exponent=np.array([0]),
    )


def raw(node: Multiply) -> Multiply:
    return replace(node, output=replace(node.output, bits=32, signed=True))


def graph_of(*nodes: Node) -> Graph:
    graph = Graph(ENTRY, nodes)
    check_graph(graph)
    return graph


def test_every_record_has_a_fusion() -> None:
    assert set(FUSIONS) == set(NODES)


def test_example_of_the_module() -> None:
    """conv2 = winograd(conv1), conv2_pool = max_pool(conv2) -> layer conv2, writes conv2_pool."""
    first, second = conv("conv1", INPUT), conv("conv2", "conv1")
    pool = pool_of(second)
    layers = fuse(graph_of(first, second, pool))
    assert [layer.name for layer in layers] == ["conv1", "conv2"]
    assert [layer.last for layer in layers] == [first, pool]
    assert [layer.source for layer in layers] == [INPUT, "conv1"]
    assert [layer.input for layer in layers] == [ENTRY, first.output]
    assert [layer.output for layer in layers] == [first.output, pool.output]
    assert [layer.pool for layer in layers] == [None, pool]
    assert [layer.m for layer in layers] == [2, 2]


def test_layers_keep_the_order_of_their_multiplications() -> None:
    """The pool of the first layer comes after the second, which does not read it."""
    first, second = conv("a", INPUT), conv("b", INPUT)
    third = conv("c", "a_pool", size=3)
    layers = fuse(graph_of(first, second, pool_of(first), third, pool_of(second)))
    assert [(x.name, x.last.name) for x in layers] == [("a", "a_pool"), ("b", "b_pool"), ("c", "c")]


def test_map_may_be_read_by_several_and_the_pooled_one_too() -> None:
    first = conv("a", INPUT)
    readers = conv("b", "a_pool", 3), conv("c", "a_pool", 3), conv("d", "b", 3), conv("e", "b", 3)
    layers = fuse(graph_of(first, pool_of(first), *readers))
    assert [layer.source for layer in layers] == [INPUT, "a_pool", "a_pool", "b", "b"]


@pytest.mark.parametrize("m", [2, 4])
def test_layers_of_random_graphs_hold_every_node_once(m: int) -> None:
    ops = {Winograd: Op.WINOGRAD, Direct: Op.DIRECT, Dense: Op.DENSE}
    for make in (random_layer_graph, random_chain_graph, random_residual_graph):
        for seed in range(60):
            graph = make(seed, m)
            layers = fuse(graph)
            assert [layer.multiply for layer in layers] == multiplies(graph)
            parts = [(layer.multiply, layer.add, layer.pool) for layer in layers]
            held = [node for nodes in parts for node in nodes if node]
            assert held == list(graph.nodes)
            for layer in layers:
                assert layer.op is ops[type(layer.multiply)]
                assert layer.input == graph.type_of(layer.multiply.inputs[0])
                assert layer.m == (m if layer.op is Op.WINOGRAD else None)
                assert layer.output is layer.last.output


def test_written_maps_are_those_behind_the_pools() -> None:
    graph = random_chain_graph(4, 2)
    maps = interpret(graph, random_images(graph, 0, 2))
    pools = {node.inputs[0]: node.name for node in graph.nodes if isinstance(node, MaxPool)}
    written = written_maps(fuse(graph), maps)
    assert list(written) == [node.name for node in multiplies(graph)]
    assert pools
    for name, values in written.items():
        assert values is maps[pools.get(name, name)]


def refused(graph: Graph) -> str:
    with pytest.raises(ScheduleError) as caught:
        fuse(graph)
    message = str(caught.value)
    assert "\n" not in message
    with pytest.raises(ScheduleError) as again:
        schedule(graph, EngineConfig())
    assert str(again.value) == message
    return message


def alone(layers: Layers, name: str) -> EngineLayer:
    """Return the layer of a pool that stands alone, after a look at it."""
    (layer,) = (x for x in layers if x.name == name)
    assert layer.maximum is not None
    assert (layer.op, layer.pool, layer.add, layer.last.name) == (Op.DIRECT, None, None, name)
    assert layer.output == layer.maximum.output
    assert not layer.multiply.weight.any()
    assert not layer.multiply.bias.any()
    return layer


def test_pool_of_anything_but_a_winograd_node_stands_alone() -> None:
    first = mix("a", INPUT)
    assert alone(fuse(graph_of(first, replace(pool_of(first), name="p"))), "p").source == "a"
    kind = replace(ENTRY, height=3, width=3)
    pool = MaxPool(name="p", inputs=(INPUT,), output=kind)
    assert alone(fuse(graph_of(pool, conv("a", "p", 3))), "p").source == INPUT
    third = conv("a", INPUT)
    once = pool_of(third)
    layers = fuse(graph_of(third, once, replace(pool_of(once), name="p")))
    assert [(x.name, x.last.name) for x in layers] == [("a", "a_pool"), ("p", "p")]
    assert alone(layers, "p").source == "a_pool"


def test_pool_of_another_window_stands_alone() -> None:
    first = conv("a", INPUT)
    window = Window(Axis(3, 2, 1, 1), Axis(3, 2, 1, 1))
    pool = max_pool_of("p", "a", first.output, window)
    layer = alone(fuse(graph_of(first, pool)), "p")
    assert layer.maximum is pool
    assert layer.input == first.output


@pytest.mark.parametrize("early", [True, False])
def test_pool_of_a_map_that_another_node_reads_stands_alone(early: bool) -> None:
    first = conv("a", INPUT)
    pool, reader = replace(pool_of(first), name="p"), mix("b", "a")
    layers = fuse(graph_of(first, *((reader, pool) if early else (pool, reader))))
    assert [x.name for x in layers] == ["a", "b", "p"] if early else ["a", "p", "b"]
    assert alone(layers, "p").source == "a"
    pools = (replace(pool_of(first), name=name) for name in ("p", "q"))
    layers = fuse(graph_of(first, *pools))
    assert [alone(layers, name).source for name in "pq"] == ["a", "a"]


@pytest.mark.parametrize("make", [conv, mix])
def test_raw_accumulators_of_a_map_are_refused(make: Callable[[str, str], Multiply]) -> None:
    op = "winograd" if make is conv else "direct"
    assert refused(graph_of(raw(make("a", INPUT)))) == (
        f"node 'a': the engine writes raw accumulators of dense nodes only, not of {op} ones; "
        "quantize its output to 2..8 bits"
    )


# --- sums ---------------------------------------------------------------------------------------


def added(name: str, *inputs: str, size: int = 6) -> Add:
    return Add(name=name, inputs=inputs, output=TensorType(4, size, size, 8, False, -8))


def test_convolution_adds_the_map_of_another_node() -> None:
    """conv4 = winograd(conv3), sum = add(conv4, conv2_pool) -> layer conv4, which writes sum."""
    for inputs in (("b", "a"), ("a", "b")):
        first, second, total = conv("a", INPUT), conv("b", "a"), added("sum", *inputs)
        with pytest.raises(ScheduleError, match="'b' also reads 'a'"):
            fuse(graph_of(first, second, added("sum", "a", INPUT)))
        layers = fuse(graph_of(first, second, total, conv("c", "sum")))
        assert [(x.name, x.last.name, x.source) for x in layers] == [
            ("a", "a", INPUT),
            ("b", "sum", "a"),
            ("c", "c", "sum"),
        ]
        assert layers[1].add is total
        assert layers[1].output == total.output
        assert (layers[1].shortcut_source, layers[1].shortcut) == ("a", first.output)
        assert (layers[0].shortcut_source, layers[0].shortcut) == (None, None)


def test_input_pooled_maps_and_sums_can_be_added() -> None:
    first, second = conv("a", INPUT), added("one", "a", INPUT)
    third, fourth = mix("b", "one"), added("two", "one", "b")
    layers = fuse(graph_of(first, second, third, fourth))
    assert [(x.name, x.shortcut_source, x.last.name) for x in layers] == [
        ("a", INPUT, "one"),
        ("b", "one", "two"),
    ]
    pooled = conv("p", INPUT)
    last = conv("q", "p_pool", 3)
    layers = fuse(graph_of(pooled, pool_of(pooled), last, added("sum", "p_pool", "q", size=3)))
    assert layers[1].shortcut_source == "p_pool"


def test_of_two_convolutions_the_later_one_adds() -> None:
    layers = fuse(graph_of(conv("a", INPUT), mix("b", INPUT), added("sum", "a", "b")))
    assert [(x.name, x.shortcut_source) for x in layers] == [("a", None), ("b", "a")]


def test_convolution_that_comes_before_its_shortcut_runs_later() -> None:
    """The map of a is read by the sum alone, and what it adds is made behind it."""
    nodes = conv("a", INPUT), conv("b", INPUT), mix("c", "b"), added("s", "c", "b")
    layers = fuse(graph_of(*nodes, added("t", "a", "s"), conv("d", "t")))
    assert [x.name for x in layers] == ["b", "c", "a", "d"]
    assert [x.shortcut_source for x in layers] == [None, "b", "s", None]


def test_sum_without_a_convolution_is_refused() -> None:
    first = conv("a", INPUT)
    nodes = (first, pool_of(first), conv("b", "a_pool", 3), conv("c", "b", 3))
    twice = (*nodes, added("s", "c", "b", size=3), added("t", "s", "a_pool", size=3))
    rule = "the engine adds a map only to what a winograd or direct node has computed, it reads"
    assert refused(graph_of(*twice)) == (
        f"node 't': {rule} the sum 's' and the pool 'a_pool'; let a convolution make one of them"
    )
    assert refused(graph_of(added("s", INPUT, INPUT))) == (
        f"node 's': {rule} the graph's 'input' and the graph's 'input'; "
        "let a convolution make one of them"
    )


@pytest.mark.parametrize(
    ("nodes", "other"),
    [
        ((added("s", "a", INPUT), conv("b", "a")), "b"),
        ((conv("b", "a"), added("s", "a", INPUT)), "b"),
    ],
)
def test_sum_of_maps_that_other_nodes_read_is_refused(nodes: tuple[Node, ...], other: str) -> None:
    assert refused(graph_of(conv("a", INPUT), *nodes)) == (
        f"node 's': '{other}' also reads 'a', but the engine writes only the sum; let '{other}' "
        "read 's', or another convolution make what is added"
    )


def test_sum_of_a_map_and_itself_is_refused() -> None:
    assert refused(graph_of(conv("a", INPUT), added("s", "a", "a"))) == (
        "node 's': it adds 'a' to itself, the engine adds two maps; double the weights of the "
        "layer that makes or reads it"
    )


def test_pool_of_a_sum_stands_alone_and_adds_nothing_itself() -> None:
    nodes = conv("a", INPUT), added("s", "a", INPUT)
    pool = replace(pool_of(nodes[1]), name="p")
    assert alone(fuse(graph_of(*nodes, pool)), "p").source == "s"
    again = replace(pool, name="q")
    assert refused(graph_of(*nodes, pool, again, added("t", "p", "q", size=3))) == (
        "node 't': the engine adds a map only to what a winograd or direct node has computed, it "
        "reads the pool 'p' and the pool 'q'; let a convolution make one of them"
    )


# --- averages -----------------------------------------------------------------------------------


def average(source: str, name: str = "mean") -> GlobalAverage:
    output = TensorType(4, 1, 1, 8, False, -8)
    return GlobalAverage(name=name, inputs=(source,), output=output)


def test_average_is_a_layer_that_reads_any_map() -> None:
    first, pooled = conv("a", INPUT), conv("p", INPUT)
    lone = replace(pool_of(first, "q"), inputs=(INPUT,))
    for nodes, source in (
        ((), INPUT),
        ((first,), "a"),
        ((first, conv("b", "a")), "a"),  # which another node reads too
        ((mix("b", INPUT),), "b"),
        ((pooled, pool_of(pooled)), "p_pool"),
        ((first, added("s", "a", INPUT)), "s"),
        ((lone,), "q"),
        ((average(INPUT, "m"),), "m"),
    ):
        graph = graph_of(*nodes, average(source))
        *before, layer = fuse(graph)
        assert (layer.name, layer.source, layer.last) == ("mean", source, graph.nodes[-1])
        assert (layer.op, layer.has_weights, layer.mapped.output) == (
            Op.DIRECT,
            False,
            graph.type_of(source),
        )
        assert all(x.average is None for x in before if x.name != "m")


def test_nothing_is_added_to_an_average() -> None:
    image = replace(ENTRY, height=1, width=1)
    nodes = average(INPUT), replace(average(INPUT), name="n"), added("s", "mean", "n")
    assert refused(Graph(image, nodes)) == (
        "node 's': the engine adds a map only to what a winograd or direct node has computed, it "
        "reads the average 'mean' and the average 'n'; let a convolution make one of them"
    )
