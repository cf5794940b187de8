# SPDX-License-Identifier: Apache-2.0
"""The integer graph: plain records, all integers. `docs/ir.md` is its specification.

Everything left of the graph may be float; everything right of it is exact. Records hold no
behaviour from either neighbour; arrays are int64 and read-only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from winnow.fixed_point import IntArray, int_range


class Op(str, Enum):
    """What a node computes."""

    WINOGRAD = "winograd"
    POINTWISE = "pointwise"
    DENSE = "dense"


@dataclass(frozen=True)
class TensorType:
    """An integer feature map [channels, height, width]; value = integer * 2^exponent.

    `bits` is 2..8 for features and 32 for raw accumulators.
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
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest integer of the tensor, both reachable (the range is not narrow)."""
        return int_range(self.bits, signed=self.signed)

    def __str__(self) -> str:
        sign = "s" if self.signed else "u"
        return f"{sign}{self.bits}[{self.channels}x{self.height}x{self.width}]*2^{self.exponent}"


@dataclass(frozen=True, eq=False)
class Layer:
    """One multiply-accumulate layer with its requantization.

    Members:
        name: unique identifier, [a-z][a-z0-9_]*.
        op: which transform surrounds the sums.
        source: name of the node whose output is read; "input" is the graph's input.
        m: Winograd output tile (2 or 4); 1 for pointwise and dense.
        weight: Winograd [oc, ic, alpha^2]; pointwise [oc, ic]; dense [oc, c * h * w] in
            (c, h, w) order. Signed narrow range of `weight_bits`.
        bias: [oc], int32 range, on the grid 2^acc_exponent.
        v_exponent, weight_exponent: [alpha^2] for Winograd, [1] otherwise.
        v_bits: width of the lane operand V, signed narrow range, 2..8.
        weight_bits: 2..8.
        keep: declared upper bound of non-zeros in a sub-row of 8 input channels, 1..8.
        acc_exponent: grid of the accumulator Y; at most min(v_exponent + weight_exponent) and at
            most the output's exponent.
        pool: 2x2 max pool, stride 2, after requantization (Winograd only).
        raw: the output is the accumulator itself, 32 bits (dense only).
        output: type after pooling.
    """

    name: str
    op: Op
    source: str
    m: int
    weight: IntArray
    bias: IntArray
    v_exponent: IntArray
    weight_exponent: IntArray
    v_bits: int
    weight_bits: int
    keep: int
    acc_exponent: int
    pool: bool
    raw: bool
    output: TensorType


@dataclass(frozen=True)
class Graph:
    """A chain of layers: every source is "input" or the name of an earlier layer."""

    input: TensorType
    layers: tuple[Layer, ...]

    def type_of(self, name: str) -> TensorType:
        """Return the type of the input or of a layer's output; KeyError when unknown."""
        if name == INPUT:
            return self.input
        return {layer.name: layer.output for layer in self.layers}[name]


INPUT = "input"
LayerMaps: TypeAlias = dict[str, IntArray]
