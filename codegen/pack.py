# SPDX-License-Identifier: Apache-2.0
"""Packed weights: lane matrices, SRBS entries, beats of the weight port, and the way back.

Before -> after, po = 1, keep = 2, one tap, one sub-row [0, 5, 0, 0, -3, 0, 0, 0]:
entries (value, index) = (5, 1), (-3, 4) -> low pairs {index, low nibble} = 0x15, 0x4d and high
nibbles 0x0, 0xf.

A block of po output channels is its biases (32 bits each, padded to a beat), then for every step
(sub-row, then kept weight) the words of all lanes. A low beat holds `lanes_per_beat` lane words of
po bytes {index[3:0], low nibble}; weights of more than 4 bits put a beat with the high nibbles of
two low beats before those. A direct step is a single word that all lanes share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen.fuse import EngineLayer
from codegen.ir import Convolution, Direct, MaxPool
from winnow.blocking import (
    AVERAGE_WINDOW,
    LayerShape,
    Op,
    bias_beats,
    num_channel_groups,
    weight_beats,
)
from winnow.engine import EngineConfig
from winnow.fixed_point import IntArray
from winnow.srbs import SUB_ROW, max_keep, to_sub_rows, without_groups
from winnow.window import Window

Bytes = NDArray[np.uint8]
LaneWeights = NDArray[np.int8]  # no weight has more than 8 bits


def linear_lanes(engine: EngineConfig) -> IntArray:
    """Return the lane that holds word i of a linear patch: patches fill column by column."""
    word = np.arange(engine.num_lanes)
    return (word % engine.alpha) * engine.alpha + word // engine.alpha


def lane_weights(engine: EngineConfig, layer: EngineLayer) -> LaneWeights:
    """Arrange a layer's weights as [oc padded to 8, lane channels, lanes].

    The engine knows no groups: all that an output channel does not read has weights of 0.
    Winograd: lanes are taps. Direct: one lane, shared; 8 channels at every place of the kernel,
    then the next 8. Dense: the input's 8-channel words in memory order are dealt to the lanes,
    `num_lanes` words per sub-row.
    """
    source, node = layer.input, layer.multiply
    weight = node.weight.astype(np.int8)
    if isinstance(node, Convolution):
        weight = without_groups(weight, node.groups)
    out_channels = weight.shape[0]
    padding = num_channel_groups(out_channels) * SUB_ROW - out_channels
    weight = np.pad(weight, [(0, padding)] + [(0, 0)] * (weight.ndim - 1))
    if layer.op is Op.WINOGRAD:
        return weight
    groups = num_channel_groups(source.channels)
    if not layer.has_weights:
        return np.zeros((len(weight), SUB_ROW, 1), dtype=np.int8)
    if layer.op is Op.DIRECT:
        places = np.zeros((len(weight), groups * SUB_ROW, weight[0, 0].size), dtype=np.int8)
        places[:, : source.channels] = weight.reshape(*weight.shape[:2], -1)
        by_group = places.reshape(len(weight), groups, SUB_ROW, -1).transpose(0, 1, 3, 2)
        return by_group.reshape(len(weight), -1, 1)
    channels = groups * SUB_ROW
    maps = np.zeros((len(weight), channels, source.height, source.width), dtype=np.int8)
    maps[:, : source.channels] = weight.reshape(len(weight), *source.shape)
    planes = maps.reshape(len(weight), groups, SUB_ROW, -1).transpose(0, 1, 3, 2)
    words = planes.reshape(len(weight), -1, SUB_ROW)  # [oc, word, channel in word]
    sub_rows = -(-words.shape[1] // engine.num_lanes)
    padded = np.zeros((len(weight), sub_rows * engine.num_lanes, SUB_ROW), dtype=np.int8)
    padded[:, : words.shape[1]] = words
    dealt = padded.reshape(len(weight), sub_rows, engine.num_lanes, SUB_ROW)
    lanes = np.empty_like(dealt)
    lanes[:, :, linear_lanes(engine)] = dealt
    return lanes.transpose(0, 1, 3, 2).reshape(len(weight), sub_rows * SUB_ROW, engine.num_lanes)


def layer_shape(layer: EngineLayer, weights: LaneWeights) -> LayerShape:
    """Return the size of a layer; `keep` is what its lane weights need."""
    return LayerShape(
        op=layer.op,
        in_channels=layer.input.channels,
        out_channels=layer.output.channels,
        height=layer.input.height,
        width=layer.input.width,
        keep=max_keep(weights),
        weight_bits=layer.multiply.weight_bits,
        pool=layer.pool is not None,
        window=_window(layer),
        maximum=not layer.has_weights,
        average=layer.average is not None,
        groups=getattr(layer.multiply, "groups", 1),
    )


def _window(layer: EngineLayer) -> Window:
    if layer.average is not None:
        return AVERAGE_WINDOW
    node = layer.maximum or layer.multiply
    return node.window if isinstance(node, Direct | MaxPool) else Window()


@dataclass(frozen=True)
class Entries:
    """Kept weights: `value` and `index` 0..7, both int8 [oc, sub-row, kept, lane]."""

    value: LaneWeights
    index: LaneWeights


def to_entries(weight: LaneWeights, keep: int) -> Entries:
    """Pick the non-zeros of every sub-row in ascending order; unused places are (0, 0).

    `weight` is [oc, channels, lanes] with at most `keep` non-zeros per sub-row (ValueError).
    """
    rows = to_sub_rows(weight)
    oc, sub_rows, _, lanes = rows.shape
    value = np.zeros((oc, sub_rows, keep, lanes), dtype=np.int8)
    index = np.zeros_like(value)
    kept = np.zeros((oc, sub_rows, lanes), dtype=np.int8)  # non-zeros up to the channel
    for channel in range(SUB_ROW):
        weights = rows[:, :, channel]
        here = weights != 0
        for place in range(min(channel + 1, keep)):
            taken = here & (kept == place)
            np.copyto(value[:, :, place], weights, where=taken)
            np.copyto(index[:, :, place], channel, where=taken)
        kept += here
    if kept.max(initial=0) > keep:
        raise ValueError(f"a sub-row has {kept.max()} non-zeros, keep is {keep}")
    return Entries(value, index)


def from_entries(entries: Entries) -> LaneWeights:
    """Inverse of `to_entries`: [oc, sub-rows * 8, lanes]."""
    oc, sub_rows, _, lanes = entries.value.shape
    rows = np.zeros((oc, sub_rows, SUB_ROW, lanes), dtype=np.int8)
    for kept in range(entries.value.shape[2]):
        index = entries.index[:, :, kept : kept + 1]
        before = np.take_along_axis(rows, index, axis=2)
        np.put_along_axis(rows, index, before + entries.value[:, :, kept : kept + 1], axis=2)
    return rows.reshape(oc, sub_rows * SUB_ROW, lanes)


def _interleave(low: Bytes, nibbles: Bytes) -> Bytes:
    """Put a beat of high nibbles before every two low beats.

    `low` and `nibbles` are [blocks, low beats, bytes of a beat]; nibbles 0..15.
    """
    blocks, num_low, width = low.shape
    pairs = -(-num_low // 2)
    padded = np.zeros((blocks, pairs * 2, width), dtype=np.uint8)
    padded[:, :num_low] = nibbles
    padded = padded.reshape(blocks, pairs, width, 2)
    beats = np.zeros((blocks, pairs, 3, width), dtype=np.uint8)
    beats[:, :, 0] = padded[..., 0] | (padded[..., 1] << 4)
    both = np.zeros((blocks, pairs * 2, width), dtype=np.uint8)
    both[:, :num_low] = low
    beats[:, :, 1:] = both.reshape(blocks, pairs, 2, width)
    return beats.reshape(blocks, pairs * 3, width)[:, : pairs + num_low]


def pack_weights(engine: EngineConfig, layer: EngineLayer, weights: LaneWeights) -> Bytes:
    """Pack a layer's lane weights for one strip: bytes [blocks, beats, bytes of a beat]."""
    shape = layer_shape(layer, weights)
    entries = to_entries(weights, shape.keep)
    oc, sub_rows, keep, lanes = entries.value.shape
    blocks, steps = oc // engine.po, sub_rows * keep
    width = engine.axi_bits // 8

    def beats_of(part: LaneWeights) -> Bytes:  # [oc, sub, kept, lane] -> [blocks, low beats, width]
        words = part.reshape(blocks, engine.po, steps * lanes).transpose(0, 2, 1)
        num_low = -(-steps * lanes // engine.lanes_per_beat)
        flat = np.zeros((blocks, num_low * width), dtype=np.uint8)
        flat[:, : words[0].size] = words.reshape(blocks, -1).astype(np.uint8)
        return flat.reshape(blocks, num_low, width)

    beats = beats_of((entries.index << 4) | (entries.value & 0xF))
    if shape.wide_weights:
        beats = _interleave(beats, beats_of((entries.value >> 4) & 0xF))
    if beats.shape[1] != weight_beats(engine, shape, steps):
        raise AssertionError(f"packed {beats.shape[1]} beats, the cycle model counts otherwise")
    return np.concatenate([_pack_biases(engine, layer, blocks), beats], axis=1)


def _pack_biases(engine: EngineConfig, layer: EngineLayer, blocks: int) -> Bytes:
    biases = np.zeros(blocks * engine.po, dtype="<i4")
    bias = layer.multiply.bias
    biases[: len(bias)] = bias
    per_block = np.zeros((blocks, bias_beats(engine) * engine.axi_bits // 32), dtype="<i4")
    per_block[:, : engine.po] = biases.reshape(blocks, engine.po)
    return per_block.view(np.uint8).reshape(blocks, bias_beats(engine), -1)


def unpack_weights(
    engine: EngineConfig, shape: LayerShape, lanes: int, packed: Bytes
) -> tuple[LaneWeights, IntArray]:
    """Inverse of `pack_weights`: lane weights [oc padded, channels, lanes] and biases."""
    blocks = packed.shape[0]
    biases = packed[:, : bias_beats(engine)].reshape(blocks, -1).view("<i4")[:, : engine.po]
    low = packed[:, bias_beats(engine) :]
    nibbles = np.zeros_like(low)
    if shape.wide_weights:
        is_high = np.arange(low.shape[1]) % 3 == 0
        high, low = low[:, is_high], low[:, ~is_high]
        both = np.stack([high & 0xF, high >> 4], axis=-1).reshape(blocks, -1, high.shape[2])
        nibbles = both[:, : low.shape[1]]
    pairs = low.reshape(blocks, -1).astype(np.int64)
    upper = nibbles.reshape(blocks, -1).astype(np.int64)
    value = (pairs & 0xF) | (upper << 4)
    sign = 0x80 if shape.wide_weights else 0x8
    value = (value ^ sign) - sign

    num_steps = pairs.shape[1] // engine.po // lanes
    sub_rows = num_steps // shape.keep

    def entries_of(part: IntArray) -> LaneWeights:
        words = part[:, : sub_rows * shape.keep * lanes * engine.po]
        words = words.reshape(blocks, sub_rows, shape.keep, lanes, engine.po)
        dealt = words.transpose(0, 4, 1, 2, 3).reshape(-1, sub_rows, shape.keep, lanes)
        return dealt.astype(np.int8)

    entries = Entries(entries_of(value), entries_of(pairs >> 4))
    return from_entries(entries), biases.reshape(-1).astype(np.int64)
