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
    group_width,
    map_size,
    max_strip,
    num_channel_groups,
    places_fit,
    plane_size,
    tiles_per_group,
    weight_beats,
)
from winnow.cycles import best_blocking
from winnow.engine import EngineConfig
from winnow.errors import ConfigError, ScheduleError
from winnow.window import Axis, Window


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


@st.composite
def direct_shapes(draw: st.DrawFn) -> LayerShape:
    """Direct layers whose kernels fit their maps."""
    axes = []
    shape = draw(shapes)
    for pixels in (shape.height, shape.width):
        kernel = draw(st.integers(1, 7))
        before, after = (draw(st.integers(0, kernel - 1)) for _ in range(2))
        axes.append(Axis(kernel, draw(st.integers(1, 2)), before, after))
        assume(axes[-1].outputs(pixels) >= 1)
    return replace(shape, op=Op.DIRECT, window=Window(*axes))


@settings(deadline=None, max_examples=150)
@given(engines(), shapes | direct_shapes())
def test_strips_tile_the_map_and_fit_the_buffers(engine: EngineConfig, shape: LayerShape) -> None:
    try:
        blocking = best_blocking(engine, shape, "layer")
    except ScheduleError:
        _, _, sub_rows = map_size(engine, shape)
        assert sub_rows > engine.v_words * engine.pt
        return
    width = group_width(engine, shape)
    covered = np.zeros((blocking.rows, blocking.groups), dtype=int)
    for strip in blocking.strips():
        covered[strip.row : strip.row + strip.rows, strip.group : strip.group + strip.groups] += 1
        assert strip.rows <= blocking.strip_rows
        assert strip.groups <= blocking.strip_groups
        assert strip.num_groups * blocking.sub_rows * width <= engine.v_words * engine.pt
        assert strip.num_groups * tiles_per_group(engine, shape) <= engine.out_tiles
        if shape.op is Op.WINOGRAD:
            assert strip.groups * width * engine.m + 2 <= engine.line_pixels
        if shape.gathers:
            assert plane_size(shape, strip.rows, strip.groups) <= engine.plane_pixels
    assert (covered == 1).all()
    assert sum(blocking.parts) == blocking.steps
    assert max(blocking.parts) <= engine.w_words
    assert len(blocking.parts) == 1 or max(s.num_groups for s in blocking.strips()) == 1
    assert blocking.blocks * engine.po == -(-shape.out_channels // 8) * 8


@settings(deadline=None, max_examples=150)
@given(engines(), shapes | direct_shapes())
def test_map_holds_every_pixel_and_no_spare_row_or_group(
    engine: EngineConfig, shape: LayerShape
) -> None:
    rows, groups, sub_rows = map_size(engine, shape)
    tiles = engine.pt if sub_rows <= engine.v_words else 1
    if shape.gathers:
        positions = shape.window.rows.kernel * shape.window.columns.kernel
        assert (rows, groups) == shape.output_size
        assert sub_rows == num_channel_groups(shape.in_channels) * positions
        return
    pixels = shape.height * shape.width
    if shape.op is Op.WINOGRAD:
        wide = engine.m * tiles
        assert (rows - 1) * engine.m < shape.height <= rows * engine.m
        assert (groups - 1) * wide < shape.width <= groups * wide
    elif shape.op is Op.DIRECT:
        per_group = engine.linear_pixels * tiles
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
            EngineConfig(v_words=16),
            "layer 'conv3': one tile needs 25 words of a V bank, engine.v_words is 16; "
            "raise engine.v_words or reduce the 400 input channels",
        ),
        (
            EngineConfig(v_words=49, pt=1),
            "layer 'conv3': one tile needs 50 words of a V bank, engine.v_words is 49; "
            "raise engine.v_words or reduce the 400 input channels",
        ),
    ],
)
def test_channels_too_many_for_a_buffer_are_one_line(engine: EngineConfig, message: str) -> None:
    layer = replace(LAYER, in_channels=400)
    with pytest.raises(ScheduleError) as caught:
        max_strip(engine, layer, "conv3")
    assert str(caught.value) == message
    enough = replace(engine, v_words=50 // engine.pt)
    assert max_strip(enough, layer, "conv3") == (1, 1)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        (Axis(11, 4), "layer 'stem': kernel 11x11: at most 7x7; use several smaller convolutions"),
        (Axis(8), "layer 'stem': kernel 8x8: at most 7x7; use several smaller convolutions"),
        (
            Axis(3, 3),
            "layer 'stem': stride 3: at most 2; use a stride of 2 and another layer or a pool",
        ),
    ],
)
def test_windows_beyond_the_engine_are_one_line(axis: Axis, message: str) -> None:
    layer = replace(LAYER, op=Op.DIRECT, height=64, width=64, window=Window(axis, axis))
    with pytest.raises(ScheduleError) as caught:
        best_blocking(EngineConfig(), layer, "stem")
    assert str(caught.value) == message


def test_padding_that_no_strip_can_hold_is_one_line() -> None:
    """70 outputs fall into strips of 7, the last one too: 6 rows of padding, 13 x 13 pixels."""
    axis = Axis(7, 1, 6, 6)
    layer = LayerShape(Op.DIRECT, 8, 8, 64, 64, 4, 8, window=Window(axis, axis))
    engine = EngineConfig(plane_pixels=168)
    with pytest.raises(ScheduleError) as caught:
        best_blocking(engine, layer, "stem")
    assert str(caught.value) == (
        "layer 'stem': a strip of its 7x7 kernel with padding has 169 pixels, engine.plane_pixels "
        "is 168; raise engine.plane_pixels"
    )


def test_padding_belongs_to_the_first_and_the_last_strip() -> None:
    """13 outputs of a 5-wide kernel, stride 2, padding 3 and 4: the last reads 4 missing pixels."""
    axis = Axis(5, 2, 3, 4)
    assert (axis.outputs(22), axis.missing(22)) == (13, 4)
    fitting = [span for span in range(1, 15) if places_fit(axis, 22, span)]
    assert {13, 14} < set(fitting) < set(range(1, 15))
    for span in fitting:
        starts = range(0, 13, span)
        for n, start in enumerate(starts):
            count = min(span, 13 - start)
            before = max(0, 3 - 2 * start)
            behind = max(0, (start + count - 1) * 2 + 5 - 3 - 22)
            assert (before > 0) <= (n == 0)
            assert (behind > 0) <= (n == len(starts) - 1)


def test_deep_blocks_come_in_parts() -> None:
    """13 sub-rows x keep 4 = 52 W words in halves of 20: strips of one group, three equal parts."""
    engine = EngineConfig(w_words=20)
    blocking = best_blocking(engine, LAYER, "conv")
    assert (blocking.strip_rows, blocking.strip_groups) == (1, 1)
    assert blocking.parts == (18, 18, 16)
    assert best_blocking(EngineConfig(w_words=52), LAYER, "conv").parts == (52,)


def test_deep_layers_have_groups_of_one_tile() -> None:
    """13 sub-rows of a pair of tiles, or of one: 13 V words, or 7."""
    pairs, single = EngineConfig(v_words=16), EngineConfig(v_words=16, pt=1)
    deep = replace(LAYER, in_channels=17 * 8)
    assert (group_width(pairs, LAYER), group_width(pairs, deep)) == (2, 1)
    assert (group_width(single, LAYER), group_width(single, deep)) == (1, 1)
    rows, groups, _ = map_size(pairs, LAYER)
    assert map_size(pairs, deep)[:2] == (rows, -(-LAYER.width // 2))
    assert groups == -(-LAYER.width // 4)
    assert max_strip(pairs, deep, "deep") == (1, 1)
    assert tiles_per_group(pairs, replace(deep, op=Op.DIRECT)) == pairs.linear_tiles


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
