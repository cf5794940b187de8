# SPDX-License-Identifier: Apache-2.0
"""Fusion: which nodes one descriptor of the engine does together.

Graph -> tuple of EngineLayer. This is the one place that knows what a descriptor can do; the
scheduler and all after it see engine layers only, and only ask whether they fit.

    conv2 = winograd(conv1), conv2_pool = max_pool(conv2)  ->  layer conv2, which writes conv2_pool
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from codegen.ir import (
    INPUT,
    Dense,
    Graph,
    MaxPool,
    Multiply,
    Node,
    NodeMaps,
    Pointwise,
    TensorType,
    Winograd,
)
from winnow.blocking import Op
from winnow.errors import ScheduleError
from winnow.fixed_point import IntArray

LayerMaps: TypeAlias = dict[str, IntArray]  # what layers write, [n, c, h, w], by the layer's name


@dataclass(frozen=True, eq=False)
class EngineLayer:
    """What one descriptor does: multiply, requantize, and perhaps pool.

    Members:
        op: how the lanes multiply.
        multiply: the node whose weights they hold; it gives the layer its name.
        input: type of the one map it reads.
        pool: the node that takes the maximum of 2x2 windows of the result, if any; the map before
            it is never in memory.
    """

    op: Op
    multiply: Multiply
    input: TensorType
    pool: MaxPool | None = None

    @property
    def name(self) -> str:
        return self.multiply.name

    @property
    def source(self) -> str:
        """Name of the node whose map it reads, or "input"."""
        return self.multiply.inputs[0]

    @property
    def m(self) -> int | None:
        """Edge of the output tile of a Winograd layer, None for others."""
        return self.multiply.m if isinstance(self.multiply, Winograd) else None

    @property
    def last(self) -> Node:
        """The node whose map it writes."""
        return self.pool or self.multiply

    @property
    def output(self) -> TensorType:
        return self.last.output


Layers: TypeAlias = tuple[EngineLayer, ...]


def fuse(graph: Graph) -> Layers:
    """Return the layers of a checked graph in the order the engine runs them.

    Raises ScheduleError naming the node that no descriptor can do.
    """
    layers: Layers = ()
    for node in graph.nodes:
        layers = FUSIONS[type(node)](node, graph, layers)
    return layers


def written_maps(layers: Iterable[EngineLayer], maps: NodeMaps) -> LayerMaps:
    """Return, of the maps of all nodes, those that layers write, by the layer's name."""
    return {layer.name: maps[layer.last.name] for layer in layers}


def _add_winograd(node: Winograd, graph: Graph, layers: Layers) -> Layers:
    return _add_bytes(Op.WINOGRAD, node, graph, layers)


def _add_pointwise(node: Pointwise, graph: Graph, layers: Layers) -> Layers:
    return _add_bytes(Op.POINTWISE, node, graph, layers)


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
    """Let the layer that makes the map pool it before it is written."""
    (source,) = node.inputs
    makers = [layer for layer in layers if layer.multiply.name == source]
    if not makers or makers[0].op is not Op.WINOGRAD:
        maker = f"the {makers[0].op} node" if makers else _non_multiply(source)
        raise ScheduleError(
            f"node '{node.name}': the engine pools only what a winograd node has computed, it "
            f"reads {maker} '{source}'; move the pool behind a 3x3 convolution"
        )
    others = [x.name for x in graph.nodes if source in x.inputs and x is not node]
    if others:
        raise ScheduleError(
            f"node '{node.name}': '{others[0]}' also reads '{source}', but the engine writes only "
            f"the pooled map; let '{others[0]}' read '{node.name}', or drop the pool"
        )
    return tuple(replace(x, pool=node) if x is makers[0] else x for x in layers)


def _non_multiply(source: str) -> str:
    return "the graph's" if source == INPUT else "the pool"


Fusion: TypeAlias = Callable[[Any, Graph, Layers], Layers]
FUSIONS: Mapping[type[Node], Fusion] = {
    Winograd: _add_winograd,
    Pointwise: _add_pointwise,
    Dense: _add_dense,
    MaxPool: _add_max_pool,
}
