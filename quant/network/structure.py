# SPDX-License-Identifier: Apache-2.0
"""What of a network belongs together: channels that can be removed, blocks that teach.

Both follow from the graph, so a network of a user has them as those of the library do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quant.network.channels import ChannelGroup
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
    Linear,
    MaxPool,
    Mean,
    NetworkGraph,
    Node,
    Relu,
    TapNode,
)
from quant.network.network import Network


def is_depthwise(node: Node) -> bool:
    """Whether a convolution takes every channel on by itself."""
    return isinstance(node, Conv) and 1 < node.groups == node.in_channels == node.out_channels


@dataclass
class _Channels:
    """One set of channels: the convolution that makes it, what carries it on, what sums over it."""

    producer: Node | None = None
    followers: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    positions: int = 1
    is_active: bool = False  # passes a ReLU
    is_fixed: bool = False  # something else holds on to them as well


def channel_groups(graph: NetworkGraph) -> list[ChannelGroup]:
    """Return the groups of channels that can be removed, in the order of the network.

    A group is made by one convolution and passes a ReLU. Left alone are residual widths: what is
    added or joined, what a shortcut goes around, and linear bottlenecks, which have no ReLU.
    """
    sets: dict[str, _Channels] = {INPUT: _Channels(is_fixed=True)}
    fixed = _shortcuts(graph) | {graph.output} | {end for _, end in graph.exits}
    found = []
    for node in graph.nodes:
        read = [sets[name] for name in node.inputs]
        if isinstance(node, LAYERS) and not is_depthwise(node):
            _consume(node, read[0])
            sets[node.name] = _Channels(producer=node)
            found.append(sets[node.name])
        elif isinstance(node, Add | Concat):
            for channels in read:
                channels.is_fixed = True
            sets[node.name] = _Channels(is_fixed=True)
        else:
            _carry(node, read[0])
            sets[node.name] = read[0]
        if node.name in fixed:
            sets[node.name].is_fixed = True
    main = {node.name for node in graph.needed([graph.output])}
    return [
        ChannelGroup(
            c.producer.name, (c.producer.name,), tuple(c.followers), tuple(c.consumers), c.positions
        )
        for c in found
        if isinstance(c.producer, Conv)
        and c.producer.name in main
        and c.consumers
        and c.is_active
        and not c.is_fixed
    ]


def _consume(node: Node, channels: _Channels) -> None:
    is_plain = isinstance(node, Linear) or (isinstance(node, Conv) and node.groups == 1)
    if not is_plain:
        channels.is_fixed = True  # a convolution in groups, or one whose weights are in taps
        return
    channels.consumers.append(node.name)
    if isinstance(node, Linear) and channels.producer is not None:
        channels.positions = node.in_features // channels.producer.shape[0]


def _carry(node: Node, channels: _Channels) -> None:
    if isinstance(node, BatchNorm) or is_depthwise(node):
        channels.followers.append(node.name)
    elif isinstance(node, Relu):
        channels.is_active = True
    else:
        assert isinstance(
            node, MaxPool | AvgPool | AdaptiveAvgPool | Mean | Flatten | Dropout | Identity
        )


def _shortcuts(graph: NetworkGraph) -> set[str]:
    """Return the results whose readers meet again: where a shortcut begins."""
    readers = graph.readers()
    reached: dict[str, set[str]] = {}  # record -> all that depends on it, itself included
    for node in reversed(graph.nodes):
        reached[node.name] = {node.name}.union(*(reached[n.name] for n in readers[node.name]))
    forks = set()
    for name, nodes in readers.items():
        seen: set[str] = set()
        for node in nodes:
            if seen & reached[node.name]:
                forks.add(name)
            seen |= reached[node.name]
    return forks


def block_ends(graph: NetworkGraph) -> list[str]:
    """Return the results, in order, that end the blocks of block-wise distillation.

    They are the last maps before the size changes: in a network without sums the convolutions, with
    their BatchNorm, after which maps are smaller, and the last one; in a residual network the maps
    that shortcuts carry, before their size or width changes. All later maps depend on such a map
    alone.
    """
    graph = graph.ending_at(graph.output)
    is_residual = any(isinstance(node, Add) for node in graph.nodes)
    is_end = _carries_residual if is_residual else _ends_layer
    readers = graph.readers()
    maps = [node for node in _bottlenecks(graph) if len(node.shape) == 3 and is_end(node, readers)]
    sizes = [node.shape if is_residual else node.shape[1:] for node in maps]
    return [
        node.name
        for node, size, following in zip(maps, sizes, [*sizes[1:], None], strict=False)
        if size != following
    ]


def _bottlenecks(graph: NetworkGraph) -> list[Node]:
    """Return the records through which every way from the input to the result goes."""
    readers = graph.readers()
    waiting = {INPUT: len(readers[INPUT])}  # results that are still read -> how often
    found = []
    for node in graph.nodes:
        for name in set(node.inputs):
            waiting[name] -= 1
            if not waiting[name]:
                del waiting[name]
        if not waiting:
            found.append(node)
        waiting[node.name] = len(readers[node.name])
    return found


Readers = dict[str, list[Node]]


def _ends_layer(node: Node, readers: Readers) -> bool:
    """Whether a record is a layer with its BatchNorm, before any activation."""
    is_normed = any(isinstance(reader, BatchNorm) for reader in readers[node.name])
    return isinstance(node, BatchNorm | Conv | TapNode) and not is_normed


def _carries_residual(node: Node, readers: Readers) -> bool:
    """Whether a record is a sum, with the ReLU behind it, or a layer without activation."""
    is_followed = any(isinstance(reader, BatchNorm | Relu) for reader in readers[node.name])
    if isinstance(node, Relu):
        return node.name in {n.name for n in _after_sums(readers)}
    return isinstance(node, Add | BatchNorm | Conv | TapNode) and not is_followed


def _after_sums(readers: Readers) -> list[Node]:
    """Return the ReLUs that read a sum."""
    sums = {n.name for nodes in readers.values() for n in nodes if isinstance(n, Add)}
    return [n for name in sums for n in readers[name] if isinstance(n, Relu)]


def channel_counts(net: Network) -> dict[str, int]:
    """Return how many channels every group of a network has now."""
    return {group.name: group.channels(net) for group in channel_groups(net.graph)}
