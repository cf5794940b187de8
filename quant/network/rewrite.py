# SPDX-License-Identifier: Apache-2.0
"""Rewrites of a network: spatial -> Winograd domain -> folded -> quantized.

Each takes a network and returns a new one with layers of its own; what it does to the graph stands
before its arrow. Those of `EXACT` change nothing that the network computes in evaluation but the
rounding of floats. Weights are trained in the rewritten form: `to_winograd` comes before pruning,
`fold_norms` after it, `to_quantized` before quantization-aware training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn

from quant.layers.bit_widths import BitWidths
from quant.layers.quant_add import QuantAdd, QuantAverage, log2_pixels, share_of_mean
from quant.layers.quant_layer import (
    QuantDense,
    QuantDirectConv2d,
    QuantTapLayer,
    QuantUnrolledConv2d,
    QuantWinogradConv2d,
)
from quant.layers.winograd_layer import (
    Dense,
    DirectConv2d,
    TapLayer,
    UnrolledConv2d,
    Window,
    WinogradConv2d,
)
from quant.network.graph import (
    INPUT,
    LAYERS,
    Add,
    Conv,
    Dropout,
    Flatten,
    Identity,
    Linear,
    MaxPool,
    NetworkGraph,
    Node,
    Relu,
    TapNode,
    Unrolled,
)
from quant.network.layer_graph import is_global_average, is_winograd, layer_graph, read_map
from quant.network.layer_modules import layer_node
from quant.network.network import Network
from winnow.errors import ConfigError, NetworkError


def tap_layers(net: nn.Module) -> dict[str, TapLayer]:
    """Return the layers that multiply in taps, by dotted path."""
    return {name: m for name, m in net.named_modules() if isinstance(m, TapLayer)}


def to_winograd(net: Network, m: int, *, unroll: bool = False) -> Network:
    """Return a copy whose layers multiply in taps, 3x3 convolutions of stride 1 as F(m, 3).

        Conv 3x3, stride 1, padding 1 -> Winograd     other Conv -> Direct     Linear -> Dense

    Convolutions with dilation stay as they are; those in groups keep them. With `unroll` the one
    that reads the images, whatever its kernel, becomes Unrolled; ConfigError if none can.
    """
    nodes = net.graph.by_name
    first = image_reader(net.graph) if unroll else None

    def replaced(name: str, module: nn.Module) -> nn.Module:
        node = nodes[name]
        if not isinstance(node, LAYERS):
            return module
        channels = read_map(net.graph, nodes, node.inputs[0])[0]
        layer = _unrolled_layer(node) if name == first else _tap_layer(node, m, channels)
        if layer is None:
            return module
        layer.load_spatial(module.weight.detach())
        if module.bias is not None:
            layer.bias.data.copy_(module.bias.detach())
        return layer.to(module.weight)

    return _mapped(net, replaced)


def image_reader(graph: NetworkGraph) -> str:
    """Return the name of the convolution that alone reads the images, which can be unrolled.

    Raises ConfigError that names what else reads them.
    """
    readers, name = graph.ending_at(graph.output).readers(), INPUT
    while len(readers[name]) == 1 and isinstance(readers[name][0], Identity | Dropout):
        name = readers[name][0].name
    if len(readers[name]) > 1:
        names = " and ".join(f"'{node.name}'" for node in readers[name])
        raise ConfigError(
            f"prune.first_keep must be 0 where several layers read the images, here {names}"
        )
    node = readers[name][0]
    plain = isinstance(node, Conv) and node.groups == 1 and node.dilation == (1, 1)
    if not plain and not isinstance(node, Unrolled):
        raise ConfigError(
            f"prune.first_keep must be 0 where no convolution without groups and dilation reads "
            f"the images, here '{node.name}' ({type(node).__name__}) does"
        )
    return node.name


def _mapped(net: Network, replaced: Callable[[str, nn.Module], nn.Module]) -> Network:
    """Return a copy of a network with every layer replaced."""
    net = copy.deepcopy(net)
    layers = {name: replaced(name, module) for name, module in net.layers().items()}
    made = Network(net.graph, layers)
    made.refresh()
    made.train(net.training)
    return made


def _tap_layer(node: Node, m: int, channels: int) -> WinogradConv2d | DirectConv2d | Dense | None:
    """Return the layer that stands in for a record's, without weights; None if there is none.

    The record has its padding in pixels, where the module may say "same".
    """
    if isinstance(node, Linear):
        return Dense(node.in_features, node.out_features, channels)
    if not isinstance(node, Conv) or node.dilation != (1, 1):
        return None
    if is_winograd(node):
        return WinogradConv2d(node.in_channels, node.out_channels, m, node.groups)
    window = Window(node.kernel, node.stride, node.padding)
    return DirectConv2d(node.in_channels, node.out_channels, window, node.groups)


def _unrolled_layer(node: Node) -> UnrolledConv2d | None:
    """Return the unrolled layer that stands in for a convolution's record, without weights."""
    if not isinstance(node, Conv):
        return None
    window = Window(node.kernel, node.stride, node.padding)
    return UnrolledConv2d(node.in_channels, node.out_channels, window)


@torch.no_grad()
def fold_norms(net: Network) -> Network:
    """Return a copy with every BatchNorm that follows a tap layer folded into U and the bias.

    conv = Winograd(x)   norm = BatchNorm(conv)   y = Relu(norm)
    -> conv = Winograd(x)   y = Relu(conv)

    So is another BatchNorm behind that one.
    """
    net = copy.deepcopy(net)
    while folded := _fold_first_norms(net):
        net = net.part(net.graph.without(folded))
    return net


def _fold_first_norms(net: Network) -> list[str]:
    """Fold in place; return the names of the BatchNorms that the graph still has."""
    placed, folded = layer_graph(net.graph), []
    for name, layer in tap_layers(net).items():
        norm_name = placed[name].norm if name in placed else None
        if norm_name is None:
            continue
        norm = net.get_submodule(norm_name)
        gain = 1 / torch.sqrt(norm.running_var + norm.eps)
        gain = gain if norm.weight is None else norm.weight * gain
        shift = 0 if norm.bias is None else norm.bias
        layer.weight.mul_(gain[:, None, None])
        layer.bias.copy_((layer.bias - norm.running_mean) * gain + shift)
        folded.append(norm_name)
    return folded


def without_dropout(net: Network) -> Network:
    """Return a copy without records that do nothing in evaluation.

    relu = Relu(x)   drop = Dropout(relu)   y = Flatten(drop) -> relu = Relu(x)   y = Flatten(relu)
    """
    net = copy.deepcopy(net)
    idle = [node.name for node in net.graph.nodes if isinstance(node, Dropout | Identity)]
    return net.part(net.graph.without(idle))


EXACT = (fold_norms, without_dropout)  # and `to_winograd` for every m


@torch.no_grad()
def to_quantized(net: Network, widths: Mapping[str, BitWidths], add_bits: int = 8) -> Network:
    """Return a copy of a folded network with Brevitas layers; weights, masks, biases taken over.

        conv = Winograd(x)   add = Add(conv, x)   y = Relu(add)
        -> conv = Winograd(x) widths=...   add = QuantAdd(conv, x) relu=True   y = Relu(add)
        mean = Mean(y)   fc = Dense(mean) -> mean = QuantAverage(y)   fc = Dense(mean) widths=...

    `widths` has an entry for every tap layer; sums and averages have `add_bits` bits. Scales are 1
    until `quant.network.calibrate`.
    """

    def replaced(name: str, layer: nn.Module) -> nn.Module:
        if not isinstance(layer, TapLayer):
            return layer
        made = _quantized(layer, widths[name])
        for key in ("weight", "bias", "mask"):
            getattr(made, key).copy_(getattr(layer, key))
        return made.to(layer.weight)

    return _with_quantized_sums(_mapped(net, replaced), add_bits)


def _with_quantized_sums(net: Network, bits: int) -> Network:
    """Return the network with a quantizer behind every sum and average; it shares the layers."""
    graph, like = net.graph, next(net.parameters())
    made: dict[str, nn.Module] = {}
    for node in graph.nodes:
        if isinstance(node, Add):
            relu = all(isinstance(x, Relu) for x in graph.readers()[node.name])
            made[node.name] = QuantAdd(bits, relu=relu)
        elif is_global_average(node, graph.shape_of(node.inputs[0])):
            _fold_pixels(net, node)
            relu = isinstance(_behind(graph, node.inputs[0]), Relu)
            made[node.name] = QuantAverage(
                bits,
                relu=relu,
                flat=len(node.shape) == 1,
                log2_pixels=log2_pixels(*graph.shape_of(node.inputs[0])[1:]),
            )
    nodes = []
    for node in graph.nodes:
        record = layer_node(made[node.name], node.name, node.inputs) if node.name in made else node
        assert record is not None  # both kinds are known
        nodes.append(record)
    placed = NetworkGraph.of(graph.input, nodes, graph.output, graph.exits)
    quantized = Network(placed, {**net.layers(), **{n: m.to(like) for n, m in made.items()}})
    quantized.train(net.training)
    return quantized


def _behind(graph: NetworkGraph, name: str) -> Node | None:
    """Return the record that decides on the sign of a result: before pools and what only passes."""
    while name != INPUT and isinstance(graph.by_name[name], MaxPool | Identity | Dropout):
        name = graph.by_name[name].inputs[0]
    return graph.by_name.get(name)


def _fold_pixels(net: Network, average: Node) -> None:
    """Multiply the layers behind an average by 2^k over its number of pixels.

    Raises NetworkError if something else reads an average over pixels that are no power of two.
    """
    _, height, width = net.graph.shape_of(average.inputs[0])
    factor = 1 / share_of_mean(height, width)
    names = {average.name}
    for node in net.graph.nodes:
        if names & set(node.inputs) and isinstance(node, Flatten | Identity | Dropout):
            names.add(node.name)
        elif names & set(node.inputs) and isinstance(node, TapNode):
            net.get_submodule(node.name).weight.mul_(factor)
        elif names & set(node.inputs) and factor != 1:
            raise NetworkError(
                f"'{node.name}' ({type(node).__name__}) reads the average '{average.name}' over "
                f"{height}x{width} pixels; the factor of a number that is no power of two must "
                "meet weights: put a layer there, or pad the map"
            )


def _quantized(layer: TapLayer, widths: BitWidths) -> QuantTapLayer:
    channels = layer.in_channels, layer.out_channels
    if isinstance(layer, WinogradConv2d):
        return QuantWinogradConv2d(*channels, layer.m, widths, layer.groups)
    if isinstance(layer, DirectConv2d):
        kind = QuantUnrolledConv2d if isinstance(layer, UnrolledConv2d) else QuantDirectConv2d
        return kind(*channels, layer.window, widths, layer.groups)
    operands = layer.weight.shape[1]
    return QuantDense(operands, layer.out_channels, layer.in_channels, widths)
