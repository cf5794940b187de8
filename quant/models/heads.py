# SPDX-License-Identifier: Apache-2.0
"""Early exits of any network: shallow classifiers on maps between its blocks.

An exit reads the map at the end of a block, or behind a convolution of a chain. Its head is cheap
on the engine, for the map becomes small before anything multiplies:

    "pool"     2x2 max pools to the size of the deepest map, a 1x1 convolution to its channels with
               BatchNorm and ReLU, the mean over the pixels, a fully connected layer
    "average"  2x2 max pools, at least one, to at most 8x8 pixels, the mean over them, a fully
               connected layer

The 1x1 convolution is the bottleneck of Be Your Own Teacher (Zhang et al., ICCV 2019): its result
has the shape of the deepest map, so it can learn from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn

from quant.network.graph import (
    INPUT,
    BatchNorm,
    Dropout,
    Flatten,
    Identity,
    Linear,
    MaxPool,
    Mean,
    NetworkGraph,
    Node,
    Pair,
    Relu,
)
from quant.network.layer_graph import layer_graph, unfolded
from quant.network.layer_modules import layer_node
from quant.network.network import Network, last_map
from quant.network.structure import block_ends
from winnow.errors import ConfigError, NetworkError
from winnow.model_config import CHAIN, CONVOLUTIONS, ModelConfig

KEY = "model.exit_after"
AVERAGED = 8  # pixels along an edge
CARRYING = (BatchNorm, Relu, MaxPool, Identity, Dropout)  # what belongs to the block before it


def with_heads(net: Network, model: ModelConfig) -> Network:
    """Return the network with the exits of a configuration, which share its layers.

    Raises ConfigError for a block that is not there, NetworkError for a network or map that can
    have no exit.
    """
    if model.exit_head == CONVOLUTIONS or not model.exit_names:
        return net
    places = _places(net, model)
    _require_exits(net)
    _require_names(net, model.exit_numbers)
    target = net.graph.by_name[last_map(net.graph, net.graph.output)]
    heads = [
        _Head(net.graph, number, name, places[name]) for number, name in model.exit_names.items()
    ]
    for head in heads:
        if model.exit_head == "pool":
            head.pool_to(target.shape)
        else:
            head.pool_down()
        head.classify(net.graph)
    return _joined(net, heads)


def _places(net: Network, model: ModelConfig) -> dict[str, str]:
    """Return by an exit's name the record of the map that it reads."""
    if model.name == CHAIN:
        placed = layer_graph(net.graph)
        return {name: placed[name].result for name in model.exit_names.values()}
    found = exit_places(net.graph)
    for number in model.exit_numbers:
        if number > len(found):
            blocks = f"blocks 1..{len(found)}" if found else "none of its blocks"
            raise ConfigError(
                f"{KEY} must name blocks that have a smaller map behind them, {blocks} of "
                f"'{model.name}', got {number}"
            )
    return {name: found[number - 1] for number, name in model.exit_names.items()}


def exit_places(graph: NetworkGraph) -> list[str]:
    """Return the maps that exits of a network may read: behind every block but the last, with the
    ReLU and the pool that follow it alone."""
    graph = graph.ending_at(graph.output)
    readers = graph.readers()
    places = []
    for name in block_ends(graph)[:-1]:
        following = readers[name]
        while len(following) == 1 and isinstance(following[0], CARRYING):
            name = following[0].name
            following = readers[name]
        places.append(name)
    return places


def _require_exits(net: Network) -> None:
    """Raise NetworkError for a network whose exits could not be made or trained."""
    graph = net.graph
    last = graph.by_name[unfolded(graph, graph.output)]
    if not isinstance(last, Linear) or last_map(graph, graph.output) == INPUT:
        raise NetworkError(
            f"{KEY} needs a network that ends with a linear layer behind a map, '{last.name}' "
            f"({type(last).__name__}) ends this one; set it to []"
        )
    if net.quantization is not None:
        raise NetworkError(
            f"{KEY} must be [] for '{net.quantization.file}': the weights of a quantized file are "
            "kept, so its exits would never be trained"
        )


def _require_names(net: Network, numbers: tuple[int, ...]) -> None:
    """Raise NetworkError if a layer is called as those of the exits will be."""
    ours = ("exits.", *(f"exit{number}_" for number in numbers))
    for node in net.graph.nodes:
        if f"{node.name}.".startswith(ours):
            raise NetworkError(
                f"{KEY} adds layers called 'exits.' and 'exit1_' and so on, as '{node.name}' is; "
                f"call that otherwise, or set {KEY} to []"
            )


@dataclass
class _Head:
    """An exit in the making: its records and modules, and the record that it ends with so far."""

    graph: NetworkGraph
    number: int
    name: str
    end: str
    nodes: list[Node] = field(default_factory=list)
    modules: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        made = NetworkGraph.of(self.graph.input, (*self.graph.nodes, *self.nodes), self.end)
        return made.shape_of(self.end)

    def pool_to(self, target: tuple[int, ...]) -> None:
        """Bring the map to the size and channels of the deepest one."""
        _, *size = self.shape
        ceils = _halvings((size[0], size[1]), (target[1], target[2]))
        if ceils is None:
            raise NetworkError(
                f"{KEY}: the map of {size[0]}x{size[1]} pixels at '{self.name}' cannot be halved "
                f'to the deepest one of {target[1]}x{target[2]}; set model.exit_head = "average"'
            )
        for ceil in ceils:
            self._pool(ceil=ceil)
        conv = nn.Conv2d(self.shape[0], target[0], 1, bias=False)
        self._layer(f"exit{self.number}_conv", conv)
        self._layer(f"exit{self.number}_norm", nn.BatchNorm2d(target[0]))
        self._add(Relu(f"exit{self.number}_relu", (self.end,)))

    def pool_down(self) -> None:
        """Pool the map, so that the average is of a map of its own, and small, on the engine."""
        if self.shape[1:] != (1, 1):
            self._pool(ceil=True)
        while max(self.shape[1:]) > AVERAGED:
            self._pool(ceil=True)

    def classify(self, graph: NetworkGraph) -> None:
        """Average the map, and classify it as the end of the network does."""
        if self.shape[1:] == (1, 1):
            self._add(Flatten(f"exit{self.number}_flat", (self.end,)))
        else:
            self._add(Mean(f"exit{self.number}_mean", (self.end,), keep=False))
        (classes,) = graph.shape_of(graph.output)
        # Called as the network's classifier, which is no part of a network that ends here.
        self._layer(graph.head(), nn.Linear(self.shape[0], classes))

    def _pool(self, *, ceil: bool) -> None:
        name = f"exit{self.number}_pool{len(self.nodes) + 1}"
        self._add(MaxPool(name, (self.end,), (2, 2), (2, 2), (0, 0), ceil))

    def _layer(self, name: str, module: nn.Module) -> None:
        path = f"exits.{self.name}.{name}"
        node = layer_node(module, path, (self.end,))
        assert node is not None  # a kind of torch's own
        self.modules[path] = module
        self._add(node)

    def _add(self, node: Node) -> None:
        self.nodes.append(node)
        self.end = node.name


def _halvings(size: Pair, target: Pair) -> list[bool] | None:
    """Return for each 2x2 pool from one size to another whether it keeps incomplete windows.

    None if no pools lead there.
    """
    if size == target:
        return []
    if size[0] < target[0] or size[1] < target[1] or size == (1, 1):
        return None
    for ceil in (False, True):
        halved = ((size[0] + ceil) // 2, (size[1] + ceil) // 2)
        rest = _halvings(halved, target) if 0 not in halved else None
        if rest is not None:
            return [ceil, *rest]
    return None


def _joined(net: Network, heads: Iterable[_Head]) -> Network:
    """Return the network with the records and layers of the heads."""
    heads, graph = list(heads), net.graph
    nodes = [*graph.nodes, *(node for head in heads for node in head.nodes)]
    exits = [(head.name, head.end) for head in heads]
    layers: Mapping[str, nn.Module] = {
        **net.layers(),
        **{name: module for head in heads for name, module in head.modules.items()},
    }
    made = Network(NetworkGraph.of(graph.input, nodes, graph.output, exits), layers)
    made.train(net.training)
    made.on_host = net.on_host
    return made
