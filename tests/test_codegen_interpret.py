# SPDX-License-Identifier: Apache-2.0
"""The interpreter against direct convolution, plain sums and a pure Python reading of the spec."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate

from codegen.interpret import RUNS, interpret
from codegen.ir import (
    NODES,
    Add,
    Concat,
    Dense,
    Direct,
    GlobalAverage,
    Graph,
    MaxPool,
    Multiply,
    Node,
    TensorType,
    Unrolled,
    Winograd,
)
from tests.ladder import (
    change_node,
    multiplies,
    pool_of,
    random_average_graph,
    random_chain_graph,
    random_concat_graph,
    random_images,
    random_layer_graph,
    random_residual_graph,
    random_unrolled_graph,
)
from tests.ladder_grouped import random_grouped_graph
from winnow.compare import require_equal
from winnow.errors import GraphError, MismatchError
from winnow.fixed_point import IntArray
from winnow.winograd import winograd

# --- oracle 1: the spec in pure Python integers, one value at a time, no numpy arithmetic ---------


def rne(x: int, shift: int) -> int:
    return round(Fraction(x) / Fraction(2) ** shift)


def clamp(x: int, low: int, high: int) -> int:
    return max(low, min(high, x))


def operand(layer: Multiply, x: int, tap: int, ex: int) -> int:
    vmax = 2 ** (layer.v_bits - 1) - 1
    return clamp(rne(x, int(layer.v_exponent[tap]) - ex), -vmax, vmax)


def tap_shift(layer: Multiply, tap: int) -> int:
    return int(layer.v_exponent[tap]) + int(layer.weight_exponent[tap]) - layer.acc_exponent


def brute_winograd(layer: Winograd, d: Any, ex: int) -> dict[tuple[int, int, int], int]:
    """Return Y by (oc, y, x) for one image, a nested list [c][h][w]."""
    m, matrices = layer.m, winograd(layer.m)
    b_t, a_t, alpha = matrices.b_t.tolist(), matrices.a_t.tolist(), matrices.alpha
    height, width = len(d[0]), len(d[0][0])
    result = {}
    reads = layer.weight.shape[1]  # channels of a group
    each = len(layer.weight) // layer.groups

    def pixel(c: int, y: int, x: int) -> int:
        return d[c][y][x] if 0 <= y < height and 0 <= x < width else 0

    for top in range(0, height, m):
        for left in range(0, width, m):
            v = {}
            for c in range(len(d)):
                for t in range(alpha**2):
                    i, j = divmod(t, alpha)
                    x = sum(
                        b_t[i][p] * pixel(c, top + p - 1, left + q - 1) * b_t[j][q]
                        for p in range(alpha)
                        for q in range(alpha)
                    )
                    v[c, t] = operand(layer, x, t, ex)
            for oc in range(len(layer.weight)):
                grown = [
                    sum(
                        int(layer.weight[oc, c, t]) * v[oc // each * reads + c, t]
                        for c in range(reads)
                    )
                    * 2 ** tap_shift(layer, t)
                    for t in range(alpha**2)
                ]
                for y in range(min(m, height - top)):
                    for x in range(min(m, width - left)):
                        result[oc, top + y, left + x] = int(layer.bias[oc]) + sum(
                            a_t[y][p] * grown[p * alpha + q] * a_t[x][q]
                            for p in range(alpha)
                            for q in range(alpha)
                        )
    return result


def brute_linear(layer: Dense, d: Any, ex: int) -> dict[tuple[int, int, int], int]:
    """Return Y by (oc, 0, 0) of a dense layer."""
    values = [value for plane in d for row in plane for value in row]
    result = {}
    for oc, weights in enumerate(layer.weight):
        total = sum(
            int(weight) * operand(layer, value, 0, ex)
            for weight, value in zip(weights, values, strict=True)
        )
        result[oc, 0, 0] = total * 2 ** tap_shift(layer, 0) + int(layer.bias[oc])
    return result


def brute_direct(layer: Direct, d: Any, ex: int) -> dict[tuple[int, int, int], int]:
    """Return Y by (oc, y, x) of a direct convolution."""
    height, width = len(d[0]), len(d[0][0])
    result = {}
    reads, each = layer.weight.shape[1], len(layer.weight) // layer.groups
    for oc, row, column in np.ndindex(*layer.output.shape):
        total = 0
        for c, i, j in np.ndindex(*layer.weight.shape[1:]):
            y = row * layer.stride_rows - layer.top + i
            x = column * layer.stride_columns - layer.left + j
            if 0 <= y < height and 0 <= x < width:
                value = d[oc // each * reads + c][y][x]
                total += int(layer.weight[oc, c, i, j]) * operand(layer, value, 0, ex)
        result[oc, row, column] = total * 2 ** tap_shift(layer, 0) + int(layer.bias[oc])
    return result


BRUTE: dict[type[Node], Callable[..., dict[tuple[int, int, int], int]]] = {
    Winograd: brute_winograd,
    Direct: brute_direct,
    Unrolled: brute_direct,
    Dense: brute_linear,
}


def brute_node(layer: Node, d: Any, ex: int) -> IntArray:
    """Return one node's map [oc, h, w] for one image."""
    out = np.zeros(layer.output.shape, dtype=np.int64)
    if isinstance(layer, MaxPool):
        for c, row, column in np.ndindex(*layer.output.shape):
            top, left = row * layer.stride_rows - layer.top, column * layer.stride_columns
            rows = d[c][max(top, 0) : top + layer.rows]
            left -= layer.left
            out[c, row, column] = max(
                max(line[max(left, 0) : left + layer.columns]) for line in rows
            )
        return out
    assert isinstance(layer, Multiply)
    y = BRUTE[type(layer)](layer, d, ex)
    if layer.output.bits != 32:
        sign, bits = layer.output.signed, layer.output.bits
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if sign else (0, 2**bits - 1)
        shift = layer.output.exponent - layer.acc_exponent
        y = {at: clamp(rne(value, shift), low, high) for at, value in y.items()}
    for at, value in y.items():
        out[at] = value
    return out


def brute_add(node: Add, graph: Graph, maps: dict[str, IntArray]) -> IntArray:
    """Return the sum of two maps in exact fractions."""
    out = np.zeros(node.output.shape, dtype=np.int64)
    low, high = node.output.bounds
    for at in np.ndindex(*node.output.shape):
        terms = (int(maps[s][at]) * Fraction(2) ** graph.type_of(s).exponent for s in node.inputs)
        steps = sum(terms) / Fraction(2) ** node.output.exponent
        out[at] = clamp(round(steps), low, high)  # Python rounds half to even
    return out


def brute_average(node: GlobalAverage, graph: Graph, maps: dict[str, IntArray]) -> IntArray:
    """Return the mean of every channel times pixels / 2^k, in exact fractions."""
    source = graph.type_of(node.inputs[0])
    power = 1
    while power < source.height * source.width:
        power *= 2
    out = np.zeros(node.output.shape, dtype=np.int64)
    for c in range(source.channels):
        total = sum(maps[node.inputs[0]][c].flatten().tolist())
        steps = Fraction(total, power) * Fraction(2) ** (source.exponent - node.output.exponent)
        out[c, 0, 0] = clamp(round(steps), *node.output.bounds)
    return out


def brute_graph(graph: Graph, images: IntArray) -> dict[str, IntArray]:
    results: dict[str, list[IntArray]] = {node.name: [] for node in graph.nodes}
    for image in images:
        maps: dict[str, IntArray] = {"input": image}
        for node in graph.nodes:
            if isinstance(node, Concat):
                maps[node.name] = ints([c for source in node.inputs for c in maps[source]])
            elif isinstance(node, GlobalAverage):
                maps[node.name] = brute_average(node, graph, maps)
            elif isinstance(node, Add):
                maps[node.name] = brute_add(node, graph, maps)
            else:
                (source,) = node.inputs
                ex = graph.type_of(source).exponent
                maps[node.name] = brute_node(node, maps[source].tolist(), ex)
            results[node.name].append(maps[node.name])
    return {name: np.array(values) for name, values in results.items()}


def work(graph: Graph) -> int:
    return sum(
        layer.weight.size * kind.height * kind.width
        for layer in multiplies(graph)
        for kind in [graph.type_of(layer.inputs[0])]
    )


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(
    "make",
    [random_layer_graph, random_chain_graph, random_residual_graph, random_average_graph]
    + [random_concat_graph, random_unrolled_graph, random_grouped_graph],
)
def test_agrees_with_pure_python(make: Any, m: int) -> None:
    limit = 100_000 if make in (random_chain_graph, random_concat_graph) else 20_000
    cases = [(seed, graph) for seed in range(150) if work(graph := make(seed, m)) < limit]
    assert len(cases) >= 15
    for seed, graph in cases[:15]:
        images = random_images(graph, seed, 2)
        require_equal(brute_graph(graph, images), interpret(graph, images))


# --- oracle 2: direct convolution and plain sums, where quantization loses nothing ---------------


def ints(values: Any) -> IntArray:
    return np.array(values, dtype=np.int64)


def direct_convolution(d: IntArray, g: IntArray) -> IntArray:
    """Return the 3x3 convolution, stride 1, padding 1: d [n, c, h, w], g [oc, c, 3, 3]."""
    padded = np.pad(d, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.stack(
        [correlate(padded, kernel[None], mode="valid", method="direct")[:, 0] for kernel in g],
        axis=1,
    )


def lossless_winograd(m: int, g: IntArray, height: int, width: int) -> Graph:
    """Return a layer whose V and U are exact and whose output is (conv + bias) on grid 1.

    Rows of G are integers times 2^-r, for F(4,3) after a factor of 3, so `g` must hold multiples
    of 9 there.
    """
    row_exponent = ints({2: [0, 1, 1, 0], 4: [2, 1, 1, 3, 3, 0]}[m])
    exponent = -(row_exponent[:, None] + row_exponent[None, :]).reshape(-1)
    matrix = winograd(m).g
    u = np.einsum("ai,ocij,bj->ocab", matrix, g.astype(float), matrix)
    u = u.reshape(*g.shape[:2], -1) * 2.0**-exponent
    weight = np.round(u).astype(np.int64)
    np.testing.assert_allclose(weight, u, atol=1e-9)
    e = int(exponent.min())
    bias = np.arange(len(g), dtype=np.int64) - 1
    layer = Winograd(
        name="conv", inputs=("input",), m=m, weight=weight, bias=bias << -e,
        v_exponent=np.zeros_like(exponent), weight_exponent=exponent, v_bits=8, weight_bits=8,
        keep=8, acc_exponent=e,
        output=TensorType(len(g), height, width, 8, True, 0),
    )  # fmt: skip
    return Graph(TensorType(g.shape[1], height, width, 6, True, 0), (layer,))


@pytest.mark.parametrize(("m", "pixel", "weight", "factor"), [(2, 31, 2, 1), (4, 1, 2, 9)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (4, 4), (5, 7), (9, 8)])
def test_winograd_is_direct_convolution(
    m: int, pixel: int, weight: int, factor: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(height)
    g = rng.integers(-weight, weight + 1, size=(5, 3, 3, 3)) * factor
    images = rng.integers(-pixel, pixel + 1, size=(4, 3, height, width))
    graph = lossless_winograd(m, g, height, width)
    bias = np.arange(5)[:, None, None] - 1
    expected = np.clip(direct_convolution(images, g) + bias, -128, 127)
    assert len(np.unique(expected)) > 8
    np.testing.assert_array_equal(interpret(graph, images)["conv"], expected)


def linear_graph(op: type[Multiply], weight: IntArray, **changes: Any) -> Graph:
    """Return an exact layer on u7[6x2x3]: V = d and the accumulator grid is 2^0."""
    is_dense = op is Dense
    output = TensorType(len(weight), 1 if is_dense else 2, 1 if is_dense else 3, 8, True, 0)
    layer = op(
        name="linear", inputs=("input",), weight=weight, bias=np.zeros(len(weight), "i8"),
        v_exponent=ints([0]), weight_exponent=ints([0]), v_bits=8, weight_bits=8, keep=8,
        acc_exponent=0,
        output=replace(output, bits=32) if is_dense else output,
    )  # fmt: skip
    return Graph(TensorType(6, 2, 3, 7, False, 0), (replace(layer, **changes),))


def test_dense_is_a_matrix_product() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.integers(-127, 128, size=(5, 36)), rng.integers(-999, 999, size=5)
    images = rng.integers(0, 128, size=(7, 6, 2, 3))
    graph = linear_graph(Dense, weight, bias=bias)
    got = interpret(graph, images)["linear"]
    assert got.shape == (7, 5, 1, 1)
    np.testing.assert_array_equal(got[:, :, 0, 0], images.reshape(7, 36) @ weight.T + bias)


def test_pointwise_is_a_matrix_product_per_pixel() -> None:
    rng = np.random.default_rng(1)
    weight, images = rng.integers(-2, 3, size=(5, 6)), rng.integers(0, 128, size=(7, 6, 2, 3))
    kernel = weight[:, :, None, None]
    expected = np.einsum("oc,nchw->nohw", weight, images).clip(-128, 127)
    assert (expected == 127).any()
    assert (np.abs(expected) < 127).any()
    got = interpret(linear_graph(Direct, kernel), images)["linear"]
    np.testing.assert_array_equal(got, expected)


def one_weight(values: list[int], **changes: Any) -> list[int]:
    """Return what a single-channel pointwise layer with weight 1 makes of a row of pixels."""
    layer = linear_graph(Direct, ints([[[[1]]]])).nodes[0]
    output = changes.pop("output", (8, True, 0))
    output = TensorType(1, 1, len(values), *output)
    layer = replace(layer, output=output, **changes)
    graph = Graph(TensorType(1, 1, len(values), 8, True, 0), (layer,))
    return interpret(graph, ints(values).reshape(1, 1, 1, -1))["linear"].reshape(-1).tolist()


def test_output_ties_round_to_even() -> None:
    values = [-6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6, 7]
    assert one_weight(values, output=(8, True, 1)) == [-3, -2, -2, -1, 0, 0, 0, 1, 2, 2, 3, 4]


def test_operand_ties_round_to_even() -> None:
    doubled = one_weight(
        [-10, -6, -2, 2, 6, 10, 11], v_exponent=ints([2]), acc_exponent=0, output=(8, True, 2)
    )
    assert doubled == [-2, -2, 0, 0, 2, 2, 3]


def test_operand_saturates_to_the_narrow_range() -> None:
    assert one_weight([-128, -127, 127], v_bits=8) == [-127, -127, 127]
    assert one_weight([-128, -8, -7, 7, 8], v_bits=4) == [-7, -7, -7, 7, 7]


def test_output_saturates_to_the_full_range() -> None:
    values = [-128, -9, -8, 7, 8]
    assert one_weight(values, output=(4, True, 0)) == [-8, -8, -8, 7, 7]


def test_unsigned_output_is_the_relu() -> None:
    assert one_weight([-100, -1, 0, 1, 15, 16], output=(4, False, 0)) == [0, 0, 0, 1, 15, 15]


def test_bias_sits_on_the_accumulator_grid() -> None:
    got = one_weight([3], weight_exponent=ints([2]), bias=ints([-5]), acc_exponent=0)
    assert got == [3 * 4 - 5]


def test_pool_takes_the_maximum_and_drops_odd_edges() -> None:
    g = np.zeros((1, 1, 3, 3), dtype=np.int64)
    g[0, 0, 1, 1] = 1
    graph = lossless_winograd(2, g, 5, 3)
    conv = replace(graph.nodes[0], bias=ints([0]))
    image = ints([[-9, -7, 30], [-8, -6, 30], [4, 1, 30], [2, 3, 30], [30, 30, 30]])
    got = interpret(replace(graph, nodes=(conv, pool_of(conv))), image[None, None])
    assert got["conv"].tolist() == [[image.tolist()]]
    assert got["conv_pool"].tolist() == [[[[-6], [4]]]]


def test_raw_output_of_any_multiplication_is_its_accumulator() -> None:
    """F(2,3) of one weight at the middle: Y is the pixel and the bias, on the grid of 1/4."""
    g = np.zeros((1, 1, 3, 3), dtype=np.int64)
    g[0, 0, 1, 1] = 1
    graph = lossless_winograd(2, g, 5, 3)
    conv = multiplies(graph)[0]
    raw = replace(conv.output, bits=32, exponent=conv.acc_exponent)
    raw_graph = replace(graph, nodes=(replace(conv, output=raw, bias=ints([3])),))
    image = np.arange(-7, 8).reshape(1, 1, 5, 3)
    assert conv.acc_exponent == -2
    np.testing.assert_array_equal(interpret(raw_graph, image)["conv"], 4 * image + 3)


def sums(kind: TensorType, output: TensorType, values: list[int]) -> list[int]:
    """Return the sums of an input's values with themselves."""
    graph = Graph(kind, (Add(name="sum", inputs=("input", "input"), output=output),))
    return interpret(graph, ints(values).reshape(-1, 1, 1, 1))["sum"].flatten().tolist()


def test_sum_rounds_once_half_to_even_and_saturates() -> None:
    kind = TensorType(1, 1, 1, 8, True, 0)
    values = [-128, -3, -2, -1, 0, 1, 2, 3, 127]
    quarter = replace(kind, exponent=2)  # 2 x / 4
    assert sums(kind, quarter, values) == [-64, -2, -1, 0, 0, 0, 1, 2, 64]
    assert sums(kind, kind, values) == [-128, -6, -4, -2, 0, 2, 4, 6, 127]
    assert sums(kind, replace(kind, signed=False), values) == [0, 0, 0, 0, 0, 2, 4, 6, 254]
    assert sums(kind, replace(kind, exponent=-2), [-17, -16, 15, 16]) == [-128, -128, 120, 127]


def averages(height: int, width: int, exponent: int, value: int) -> int:
    """Return the average of a map of one value with exponent 0."""
    kind = TensorType(1, height, width, 8, True, 0)
    output = TensorType(1, 1, 1, 8, True, exponent)
    graph = Graph(kind, (GlobalAverage(name="mean", inputs=("input",), output=output),))
    return int(interpret(graph, np.full((1, 1, height, width), value))["mean"].item())


def test_average_is_the_mean_for_powers_of_two_and_a_known_part_of_it_else() -> None:
    assert [averages(4, 2, 0, value) for value in (-128, -3, 0, 5, 127)] == [-128, -3, 0, 5, 127]
    assert averages(1, 1, 0, 7) == 7
    assert averages(3, 4, 0, 100) == 75  # 12 of 16
    assert averages(7, 7, -1, 10) == 15  # 490 / 64 = 7.66, in halves
    assert averages(3, 1, 0, 2) == 2  # 6 / 4 = 1.5: to even
    assert averages(3, 1, 0, -6) == -4  # -18 / 4 = -4.5: to even


def test_every_record_has_semantics() -> None:
    assert set(RUNS) == set(NODES)


def test_nodes_read_the_map_they_name() -> None:
    identity = np.eye(6, dtype=np.int64)[:, :, None, None]
    first = linear_graph(Direct, identity).nodes[0]
    second = replace(first, name="twice", weight=2 * identity)
    both = replace(first, name="other", inputs=("twice",))
    graph = Graph(TensorType(6, 2, 3, 5, False, 0), (first, second, both))
    images = random_images(graph, 0, 3)
    maps = interpret(graph, images)
    assert list(maps) == ["linear", "twice", "other"]
    np.testing.assert_array_equal(maps["linear"], images)
    np.testing.assert_array_equal(maps["other"], 2 * images)


# --- behaviour ----------------------------------------------------------------------------------


def test_result_does_not_depend_on_the_batch() -> None:
    graph = random_chain_graph(3, 2)
    images = random_images(graph, 3, 70)  # more than two chunks
    whole = interpret(graph, images)
    for number in (0, 31, 32, 69):
        alone = interpret(graph, images[number : number + 1])
        require_equal({n: v[number : number + 1] for n, v in whole.items()}, alone)


def test_empty_batch_gives_empty_maps() -> None:
    graph = random_chain_graph(0, 4)
    maps = interpret(graph, random_images(graph, 0, 0))
    assert [maps[node.name].shape for node in graph.nodes] == [
        (0, *node.output.shape) for node in graph.nodes
    ]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 6, 2, 4), "i8"), "images must have shape nx6x2x3, got 1x6x2x4"),
        (np.zeros((6, 2, 3), "i8"), "images must have shape nx6x2x3, got 6x2x3"),
        (5, "images must have shape nx6x2x3, got a scalar"),
        (np.zeros((1, 6, 2, 3)), "images must be integers, got float64"),
        (
            np.arange(-35, 37).reshape(2, 6, 2, 3),
            "images must be in 0..127 for u7[6x2x3]*2^0, got -35 "
            "at image 0, channel 0, y 0, x 0",
        ),
        (
            np.full((1, 6, 2, 3), 200, dtype="u1"),
            "images must be in 0..127 for u7[6x2x3]*2^0, got 200 "
            "at image 0, channel 0, y 0, x 0",
        ),
    ],
)  # fmt: skip
def test_rejects_images(images: Any, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        interpret(linear_graph(Dense, np.ones((1, 36), dtype=np.int64)), images)
    assert str(caught.value) == message


def test_rejects_a_graph_that_breaks_a_rule() -> None:
    graph = linear_graph(Dense, np.full((1, 36), 128))
    with pytest.raises(GraphError, match=r"node 'linear': weight must be in -127..127"):
        interpret(graph, np.zeros((1, 6, 2, 3), "i8"))


def test_one_changed_weight_is_seen() -> None:
    graph = linear_graph(Dense, np.ones((2, 36), dtype=np.int64))
    images = np.full((2, 6, 2, 3), 3)
    golden = interpret(graph, images)
    weight = multiplies(graph)[0].weight.copy()
    weight[1, 20] = 2
    changed = change_node(graph, 0, weight=weight)
    with pytest.raises(MismatchError) as caught:
        require_equal(golden, interpret(changed, images))
    assert str(caught.value) == (
        "layer 'linear': image 0, channel 1, y 0, x 0 must be 108, got 111; 2 of 4 values differ"
    )


def test_digits_sized_net_is_fast() -> None:
    """conv 16, 32, pool, 32, 64, pool, dense on 16x16 maps; 5 s for 360 images is ample."""
    rng = np.random.default_rng(0)
    kind = TensorType(1, 16, 16, 8, False, -8)
    graph = Graph(kind, ())
    source, channels, edge = "input", 1, 16
    for number, (width, pool) in enumerate([(16, 0), (32, 1), (32, 0), (64, 1)]):
        layer = Winograd(
            name=f"conv{number}", inputs=(source,), m=2,
            weight=rng.integers(-127, 128, size=(width, channels, 16)),
            bias=np.zeros(width, dtype=np.int64), v_exponent=np.full(16, -6),
            weight_exponent=np.full(16, -7), v_bits=8, weight_bits=8, keep=8, acc_exponent=-13,
            output=TensorType(width, edge, edge, 8, False, -6),
        )  # fmt: skip
        nodes = (layer, pool_of(layer)) if pool else (layer,)
        graph = Graph(kind, (*graph.nodes, *nodes))
        source, channels, edge = nodes[-1].name, width, edge // (1 + pool)
    images = rng.integers(0, 256, size=(36, 1, 16, 16))
    start = time.process_time()
    interpret(graph, images)
    assert time.process_time() - start < 1
