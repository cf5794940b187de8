# SPDX-License-Identifier: Apache-2.0
"""The worst case of sums: known values, plain Python, and no accumulator beyond it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from codegen.bounds import worst_case_sums
from codegen.interpret import interpret
from codegen.ir import INPUT, Direct, Multiply, TensorType, Winograd
from tests.ladder import multiplies, random_images, random_layer_graph
from winnow.winograd import winograd


def plain_worst_case(node: Multiply) -> tuple[int, int]:
    """Return what `worst_case_sums` must, one weight at a time and without its arithmetic."""
    vmax = 2 ** (node.v_bits - 1) - 1
    exponents = [v + u for v, u in zip(node.v_exponent, node.weight_exponent, strict=True)]
    shifts = [int(exponent) - node.acc_exponent for exponent in exponents]
    taps = range(len(shifts))
    mixing = [[1]]
    if isinstance(node, Winograd):
        a_t = winograd(node.m).a_t.tolist()
        mixing = [
            [abs(row[p] * column[q]) for p, q in product(range(len(row)), repeat=2)]
            for row, column in product(a_t, repeat=2)
        ]
    largest_sum = largest_y = 0
    count = len(node.weight)
    by_operand = node.weight.reshape(count, -1, len(shifts))
    for by_tap, bias in zip(by_operand.tolist(), node.bias.tolist(), strict=True):
        sums = [sum(abs(w[t]) for w in by_tap) * vmax for t in taps]
        ys = [sum(f * s << shift for f, s, shift in zip(fs, sums, shifts, strict=True))
              for fs in mixing]  # fmt: skip
        largest_sum = max(largest_sum, *sums)
        largest_y = max(largest_y, max(ys) + abs(bias))
    return largest_sum, largest_y


@pytest.mark.parametrize("m", [2, 4])
def test_bounds_are_those_of_plain_python(m: int) -> None:
    for seed in range(60):
        (node,) = multiplies(random_layer_graph(seed, m))
        assert worst_case_sums(node) == plain_worst_case(node)


def winograd_node() -> Winograd:
    weight = np.zeros((3, 9, 16), dtype=np.int64)
    weight[:, 0], weight[:, 3], weight[:, 8] = 5, -7, 7
    return Winograd(
        name="conv",
        inputs=(INPUT,),
        m=2,
        weight=weight,
        bias=np.array([1, -2, 3]),
        v_exponent=np.full(16, -7),
        weight_exponent=np.full(16, -3),
        v_bits=8,
        weight_bits=4,
        keep=2,
        acc_exponent=-10,
        output=TensorType(3, 5, 4, 8, False, -6),
    )


def pointwise_node() -> Direct:
    return Direct(
        name="mix",
        inputs=(INPUT,),
        weight=np.array([[127] * 8 + [0], [-127] + [0] * 8])[:, :, None, None],
        bias=np.array([4, 0]),
        v_exponent=np.array([-8]),
        weight_exponent=np.array([-3]),
        v_bits=8,
        weight_bits=8,
        keep=8,
        acc_exponent=-11,
        output=TensorType(2, 5, 4, 8, True, 0),
    )


def test_worst_case_of_a_winograd_layer() -> None:
    total, accumulator = worst_case_sums(winograd_node())
    assert total == (5 + 7 + 7) * 127
    assert accumulator == total * 9 + 3  # F(2,3) adds nine taps of magnitude one


def test_worst_case_of_a_pointwise_layer() -> None:
    assert worst_case_sums(pointwise_node()) == (8 * 127 * 127, 8 * 127 * 127 + 4)


def test_sums_over_lanes_are_smaller_but_add_up_to_the_same() -> None:
    """An engine deals the weights of a dense layer to its lanes; each has a sum of its own."""
    node = pointwise_node()
    lanes = np.zeros((2, 8, 2), dtype=np.int64)
    lanes[:, :5, 0], lanes[:, :4, 1] = node.weight[:, :5, 0, 0], node.weight[:, 5:, 0, 0]
    assert worst_case_sums(node, lanes) == (5 * 127 * 127, 8 * 127 * 127 + 4)


def test_raw_accumulators_stay_within_worst_case() -> None:
    graphs = [(seed, random_layer_graph(seed, 2)) for seed in range(300)]
    raw = [(seed, graph) for seed, graph in graphs if graph.nodes[0].output.is_raw]
    assert len(raw) > 20
    for seed, graph in raw:
        (layer,) = multiplies(graph)
        y = interpret(graph, random_images(graph, seed, 4))[layer.name]
        assert np.abs(y).max() <= worst_case_sums(layer)[1]


@pytest.mark.parametrize("m", [2, 4])
def test_every_tap_reaches_an_output_undiminished(m: int) -> None:
    """The bound of Y covers the inside of the transform only because of this."""
    assert (np.abs(winograd(m).output_kron).max(axis=0) >= 1).all()
