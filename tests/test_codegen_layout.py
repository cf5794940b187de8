# SPDX-License-Identifier: Apache-2.0
"""Feature maps in memory: the documented place of every byte, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.ir import TensorType
from codegen.layout import num_words, pack_features, unpack_features
from winnow.errors import GraphError

tensors = st.builds(
    TensorType,
    channels=st.integers(1, 20),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    bits=st.integers(2, 8),
    signed=st.booleans(),
    exponent=st.just(0),
)


@settings(deadline=None, max_examples=80)
@given(tensors, st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_every_byte_is_at_its_documented_place(tensor: TensorType, n: int, seed: int) -> None:
    low, high = tensor.bounds
    maps = np.random.default_rng(seed).integers(low, high + 1, size=(n, *tensor.shape))
    memory = pack_features(tensor, maps)
    assert memory.shape == (n, num_words(tensor) * 8)
    pixels = tensor.height * tensor.width
    assert num_words(tensor) == -(-tensor.channels // 8) * pixels
    for image, c, y, x in np.ndindex(maps.shape):
        word = c // 8 * pixels + y * tensor.width + x
        assert memory[image, 8 * word + c % 8] == maps[image, c, y, x] % 256
    padding = -tensor.channels % 8 * pixels * n
    assert (memory != 0).sum() == (maps != 0).sum()
    assert memory.size == maps.size + padding
    assert np.array_equal(unpack_features(tensor, memory), maps)


@settings(deadline=None, max_examples=80)
@given(tensors, st.integers(0, 2**32 - 1))
def test_padding_bytes_do_not_matter(tensor: TensorType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, tensor.bounds[1] + 1, size=(2, *tensor.shape))
    memory = pack_features(tensor, maps)
    everything = TensorType(-(-tensor.channels // 8) * 8, *tensor.shape[1:], 8, False, 0)
    noisy = unpack_features(everything, memory)
    noisy[:, tensor.channels :] = rng.integers(0, 256, size=noisy[:, tensor.channels :].shape)
    assert np.array_equal(unpack_features(tensor, pack_features(everything, noisy)), maps)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20))
def test_raw_maps_are_four_byte_planes(values: list[int]) -> None:
    tensor = TensorType(len(values), 1, 1, 32, True, 0)
    groups = -(-len(values) // 8)
    assert num_words(tensor) == 4 * groups
    memory = np.full((1, groups * 32), 0xA5, dtype=np.uint8)
    for channel, value in enumerate(values):
        for byte in range(4):
            place = (channel // 8 * 4 + byte) * 8 + channel % 8
            memory[0, place] = value >> 8 * byte & 0xFF
    assert unpack_features(tensor, memory).tolist() == [[[[value]] for value in values]]


def test_two_raw_images_stay_apart() -> None:
    tensor = TensorType(1, 1, 1, 32, True, 0)
    memory = np.zeros((2, 32), dtype=np.uint8)
    memory[0, 0], memory[1, 24] = 1, 0x80
    assert unpack_features(tensor, memory).ravel().tolist() == [1, -(2**31)]


def test_maps_of_another_shape_or_range_are_rejected() -> None:
    tensor = TensorType(3, 2, 2, 4, True, -1)
    with pytest.raises(GraphError) as caught:
        pack_features(tensor, np.zeros((5, 3, 2, 1), dtype=np.int64))
    assert str(caught.value) == (
        "feature maps must be s4[3x2x2]*2^-1 each, got an array of 5x3x2x1"
    )
    for value in (-9, 8):
        maps = np.full((1, 3, 2, 2), value)
        with pytest.raises(GraphError) as caught:
            pack_features(tensor, maps)
        assert str(caught.value) == (
            f"feature maps must be in -8..7 for s4[3x2x2]*2^-1, got {value}..{value}"
        )
    assert pack_features(tensor, np.full((1, 3, 2, 2), -8)).max() == 0xF8
