# SPDX-License-Identifier: Apache-2.0
"""Packed weights: the documented bits, and the way back on every engine variant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.fuse import EngineLayer, fuse
from codegen.ir import INPUT, Dense, Direct, Graph, Multiply, TensorType, Winograd
from codegen.layout import pack_features
from codegen.pack import (
    Bytes,
    from_entries,
    lane_weights,
    layer_shape,
    linear_lanes,
    pack_weights,
    to_entries,
    unpack_weights,
)
from tests.engines import ENGINES
from tests.ladder import random_images, random_layer_graph
from winnow.blocking import Op, bias_beats, weight_beats
from winnow.engine import EngineConfig
from winnow.fixed_point import IntArray
from winnow.srbs import max_keep, num_sub_rows


def linear_layer(
    op: type[Multiply], weight: IntArray, kind: TensorType, weight_bits: int = 8
) -> EngineLayer:
    """Return a pointwise or dense layer; only its sizes and weights matter here."""
    node = op(
        name="layer",
        inputs=(INPUT,),
        weight=weight[:, :, None, None] if op is Direct else weight,
        bias=np.arange(len(weight)) - 2,
        v_exponent=np.zeros(1, dtype=np.int64),
        weight_exponent=np.zeros(1, dtype=np.int64),
        v_bits=8,
        weight_bits=weight_bits,
        keep=8,
        acc_exponent=0,
        output=TensorType(len(weight), kind.height, kind.width, 8, True, 0),
    )
    return fuse(Graph(kind, (node,)))[0]


def packed_weights(engine: EngineConfig, layer: EngineLayer) -> Bytes:
    return pack_weights(engine, layer, lane_weights(engine, layer))


@pytest.mark.parametrize("name", ENGINES)
def test_unpacking_is_the_inverse_of_packing(name: str) -> None:
    engine = ENGINES[name]
    seen = set()
    for seed in range(60):
        graph = random_layer_graph(seed, engine.m)
        (layer,) = fuse(graph)
        expected_bias = layer.multiply.bias
        lanes = lane_weights(engine, layer)
        shape = layer_shape(layer, lanes)
        packed = pack_weights(engine, layer, lanes)
        steps = num_sub_rows(lanes.shape[1]) * shape.keep
        assert packed.shape == (
            len(lanes) // engine.po,
            bias_beats(engine) + weight_beats(engine, shape, steps),
            engine.axi_bits // 8,
        )
        weight, bias = unpack_weights(engine, shape, lanes.shape[2], packed)
        assert np.array_equal(weight[:, : lanes.shape[1]], lanes)
        assert not weight[:, lanes.shape[1] :].any()
        assert np.array_equal(bias[: len(expected_bias)], expected_bias)
        assert not bias[len(expected_bias) :].any()
        seen.add((shape.op, shape.wide_weights))
    assert seen == {(op, wide) for op in Op for wide in (False, True)}


def test_entries_of_the_module_example() -> None:
    """One row of the docstring: (5, 1) and (-3, 4) are 0x15, 0x4d with high nibbles 0x0, 0xf."""
    engine = EngineConfig(m=2, po=1, pt=1)  # 8 pairs in a beat
    kind = TensorType(8, 1, 1, 8, True, 0)
    weight = np.array([[0, 5, 0, 0, -3, 0, 0, 0]])
    wide = packed_weights(engine, linear_layer(Direct, weight, kind))
    assert wide.shape == (8, 3, 8)  # padded to 8 channels; biases, high nibbles, pairs
    assert wide[0].tolist() == [
        [0xFE, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0],
        [0xF0, 0, 0, 0, 0, 0, 0, 0],
        [0x15, 0x4D, 0, 0, 0, 0, 0, 0],
    ]
    narrow = packed_weights(engine, linear_layer(Direct, weight, kind, 4))
    assert narrow[0].tolist() == [wide[0, 0].tolist(), wide[0, 2].tolist()]
    assert not wide[1:].any()


def test_high_nibbles_go_before_every_two_low_beats() -> None:
    engine = EngineConfig(m=2, po=8, pt=1)  # a beat is one word of 8 output channels
    kind = TensorType(24, 1, 1, 8, True, 0)
    weight = np.zeros((8, 24), dtype=np.int64)
    weight[:, [0, 9, 18]] = [0x12, 0x34, 0x56]
    packed = packed_weights(engine, linear_layer(Direct, weight, kind))
    beats = packed[0, bias_beats(engine) :].tolist()
    assert beats[0] == [0x11] * 4 + [0x33] * 4  # for beats 1 and 2
    assert beats[1] == [0x02] * 8
    assert beats[2] == [0x14] * 8
    assert beats[3] == [0x55] * 4 + [0x00] * 4  # for beat 4 alone
    assert beats[4] == [0x26] * 8
    assert len(beats) == 5


def is_winograd(graph: Graph) -> bool:
    return isinstance(graph.nodes[0], Winograd)


def test_lanes_of_a_step_come_before_the_next_step() -> None:
    engine = EngineConfig(m=2, po=8, pt=1)
    graph = next(g for g in (random_layer_graph(seed, 2) for seed in range(9)) if is_winograd(g))
    kind = TensorType(2, 4, 4, 8, True, 0)
    weight = np.zeros((8, 2, 16), dtype=np.int64)
    weight[:, 0] = np.arange(1, 17) % 7 + 1
    weight[:, 1] = 1
    node = replace(
        graph.nodes[0],
        m=2,
        weight=weight,
        bias=np.zeros(8, dtype=np.int64),
        weight_bits=4,
        output=TensorType(8, 4, 4, 8, True, 0),
    )
    (layer,) = fuse(Graph(kind, (node,)))
    beats = packed_weights(engine, layer)[0, bias_beats(engine) :, 0].tolist()
    assert beats == [n % 7 + 1 for n in range(1, 17)] + [0x11] * 16


@pytest.mark.parametrize("m", [2, 4])
def test_linear_lanes_are_a_permutation(m: int) -> None:
    engine = EngineConfig(m=m)
    lanes = linear_lanes(engine)
    assert sorted(lanes.tolist()) == list(range(engine.num_lanes))
    assert lanes[:3].tolist() == [0, engine.alpha, 2 * engine.alpha]


@pytest.mark.parametrize("name", ["default", "large_tile"])
def test_dense_lanes_see_the_words_of_memory_in_order(name: str) -> None:
    """Deal the bytes of a packed map to the lanes as the engine does: the sum is the dense one."""
    engine, checked = ENGINES[name], 0
    for seed in range(200):
        graph: Graph = random_layer_graph(seed, engine.m)
        node, kind = graph.nodes[0], graph.input
        if not isinstance(node, Dense):
            continue
        image = random_images(graph, seed, 1)
        memory = pack_features(kind, image).reshape(-1, 8).astype(np.int64)
        values = np.where(memory > 127, memory - 256, memory) if kind.signed else memory
        lanes = lane_weights(engine, fuse(graph)[0]).astype(np.int64)
        sums = np.zeros(len(lanes), dtype=np.int64)
        for word, channels in enumerate(values):
            sub_row, place = divmod(word, engine.num_lanes)
            lane = linear_lanes(engine)[place]
            sums += lanes[:, 8 * sub_row : 8 * sub_row + 8, lane] @ channels
        assert np.array_equal(sums[: len(node.bias)], node.weight @ image.ravel())
        assert not sums[len(node.bias) :].any()
        checked += 1
    assert checked >= 15


def test_shape_takes_the_keep_that_weights_need() -> None:
    kind = TensorType(16, 1, 1, 8, True, 0)
    weight = np.zeros((3, 16), dtype=np.int64)
    weight[1, [2, 4, 9]] = 1
    layer = linear_layer(Direct, weight, kind)
    shape = layer_shape(layer, lane_weights(EngineConfig(), layer))
    assert (shape.keep, shape.in_channels, shape.out_channels) == (2, 16, 3)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 4), st.integers(1, 3))
def test_entries_hold_every_weight_in_ascending_order(
    seed: int, channels_per_row: int, sub_rows: int, lanes: int
) -> None:
    rng = np.random.default_rng(seed)
    channels = sub_rows * 8
    weight = rng.integers(-127, 128, size=(3, channels, lanes))
    weight[rng.random(weight.shape) > channels_per_row / 8] = 0
    keep = max_keep(weight)
    entries = to_entries(weight, keep)
    assert entries.value.shape == entries.index.shape == (3, sub_rows, keep, lanes)
    assert (entries.index[entries.value == 0] == 0).all()
    used = entries.value != 0
    assert (used[:, :, :-1] | ~used[:, :, 1:]).all(), "unused places come last"
    rising = entries.index[:, :, 1:] > entries.index[:, :, :-1]
    assert rising[used[:, :, 1:]].all()
    assert np.array_equal(from_entries(entries), weight)


def test_too_many_weights_for_keep_are_rejected() -> None:
    weight = np.ones((1, 8, 1), dtype=np.int64)
    with pytest.raises(ValueError, match="a sub-row has 8 non-zeros, keep is 7"):
        to_entries(weight, 7)
    assert to_entries(weight, 8).index.ravel().tolist() == list(range(8))
