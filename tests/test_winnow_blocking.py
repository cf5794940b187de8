# SPDX-License-Identifier: Apache-2.0
"""How layers are cut: strips tile the map exactly, and never exceed a buffer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from winnow.blocking import (
    Blocking,
    LayerShape,
    Op,
    Strip,
    bias_beats,
    entry_bits,
    map_size,
    max_strip,
    num_channel_groups,
    tiles_per_group,
    weight_beats,
)
from winnow.cycles import best_blocking
from winnow.engine import EngineConfig
from winnow.errors import ConfigError, ScheduleError


@st.composite
def engines(draw: st.DrawFn) -> EngineConfig:
    try:
        return EngineConfig(
            m=draw(st.sampled_from((2, 4))),
            po=draw(st.sampled_from((1, 2, 4, 8))),
            pt=draw(st.sampled_from((1, 2))),
            axi_bits=draw(st.sampled_from((64, 128))),
            v_words=draw(st.sampled_from((16, 17, 64, 4096))),
            w_words=draw(st.sampled_from((16, 100, 4096))),
            out_tiles=draw(st.sampled_from((16, 31, 4096))),
            line_pixels=draw(st.sampled_from((16, 33, 4096))),
        )
    except ConfigError:
        assume(False)
        raise


shapes = st.builds(
    LayerShape,
    op=st.sampled_from((Op.WINOGRAD, Op.DIRECT, Op.DENSE)),
    in_channels=st.integers(1, 70),
    out_channels=st.integers(1, 70),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    keep=st.integers(1, 8),
    weight_bits=st.integers(2, 8),
)


@settings(deadline=None, max_examples=150)
@given(engines(), shapes)
def test_strips_tile_the_map_and_fit_the_buffers(engine: EngineConfig, shape: LayerShape) -> None:
    try:
        blocking = best_blocking(engine, shape, "layer")
    except ScheduleError:
        _, _, sub_rows = map_size(engine, shape)
        assert sub_rows > engine.v_words or sub_rows * shape.keep > engine.w_words
        return
    covered = np.zeros((blocking.rows, blocking.groups), dtype=int)
    for strip in blocking.strips():
        covered[strip.row : strip.row + strip.rows, strip.group : strip.group + strip.groups] += 1
        assert strip.rows <= blocking.strip_rows
        assert strip.groups <= blocking.strip_groups
        assert strip.num_groups * blocking.sub_rows <= engine.v_words
        assert strip.num_groups * tiles_per_group(engine, shape) <= engine.out_tiles
        if shape.op is Op.WINOGRAD:
            assert strip.groups * engine.pt * engine.m + 2 <= engine.line_pixels
    assert (covered == 1).all()
    assert blocking.steps <= engine.w_words
    assert blocking.blocks * engine.po == -(-shape.out_channels // 8) * 8


@settings(deadline=None, max_examples=150)
@given(engines(), shapes)
def test_map_holds_every_pixel_and_no_spare_row_or_group(
    engine: EngineConfig, shape: LayerShape
) -> None:
    rows, groups, sub_rows = map_size(engine, shape)
    pixels = shape.height * shape.width
    if shape.op is Op.WINOGRAD:
        wide = engine.m * engine.pt
        assert (rows - 1) * engine.m < shape.height <= rows * engine.m
        assert (groups - 1) * wide < shape.width <= groups * wide
    elif shape.op is Op.DIRECT:
        per_group = engine.linear_pixels * engine.pt
        assert rows == 1
        assert (groups - 1) * per_group < pixels <= groups * per_group
    else:
        words = num_channel_groups(shape.in_channels) * pixels
        assert (rows, groups) == (1, 1)
        assert (sub_rows - 1) * engine.num_lanes < words <= sub_rows * engine.num_lanes
    if shape.op is not Op.DENSE:
        assert (sub_rows - 1) * 8 < shape.in_channels <= sub_rows * 8


def test_strips_run_left_to_right_then_down() -> None:
    blocking = Blocking(
        rows=3, groups=5, strip_rows=2, strip_groups=2, sub_rows=1, blocks=1, keep=1
    )
    assert list(blocking.strips()) == [
        Strip(0, 2, 0, 2),
        Strip(0, 2, 2, 2),
        Strip(0, 2, 4, 1),
        Strip(2, 1, 0, 2),
        Strip(2, 1, 2, 2),
        Strip(2, 1, 4, 1),
    ]
    assert [strip.num_groups for strip in blocking.strips()] == [4, 4, 2, 2, 2, 1]


LAYER = LayerShape(Op.WINOGRAD, 100, 8, 8, 8, keep=4, weight_bits=8)


def test_each_buffer_limits_the_strip() -> None:
    """100 channels are 13 sub-rows; a group is 2 tiles of 2 x 2 pixels."""
    assert max_strip(EngineConfig(), LAYER, "a") == (512 // 13, 512 // 13)
    assert max_strip(EngineConfig(out_tiles=31), LAYER, "a") == (15, 15)
    assert max_strip(EngineConfig(v_words=77), LAYER, "a") == (5, 5)
    assert max_strip(EngineConfig(line_pixels=33), LAYER, "a") == (39, 7)
    assert max_strip(EngineConfig(line_pixels=16), replace(LAYER, op=Op.DIRECT), "a") == (32, 32)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (
            EngineConfig(w_words=51),
            "layer 'conv3': one block needs 13 sub-rows x keep 4 = 52 words of a W bank, "
            "engine.w_words is 51; raise engine.w_words or reduce the 100 input channels or keep",
        ),
        (
            EngineConfig(v_words=16, w_words=4096),
            "layer 'conv3': one tile group needs 25 words of a V bank, engine.v_words is 16; "
            "raise engine.v_words or reduce the 200 input channels",
        ),
    ],
)
def test_channels_too_many_for_a_buffer_are_one_line(engine: EngineConfig, message: str) -> None:
    layer = replace(LAYER, in_channels=200) if engine.v_words == 16 else LAYER
    with pytest.raises(ScheduleError) as caught:
        max_strip(engine, layer, "conv3")
    assert str(caught.value) == message
    fitting = replace(engine, w_words=max(52, engine.w_words), v_words=max(25, engine.v_words))
    assert max_strip(fitting, layer, "conv3")[0] >= 1


def test_least_engine_holds_one_group_of_every_op() -> None:
    for m in (2, 4):
        engine = EngineConfig(m=m, v_words=16, w_words=16, out_tiles=16, line_pixels=16)
        for op in (Op.WINOGRAD, Op.DIRECT, Op.DENSE):
            shape = LayerShape(op, 8, 8, 3, 3, keep=8, weight_bits=8)
            assert min(max_strip(engine, shape, "a")) >= 1


def test_beats_of_known_blocks() -> None:
    default = EngineConfig()  # 16 lanes, po 4: a beat holds 2 lane words
    assert (bias_beats(default), entry_bits(default)) == (2, 44)
    narrow = replace(LAYER, weight_bits=4)
    assert weight_beats(default, narrow, 5) == 40
    assert weight_beats(default, LAYER, 5) == 60
    assert weight_beats(default, replace(narrow, op=Op.DIRECT), 5) == 3
    assert weight_beats(default, replace(LAYER, op=Op.DIRECT), 5) == 5
    wide = EngineConfig(po=1, axi_bits=128)  # 16 lane words
    assert bias_beats(wide) == 1
    assert weight_beats(wide, LAYER, 5) == 8


@pytest.mark.parametrize(("bits", "wide"), [(2, False), (4, False), (5, True), (8, True)])
def test_weights_above_four_bits_are_wide(bits: int, wide: bool) -> None:
    assert replace(LAYER, weight_bits=bits).wide_weights is wide
