# SPDX-License-Identifier: Apache-2.0
"""Convolutions in groups, split into layers that each read and write a part of the channels.

The engine multiplies all channels that a layer reads with weights of all that it writes, and those
between different groups are 0. A few neighbouring groups are a convolution of their own, whose maps
lie one behind the other in memory, by groups of 8 channels; so it needs none of these zeros.

    dw = direct(a) groups=96, of 96 channels  ->  layers dw.0, dw.1, dw.2 of 32 channels each

A part is called as its layer, with its number behind a dot, which no name of a node has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from codegen.abi import MAX_LAYERS
from codegen.fuse import EngineLayer, LayerMaps, Layers, Part
from codegen.ir import Convolution, Graph, Node
from winnow.blocking import PART_CHANNELS, groups_of_parts

N = TypeVar("N", bound=Node)


def layer_of(name: str) -> str:
    """Return the name of the layer that a layer of the engine is, or is a part of."""
    return name.partition(".")[0]


def split(layers: Layers, graph: Graph) -> Layers:
    """Return the layers of a graph with those in groups split.

    Parts have PART_CHANNELS channels, as far as the groups let them, or twice as many as often as a
    program could not hold all layers otherwise. A map that no node reads, a result, is written by
    one layer.
    """
    channels = PART_CHANNELS
    read = {name for node in graph.nodes for name in node.inputs}
    while True:
        parts = tuple(part for layer in layers for part in _parts(layer, read, channels))
        if len(parts) <= MAX_LAYERS or len(parts) == len(layers):
            return parts
        channels *= 2


def _parts(layer: EngineLayer, read: set[str], channels: int) -> Iterator[EngineLayer]:
    node = layer.multiply
    if not isinstance(node, Convolution) or layer.last.name not in read:
        yield layer
        return
    reads, writes = node.weight.shape[1], len(node.weight) // node.groups
    each = groups_of_parts(node.groups, reads, writes, channels)
    if each >= node.groups:
        yield layer
        return
    for number, first in enumerate(range(0, node.groups, each)):
        groups = min(each, node.groups - first)
        part = Part(number, first * reads, first * writes, layer.output)
        yield _part(layer, part, groups, (groups * reads, groups * writes))


def _part(layer: EngineLayer, part: Part, groups: int, channels: tuple[int, int]) -> EngineLayer:
    """Return the layer of some groups, which reads and writes so many channels."""
    (read, written), node = channels, layer.multiply
    assert isinstance(node, Convolution)
    rows = slice(part.first_written, part.first_written + written)
    cut = replace(node, weight=node.weight[rows], bias=node.bias[rows], groups=groups)
    shortcut = layer.shortcut
    return replace(
        layer,
        multiply=_narrow(cut, written),
        input=replace(layer.input, channels=read),
        add=None if layer.add is None else _narrow(layer.add, written),
        shortcut=None if shortcut is None else replace(shortcut, channels=written),
        pool=None if layer.pool is None else _narrow(layer.pool, written),
        part=part,
    )


def _narrow(node: N, channels: int) -> N:
    return replace(node, output=replace(node.output, channels=channels))


def join_maps(maps: LayerMaps) -> LayerMaps:
    """Return the maps of whole layers, of those of their parts in order, by name."""
    parts = defaultdict(list)
    for name, values in maps.items():
        parts[layer_of(name)].append(values)
    return {
        name: values[0] if len(values) == 1 else np.concatenate(values, axis=1)
        for name, values in parts.items()
    }


def part_maps(maps: LayerMaps, channels: Mapping[str, int]) -> LayerMaps:
    """Return the maps of parts, of those of whole layers: of so many channels each, by name.

    Parts of a layer come in order.
    """
    first: dict[str, int] = defaultdict(int)
    found = {}
    for name, count in channels.items():
        whole = layer_of(name)
        found[name] = maps[whole][:, first[whole] : first[whole] + count]
        first[whole] += count
    return found
