# SPDX-License-Identifier: Apache-2.0
"""Feature maps in the engine's memory: [ceil(C / 8)][height][width][8] bytes.

One 64-bit word is one pixel of 8 consecutive channels, the lowest channel in the lowest byte. The
channels that pad the last group are zero when written by the host and unspecified when written by
the engine. The input may be written *unrolled*: what lies under a kernel at a pixel of the result
are the channels of that pixel. A raw map (int32 accumulators of a dense layer) is stored as four
byte planes: [ceil(C / 8)][4][8], lowest byte first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from codegen.ir import RAW_BITS, TensorType
from winnow.blocking import num_channel_groups
from winnow.errors import GraphError
from winnow.fixed_point import IntArray
from winnow.srbs import SUB_ROW
from winnow.window import Window

RAW_BYTES = RAW_BITS // 8


def num_words(tensor: TensorType) -> int:
    """Return the 64-bit words of a feature map."""
    planes = RAW_BYTES if tensor.is_raw else tensor.height * tensor.width
    return num_channel_groups(tensor.channels) * planes


def unrolled_type(tensor: TensorType, window: Window) -> TensorType:
    """Return the type of a map unrolled by a window."""
    height, width = window.outputs(tensor.height, tensor.width)
    channels = tensor.channels * window.positions
    return replace(tensor, channels=channels, height=height, width=width)


def unroll(maps: IntArray, window: Window) -> IntArray:
    """Return what lies under a window: [n, c, h, w] -> [n, c * kernel rows * columns, h', w'].

    [[1 2 3]], kernel 1x2, a column of zeros in front -> [[0 1 2]], [[1 2 3]]
    """
    n, c = maps.shape[:2]
    padded = np.pad(maps, [(0, 0), (0, 0)] + [(axis.before, axis.after) for axis in window.axes])
    kernel = window.rows.kernel, window.columns.kernel
    under = sliding_window_view(padded, kernel, axis=(2, 3))
    taken = under[:, :, :: window.rows.stride, :: window.columns.stride]  # n, c, h', w', rows, cols
    return taken.transpose(0, 1, 4, 5, 2, 3).reshape(n, c * window.positions, *taken.shape[2:4])


def pack_input(tensor: TensorType, window: Window | None, images: IntArray) -> NDArray[np.uint8]:
    """Lay out images [n, c, h, w] as bytes [n, words * 8], unrolled by a window if there is one.

    Raises GraphError as `pack_features`.
    """
    _require_maps(tensor, images)
    if window is None:
        return pack_features(tensor, images)
    return pack_features(unrolled_type(tensor, window), unroll(images, window))


def pack_features(tensor: TensorType, maps: IntArray) -> NDArray[np.uint8]:
    """Lay out integers [n, c, h, w] as bytes [n, words * 8].

    Raises GraphError when `maps` are not of the tensor's shape and range.
    """
    _require_maps(tensor, maps)
    n, c, h, w = maps.shape
    groups = num_channel_groups(c)
    padded = np.zeros((n, groups * SUB_ROW, h, w), dtype=np.int64)
    padded[:, :c] = maps
    words = padded.reshape(n, groups, SUB_ROW, h, w).transpose(0, 1, 3, 4, 2)
    return (words & 0xFF).astype(np.uint8).reshape(n, -1)


def _require_maps(tensor: TensorType, maps: IntArray) -> None:
    """Raise GraphError when `maps` are not of the tensor's shape and range."""
    low, high = tensor.bounds
    if maps.ndim != 4 or maps.shape[1:] != tensor.shape:
        shape = "x".join(str(length) for length in maps.shape)
        raise GraphError(f"feature maps must be {tensor} each, got an array of {shape}")
    if maps.size and not low <= maps.min() <= maps.max() <= high:
        raise GraphError(
            f"feature maps must be in {low}..{high} for {tensor}, got {maps.min()}..{maps.max()}"
        )


def unpack_features(tensor: TensorType, memory: NDArray[np.uint8]) -> IntArray:
    """Read bytes [n, words * 8] back as integers [n, c, h, w]."""
    groups = num_channel_groups(tensor.channels)
    if tensor.is_raw:
        planes = memory.reshape(len(memory), groups, RAW_BYTES, SUB_ROW).transpose(0, 1, 3, 2)
        values = np.ascontiguousarray(planes).view("<i4").reshape(len(memory), -1)
        return values[:, : tensor.channels, None, None].astype(np.int64)
    kind = np.int8 if tensor.signed else np.uint8
    words = memory.reshape(len(memory), groups, tensor.height, tensor.width, SUB_ROW).view(kind)
    maps = words.transpose(0, 1, 4, 2, 3).reshape(len(memory), -1, tensor.height, tensor.width)
    return maps[:, : tensor.channels].astype(np.int64)
