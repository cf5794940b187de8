# SPDX-License-Identifier: Apache-2.0
"""The reference semantics of integer graphs: `docs/ir.md` in numpy, tile by tile.

Enter a graph and a batch of integer images; leave every node's map. It is the judge of the
generated code, so it shares no code and no tuning knobs with the engine: no strips, no packing, no
sparsity, no word lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from codegen.check import check_graph
from codegen.ir import (
    INPUT,
    Add,
    Concat,
    Dense,
    Direct,
    GlobalAverage,
    Graph,
    MaxPool,
    Multiply,
    Node,
    NodeMaps,
    TensorType,
    Unrolled,
    Winograd,
)
from winnow.errors import GraphError
from winnow.fixed_point import IntArray, int_range, requantize
from winnow.progress import Progress
from winnow.winograd import winograd

_CHUNK_IMAGES = 32  # bounds the memory of the tile arrays; every image is independent


def interpret(graph: Graph, images: ArrayLike) -> NodeMaps:
    """Return the map of every node, [n, c, h, w] int64, for `images` [n, c, h, w].

    A dense output is [n, oc, 1, 1]. Raises GraphError when the graph breaks a rule or the images
    have another shape, are not integers or leave the range of the graph's input.
    """
    check_graph(graph)
    checked = _check_images(graph.input, np.asarray(images))
    starts = range(0, max(1, len(checked)), _CHUNK_IMAGES)
    with Progress("interpreter", len(starts) * len(graph.nodes)) as progress:
        parts = [
            _interpret_chunk(graph, checked[start : start + _CHUNK_IMAGES], progress)
            for start in starts
        ]
    return {node.name: np.concatenate([part[node.name] for part in parts]) for node in graph.nodes}


def _check_images(kind: TensorType, images: NDArray[Any]) -> IntArray:
    if images.ndim != 4 or images.shape[1:] != kind.shape:
        want = "x".join(str(length) for length in kind.shape)
        got = "x".join(str(length) for length in images.shape) or "a scalar"
        raise GraphError(f"images must have shape nx{want}, got {got}")
    if not np.issubdtype(images.dtype, np.integer):
        raise GraphError(f"images must be integers, got {images.dtype}")
    low, high = kind.bounds
    outside = (images < low) | (images > high)
    if outside.any():
        image, channel, y, x = np.argwhere(outside)[0]
        raise GraphError(
            f"images must be in {low}..{high} for {kind}, got {images[outside][0]} "
            f"at image {image}, channel {channel}, y {y}, x {x}"
        )
    return images.astype(np.int64)


@dataclass(frozen=True, eq=False)
class _Map:
    """What a node reads: integers [n, c, h, w] and their exponent."""

    values: IntArray
    exponent: int


def _interpret_chunk(graph: Graph, images: IntArray, progress: Progress) -> NodeMaps:
    maps = {INPUT: _Map(images, graph.input.exponent)}
    for node in graph.nodes:
        values = RUNS[type(node)](node, *(maps[name] for name in node.inputs))
        maps[node.name] = _Map(values, node.output.exponent)
        progress.add()
    return {name: found.values for name, found in maps.items()}


def _winograd(node: Winograd, d: _Map) -> IntArray:
    return _output(node, _winograd_sums(node, d))


def _direct(node: Direct, d: _Map) -> IntArray:
    return _output(node, _direct_sums(node, d))


def _dense(node: Dense, d: _Map) -> IntArray:
    flat = d.values.reshape(len(d.values), node.weight.shape[1], 1, 1)
    return _output(node, _linear_sums(node, _Map(flat, d.exponent)))


def _max_pool(node: MaxPool, d: _Map) -> IntArray:
    edges = ((0, 0), (0, 0), (node.top, node.bottom), (node.left, node.right))
    least = np.iinfo(np.int64).min
    padded = np.pad(d.values, edges, constant_values=least)
    windows = sliding_window_view(padded, (node.rows, node.columns), axis=(2, 3))
    taken = windows[:, :, :: node.stride_rows, :: node.stride_columns]
    largest: IntArray = taken.max(axis=(4, 5))
    return largest


def _add(node: Add, a: _Map, b: _Map) -> IntArray:
    e = min(a.exponent, b.exponent)
    aligned = (a.values << (a.exponent - e)) + (b.values << (b.exponent - e))
    return requantize(aligned, node.output.exponent - e, *node.output.bounds)


def _global_average(node: GlobalAverage, d: _Map) -> IntArray:
    n, c, height, width = d.values.shape
    total = d.values.sum(axis=(2, 3)).reshape(n, c, 1, 1)
    log2_pixels = math.ceil(math.log2(height * width))
    shift = node.output.exponent - d.exponent + log2_pixels
    return requantize(total, shift, *node.output.bounds)


def _concat(_: Concat, *maps: _Map) -> IntArray:
    return np.concatenate([d.values for d in maps], axis=1)


RUNS: Mapping[type[Node], Callable[..., IntArray]] = {
    Winograd: _winograd,
    Direct: _direct,
    Unrolled: _direct,
    Dense: _dense,
    MaxPool: _max_pool,
    Add: _add,
    GlobalAverage: _global_average,
    Concat: _concat,
}


def _output(node: Multiply, y: IntArray) -> IntArray:
    """Return what a node makes of its accumulators Y [n, oc, h, w]."""
    if node.output.is_raw:
        return y
    low, high = node.output.bounds
    return requantize(y, node.output.exponent - node.acc_exponent, low, high)


def _direct_sums(node: Direct, d: _Map) -> IntArray:
    """Return Y [n, oc, h, w] of a convolution over `d`, one place of the kernel after another."""
    n, c, _, _ = d.values.shape
    kernels = node.weight.reshape(node.groups, -1, *node.weight.shape[1:])  # [groups, oc, ic, ...]
    _, height, width = node.output.shape
    edges = ((0, 0), (0, 0), (node.top, node.bottom), (node.left, node.right))
    v = np.pad(_operand(node, d.values, d.exponent), edges)
    sums = np.zeros((n, *kernels.shape[:2], height * width), dtype=np.int64)
    for row, column in np.ndindex(*node.weight.shape[2:]):
        down = slice(row, row + (height - 1) * node.stride_rows + 1, node.stride_rows)
        across = slice(column, column + (width - 1) * node.stride_columns + 1, node.stride_columns)
        seen = v[:, :, down, across].reshape(n, node.groups, c // node.groups, height * width)
        sums += _exact_matmul(kernels[..., row, column], seen)
    shifted = sums.reshape(n, *node.output.shape) << _shift(node)
    biased: IntArray = shifted + node.bias[:, None, None]
    return biased


def _linear_sums(node: Multiply, d: _Map) -> IntArray:
    """Return Y [n, oc, h, w] of a matrix [oc, c] times every pixel of `d` [n, c, h, w]."""
    n, c, height, width = d.values.shape
    v = _operand(node, d.values, d.exponent).reshape(n, c, height * width)
    sums = _exact_matmul(node.weight, v).reshape(n, len(node.weight), height, width)
    return (sums << _shift(node)) + node.bias[:, None, None]


def _winograd_sums(node: Winograd, d: _Map) -> IntArray:
    """Return Y [n, oc, h, w] of a 3x3 convolution, stride 1, zero padding 1, over `d`."""
    m, matrices = node.m, winograd(node.m)
    alpha = matrices.alpha
    n, c, height, width = d.values.shape
    rows, columns = -(-height // m), -(-width // m)
    below, right = rows * m + 1 - height, columns * m + 1 - width
    padded = np.pad(d.values, ((0, 0), (0, 0), (1, below), (1, right)))
    tiles = sliding_window_view(padded, (alpha, alpha), axis=(2, 3))[:, :, ::m, ::m]
    transformed = _sandwich(matrices.b_t, tiles)  # [n, c, rows, columns, alpha, alpha]
    v = _operand(node, transformed.reshape(n, c, rows * columns, alpha**2), d.exponent)
    # One matrix product per tap and group, here of a single one:
    # [taps, oc, ic] @ [n, taps, ic, tiles] -> [n, taps, oc, tiles].
    kernels = node.weight.reshape(node.groups, -1, *node.weight.shape[1:]).transpose(3, 0, 1, 2)
    seen = v.reshape(n, node.groups, c // node.groups, *v.shape[2:]).transpose(0, 4, 1, 2, 3)
    sums = _exact_matmul(kernels, seen).reshape(n, alpha**2, len(node.weight), rows * columns)
    shifted = sums.transpose(0, 2, 3, 1) << _shift(node)
    y = _sandwich(matrices.a_t, shifted.reshape(n, len(node.weight), rows, columns, alpha, alpha))
    joined = y.transpose(0, 1, 2, 4, 3, 5).reshape(n, len(node.weight), rows * m, columns * m)
    return joined[:, :, :height, :width] + node.bias[:, None, None]


def _sandwich(t: IntArray, tiles: IntArray) -> IntArray:
    """Return T X T^T for every tile X in [..., rows, columns]."""
    half = np.einsum("ij,...jk->...ik", t, tiles)
    result: IntArray = np.einsum("...ik,lk->...il", half, t)
    return result


def _operand(node: Multiply, x: IntArray, ex: int) -> IntArray:
    """Return V: `x` on the grid of v_exponent, which runs along the last axis or is a scalar."""
    low, high = int_range(node.v_bits, signed=True, narrow=True)
    return requantize(x, node.v_exponent - ex, low, high)


def _shift(node: Multiply) -> IntArray:
    return node.v_exponent + node.weight_exponent - node.acc_exponent


def _exact_matmul(weight: IntArray, v: IntArray) -> IntArray:
    """Return weight @ v exactly, through float64 BLAS; int64 matmul is 50 times slower.

    Exact because check_graph holds weights and operands to 8 bits: |U|, |V| <= 127, so a product
    is below 2^14 and any partial sum of K of them, in whatever order BLAS adds, is an integer
    below K * 2^14. float64 represents every integer up to 2^53, so no sum rounds for K <= 2^39,
    more inputs than memory holds.
    """
    product = np.matmul(weight.astype(np.float64), v.astype(np.float64))
    exact: IntArray = product.astype(np.int64)
    return exact
