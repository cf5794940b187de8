# SPDX-License-Identifier: Apache-2.0
"""Fusion: which nodes one descriptor of the engine does together.

Graph -> tuple of EngineLayer. This is the one place that knows what a descriptor can do; the
scheduler and all after it see engine layers only, and only ask whether they fit.

    conv2 = winograd(conv1), conv2_pool = max_pool(conv2)  ->  layer conv2, which writes conv2_pool
    conv4 = winograd(conv3), sum = add(conv4, conv2_pool)  ->  layer conv4, which writes sum
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np

from codegen.ir import (
    INPUT,
    Add,
    Concat,
    Dense,
    Direct,
    GlobalAverage,
    Graph,
    MaxPool,
    Multiply,
    Node,
    NodeMaps,
    TensorType,
    Unrolled,
    Winograd,
)
from codegen.join import check_concat, parts_of
from codegen.layout import unrolled_type
from winnow.blocking import Op
from winnow.errors import ScheduleError
from winnow.fixed_point import IntArray
from winnow.srbs import SUB_ROW
from winnow.window import Window

LayerMaps: TypeAlias = dict[str, IntArray]  # what layers write, [n, c, h, w], by the layer's name


@dataclass(frozen=True)
class Part:
    """A part of a layer: some of the groups of its convolution (`codegen/split.py`).

    Members:
        number: of the part, from 0.
        first_read, first_written: channels of the whole maps that its own begin with.
        map: type of the whole map that it writes.
    """

    number: int
    first_read: int
    first_written: int
    map: TensorType


@dataclass(frozen=True, eq=False)
class EngineLayer:
    """What one descriptor does: multiply, requantize, and perhaps add a map or pool.

    Or pool or average a map of memory: `multiply` then has the name of that node and no weights but
    zeros.

    Members:
        op: how the lanes multiply.
        multiply: the node whose weights they hold; it gives the layer its name.
        input: type of the one map it multiplies.
        add: the node that adds a map of memory, the shortcut, to the result, if any.
        shortcut: type of that map.
        pool: the node that takes the maximum of 2x2 windows of the result, if any.
        maximum: a pool of a map of memory, if the layer is that.
        average: an average over a map of memory, if the layer is that; `multiply` has the type of
            that map.
        unrolled: the window that the host lays the graph's input out by, if it does: `input` is
            then what it writes, and `multiply` a 1x1 convolution over that.
        part: which part of the channels it does, if not all; all types are those of the part.

    Only the map of the last of these nodes is ever in memory.
    """

    op: Op
    multiply: Multiply
    input: TensorType
    add: Add | None = None
    shortcut: TensorType | None = None
    pool: MaxPool | None = None
    maximum: MaxPool | None = None
    average: GlobalAverage | None = None
    unrolled: Window | None = None
    part: Part | None = None

    @property
    def has_weights(self) -> bool:
        """Whether the lanes multiply: they add zeros to maxima."""
        return self.maximum is None and self.average is None

    @property
    def name(self) -> str:
        number = "" if self.part is None else f".{self.part.number}"
        return f"{self.multiply.name}{number}"

    @property
    def source(self) -> str:
        """Name of the node whose map it reads, or "input"."""
        return self.multiply.inputs[0]

    @property
    def shortcut_source(self) -> str | None:
        """Name of the node whose map it adds, or "input"; None if it adds none."""
        if self.add is None:
            return None
        return next(name for name in self.add.inputs if name != self.multiply.name)

    @property
    def m(self) -> int | None:
        """Edge of the output tile of a Winograd layer, None for others."""
        return self.multiply.m if isinstance(self.multiply, Winograd) else None

    @property
    def last(self) -> Node:
        """The node whose map it writes."""
        return self.average or self.mapped

    @property
    def mapped(self) -> Node:
        """The last node, or the map that is averaged: the engine walks over its pixels."""
        return self.pool or self.add or self.multiply

    @property
    def output(self) -> TensorType:
        return self.last.output


Layers: TypeAlias = tuple[EngineLayer, ...]


def fuse(graph: Graph) -> Layers:
    """Return the layers of a checked graph in the order the engine runs them.

    Raises ScheduleError naming the node that no descriptor can do.
    """
    layers: Layers = ()
    if isinstance(graph.nodes[-1], Concat):
        raise ScheduleError(
            f"node '{graph.nodes[-1].name}': the engine's result is the map of one layer; end with "
            "a layer that reads the concatenation"
        )
    for node in graph.nodes:
        layers = FUSIONS[type(node)](node, graph, layers)
    return layers


def written_maps(layers: Iterable[EngineLayer], maps: NodeMaps) -> LayerMaps:
    """Return, of the maps of all nodes, those that layers write, by the layer's name."""
    return {layer.name: maps[layer.last.name] for layer in layers}


def _add_winograd(node: Winograd, graph: Graph, layers: Layers) -> Layers:
    return _add_bytes(Op.WINOGRAD, node, graph, layers)


def _add_direct(node: Direct, graph: Graph, layers: Layers) -> Layers:
    return _add_bytes(Op.DIRECT, node, graph, layers)


def _add_unrolled(node: Unrolled, graph: Graph, layers: Layers) -> Layers:
    """Multiply what lies under the kernel at every pixel, which the host writes as channels.

    Memory has the input in that form only.
    """
    (source,) = node.inputs
    if source != INPUT:
        raise ScheduleError(
            f"node '{node.name}': it reads '{source}', the host can unroll the graph's input only; "
            "make it a direct node"
        )
    others = _other_readers(INPUT, node, graph)
    if others:
        raise ScheduleError(
            f"node '{node.name}': '{others[0]}' also reads the input, which is in memory unrolled "
            "for one reader only; make it a direct node"
        )
    plain = Direct(
        **{f.name: getattr(node, f.name) for f in fields(Multiply)}
        | {"weight": node.weight.reshape(len(node.weight), -1, 1, 1)}
    )
    (layer,) = _add_bytes(Op.DIRECT, plain, graph, ())
    kind = unrolled_type(graph.input, node.window)
    return (*layers, replace(layer, input=kind, unrolled=node.window))


def _add_dense(node: Dense, graph: Graph, layers: Layers) -> Layers:
    return (*layers, EngineLayer(Op.DENSE, node, graph.type_of(node.inputs[0])))


def _add_bytes(op: Op, node: Multiply, graph: Graph, layers: Layers) -> Layers:
    """Add a multiplication whose results the engine can only write as bytes."""
    if node.output.is_raw:
        raise ScheduleError(
            f"node '{node.name}': the engine writes raw accumulators of dense nodes only, not of "
            f"{op} ones; quantize its output to 2..8 bits"
        )
    return (*layers, EngineLayer(op, node, graph.type_of(node.inputs[0])))


def _add_max_pool(node: MaxPool, graph: Graph, layers: Layers) -> Layers:
    """Let the layer that makes the map pool it before it is written, or pool it standing alone.

    A layer pools what it has computed in the Winograd domain, in 2x2 windows side by side, if
    nothing else reads that.
    """
    (source,) = node.inputs
    makers = [x for x in layers if x.name == source and x.op is Op.WINOGRAD]
    if makers and node.is_halving and not _other_readers(source, node, graph):
        return tuple(replace(x, pool=node) if x is makers[0] else x for x in layers)
    kind = graph.type_of(source)
    return (
        *layers,
        EngineLayer(Op.DIRECT, _without_weights(node, node.output), kind, maximum=node),
    )


def _without_weights(node: MaxPool | GlobalAverage, output: TensorType) -> Direct:
    """Return a convolution of a node's name and inputs whose weights are zero.

    It has one input channel, since none of them matters. An average has the output channels of one
    group: the engine walks over groups as if they were rows.
    """
    channels, exponent = output.channels, output.exponent
    if isinstance(node, GlobalAverage):
        channels = min(channels, SUB_ROW)
    return Direct(
        name=node.name,
        inputs=node.inputs,
        output=output,
        v_bits=8,
        weight_bits=2,
        keep=1,
        acc_exponent=exponent,
        weight=np.zeros((channels, 1, 1, 1), dtype=np.int64),
        bias=np.zeros(channels, dtype=np.int64),
        v_exponent=np.full(1, exponent),
        weight_exponent=np.zeros(1, dtype=np.int64),
    )


def _add_add(node: Add, graph: Graph, layers: Layers) -> Layers:
    """Let the layer that makes one of the maps add the other one before its own is written.

    Of two such layers it is the later one, so that the other map is in memory by then. A layer that
    comes too early for that runs later: nothing but the sum reads its map.
    """
    adding = [x for x in layers if x.op in ADDING and x.has_weights]
    makers = [x for x in adding if x.name in node.inputs]
    if not makers:
        first, second = (_called(source, graph) for source in node.inputs)
        raise ScheduleError(
            f"node '{node.name}': the engine adds a map only to what a {_ADDING_TEXT} node has "
            f"computed, it reads {first} and {second}; let a convolution make one of them"
        )
    if node.inputs[0] == node.inputs[1]:
        raise ScheduleError(
            f"node '{node.name}': it adds '{makers[-1].name}' to itself, the engine adds two maps; "
            "double the weights of the layer that makes or reads it"
        )
    alone = [x for x in makers if not _other_readers(x.name, node, graph)]
    if not alone:
        source = makers[-1].name
        other = _other_readers(source, node, graph)[0]
        raise ScheduleError(
            f"node '{node.name}': '{other}' also reads '{source}', but the engine writes only the "
            f"sum; let '{other}' read '{node.name}', or another convolution make what is added"
        )
    chosen = alone[-1]
    (source,) = (name for name in node.inputs if name != chosen.name)
    fused = replace(chosen, add=node, shortcut=graph.type_of(source))
    place = layers.index(chosen)
    before, after = layers[:place], layers[place + 1 :]
    written = {INPUT, *(layer.last.name for layer in before)}
    if written.issuperset(parts_of(graph, source)):
        return (*before, fused, *after)
    return (*before, *after, fused)


def _add_average(node: GlobalAverage, graph: Graph, layers: Layers) -> Layers:
    """Average a map of memory, as a layer of its own."""
    kind = graph.type_of(node.inputs[0])
    return (*layers, EngineLayer(Op.DIRECT, _without_weights(node, kind), kind, average=node))


def _add_concat(node: Concat, graph: Graph, layers: Layers) -> Layers:
    """Leave the layers as they are: where their maps lie makes them one."""
    check_concat(node, graph, {layer.last.name for layer in layers})
    return layers


def _other_readers(source: str, node: Node, graph: Graph) -> list[str]:
    return [x.name for x in graph.nodes if source in x.inputs and x is not node]


def _called(source: str, graph: Graph) -> str:
    """Return what a message calls the maker of a map."""
    if source == INPUT:
        return f"the graph's '{source}'"
    kind = type(next(node for node in graph.nodes if node.name == source))
    return f"{_KINDS[kind]} '{source}'"


ADDING = (Op.WINOGRAD, Op.DIRECT)  # the ops whose results a map can be added to
_ADDING_TEXT = " or ".join(map(str, ADDING))
_KINDS: Mapping[type[Node], str] = {
    Winograd: "the winograd node",
    Direct: "the direct node",
    Unrolled: "the unrolled node",
    Dense: "the dense node",
    MaxPool: "the pool",
    Add: "the sum",
    GlobalAverage: "the average",
    Concat: "the concatenation",
}
Fusion: TypeAlias = Callable[[Any, Graph, Layers], Layers]
FUSIONS: Mapping[type[Node], Fusion] = {
    Winograd: _add_winograd,
    Direct: _add_direct,
    Unrolled: _add_unrolled,
    Dense: _add_dense,
    MaxPool: _add_max_pool,
    Add: _add_add,
    GlobalAverage: _add_average,
    Concat: _add_concat,
}
