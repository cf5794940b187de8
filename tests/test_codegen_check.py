# SPDX-License-Identifier: Apache-2.0
"""Every rule of the checker rejects a graph that breaks only it, with its one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codegen.check import check_graph, worst_case_sums
from codegen.interpret import interpret
from codegen.ir import Graph, Layer, Op, TensorType
from tests.ladder import random_chain_graph, random_images, random_layer_graph
from winnow.errors import GraphError
from winnow.fixed_point import IntArray
from winnow.winograd import winograd

INPUT_TYPE = TensorType(9, 5, 4, 8, False, -8)


def ints(values: Any) -> IntArray:
    return np.array(values, dtype=np.int64)


def conv() -> Layer:
    weight = np.zeros((3, 9, 16), dtype=np.int64)
    weight[:, 0], weight[:, 3], weight[:, 8] = 5, -7, 7
    return Layer(
        name="conv",
        op=Op.WINOGRAD,
        source="input",
        m=2,
        weight=weight,
        bias=ints([1, -2, 3]),
        v_exponent=np.full(16, -7),
        weight_exponent=np.full(16, -3),
        v_bits=8,
        weight_bits=4,
        keep=2,
        acc_exponent=-10,
        pool=True,
        raw=False,
        output=TensorType(3, 2, 2, 8, False, -6),
    )


def dense() -> Layer:
    return Layer(
        name="fc",
        op=Op.DENSE,
        source="conv",
        m=1,
        weight=np.ones((2, 12), dtype=np.int64),
        bias=ints([0, 0]),
        v_exponent=ints([-5]),
        weight_exponent=ints([-3]),
        v_bits=8,
        weight_bits=8,
        keep=3,
        acc_exponent=-8,
        pool=False,
        raw=True,
        output=TensorType(2, 1, 1, 32, True, -8),
    )


def pointwise() -> Layer:
    return replace(
        dense(), name="mix", op=Op.POINTWISE, weight=ints(np.ones((2, 3))), raw=False,
        output=TensorType(2, 2, 2, 8, True, -4),
    )  # fmt: skip


def good() -> Graph:
    return Graph(INPUT_TYPE, (conv(), dense()))


def with_value(array: IntArray, index: Any, value: int) -> IntArray:
    copy = array.copy()
    copy[index] = value
    return copy


def out(layer: Layer, **changes: Any) -> Layer:
    return replace(layer, output=replace(layer.output, **changes))


def first(**changes: Any) -> tuple[Layer, ...]:
    return (replace(conv(), **changes), dense())


def last(**changes: Any) -> tuple[Layer, ...]:
    return (conv(), replace(dense(), **changes))


def many_weights(value: int) -> IntArray:
    return np.full((2, 12), value, dtype=np.int64)


BAD_LAYERS: list[tuple[str, tuple[Layer, ...]]] = [
    ("graph: it must have at least one layer, got none", ()),
    ("layer 'Conv': its name must match [a-z][a-z0-9_]* and not be 'input'", first(name="Conv")),
    ("layer '': its name must match [a-z][a-z0-9_]* and not be 'input'", first(name="")),
    ("layer 'a\n': its name must match [a-z][a-z0-9_]* and not be 'input'", first(name="a\n")),
    ("layer 'input': its name must match [a-z][a-z0-9_]* and not be 'input'", first(name="input")),
    ("layer 'conv': its name must be unique, got it twice", (conv(), conv())),
    (
        "layer 'conv': source must be the input or an earlier layer (input), got 'fc'",
        first(source="fc"),
    ),
    (
        "layer 'fc': source must be the input or an earlier layer (input, conv), got 'conv1'",
        last(source="conv1"),
    ),
    (
        "layer 'fc2': source must be a feature map of 2..8 bits, got the raw output of 'fc'",
        (conv(), dense(), replace(dense(), name="fc2", source="fc")),
    ),
    ("layer 'conv': keep must be a Python int, got 2.0", first(keep=2.0)),
    ("layer 'conv': acc_exponent must be a Python int, got np.int64(-10)", first(
        acc_exponent=np.int64(-10))),
    ("layer 'conv': m must be 2 or 4 for winograd, got 3", first(m=3)),
    ("layer 'fc': m must be 1 for dense, got 2", last(m=2)),
    ("layer 'conv': v_bits must be 2..8, got 9", first(v_bits=9)),
    ("layer 'conv': weight_bits must be 2..8, got 1", first(weight_bits=1)),
    ("layer 'conv': keep must be 1..8, got 0", first(keep=0)),
    ("layer 'conv': keep must be 1..8, got 9", first(keep=9)),
    ("layer 'fc': pool must only be set for winograd, got dense", last(pool=True)),
    ("layer 'conv': raw must only be set for dense, got winograd", first(raw=True)),
    ("layer 'mix': raw must only be set for dense, got pointwise",
        (conv(), replace(pointwise(), raw=True))),
    ("layer 'conv': weight must be int64, got int32", first(weight=conv().weight.astype("i4"))),
    ("layer 'conv': bias must be int64, got float64", first(bias=conv().bias.astype(float))),
    ("layer 'conv': weight must have shape 3x9x16, got 3x8x16", first(weight=conv().weight[:, 1:])),
    ("layer 'conv': weight must have shape 3x9x36, got 3x9x16", first(m=4)),
    ("layer 'fc': weight must have shape 2x12, got 2x3", last(weight=ints(np.ones((2, 3))))),
    ("layer 'mix': weight must have shape 2x3, got 2x12",
        (conv(), replace(pointwise(), weight=dense().weight))),
    ("layer 'conv': weight must have shape 4x9x16, got 3x9x16", (out(conv(), channels=4),)),
    ("layer 'conv': bias must have shape 3, got 2", first(bias=ints([1, 2]))),
    ("layer 'fc': bias must have shape 2, got a scalar", last(bias=ints(1))),
    ("layer 'conv': v_exponent must have shape 16, got 1", first(v_exponent=ints([-7]))),
    ("layer 'fc': weight_exponent must have shape 1, got 2", last(weight_exponent=ints([-3, -3]))),
    ("layer 'conv': weight must not be empty, got no values",
        first(weight=np.zeros((0, 9, 16), dtype=np.int64), bias=ints([]),
              output=TensorType(0, 2, 2, 8, False, -6))),
    ("layer 'conv': weight must be in -7..7 for 4 bits, got -8",
        first(weight=with_value(conv().weight, (1, 0, 2), -8))),
    ("layer 'conv': weight must be in -7..7 for 4 bits, got 8",
        first(weight=with_value(conv().weight, (1, 0, 2), 8))),
    ("layer 'conv': weight must be in -7..7 for 4 bits, got -9223372036854775808",
        first(weight=with_value(conv().weight, (1, 0, 2), -(2**63)))),
    ("layer 'conv': bias must be in -2147483648..2147483647, got 2147483648",
        first(bias=ints([0, 0, 2**31]))),
    ("layer 'conv': bias must be in -2147483648..2147483647, got -2147483649",
        first(bias=ints([0, 0, -(2**31) - 1]))),
    ("layer 'conv': a sub-row of 8 channels must hold at most keep = 2 non-zeros, got 3",
        first(weight=with_value(conv().weight, (2, 7, 15), 1))),
    ("layer 'fc': a sub-row of 8 channels must hold at most keep = 2 non-zeros, got 3",
        last(keep=2)),
    ("layer 'conv': the output map must be 2x2, got 5x4", (out(conv(), height=5, width=4),)),
    ("layer 'conv': the output map must be 5x4, got 2x2", first(pool=False)),
    ("layer 'fc': the output map must be 1x1, got 2x2",
        (conv(), out(dense(), height=2, width=2))),
    ("layer 'pool': pool must only be set when the map is at least 2x2, got 1x1",
        (conv(), replace(dense(), raw=False, output=TensorType(9, 1, 1, 8, True, -4),
                         weight=ints(np.ones((9, 12))), bias=np.zeros(9, dtype=np.int64)),
         replace(conv(), name="pool", source="fc", v_exponent=np.full(16, -4),
                 acc_exponent=-7))),
    ("layer 'conv': output: bits must be 2..8, got 32", (out(conv(), bits=32),)),
    ("layer 'conv': output: bits must be 2..8, got 1", (out(conv(), bits=1),)),
    ("layer 'conv': output: exponent must be a Python int, got -6.5",
        (out(conv(), exponent=-6.5),)),
    ("layer 'fc': a raw output must be s32, got u32", (conv(), out(dense(), signed=False))),
    ("layer 'fc': a raw output must be s32, got s8", (conv(), out(dense(), bits=8))),
    ("layer 'fc': a raw output's exponent must be acc_exponent -8, got -7",
        (conv(), out(dense(), exponent=-7))),
    ("layer 'conv': v_exponent must be -8..54, the input's exponent and above, got -9",
        first(v_exponent=with_value(conv().v_exponent, 5, -9))),
    ("layer 'conv': v_exponent must be -8..54, the input's exponent and above, got 55",
        first(v_exponent=with_value(conv().v_exponent, 5, 55))),
    ("layer 'conv': v_exponent + weight_exponent must be -10..52, acc_exponent and above, got -11",
        first(weight_exponent=with_value(conv().weight_exponent, 0, -4))),
    ("layer 'conv': v_exponent + weight_exponent must be -10..52, acc_exponent and above, got 53",
        first(weight_exponent=with_value(conv().weight_exponent, 0, 60))),
    ("layer 'conv': the output's exponent must be -10..52, acc_exponent and above, got -11",
        (out(conv(), exponent=-11),)),
    ("layer 'conv': the output's exponent must be -10..52, acc_exponent and above, got 53",
        (out(conv(), exponent=53),)),
    ("layer 'fc': the worst case of the accumulator must fit 32 bits, got 33 bits",
        last(weight_exponent=ints([18]))),
    ("layer 'fc': the worst case of the accumulator must fit 32 bits, got 33 bits",
        last(bias=ints([0, 2**31 - 1]))),
    ("layer 'conv': the worst case of the accumulator must fit 63 bits, got 65 bits",
        first(weight_exponent=np.full(16, 46))),
]  # fmt: skip


def test_accepts_every_op() -> None:
    check_graph(Graph(INPUT_TYPE, (conv(), pointwise(), dense())))


@pytest.mark.parametrize(("message", "layers"), BAD_LAYERS, ids=lambda value: str(value)[:60])
def test_rejects(message: str, layers: tuple[Layer, ...]) -> None:
    with pytest.raises(GraphError) as caught:
        check_graph(Graph(INPUT_TYPE, layers))
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


def test_worst_case_of_a_winograd_layer() -> None:
    total, accumulator = worst_case_sums(conv())
    assert total == (5 + 7 + 7) * 127
    assert accumulator == total * 9 + 3  # F(2,3) adds nine taps of magnitude one


def test_worst_case_of_a_pointwise_layer() -> None:
    layer = replace(
        pointwise(), source="input", weight=ints([[127] * 8 + [0], [-127] + [0] * 8]),
        keep=8, v_exponent=ints([-8]), acc_exponent=-11, bias=ints([4, 0]),
        output=TensorType(2, 5, 4, 8, True, 0),
    )  # fmt: skip
    graph = Graph(INPUT_TYPE, (layer,))
    check_graph(graph)
    assert worst_case_sums(layer) == (8 * 127 * 127, 8 * 127 * 127 + 4)


def test_raw_accumulators_stay_within_worst_case() -> None:
    graphs = [(seed, random_layer_graph(seed, 2)) for seed in range(300)]
    raw = [(seed, graph) for seed, graph in graphs if graph.layers[0].raw]
    assert len(raw) > 20
    for seed, graph in raw:
        layer = graph.layers[0]
        y = interpret(graph, random_images(graph, seed, 4))[layer.name]
        assert np.abs(y).max() <= worst_case_sums(layer)[1]


@pytest.mark.parametrize("m", [2, 4])
def test_every_tap_reaches_an_output_undiminished(m: int) -> None:
    """The bound of Y covers the inside of the transform only because of this."""
    assert (np.abs(winograd(m).output_kron).max(axis=0) >= 1).all()


@pytest.mark.parametrize("m", [2, 4])
def test_ladder_graphs_pass(m: int) -> None:
    for seed in range(100):
        check_graph(random_layer_graph(seed, m))
        check_graph(random_chain_graph(seed, m))
