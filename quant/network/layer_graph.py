# SPDX-License-Identifier: Apache-2.0
"""The layer graph: the layers that multiply, and what follows each of them alone.

    conv -> norm -> relu -> pool -> fc    gives    conv (norm, relu, pool), fc reads conv
    conv -> norm -> add(x) -> relu        gives    conv (norm, add, add_relu)

Compression needs this to fold BatchNorm, to size layers for the cycle model and to quantize
outputs; lowering needs it to know which layer reads which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from quant.network.graph import (
    INPUT,
    LAYERS,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Identity,
    MaxPool,
    Mean,
    NetworkGraph,
    Node,
    QuantAdd,
    QuantAverage,
    Relu,
    Shape,
    TapNode,
    Winograd,
)
from quant.network.network import Network

L = TypeVar("L", bound=nn.Module)
PASSING = (Identity, Dropout, Flatten)  # leave values alone in evaluation


@dataclass(frozen=True)
class PlacedLayer:
    """A layer in its network.

    Members:
        name: of its record.
        source: the layer whose result, and nothing else, it reads; `INPUT` for the network's
            input; None for anything else, such as a sum.
        in_channels, height, width: the map it reads; a fully connected layer reads the map that
            was flattened.
        out_channels: channels of its result.
        result: record of its result behind what follows, before it is flattened.
        norm: record of the BatchNorm that follows, if any.
        relu: whether a ReLU follows.
        pool: record of the 2x2 max pool that follows a layer of the Winograd domain, if any.
        add: record of the sum that follows, if any, of this layer's result and an earlier one.
        add_relu: whether a ReLU follows that.
        average: record of the average over the whole map that follows all that, if any.
    """

    name: str
    source: str | None
    in_channels: int
    out_channels: int
    height: int
    width: int
    result: str
    norm: str | None = None
    relu: bool = False
    pool: str | None = None
    add: str | None = None
    add_relu: bool = False
    average: str | None = None

    @property
    def rounded_by(self) -> str:
        """The record whose quantizer rounds the result: of the average, the sum or the layer."""
        return self.average or self.add or self.name


LayerGraph = dict[str, PlacedLayer]


def layer_graph(graph: NetworkGraph) -> LayerGraph:
    """Return the layers of a network by name, as they run; those of its exits are left out."""
    graph = graph.ending_at(graph.output)
    nodes, readers = graph.by_name, graph.readers()
    layers: LayerGraph = {}
    owner: dict[str, str | None] = {INPUT: INPUT}  # result -> the layer it is the result of
    for node in graph.nodes:
        source = owner[node.inputs[0]] if len(node.inputs) == 1 else None
        if isinstance(node, LAYERS):
            channels, height, width = read_map(graph, nodes, node.inputs[0])
            layers[node.name] = PlacedLayer(
                node.name, source, channels, node.shape[0], height, width, node.name
            )
            owner[node.name] = node.name
            continue
        owner[node.name] = None
        if isinstance(node, Add):
            adding = _adding(layers, node, owner, readers)
            if adding is not None:
                layers[adding] = replace(layers[adding], add=node.name, result=node.name)
                owner[node.name] = adding
        elif source == INPUT and isinstance(node, PASSING):
            owner[node.name] = INPUT
        elif source in layers and source is not None:
            alone = len(readers[node.inputs[0]]) == 1
            follower = _with(layers[source], node, nodes, alone)
            if follower is not None:
                layers[source] = follower
                owner[node.name] = source
    return layers


def _adding(
    layers: LayerGraph,
    node: Add,
    owner: Mapping[str, str | None],
    readers: Mapping[str, list[Node]],
) -> str | None:
    """Return the later one of the layers whose result a sum alone reads; None if there is none.

    It adds the other map. A layer that pools its result, or adds one already, cannot.
    """
    found = [
        name
        for name in (owner[read] for read in node.inputs if len(readers[read]) == 1)
        if name in layers and not layers[name].pool and layers[name].add is None
    ]
    return max(found, key=list(layers).index, default=None)


def _with(
    layer: PlacedLayer, node: Node, nodes: dict[str, Node], alone: bool
) -> PlacedLayer | None:
    """Return a layer with a record that follows it; None if the engine has no such step there.

    A record that changes values follows only if it `alone` reads them.
    """
    keeps_size = isinstance(node, AdaptiveAvgPool) and node.shape == nodes[node.inputs[0]].shape
    if keeps_size or isinstance(node, PASSING):
        return layer
    if not alone or layer.average is not None:
        return None
    if is_global_average(node, nodes[node.inputs[0]].shape):
        return replace(layer, average=node.name, result=node.name)
    if isinstance(node, BatchNorm):
        # One of a flattened map has a factor per pixel, which no weight of the layer can take.
        is_first = not (layer.norm or layer.relu or layer.pool or layer.add)
        fits = is_first and node.channels == layer.out_channels
        return replace(layer, norm=node.name, result=node.name) if fits else None
    if isinstance(node, Relu) and layer.add is not None:
        return replace(layer, add_relu=True, result=node.name)
    if isinstance(node, Relu) and not layer.pool:
        return replace(layer, relu=True, result=node.name)
    if isinstance(node, Relu) and layer.relu:  # behind the pool it changes nothing
        return replace(layer, result=node.name)
    takes_pool = is_winograd(nodes[layer.name]) and not layer.pool and not layer.add
    read = nodes[node.inputs[0]].shape
    if isinstance(node, MaxPool) and is_halving(node, read) and takes_pool:
        return replace(layer, pool=node.name, result=node.name)
    return None


def is_winograd(node: Node) -> bool:
    """Whether a record is a convolution of the Winograd domain: 3x3, stride 1, padding 1."""
    if isinstance(node, Conv):
        plain = node.stride == node.dilation == node.padding == (1, 1)
        return plain and node.kernel == (3, 3)
    return isinstance(node, Winograd)


def lone_pools(graph: NetworkGraph) -> list[str]:
    """Return the max pools that follow no layer, as they run; the engine has them as layers."""
    graph = graph.ending_at(graph.output)
    taken = {placed.pool for placed in layer_graph(graph).values()}
    return [n.name for n in graph.nodes if isinstance(n, MaxPool) and n.name not in taken]


def written_results(graph: NetworkGraph) -> dict[str, str]:
    """Return the results that layers of the engine write, in order, by what names the layer.

    The engine has averages, too, as layers, behind the layer whose last step here they are.
    """
    graph = graph.ending_at(graph.output)
    written = {}
    for name, placed in layer_graph(graph).items():
        written[name] = placed.result
        if placed.average is not None:
            written[name] = graph.by_name[placed.average].inputs[0]
    alone = [n.name for n in graph.nodes if isinstance(n, QuantAverage)]
    written |= {name: name for name in [*alone, *lone_pools(graph)]}
    place = {node.name: number for number, node in enumerate(graph.nodes)}
    return dict(sorted(written.items(), key=lambda item: place[item[1]]))


def is_global_average(node: Node, shape: Shape) -> bool:
    """Whether a record averages over all pixels of a map (c, h, w)."""
    if isinstance(node, AdaptiveAvgPool):
        return node.size == (1, 1) and shape[1:] != (1, 1)
    whole = isinstance(node, AvgPool) and (node.kernel, node.padding) == (shape[1:], (0, 0))
    return whole or isinstance(node, Mean | QuantAverage)


def is_halving(node: MaxPool, shape: Shape) -> bool:
    """Whether a pool of a map (c, h, w) takes 2x2 windows side by side, incomplete ones dropped.

    One that would keep incomplete windows is one, too, where there are none.
    """
    keeps_rest = node.ceil and any(pixels % 2 for pixels in shape[1:])
    window = node.kernel, node.stride, node.padding
    return window == ((2, 2), (2, 2), (0, 0)) and not keeps_rest


def unfolded(graph: NetworkGraph, name: str) -> str:
    """Return the result that a record hands on unchanged but for its shape, or its own."""
    nodes = graph.by_name
    while name != INPUT and isinstance(nodes[name], PASSING):
        name = nodes[name].inputs[0]
    return name


def joined_layers(graph: NetworkGraph) -> list[list[str]]:
    """Return for every concatenation the records that round what it joins, as far as layers do."""
    graph = graph.ending_at(graph.output)
    return [rounding(graph, node.name) for node in graph.nodes if isinstance(node, Concat)]


def rounding(graph: NetworkGraph, name: str) -> list[str]:
    """Return the records that round what a result is made of: of layers, sums and averages.

    Pools and concatenations round nothing.
    """
    nodes = graph.by_name
    by_result = {placed.result: placed.rounded_by for placed in layer_graph(graph).values()}

    def makers(name: str) -> list[str]:
        if name in by_result:
            return [by_result[name]]
        node = nodes.get(name)
        if isinstance(node, (QuantAdd, QuantAverage, TapNode)):
            return [name]
        if not isinstance(node, (Concat, Relu, MaxPool, *PASSING)):
            return []
        return [maker for source in node.inputs for maker in makers(source)]

    return makers(name)


def read_map(graph: NetworkGraph, nodes: dict[str, Node], name: str) -> Shape:
    """Return the map (c, h, w) that a result is, or was before it was flattened."""
    start = graph.shape_of(name)
    while len(graph.shape_of(name)) == 1 and name != INPUT and isinstance(nodes[name], PASSING):
        name = nodes[name].inputs[0]
    found = graph.shape_of(name)
    return found if len(found) == 3 else (*start, 1, 1)


@torch.no_grad()
def layer_results(
    net: Network, x: Tensor, others: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Return every layer's result behind what follows it, for x [n, c, h, w] in evaluation.

    `others` are further records and those of their results.
    """
    wanted = {name: layer.result for name, layer in layer_graph(net.graph).items()}
    wanted |= others or {}
    was_training = net.training
    try:
        results = net.eval().run(x, list(wanted.values()))
    finally:
        net.train(was_training)
    return dict(zip(wanted, results, strict=True))


@torch.no_grad()
def visit_layers(net: Network, layers: Sequence[L], x: Tensor, visit: Callable[..., None]) -> None:
    """Run `net` on x in evaluation mode; call `visit(layer, *inputs)` just before each layer runs.

    So every layer is visited with what the layers before it, already visited, give it.
    """
    chosen = {name: m for name, m in net.named_modules() if any(m is layer for layer in layers)}

    def before(node: Node, inputs: Sequence[Tensor]) -> None:
        if node.name in chosen:
            visit(chosen[node.name], *inputs)

    was_training = net.training
    try:
        net.eval().run(x, [net.graph.output], before)
    finally:
        net.train(was_training)
