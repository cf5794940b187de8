# SPDX-License-Identifier: Apache-2.0
"""Sizes that follow from an engine's parameters."""

from __future__ import annotations

from itertools import product

import pytest

from winnow.engine import EngineConfig
from winnow.errors import ConfigError
from winnow.schema import from_table
from winnow.winograd import winograd


def test_derived_sizes_of_the_default_engine() -> None:
    engine = EngineConfig()
    assert (engine.alpha, engine.num_lanes, engine.num_dsp) == (4, 16, 64)
    assert (engine.tile_pixels, engine.linear_tiles, engine.linear_pixels) == (4, 4, 16)
    assert (engine.lanes_per_beat, engine.blocks_per_group, engine.transform_channels) == (2, 2, 4)


def test_derived_sizes_of_a_large_tile() -> None:
    engine = EngineConfig(m=4, po=8, axi_bits=128)
    assert (engine.alpha, engine.num_lanes, engine.num_dsp) == (6, 36, 288)
    assert (engine.tile_pixels, engine.linear_tiles, engine.linear_pixels) == (16, 2, 32)
    assert (engine.lanes_per_beat, engine.blocks_per_group, engine.transform_channels) == (2, 1, 2)


def test_every_engine_is_consistent_or_rejected() -> None:
    rejected = []
    for m, po, axi_bits in product((2, 4), (1, 2, 4, 8), (64, 128)):
        try:
            engine = EngineConfig(m=m, po=po, axi_bits=axi_bits)
        except ConfigError:
            rejected.append((m, po, axi_bits))
            continue
        assert engine.num_lanes == winograd(m).num_taps
        assert engine.num_lanes % engine.lanes_per_beat == 0
        assert engine.lanes_per_beat * po * 8 == axi_bits
        assert engine.linear_pixels <= engine.num_lanes
    assert rejected == [(4, 1, 64), (4, 1, 128), (4, 2, 128)]


def test_beats_must_divide_the_lanes() -> None:
    with pytest.raises(ConfigError) as caught:
        EngineConfig(m=4, po=1, axi_bits=64)
    assert str(caught.value) == (
        "engine.axi_bits: a 64-bit beat carries the weights of 8 lanes at po = 1, "
        "which must divide the 36 lanes of F(4,3); change engine.po or engine.axi_bits"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"po": 3}, "engine.po must be one of 1, 2, 4, 8; got 3"),
        ({"pt": 4}, "engine.pt must be one of 1, 2; got 4"),
        ({"axi_bits": 32}, "engine.axi_bits must be one of 64, 128; got 32"),
        ({"v_words": 8}, "engine.v_words must be an integer in 16..4096, got 8"),
        ({"w_words": 5000}, "engine.w_words must be an integer in 16..4096, got 5000"),
        ({"out_tiles": 0}, "engine.out_tiles must be an integer in 16..4096, got 0"),
        ({"line_pixels": -1}, "engine.line_pixels must be an integer in 16..4096, got -1"),
        ({"acc_bits": 33}, "engine.acc_bits must be an integer in 16..32, got 33"),
        ({"y_bits": 49}, "engine.y_bits must be an integer in 32..48, got 49"),
    ],
)
def test_parameters_out_of_range_are_rejected(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_table(EngineConfig, values, "engine")
    assert str(caught.value) == message
