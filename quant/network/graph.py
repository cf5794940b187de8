# SPDX-License-Identifier: Apache-2.0
"""The float network as data: one frozen record per operation, in the order they run.

A record names its inputs and holds its hyper-parameters and the shape of its result; it holds no
weights. The shape is that of one image, without the batch axis: (c, h, w) for a map, (c,) for a
vector. A record that has weights is called by the dotted path of the module that holds them, so
names of the state dict begin with names of records. `quant.network.network` runs a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quant.layers.bit_widths import BitWidths
from winnow.errors import NetworkError

INPUT = ".input"  # the network's input in the `inputs` of records; no module has such a name
Shape = tuple[int, ...]
Pair = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class Node:
    """One operation. Subclasses add hyper-parameters and say which shape they give.

    Members:
        name: unique in the graph; the dotted path of the module for one that has weights.
        inputs: names of the records whose results it reads, or `INPUT`.
        shape: of its result for one image; `NetworkGraph.of` fills it in.
    """

    name: str
    inputs: tuple[str, ...]
    shape: Shape = field(default=(), kw_only=True)

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the shape of the result from those of the inputs; NetworkError if they misfit."""
        return shapes[0]

    def expect(self, holds: bool, what: str, found: object) -> None:
        """Raise NetworkError unless a condition on the inputs holds."""
        if not holds:
            raise NetworkError(
                f"'{self.name}' ({type(self).__name__}) must read {what}, got {found}"
            )


# --- layers: records with weights -------------------------------------------------------------


@dataclass(frozen=True)
class Conv(Node):
    """`nn.Conv2d` with zero padding, numbers (rows, columns)."""

    in_channels: int
    out_channels: int
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    bias: bool

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        _expect_map(self, shapes[0], self.in_channels)
        return (self.out_channels, *_windows(self, shapes[0], self.dilation, ceil=False))


@dataclass(frozen=True)
class Linear(Node):
    """`nn.Linear` over a vector."""

    in_features: int
    out_features: int
    bias: bool

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        wanted = (self.in_features,)
        self.expect(shapes[0] == wanted, f"a vector of {self.in_features} values", shapes[0])
        return (self.out_features,)


@dataclass(frozen=True)
class BatchNorm(Node):
    """`nn.BatchNorm2d` of a map, or `nn.BatchNorm1d` of a vector, with running statistics.

    Without `affine` it has neither weight nor bias, without `bias` a weight alone.
    """

    channels: int
    eps: float
    momentum: float | None
    affine: bool = True
    bias: bool = True

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        self.expect(shapes[0][0] == self.channels, f"{self.channels} channels", shapes[0])
        return shapes[0]


@dataclass(frozen=True)
class TapNode(Node):
    """Base of the layers that multiply in taps; `widths` are set in their Brevitas form."""

    in_channels: int
    out_channels: int


@dataclass(frozen=True)
class Winograd(TapNode):
    """`WinogradConv2d`: 3x3, stride 1, padding 1 as F(m, 3)."""

    m: int
    widths: BitWidths | None = None
    groups: int = 1

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        _expect_map(self, shapes[0], self.in_channels)
        return (self.out_channels, *shapes[0][1:])


@dataclass(frozen=True)
class Direct(TapNode):
    """`DirectConv2d`: any other convolution without dilation."""

    kernel: Pair
    stride: Pair
    padding: Pair
    widths: BitWidths | None = None
    groups: int = 1

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        _expect_map(self, shapes[0], self.in_channels)
        return (self.out_channels, *_windows(self, shapes[0], (1, 1), ceil=False))


@dataclass(frozen=True)
class Unrolled(Direct):
    """`UnrolledConv2d`: the first convolution, whose input the host lays out by its kernel."""


@dataclass(frozen=True)
class Dense(TapNode):
    """`Dense`: fully connected over a map of `in_channels`, flattened to `operands` values."""

    operands: int
    widths: BitWidths | None = None

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        wanted = (self.operands,)
        self.expect(shapes[0] == wanted, f"a vector of {self.operands} values", shapes[0])
        return (self.out_channels,)


# --- operations without weights ---------------------------------------------------------------


@dataclass(frozen=True)
class Relu(Node):
    """max(x, 0), and min(x, limit) unless it is None; 6 for ReLU6."""

    limit: float | None = None


@dataclass(frozen=True)
class Add(Node):
    """Sum of two results of one shape."""

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        self.expect(shapes[0] == shapes[1], "two results of one shape", tuple(shapes))
        return shapes[0]


@dataclass(frozen=True)
class QuantAdd(Add):
    """An `Add` and its quantizer to `bits` bits, which with `relu` is the ReLU behind it too."""

    bits: int
    relu: bool


@dataclass(frozen=True)
class MaxPool(Node):
    """`nn.MaxPool2d` without dilation; `ceil` keeps incomplete windows."""

    kernel: Pair
    stride: Pair
    padding: Pair
    ceil: bool

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        _expect_map(self, shapes[0])
        return (shapes[0][0], *_windows(self, shapes[0], (1, 1), ceil=self.ceil))


@dataclass(frozen=True)
class AvgPool(Node):
    """`nn.AvgPool2d`; `count_padding` as its `count_include_pad`."""

    kernel: Pair
    stride: Pair
    padding: Pair
    ceil: bool
    count_padding: bool

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        _expect_map(self, shapes[0])
        return (shapes[0][0], *_windows(self, shapes[0], (1, 1), ceil=self.ceil))


@dataclass(frozen=True)
class AdaptiveAvgPool(Node):
    """`nn.AdaptiveAvgPool2d` to a map of `size`."""

    size: Pair

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        _expect_map(self, shapes[0])
        return (shapes[0][0], *self.size)


@dataclass(frozen=True)
class Mean(Node):
    """Mean over the pixels of a map: a vector, or with `keep` a map of one pixel."""

    keep: bool

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        _expect_map(self, shapes[0])
        return (shapes[0][0], 1, 1) if self.keep else shapes[0][:1]


@dataclass(frozen=True)
class QuantAverage(Node):
    """The average over a map, with a quantizer: see `quant.layers.quant_add`."""

    bits: int
    relu: bool
    flat: bool
    log2_pixels: int

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        _expect_map(self, shapes[0])
        return shapes[0][:1] if self.flat else (shapes[0][0], 1, 1)


@dataclass(frozen=True)
class Flatten(Node):
    """All values of an image as a vector, in (c, h, w) order."""

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        return (num_values(shapes[0]),)


@dataclass(frozen=True)
class Concat(Node):
    """Channels of several results one after another."""

    def result_shape(self, shapes: Sequence[Shape]) -> Shape:
        same = all(shape[1:] == shapes[0][1:] for shape in shapes)
        self.expect(same, "maps of one size", tuple(shapes))
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])


@dataclass(frozen=True)
class Dropout(Node):
    """Zeros with probability `p` in training: of values, or of whole `channels`."""

    p: float
    channels: bool = False


@dataclass(frozen=True)
class Identity(Node):
    """The input itself."""


@dataclass(frozen=True)
class Softmax(Node):
    """Softmax over the channels; with `log` its logarithm."""

    log: bool = False


@dataclass(frozen=True)
class Sigmoid(Node):
    """1 / (1 + exp(-x))."""


LAYERS = (Conv, Linear, TapNode)  # what multiplies by trained weights
WITH_WEIGHTS = (*LAYERS, BatchNorm, QuantAdd, QuantAverage)  # a module of theirs has tensors
RECORDS: Mapping[str, type[Node]] = {
    kind.__name__: kind
    for kind in (
        Conv, Linear, BatchNorm, Winograd, Direct, Unrolled, Dense, Relu, Add, QuantAdd, MaxPool,
        AvgPool, AdaptiveAvgPool, Mean, QuantAverage, Flatten, Concat, Dropout, Identity, Softmax,
        Sigmoid,
    )
}  # fmt: skip


def num_values(shape: Shape) -> int:
    """Return how many values a shape holds."""
    total = 1
    for edge in shape:
        total *= edge
    return total


def _expect_map(node: Node, shape: Shape, channels: int | None = None) -> None:
    if node.inputs == (INPUT,) and channels not in (None, shape[0]):
        raise NetworkError(
            f"'{node.name}' ({type(node).__name__}) reads images of {_channels(channels)}, those "
            f"of the data have {shape[0]}; change the layer, or choose other data with data.source"
        )
    wanted = "a map (c, h, w)" if channels is None else f"a map (c, h, w) of {channels} channels"
    node.expect(len(shape) == 3 and channels in (None, shape[0]), wanted, shape)


def _channels(count: int | None) -> str:
    return f"{count} channel{'' if count == 1 else 's'}"


def _windows(
    node: Conv | Direct | MaxPool | AvgPool, shape: Shape, dilation: Pair, *, ceil: bool
) -> Pair:
    """Return how many windows, rows and columns, fit into a padded map."""
    edges = []
    for i in range(2):
        reach = dilation[i] * (node.kernel[i] - 1) + 1
        room = shape[1 + i] + 2 * node.padding[i] - reach
        least = 1 - node.stride[i] if ceil else 0  # an incomplete window holds a pixel
        wanted = f"a map of at least {reach - 2 * node.padding[i] + least} pixels"
        node.expect(room >= least, wanted, shape)
        count = -(-room // node.stride[i]) + 1 if ceil else room // node.stride[i] + 1
        # A window that would begin in the padding at the end is not one.
        if ceil and (count - 1) * node.stride[i] >= shape[1 + i] + node.padding[i]:
            count -= 1
        edges.append(count)
    return edges[0], edges[1]


# --- graphs -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class NetworkGraph:
    """A network: the shape of one input image (c, h, w), its records as they run, its result.

    `exits` are (name, record) of early classifiers, whose records are not needed for `output`.
    """

    input: Shape
    nodes: tuple[Node, ...]
    output: str
    exits: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        shape: Shape,
        nodes: Iterable[Node],
        output: str,
        exits: Iterable[tuple[str, str]] = (),
    ) -> NetworkGraph:
        """Return the graph of records with their shapes filled in.

        Raises NetworkError that names the record which is there twice, reads what does not come
        before it, or does not fit what it reads.
        """
        shapes: dict[str, Shape] = {INPUT: tuple(shape)}
        placed = []
        for node in nodes:
            if node.name in shapes:
                raise NetworkError(f"two records are called '{node.name}'; names must differ")
            missing = [name for name in node.inputs if name not in shapes]
            if missing or not node.inputs:
                what = f"'{missing[0]}', which does not come" if missing else "nothing that comes"
                raise NetworkError(f"'{node.name}' reads {what} before it")
            shapes[node.name] = node.result_shape([shapes[name] for name in node.inputs])
            placed.append(replace(node, shape=shapes[node.name]))
        ends = tuple(exits)
        for name in (output, *(end for _, end in ends)):
            if name not in shapes:
                raise NetworkError(f"the network's result '{name}' is none of its records")
        return cls(shapes[INPUT], tuple(placed), output, ends)

    @property
    def by_name(self) -> dict[str, Node]:
        """The records by name."""
        return {node.name: node for node in self.nodes}

    def shape_of(self, name: str) -> Shape:
        """Return the shape of a record's result or of the input."""
        return self.input if name == INPUT else self.by_name[name].shape

    def readers(self) -> dict[str, list[Node]]:
        """Return the records that read each result; the input's too."""
        found: dict[str, list[Node]] = {INPUT: [], **{node.name: [] for node in self.nodes}}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return found

    def needed(self, results: Iterable[str]) -> tuple[Node, ...]:
        """Return the records that `results` depend on, as they run."""
        wanted = set(results)
        kept = []
        for node in reversed(self.nodes):
            if node.name in wanted:
                kept.append(node)
                wanted.update(node.inputs)
        return tuple(reversed(kept))

    def ending_at(self, output: str) -> NetworkGraph:
        """Return the part that `output` depends on, without exits."""
        return replace(self, nodes=self.needed([output]), output=output, exits=())

    def without(self, names: Iterable[str]) -> NetworkGraph:
        """Return the graph without some records of one input, whose readers read that instead."""
        gone = {name: self.by_name[name].inputs[0] for name in names}

        def left(name: str) -> str:
            while name in gone:
                name = gone[name]
            return name

        nodes = [
            replace(node, inputs=tuple(map(left, node.inputs)))
            for node in self.nodes
            if node.name not in gone
        ]
        exits = [(name, left(end)) for name, end in self.exits]
        return NetworkGraph.of(self.input, nodes, left(self.output), exits)

    def head(self) -> str:
        """Return the name of the last layer that multiplies: the classifier."""
        layers = [node.name for node in self.needed([self.output]) if isinstance(node, LAYERS)]
        if not layers:
            raise NetworkError("the network has no layer with weights")
        return layers[-1]
