# SPDX-License-Identifier: Apache-2.0
"""What the cycle model and the recipes need to know of a network: keep and size of every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from quant.layers.winograd_layer import (
    Dense,
    DirectConv2d,
    TapLayer,
    UnrolledConv2d,
    WinogradConv2d,
)
from quant.network.graph import MaxPool, NetworkGraph
from quant.network.layer_graph import is_global_average, layer_graph, lone_pools
from quant.network.network import Network
from quant.network.rewrite import tap_layers
from winnow.blocking import AVERAGE_WINDOW, LayerShape, Op
from winnow.config import PATTERN, Config, PruneConfig
from winnow.cycles import layer_cycles
from winnow.engine import EngineConfig
from winnow.srbs import SUB_ROW, max_keep, without_groups
from winnow.window import Axis, Window


def sparse_layers(net: Network, skip: int) -> dict[str, TapLayer]:
    """Return the tap layers that pruning touches: all but the first `skip`, as they run.

    An unrolled first layer is one of them, a convolution in groups is not: most of its sub-rows are
    empty as it is.
    """
    layers = tap_layers(net)
    ordered = [name for name in layer_graph(net.graph) if name in layers]
    return {
        name: layers[name]
        for number, name in enumerate(ordered)
        if (number >= skip and layers[name].groups == 1) or isinstance(layers[name], UnrolledConv2d)
    }


def asked_keep(config: PruneConfig, layer: TapLayer) -> int:
    """Return how many of 8 weights the configuration asks a layer that is pruned to keep."""
    return config.first_keep if isinstance(layer, UnrolledConv2d) else config.keep


def layer_keeps(config: Config, net: Network) -> dict[str, int]:
    """Return the non-zeros per sub-row that pruning leaves each tap layer.

    The mask of a pruned layer says it. For a layer that is still dense the configuration does: half
    a sub-row of 16 may hold all that stay; how far keeps per tap go above `keep` is not known.
    """
    sparse = sparse_layers(net, config.prune.skip)
    keeps = {}
    for name, layer in tap_layers(net).items():
        pruned_keep = SUB_ROW
        # Kernels with zeros are dense in the Winograd domain.
        if name in sparse and config.prune.method != PATTERN:
            pruned_keep = asked_keep(config.prune, layer) * config.prune.sub_row // SUB_ROW
        expected = min(pruned_keep, SUB_ROW, layer.row_length)
        is_dense = bool((layer.mask != 0).all())
        keeps[name] = expected if is_dense else _most_kept(layer, layer.mask)
    return keeps


def measured_keeps(net: nn.Module) -> dict[str, int]:
    """Return the most non-zeros that any sub-row of each tap layer holds."""
    return {name: _most_kept(layer, layer.u.detach()) for name, layer in tap_layers(net).items()}


def _most_kept(layer: TapLayer, u: Tensor) -> int:
    """Return the most non-zeros of [oc, k, taps] that a sub-row of all input channels holds."""
    return max_keep(without_groups(layer.by_channel(u).cpu().numpy(), layer.groups))


def layer_shapes(
    net: Network, keeps: Mapping[str, int], bits: Mapping[str, int]
) -> dict[str, LayerShape]:
    """Return the cycle model's description of every layer that the engine has an operation for."""
    shapes, placed = {}, layer_graph(net.graph)
    for name, layer in tap_layers(net).items():
        place, window = placed[name], _window(layer)
        read = (place.in_channels, place.height, place.width)
        if isinstance(layer, UnrolledConv2d):  # reads what the host has gathered
            read, window = (layer.row_length, *window.outputs(*read[1:])), Window()
        if window.fits:
            shapes[name] = LayerShape(
                _op(layer),
                read[0],
                place.out_channels,
                *read[1:],
                keeps[name],
                bits[name],
                place.pool is not None,
                window,
                groups=layer.groups,
            )
    return shapes


def pool_shapes(graph: NetworkGraph) -> dict[str, LayerShape]:
    """Return the cycle model's description of max pools and averages that the engine has as layers.

    They have 2-bit weights of zero.
    """
    alone, shapes = lone_pools(graph), {}
    for node in graph.ending_at(graph.output).nodes:
        if len(node.inputs) != 1 or len(shape := graph.shape_of(node.inputs[0])) != 3:
            continue
        channels, height, width = shape
        plain = LayerShape(Op.DIRECT, channels, channels, height, width, 1, 2, maximum=True)
        if isinstance(node, MaxPool) and node.name in alone:
            window = Window(*(_pool_axis(node, i, (height, width)[i]) for i in range(2)))
            if window.fits:
                shapes[node.name] = replace(plain, window=window)
        elif is_global_average(node, shape):
            shapes[node.name] = replace(plain, window=AVERAGE_WINDOW, average=True)
    return shapes


def _pool_axis(node: MaxPool, axis: int, pixels: int) -> Axis:
    """Return a pool along rows or columns; with `ceil` what windows lack at the end is padding."""
    kernel, stride, before = node.kernel[axis], node.stride[axis], node.padding[axis]
    reach = (node.shape[1 + axis] - 1) * stride + kernel
    return Axis(kernel, stride, before, max(before, reach - before - pixels))


def _op(layer: TapLayer) -> Op:
    """Return what the engine does for a layer."""
    if isinstance(layer, WinogradConv2d):
        return Op.WINOGRAD
    return Op.DENSE if isinstance(layer, Dense) else Op.DIRECT


def _window(layer: TapLayer) -> Window:
    """Return the kernel of a direct convolution; other layers have none of their own."""
    if not isinstance(layer, DirectConv2d):
        return Window()
    return Window(*layer.window.axes)


def total_cycles(engine: EngineConfig, shapes: Mapping[str, LayerShape]) -> int:
    """Return the modelled cycles of all layers; ScheduleError names one that does not fit."""
    return sum(layer_cycles(engine, shape, name).total for name, shape in shapes.items())
