# SPDX-License-Identifier: Apache-2.0
"""The integer graph: plain records, all integers. `docs/ir.md` is its specification.

Everything left of the graph may be float; everything right of it is exact. There is one record per
operation. Records say what is computed, never how an engine does it (`codegen/fuse.py`); arrays are
int64 and read-only.

A new operation is a record here, listed in NODES, and one function in each of the tables of
`codegen/check.py`, `codegen/interpret.py` and `codegen/fuse.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from winnow.fixed_point import IntArray, int_range
from winnow.window import Axis, Window

INPUT = "input"
RAW_BITS = 32
NodeMaps: TypeAlias = dict[str, IntArray]  # maps [n, c, h, w] by the name of their node


@dataclass(frozen=True)
class TensorType:
    """An integer feature map [channels, height, width]; value = integer * 2^exponent.

    `bits` is 2..8 for features and RAW_BITS for raw accumulators.
    """

    channels: int
    height: int
    width: int
    bits: int
    signed: bool
    exponent: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def is_raw(self) -> bool:
        """Whether the map holds accumulators as they are, not requantized."""
        return self.bits == RAW_BITS

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest integer of the tensor, both reachable (the range is not narrow)."""
        return int_range(self.bits, signed=self.signed)

    def __str__(self) -> str:
        sign = "s" if self.signed else "u"
        return f"{sign}{self.bits}[{self.channels}x{self.height}x{self.width}]*2^{self.exponent}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """One operation.

    Members:
        name: unique identifier, [a-z][a-z0-9_]*.
        inputs: names of the nodes whose maps it reads, in order; "input" is the graph's input.
        output: type of its map.
    """

    name: str
    inputs: tuple[str, ...]
    output: TensorType


@dataclass(frozen=True, eq=False, kw_only=True)
class Multiply(Node):
    """Weighted sums of one map, with bias and requantization; what all such operations share.

    An output of RAW_BITS is the accumulator itself, any other is requantized.

    Members:
        v_bits: width of the lane operand V, signed narrow range, 2..8.
        weight_bits: 2..8.
        keep: declared upper bound of non-zeros in a sub-row of 8 input channels, 1..8; between
            an output channel and the input channels of other groups than its own lie zeros.
        acc_exponent: grid of the accumulator Y; at most min(v_exponent + weight_exponent) and at
            most the output's exponent.
        weight: [oc, ...], see the records below. Signed narrow range of `weight_bits`.
        bias: [oc], int32 range, on the grid 2^acc_exponent.
        v_exponent, weight_exponent: [alpha^2] for Winograd, [1] otherwise.
    """

    v_bits: int
    weight_bits: int
    keep: int
    acc_exponent: int
    weight: IntArray
    bias: IntArray
    v_exponent: IntArray
    weight_exponent: IntArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Winograd(Multiply):
    """A 3x3 convolution, stride 1, zero padding 1, by F(m, 3); weight [oc, ic / groups, alpha^2].

    Members:
        m: edge of the output tile, 2 or 4.
        groups: as of `Direct`.
    """

    m: int
    groups: int = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Direct(Multiply):
    """A convolution pixel by pixel, without a transform.

    Its weight is [oc, ic / groups, kernel rows, columns].

    Members:
        groups: of neighbouring channels: an output channel reads the input channels of its own
            group only. In a depthwise convolution a group is a channel.
        stride_rows, stride_columns: pixels from one output to the next.
        top, left, bottom, right: pixels of zero padding, fewer than the kernel has.
    """

    groups: int = 1
    stride_rows: int = 1
    stride_columns: int = 1
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @property
    def window(self) -> Window:
        """Kernel, stride and padding."""
        rows, columns = self.weight.shape[2:]
        return Window(
            Axis(rows, self.stride_rows, self.top, self.bottom),
            Axis(columns, self.stride_columns, self.left, self.right),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Unrolled(Direct):
    """A convolution whose sub-rows are 8 consecutive values of its kernels laid out in one row.

    It computes what `Direct` does, without groups. `keep` counts the non-zeros of a sub-row of the
    weight as [oc, ic * kernel rows * columns], in that order, so that few channels fill sub-rows,
    too.
    """


Convolution: TypeAlias = Winograd | Direct


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Multiply):
    """A fully connected layer over the flattened map; weight [oc, c * h * w] in (c, h, w) order."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Node):
    """The maximum under a window; what lies around the map counts for nothing.

    Members:
        rows, columns: of the window.
        stride_rows, stride_columns: pixels from one output to the next.
        top, left, bottom, right: pixels around the map, fewer than the window has.

    A last row or column that fills no window is dropped.
    """

    rows: int = 2
    columns: int = 2
    stride_rows: int = 2
    stride_columns: int = 2
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @property
    def window(self) -> Window:
        """Size, stride and padding."""
        return Window(
            Axis(self.rows, self.stride_rows, self.top, self.bottom),
            Axis(self.columns, self.stride_columns, self.left, self.right),
        )

    @property
    def is_halving(self) -> bool:
        """Whether it takes 2x2 windows side by side, as the engine does behind a convolution."""
        return self.window == Window(Axis(2, 2), Axis(2, 2))


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Node):
    """The sum of two maps of one shape: aligned exactly, rounded once, clamped once."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GlobalAverage(Node):
    """The sum over all pixels of a channel, over the least power of two not below their number."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Node):
    """The channels of several maps one after another."""


NODES: tuple[type[Node], ...] = (
    *(Winograd, Direct, Unrolled, Dense),
    *(MaxPool, Add, GlobalAverage, Concat),
)


def average_shift(source: TensorType, output: TensorType) -> int:
    """Return by how much the sum over a map is shifted right to be on the grid of its average."""
    log2_pixels = (source.height * source.width - 1).bit_length()
    return output.exponent - source.exponent + log2_pixels


@dataclass(frozen=True)
class Graph:
    """Nodes in the order they run: every one reads "input" or earlier nodes, any number of times.

    The last node's map is the graph's result.
    """

    input: TensorType
    nodes: tuple[Node, ...]

    def type_of(self, name: str) -> TensorType:
        """Return the type of the input or of a node's map; KeyError when unknown."""
        if name == INPUT:
            return self.input
        return {node.name: node.output for node in self.nodes}[name]
