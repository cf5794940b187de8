# SPDX-License-Identifier: Apache-2.0
"""A graph with its weights: a module that runs the records one after another.

Layers keep the paths they had in the module that was read, so the state dict has the same names in
the same order. What a network computes is equal, bit for bit, to what that module computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from quant.network.from_module import read_graph
from quant.network.graph import (
    INPUT,
    LAYERS,
    WITH_WEIGHTS,
    AdaptiveAvgPool,
    AvgPool,
    Dropout,
    Identity,
    Mean,
    NetworkGraph,
    Node,
    QuantAverage,
    Shape,
)
from quant.network.layer_modules import layer_node
from quant.network.operations import compute
from quant.network.quantization import Quantization
from winnow.progress import steps

AVERAGING = (AdaptiveAvgPool, AvgPool, Mean, QuantAverage, Dropout, Identity)  # behind the last map
Visit = Callable[[Node, Sequence[Tensor]], None]


class Network(nn.Module):
    """A runnable graph: input [n, c, h, w], output [n, ...] of the record `graph.output`.

    `layers` are the modules of the records with weights, by name, in the order of the state dict;
    they are shared, not copied.
    """

    on_host: tuple[str, ...] = ()  # steps at the end that were left to the host
    quantization: Quantization | None = None  # what the QONNX file says that it was read from

    def __init__(self, graph: NetworkGraph, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.graph = graph
        for name, layer in layers.items():
            _place(self, name, layer)

    @classmethod
    def of(cls, module: nn.Module, shape: Shape, method: str = "forward") -> Network:
        """Return the network of any module for images of `shape`, which shares its layers.

        `method` and NetworkError as in `quant.network.from_module.read_graph`. A network with the
        same input is returned as it is.
        """
        if isinstance(module, Network) and module.graph.input == tuple(shape):
            return module
        graph = read_graph(module, tuple(shape), method)
        names = {node.name for node in graph.nodes if isinstance(node, WITH_WEIGHTS)}
        found = {name: m for name, m in module.named_modules() if name in names}
        network = cls(graph, found)
        network.train(module.training)
        return network

    def get_submodule(self, target: str) -> nn.Module:
        """Return the module at a dotted path, also where a member of ours has the same name."""
        found: nn.Module = self
        for part in target.split(".") if target else ():
            if part not in found._modules:
                raise AttributeError(f"the network has no module '{target}'")
            found = found._modules[part]
        return found

    def layers(self) -> dict[str, nn.Module]:
        """Return the modules with weights by name, in the order of the state dict."""
        names = {node.name for node in self.graph.nodes if isinstance(node, WITH_WEIGHTS)}
        return {name: module for name, module in self.named_modules() if name in names}

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, [self.graph.output])[0]

    def run(self, x: Tensor, wanted: Sequence[str], before: Visit | None = None) -> list[Tensor]:
        """Return the results called `wanted` for inputs x [n, c, h, w]; no other record runs.

        `before(record, inputs)` is called for every record with weights just before it runs on
        `inputs`, so that it can change the layer.
        """
        nodes = self.graph.needed(wanted)
        reads = _num_reads(nodes, wanted)
        values = {INPUT: x}
        for node in nodes if self.training else steps("running the network", nodes):
            inputs = [values[name] for name in node.inputs]
            if isinstance(node, WITH_WEIGHTS):
                if before is not None:
                    before(node, inputs)
                values[node.name] = self.get_submodule(node.name)(*inputs)
            else:
                values[node.name] = compute(node, inputs, training=self.training)
            for name in node.inputs:  # so that a map is gone when nothing reads it any more
                reads[name] -= 1
                if not reads[name]:
                    del values[name]
        return [values[name] for name in wanted]

    def with_exits(
        self, x: Tensor, more: Sequence[str] = ()
    ) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """Return (logits, last map [n, c, h, w]) of the end and of every exit, and `more` results.

        The end comes first, the exits in their order.
        """
        ends = [self.graph.output, *(end for _, end in self.graph.exits)]
        maps = [last_map(self.graph, end) for end in ends]
        results = self.run(x, [*ends, *maps, *more])
        count = len(ends)
        pairs = list(zip(results[:count], results[count : 2 * count], strict=True))
        return pairs, results[2 * count :]

    def refresh(self) -> None:
        """Read the records again after layers were changed or replaced in place."""
        nodes = []
        for node in self.graph.nodes:
            if isinstance(node, WITH_WEIGHTS):
                made = layer_node(self.get_submodule(node.name), node.name, node.inputs)
                assert made is not None  # whoever replaces a layer gives one of a known kind
                nodes.append(made)
            else:
                nodes.append(node)
        graph = self.graph
        read = NetworkGraph.of(graph.input, nodes, graph.output, graph.exits)
        self.__dict__["graph"] = read  # plainly, as there may be a layer called "graph"

    def part(self, graph: NetworkGraph, names: Mapping[str, str] | None = None) -> Network:
        """Return the network of a graph made of this one's records; it shares their layers.

        `names` maps the names of records here to those of `graph`, where they differ.
        """
        new = names or {node.name: node.name for node in graph.nodes}
        layers = {new[name]: layer for name, layer in self.layers().items() if name in new}
        made = Network(graph, layers)
        made.train(self.training)
        return made


def _num_reads(nodes: Iterable[Node], wanted: Iterable[str]) -> dict[str, int]:
    """Return how often every result is read, with one more for those that are returned."""
    reads = {INPUT: 0}
    for name in (name for node in nodes for name in node.inputs):
        reads[name] = reads.get(name, 0) + 1
    for name in wanted:
        reads[name] = reads.get(name, 0) + 1
    return reads


def last_map(graph: NetworkGraph, output: str) -> str:
    """Return the last map (c, h, w) on the way to `output`, before it is averaged or flattened."""
    nodes, name = graph.by_name, output
    while name != INPUT and (len(nodes[name].shape) < 3 or isinstance(nodes[name], AVERAGING)):
        name = nodes[name].inputs[0]
    return name


def own_records(graph: NetworkGraph, name: str) -> tuple[Node, ...]:
    """Return the records of an exit that the network without exits does not need, as they run."""
    shared = {node.name for node in graph.needed([graph.output])}
    return tuple(n for n in graph.needed([dict(graph.exits)[name]]) if n.name not in shared)


def exit_tap(graph: NetworkGraph, name: str) -> str:
    """Return the result that an exit reads of the network without exits."""
    own = own_records(graph, name)
    made = {node.name for node in own}
    (tap,) = {read for node in own for read in node.inputs if read not in made}
    return tap


def exit_head(graph: NetworkGraph, name: str) -> NetworkGraph:
    """Return the graph of an exit's own records, which reads the map behind which it leaves."""
    own, tap = own_records(graph, name), exit_tap(graph, name)
    nodes = [
        replace(node, inputs=tuple(INPUT if read == tap else read for read in node.inputs))
        for node in own
    ]
    return NetworkGraph.of(graph.shape_of(tap), nodes, dict(graph.exits)[name])


def has_bottleneck(graph: NetworkGraph, name: str) -> bool:
    """Whether an exit has layers of its own before its classifier."""
    return sum(isinstance(node, LAYERS) for node in own_records(graph, name)) > 1


def exit_network(net: Network, name: str) -> Network:
    """Return the network that ends at an exit; it shares the layers, and the exit's become its own.

    Layers `exits.NAME.fc` are called `fc`, as those of the classifier they replace.
    """
    graph = net.graph.ending_at(dict(net.graph.exits)[name])
    prefix = f"exits.{name}."
    names = {
        node.name: node.name.removeprefix(prefix) if isinstance(node, WITH_WEIGHTS) else node.name
        for node in graph.nodes
    }
    nodes = [
        replace(node, name=names[node.name], inputs=tuple(names.get(i, i) for i in node.inputs))
        for node in graph.nodes
    ]
    renamed = NetworkGraph.of(graph.input, nodes, names[graph.output])
    return net.part(renamed, names)


def backbone(net: Network) -> Network:
    """Return the network without its exits; it shares the layers."""
    return net.part(net.graph.ending_at(net.graph.output))


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a dotted path, making the containers on the way."""
    *folders, name = path.split(".")
    parent = root
    for folder in folders:
        parent = parent._modules.setdefault(folder, nn.Module())
    # Not by `add_module`, which refuses names of other members, such as `layers` and `graph`.
    parent._modules[name] = module
