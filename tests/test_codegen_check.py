# SPDX-License-Identifier: Apache-2.0
"""Every rule of the checker rejects a graph that breaks only it, with its one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from codegen.check import CHECKS, check_graph
from codegen.ir import (
    NODES,
    Add,
    Concat,
    Dense,
    Direct,
    GlobalAverage,
    Graph,
    MaxPool,
    Node,
    TensorType,
    Winograd,
)
from tests.ladder import random_chain_graph, random_layer_graph
from winnow.errors import GraphError
from winnow.fixed_point import IntArray

INPUT_TYPE = TensorType(9, 5, 4, 8, False, -8)


def ints(values: Any) -> IntArray:
    return np.array(values, dtype=np.int64)


def conv() -> Winograd:
    weight = np.zeros((3, 9, 16), dtype=np.int64)
    weight[:, 0], weight[:, 3], weight[:, 8] = 5, -7, 7
    return Winograd(
        name="conv",
        inputs=("input",),
        m=2,
        weight=weight,
        bias=ints([1, -2, 3]),
        v_exponent=np.full(16, -7),
        weight_exponent=np.full(16, -3),
        v_bits=8,
        weight_bits=4,
        keep=2,
        acc_exponent=-10,
        output=TensorType(3, 5, 4, 8, False, -6),
    )


def pool() -> MaxPool:
    return MaxPool(name="pool", inputs=("conv",), output=TensorType(3, 2, 2, 8, False, -6))


def dense() -> Dense:
    return Dense(
        name="fc",
        inputs=("pool",),
        weight=np.ones((2, 12), dtype=np.int64),
        bias=ints([0, 0]),
        v_exponent=ints([-5]),
        weight_exponent=ints([-3]),
        v_bits=8,
        weight_bits=8,
        keep=3,
        acc_exponent=-8,
        output=TensorType(2, 1, 1, 32, True, -8),
    )


def pointwise() -> Direct:
    return Direct(
        name="mix",
        inputs=("pool",),
        weight=ints(np.ones((2, 3, 1, 1))),
        bias=ints([0, 0]),
        v_exponent=ints([-5]),
        weight_exponent=ints([-3]),
        v_bits=8,
        weight_bits=8,
        keep=3,
        acc_exponent=-8,
        output=TensorType(2, 2, 2, 8, True, -4),
    )


def add() -> Add:
    return Add(name="sum", inputs=("conv", "conv"), output=TensorType(3, 5, 4, 8, True, -5))


def summed(**changes: Any) -> tuple[Node, ...]:
    return (conv(), replace(add(), **changes))


def average() -> GlobalAverage:
    """Of 20 pixels, so the sum is shifted by 5 and more."""
    return GlobalAverage(name="mean", inputs=("conv",), output=TensorType(3, 1, 1, 8, False, -11))


def averaged(**changes: Any) -> tuple[Node, ...]:
    return (conv(), replace(average(), **changes))


def concat() -> Concat:
    return Concat(name="cat", inputs=("conv", "conv"), output=TensorType(6, 5, 4, 8, False, -6))


def joined(**changes: Any) -> tuple[Node, ...]:
    return (conv(), replace(concat(), **changes))


def good() -> Graph:
    return Graph(INPUT_TYPE, (conv(), pool(), dense()))


def with_value(array: IntArray, index: Any, value: int) -> IntArray:
    copy = array.copy()
    copy[index] = value
    return copy


N = TypeVar("N", bound=Node)


def out(node: N, **changes: Any) -> N:
    return replace(node, output=replace(node.output, **changes))


def first(**changes: Any) -> tuple[Node, ...]:
    return (replace(conv(), **changes), pool(), dense())


def last(**changes: Any) -> tuple[Node, ...]:
    return (conv(), pool(), replace(dense(), **changes))


def pooled(**changes: Any) -> tuple[Node, ...]:
    return (conv(), replace(pool(), **changes), dense())


def mixed(**changes: Any) -> tuple[Node, ...]:
    return (conv(), pool(), replace(pointwise(), **changes))


BAD_NODES: list[tuple[str, tuple[Node, ...]]] = [
    ("graph: it must have at least one node, got none", ()),
    ("node 'Conv': its name must match [a-z][a-z0-9_]* and not be 'input'", first(name="Conv")),
    ("node '': its name must match [a-z][a-z0-9_]* and not be 'input'", first(name="")),
    ("node 'a\n': its name must match [a-z][a-z0-9_]* and not be 'input'", first(name="a\n")),
    ("node 'input': its name must match [a-z][a-z0-9_]* and not be 'input'", first(name="input")),
    ("node 'conv': its name must be unique, got it twice", (conv(), conv())),
    (
        "node 'conv': it must read the input or an earlier node (input), got 'fc'",
        first(inputs=("fc",)),
    ),
    (
        "node 'fc': it must read the input or an earlier node (input, conv, pool), got 'conv1'",
        last(inputs=("conv1",)),
    ),
    (
        "node 'pool': it must read the input or an earlier node (input, conv), got 'pool'",
        pooled(inputs=("pool",)),
    ),
    ("node 'conv': it must read one map, got 2", first(inputs=("input", "input"))),
    ("node 'fc': it must read one map, got 0", last(inputs=())),
    ("node 'pool': it must read one map, got 2", pooled(inputs=("conv", "conv"))),
    ("node 'mix': it must read one map, got 2",
        (conv(), pool(), replace(pointwise(), inputs=("pool", "conv")))),
    (
        "node 'fc2': it must read feature maps of 2..8 bits, got the raw output of 'fc'",
        (conv(), pool(), dense(), replace(dense(), name="fc2", inputs=("fc",))),
    ),
    ("node 'conv': keep must be a Python int, got 2.0", first(keep=2.0)),
    ("node 'conv': acc_exponent must be a Python int, got np.int64(-10)", first(
        acc_exponent=np.int64(-10))),
    ("node 'conv': m must be 2 or 4, got 3", first(m=3)),
    ("node 'conv': m must be a Python int, got 2.0", first(m=2.0)),
    ("node 'conv': v_bits must be 2..8, got 9", first(v_bits=9)),
    ("node 'conv': weight_bits must be 2..8, got 1", first(weight_bits=1)),
    ("node 'conv': keep must be 1..8, got 0", first(keep=0)),
    ("node 'conv': keep must be 1..8, got 9", first(keep=9)),
    ("node 'conv': weight must be int64, got int32", first(weight=conv().weight.astype("i4"))),
    ("node 'conv': bias must be int64, got float64", first(bias=conv().bias.astype(float))),
    ("node 'conv': weight must have shape 3x9x16, got 3x8x16", first(weight=conv().weight[:, 1:])),
    ("node 'conv': weight must have shape 3x9x36, got 3x9x16", first(m=4)),
    ("node 'fc': weight must have shape 2x12, got 2x3", last(weight=ints(np.ones((2, 3))))),
    ("node 'mix': weight must be [oc, ic, kernel rows, kernel columns], got 2x12",
        mixed(weight=dense().weight)),
    ("node 'mix': weight must have shape 2x3x1x1, got 2x2x1x1",
        mixed(weight=ints(np.ones((2, 2, 1, 1))))),
    ("node 'mix': top must be a Python int, got 0.0", mixed(top=0.0)),
    ("node 'mix': the stride along columns must be at least 1, got 0", mixed(stride_columns=0)),
    ("node 'mix': padding along rows must be 0..0, less than the kernel, got 1", mixed(bottom=1)),
    ("node 'mix': padding along columns must be 0..2, less than the kernel, got -1",
        mixed(weight=ints(np.ones((2, 3, 1, 3))), left=-1)),
    ("node 'mix': the padded map must hold the kernel's 4 rows, got 3",
        mixed(weight=ints(np.ones((2, 3, 4, 1))), top=1)),
    ("node 'mix': the output map must be 1x2, got 2x2", mixed(stride_rows=2)),
    ("node 'conv': weight must have shape 4x9x16, got 3x9x16", (out(conv(), channels=4),)),
    ("node 'conv': bias must have shape 3, got 2", first(bias=ints([1, 2]))),
    ("node 'fc': bias must have shape 2, got a scalar", last(bias=ints(1))),
    ("node 'conv': v_exponent must have shape 16, got 1", first(v_exponent=ints([-7]))),
    ("node 'fc': weight_exponent must have shape 1, got 2", last(weight_exponent=ints([-3, -3]))),
    ("node 'conv': weight must not be empty, got no values",
        first(weight=np.zeros((0, 9, 16), dtype=np.int64), bias=ints([]),
              output=TensorType(0, 5, 4, 8, False, -6))),
    ("node 'conv': weight must be in -7..7 for 4 bits, got -8",
        first(weight=with_value(conv().weight, (1, 0, 2), -8))),
    ("node 'conv': weight must be in -7..7 for 4 bits, got 8",
        first(weight=with_value(conv().weight, (1, 0, 2), 8))),
    ("node 'conv': weight must be in -7..7 for 4 bits, got -9223372036854775808",
        first(weight=with_value(conv().weight, (1, 0, 2), -(2**63)))),
    ("node 'conv': bias must be in -2147483648..2147483647, got 2147483648",
        first(bias=ints([0, 0, 2**31]))),
    ("node 'conv': bias must be in -2147483648..2147483647, got -2147483649",
        first(bias=ints([0, 0, -(2**31) - 1]))),
    ("node 'conv': a sub-row of 8 channels must hold at most keep = 2 non-zeros, got 3",
        first(weight=with_value(conv().weight, (2, 7, 15), 1))),
    ("node 'fc': a sub-row of 8 channels must hold at most keep = 2 non-zeros, got 3",
        last(keep=2)),
    ("node 'conv': the output map must be 5x4, got 2x2", (out(conv(), height=2, width=2),)),
    ("node 'mix': the output map must be 2x2, got 5x4",
        (conv(), pool(), out(pointwise(), height=5, width=4))),
    ("node 'fc': the output map must be 1x1, got 2x2",
        (conv(), pool(), out(dense(), height=2, width=2))),
    ("node 'pool': the output must be u8[3x2x2]*2^-6, got u8[3x5x4]*2^-6",
        (conv(), out(pool(), height=5, width=4))),
    ("node 'pool': the output must be u8[3x2x2]*2^-6, got u8[3x3x2]*2^-6",
        (conv(), out(pool(), height=3))),
    ("node 'pool': the output must be u8[3x2x2]*2^-6, got s8[3x2x2]*2^-6",
        (conv(), out(pool(), signed=True))),
    ("node 'pool': the output must be u8[3x2x2]*2^-6, got u7[3x2x2]*2^-6",
        (conv(), out(pool(), bits=7))),
    ("node 'pool': the output must be u8[3x2x2]*2^-6, got u8[3x2x2]*2^-5",
        (conv(), out(pool(), exponent=-5))),
    ("node 'pool': the output must be u8[3x2x2]*2^-6, got u8[4x2x2]*2^-6",
        (conv(), out(pool(), channels=4))),
    ("node 'pool': output: bits must be 2..8, got 32", (conv(), out(pool(), bits=32))),
    ("node 'pool': output: height must be a Python int, got 2.0",
        (conv(), out(pool(), height=2.0))),
    ("node 'pool': rows must be a Python int, got 2.0", pooled(rows=2.0)),
    ("node 'pool': its window must have at least 1 of columns, got 0", pooled(columns=0)),
    ("node 'pool': the stride along rows must be at least 1, got 0", pooled(stride_rows=0)),
    ("node 'pool': padding along rows must be 0..1, less than the window, got 2", pooled(bottom=2)),
    ("node 'pool': padding along columns must be 0..1, less than the window, got -1",
        pooled(left=-1)),
    ("node 'pool': the output must be u8[3x2x3]*2^-6, got u8[3x2x2]*2^-6", pooled(left=1, right=1)),
    ("node 'small': the padded map must hold the window's 2 rows, got 1",
        (conv(), pool(), out(dense(), bits=8, exponent=-4),
         replace(pool(), name="small", inputs=("fc",), output=TensorType(2, 0, 0, 8, True, -4)))),
    ("node 'conv': output: bits must be 2..8 or 32, got 1", (out(conv(), bits=1),)),
    ("node 'conv': output: bits must be 2..8 or 32, got 9", (out(conv(), bits=9),)),
    ("node 'conv': output: bits must be a Python int, got 32.0", (out(conv(), bits=32.0),)),
    ("node 'conv': output: exponent must be a Python int, got -6.5",
        (out(conv(), exponent=-6.5),)),
    ("node 'fc': a raw output must be s32, got u32", (conv(), pool(), out(dense(), signed=False))),
    ("node 'conv': a raw output must be s32, got u32", (out(conv(), bits=32),)),
    ("node 'fc': a raw output's exponent must be acc_exponent -8, got -7",
        (conv(), pool(), out(dense(), exponent=-7))),
    ("node 'conv': v_exponent must be -8..54, the input's exponent and above, got -9",
        first(v_exponent=with_value(conv().v_exponent, 5, -9))),
    ("node 'conv': v_exponent must be -8..54, the input's exponent and above, got 55",
        first(v_exponent=with_value(conv().v_exponent, 5, 55))),
    ("node 'conv': v_exponent + weight_exponent must be -10..52, acc_exponent and above, got -11",
        first(weight_exponent=with_value(conv().weight_exponent, 0, -4))),
    ("node 'conv': v_exponent + weight_exponent must be -10..52, acc_exponent and above, got 53",
        first(weight_exponent=with_value(conv().weight_exponent, 0, 60))),
    ("node 'conv': the output's exponent must be -10..52, acc_exponent and above, got -11",
        (out(conv(), exponent=-11),)),
    ("node 'conv': the output's exponent must be -10..52, acc_exponent and above, got 53",
        (out(conv(), exponent=53),)),
    ("node 'fc': the worst case of the accumulator must fit 32 bits, got 33 bits",
        last(weight_exponent=ints([18]))),
    ("node 'fc': the worst case of the accumulator must fit 32 bits, got 33 bits",
        last(bias=ints([0, 2**31 - 1]))),
    ("node 'conv': the worst case of the accumulator must fit 63 bits, got 65 bits",
        first(weight_exponent=np.full(16, 46))),
    ("node 'sum': it must read two maps, got 1", summed(inputs=("conv",))),
    ("node 'sum': it must read two maps, got 3", summed(inputs=("conv", "conv", "input"))),
    ("node 'sum': the maps it adds must have one shape, got 3x5x4 and 9x5x4",
        summed(inputs=("conv", "input"))),
    ("node 'sum': the output must be 3x5x4, got 3x4x5", (conv(), out(add(), height=4, width=5))),
    ("node 'sum': the output must be 3x5x4, got 9x5x4", (conv(), out(add(), channels=9))),
    ("node 'sum': output: bits must be 2..8, got 32", (conv(), out(add(), bits=32))),
    ("node 'sum': its exponents must lie at most 32 apart, got 33",
        (conv(), out(add(), exponent=27))),
    ("node 'sum': its exponents must lie at most 32 apart, got 33",
        (conv(), out(add(), exponent=-39))),
    ("node 'mean': it must read one map, got 2", averaged(inputs=("conv", "conv"))),
    ("node 'mean': the output must be 3x1x1, got 3x5x4",
        (conv(), out(average(), height=5, width=4))),
    ("node 'mean': output: bits must be 2..8, got 32", (conv(), out(average(), bits=32))),
    ("node 'mean': the output's exponent must be -11..51, that of the sum and above, got -12",
        (conv(), out(average(), exponent=-12))),
    ("node 'mean': the output's exponent must be -11..51, that of the sum and above, got 52",
        (conv(), out(average(), exponent=52))),
    ("node 'cat': it must read two maps or more, got 1", joined(inputs=("conv",))),
    ("node 'cat': the maps it joins must have one size, sign and exponent, got "
        "u8[9x5x4]*2^-8 and u8[3x5x4]*2^-6", joined(inputs=("input", "conv"))),
    ("node 'cat': the output must be u8[6x5x4]*2^-6, got u8[5x5x4]*2^-6",
        (conv(), out(concat(), channels=5))),
]  # fmt: skip


def test_accepts_every_op() -> None:
    check_graph(Graph(INPUT_TYPE, (conv(), pool(), pointwise(), dense())))
    check_graph(Graph(INPUT_TYPE, (conv(), average())))
    check_graph(Graph(INPUT_TYPE, (conv(), concat())))
    for exponent in (-38, -6, 26):
        check_graph(Graph(INPUT_TYPE, (conv(), out(add(), exponent=exponent))))


def test_every_record_has_rules() -> None:
    assert set(CHECKS) == set(NODES)


def test_any_multiplication_may_be_raw_and_any_map_be_read_twice() -> None:
    """The graph says what is computed; what the engine can do is for codegen.fuse to say."""
    raw = replace(conv(), name="raw", output=TensorType(3, 5, 4, 32, True, -10))
    second = replace(pool(), name="second")
    check_graph(Graph(INPUT_TYPE, (conv(), pool(), second, raw)))
    entry = replace(pool(), inputs=("input",), output=TensorType(9, 2, 2, 8, False, -8))
    check_graph(Graph(INPUT_TYPE, (entry,)))


@pytest.mark.parametrize(("message", "nodes"), BAD_NODES, ids=lambda value: str(value)[:60])
def test_rejects(message: str, nodes: tuple[Node, ...]) -> None:
    with pytest.raises(GraphError) as caught:
        check_graph(Graph(INPUT_TYPE, nodes))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("input: channels must be at least 1, got 0", {"channels": 0}),
        ("input: height must be at least 1, got 0", {"height": 0}),
        ("input: width must be at least 1, got -1", {"width": -1}),
        ("input: bits must be 2..8, got 9", {"bits": 9}),
        ("input: height must be a Python int, got 5.0", {"height": 5.0}),
    ],
)
def test_rejects_input(message: str, changes: dict[str, Any]) -> None:
    with pytest.raises(GraphError) as caught:
        check_graph(replace(good(), input=replace(INPUT_TYPE, **changes)))
    assert str(caught.value) == message


def test_dense_sub_rows_run_over_channels_at_one_pixel() -> None:
    weight = np.zeros((2, 3, 4), dtype=np.int64)
    weight[:, 1] = 1  # one channel at every pixel: four consecutive columns, one per sub-row
    check_graph(Graph(INPUT_TYPE, last(weight=weight.reshape(2, 12), keep=1)))


def test_raw_bound_is_tight() -> None:
    largest = 12 * 127
    check_graph(Graph(INPUT_TYPE, last(bias=ints([0, 2**31 - 1 - largest]))))
    with pytest.raises(GraphError, match="33 bits"):
        check_graph(Graph(INPUT_TYPE, last(bias=ints([0, -(2**31) + largest]))))


def test_huge_shift_is_judged_without_overflow() -> None:
    spread = np.full(16, -3)
    spread[7] = 52 + 7  # a shift of 62: beyond int64 once multiplied by the sums
    with pytest.raises(GraphError, match=r"must fit 63 bits, got 7\d bits"):
        check_graph(Graph(INPUT_TYPE, first(weight_exponent=spread)))


@pytest.mark.parametrize("m", [2, 4])
def test_ladder_graphs_pass(m: int) -> None:
    for seed in range(100):
        check_graph(random_layer_graph(seed, m))
        check_graph(random_chain_graph(seed, m))
