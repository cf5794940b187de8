# SPDX-License-Identifier: Apache-2.0
"""The reference semantics of integer graphs: `docs/ir.md` in numpy, tile by tile.

Enter a graph and a batch of integer images; leave every layer's output. It is the judge of the
generated code, so it shares no code and no tuning knobs with the engine: no strips, no packing, no
sparsity, no word lengths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from codegen.check import check_graph
from codegen.ir import INPUT, Graph, Layer, LayerMaps, Op, TensorType
from winnow.errors import GraphError
from winnow.fixed_point import IntArray, int_range, requantize
from winnow.winograd import winograd

_CHUNK_IMAGES = 32  # bounds the memory of the tile arrays; every image is independent


def interpret(graph: Graph, images: ArrayLike) -> LayerMaps:
    """Return the output of every layer, [n, c, h, w] int64, for `images` [n, c, h, w].

    A dense output is [n, oc, 1, 1]. Raises GraphError when the graph breaks a rule or the images
    have another shape, are not integers or leave the range of the graph's input.
    """
    check_graph(graph)
    checked = _check_images(graph.input, np.asarray(images))
    parts = [
        _interpret_chunk(graph, checked[start : start + _CHUNK_IMAGES])
        for start in range(0, max(1, len(checked)), _CHUNK_IMAGES)
    ]
    return {
        layer.name: np.concatenate([part[layer.name] for part in parts]) for layer in graph.layers
    }


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


def _interpret_chunk(graph: Graph, images: IntArray) -> LayerMaps:
    maps: LayerMaps = {INPUT: images}
    for layer in graph.layers:
        ex = graph.type_of(layer.source).exponent
        maps[layer.name] = _run_layer(layer, maps[layer.source], ex)
    return maps


def _run_layer(layer: Layer, d: IntArray, ex: int) -> IntArray:
    if layer.op is Op.WINOGRAD:
        y = _winograd(layer, d, ex)
    elif layer.op is Op.POINTWISE:
        y = _linear(layer, d, ex)
    else:
        y = _linear(layer, d.reshape(len(d), layer.weight.shape[1], 1, 1), ex)
    if layer.raw:
        return y
    low, high = layer.output.bounds
    out = requantize(y, layer.output.exponent - layer.acc_exponent, low, high)
    return _pool(out) if layer.pool else out


def _linear(layer: Layer, d: IntArray, ex: int) -> IntArray:
    """Return Y [n, oc, h, w] of a 1x1 layer over `d` [n, c, h, w]."""
    n, c, height, width = d.shape
    v = _operand(layer, d, ex).reshape(n, c, height * width)
    sums = _exact_matmul(layer.weight, v).reshape(n, len(layer.weight), height, width)
    return (sums << _shift(layer)) + layer.bias[:, None, None]


def _winograd(layer: Layer, d: IntArray, ex: int) -> IntArray:
    """Return Y [n, oc, h, w] of a 3x3 layer, stride 1, zero padding 1, over `d` [n, c, h, w]."""
    m, matrices = layer.m, winograd(layer.m)
    alpha = matrices.alpha
    n, c, height, width = d.shape
    rows, columns = -(-height // m), -(-width // m)
    below, right = rows * m + 1 - height, columns * m + 1 - width
    padded = np.pad(d, ((0, 0), (0, 0), (1, below), (1, right)))
    tiles = sliding_window_view(padded, (alpha, alpha), axis=(2, 3))[:, :, ::m, ::m]
    transformed = _sandwich(matrices.b_t, tiles)  # [n, c, rows, columns, alpha, alpha]
    v = _operand(layer, transformed.reshape(n, c, rows * columns, alpha**2), ex)
    # One matrix product per tap: [taps, oc, ic] @ [n, taps, ic, tiles] -> [n, taps, oc, tiles].
    sums = _exact_matmul(layer.weight.transpose(2, 0, 1), v.transpose(0, 3, 1, 2))
    shifted = sums.transpose(0, 2, 3, 1) << _shift(layer)
    y = _sandwich(matrices.a_t, shifted.reshape(n, len(layer.weight), rows, columns, alpha, alpha))
    joined = y.transpose(0, 1, 2, 4, 3, 5).reshape(n, len(layer.weight), rows * m, columns * m)
    return joined[:, :, :height, :width] + layer.bias[:, None, None]


def _sandwich(t: IntArray, tiles: IntArray) -> IntArray:
    """Return T X T^T for every tile X in [..., rows, columns]."""
    half = np.einsum("ij,...jk->...ik", t, tiles)
    result: IntArray = np.einsum("...ik,lk->...il", half, t)
    return result


def _operand(layer: Layer, x: IntArray, ex: int) -> IntArray:
    """Return V: `x` on the grid of v_exponent, which runs along the last axis or is a scalar."""
    low, high = int_range(layer.v_bits, signed=True, narrow=True)
    return requantize(x, layer.v_exponent - ex, low, high)


def _shift(layer: Layer) -> IntArray:
    return layer.v_exponent + layer.weight_exponent - layer.acc_exponent


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


def _pool(x: IntArray) -> IntArray:
    """Return the maximum of 2x2 windows, stride 2; an odd last row or column is dropped."""
    n, c, height, width = x.shape
    even = x[:, :, : height // 2 * 2, : width // 2 * 2]
    windows = even.reshape(n, c, height // 2, 2, width // 2, 2)
    largest: IntArray = windows.max(axis=(3, 5))
    return largest
