# SPDX-License-Identifier: Apache-2.0
"""The cycle model: examples computed by hand, bounds, and what may never slow a layer down."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings

from tests.test_winnow_blocking import direct_shapes, engines, shapes
from winnow.blocking import Blocking, LayerShape, Op, tiles_per_group
from winnow.cycles import (
    DERATED,
    FILL_CYCLES,
    IDEAL,
    MEMORIES,
    best_blocking,
    blocking_cycles,
    layer_cycles,
)
from winnow.engine import EngineConfig
from winnow.errors import ConfigError, ScheduleError

ENGINE = EngineConfig()
CONV = LayerShape(
    Op.WINOGRAD, 8, 8, 8, 8, keep=2, weight_bits=8
)  # 4 tile rows of 2 groups, 2 blocks


def cut(strip_rows: int) -> Blocking:
    return Blocking(4, 2, strip_rows, 2, sub_rows=1, blocks=2, keep=2, w_words=256)


# One block takes 2 + 16 + 8 = 26 beats of weights. A group takes max(2 steps, 4 po x 2 tiles) = 8
# cycles per block, and both blocks make the one group of 8 channels. F, W, C, R: the cycle in which
# features of a strip, weights and computation of a block, and results of a strip end. Wi needs the
# half that C(i-2) frees, and then 2 cycles, since both words of a lane wait in its queue; Ci needs
# C(i-1), Wi, its strip's F and the half that R of the strip before last frees; F needs the half
# that the last C of the strip before last frees. The sums of a group leave in 8 cycles.
DRAIN = 8


@pytest.mark.parametrize(
    ("strip_rows", "features", "end"),
    [
        # F = (2 x 4 + 2) x 10 = 100, C and R take 64.
        # F1 = 100, W1 = 26, W2 = 52: C1 = 100 + 64 = 164, C2 = 228, R1 = 228 + 64.
        (4, 100, 292),
        # F = 6 x 10 = 60, C and R take 32.
        # F1 = 60, W1 = 26, W2 = 52: C1 = 60 + 32 = 92, C2 = 124, R1 = 124 + 32 = 156.
        # F2 = 120, W3 = C1 + 2 = 94: C3 = C2 + 32 = 156.
        # W4 = C2 + 2 = 126: C4 = 156 + 32 = 188, R2 = 188 + 32.
        (2, 2 * 60, 220),
        # F = 4 x 10 = 40, C and R take 16.
        # F1 = 40, W1 = 26, W2 = 52: C1 = F1 + 16 = 56, C2 = C1 + 16 = 72, R1 = 72 + 16 = 88.
        # F2 = 80, W3 = 78: C3 = F2 + 16 = 96. F3 = 120 < W5, F4 = 160 < W7.
        # Weights come one after the other: W8 = 8 x 26 = 208: C8 = 224, R4 = 224 + 16.
        (1, 4 * 40, 240),
    ],
)
def test_convolution_by_hand(strip_rows: int, features: int, end: int) -> None:
    cycles = blocking_cycles(ENGINE, CONV, cut(strip_rows))
    assert cycles.features == features
    assert (cycles.compute, cycles.results) == (128, 64)
    assert cycles.weights == 52 * (4 // strip_rows)
    assert cycles.total == FILL_CYCLES + DRAIN + end
    assert cycles.utilisation == 2 * 2 * 8 / cycles.total


def test_best_strips_of_the_convolution() -> None:
    assert best_blocking(ENGINE, CONV, "conv") == cut(2)
    assert layer_cycles(ENGINE, CONV).total == FILL_CYCLES + DRAIN + 220


@pytest.mark.parametrize(("beats", "late"), [(0, 0), (1, 1), (3, 1), (4, 2), (300, 100)])
def test_a_derated_memory_sends_three_beats_in_four_cycles(beats: int, late: int) -> None:
    assert DERATED.late(beats) == late
    assert IDEAL.late(beats) == 0


def test_convolution_by_hand_on_a_derated_memory() -> None:
    """A block's 26 beats take 26 + 9 = 35 cycles; both words of a lane still wait in its queue.

    6 of a strip's 10 rows of 10 words, or 8 of 8 rows, are in the map: 6 x 8 words, 16 late.
    F1 = 6 x 10 + 16 = 76, W1 = 35, W2 = 70: C1 = 76 + 32 = 108, C2 = 140, R1 = 140 + 32 + 11 = 183.
    F2 = 152, W3 = max(W2 + 35, C1 + 2) = 110: C3 = 152 + 32 = 184, W4 = 145: C4 = 216, R2 = 259.
    """
    cycles = blocking_cycles(ENGINE, CONV, cut(2), DERATED)
    assert cycles.weights == 2 * 2 * 35
    assert cycles.features == 2 * 76
    assert cycles.results == 2 * (32 + 11)
    assert cycles.total == FILL_CYCLES + DRAIN + 259


@pytest.mark.parametrize(
    ("shape", "before", "after", "gains"),
    [
        # 3x3, 64 -> 64, 4 bits. In RTL with 25 % stalls 45,337 cycles, 34,792 with half the strips.
        (LayerShape(Op.WINOGRAD, 64, 64, 32, 32, keep=2, weight_bits=4), 1, 2, 10_000),
        # 32 -> 32 at 16x16: 3,330 and 2,930.
        (LayerShape(Op.WINOGRAD, 32, 32, 16, 16, keep=2, weight_bits=4), 2, 3, 300),
        # 8 -> 8: 3,012 and 2,595.
        (LayerShape(Op.WINOGRAD, 8, 8, 32, 32, keep=2, weight_bits=8), 1, 2, 400),
    ],
)
def test_strips_are_compared_on_a_derated_memory_too(
    shape: LayerShape, before: int, after: int, gains: int
) -> None:
    ideal, chosen = (best_blocking(ENGINE, shape, "conv", m) for m in ((IDEAL,), MEMORIES))
    assert (ideal.strip_rows, chosen.strip_rows) == (before, after)
    printed = blocking_cycles(ENGINE, shape, chosen).total
    assert layer_cycles(ENGINE, shape).total == printed  # of an ideal memory
    lost = printed - blocking_cycles(ENGINE, shape, ideal).total
    late = [blocking_cycles(ENGINE, shape, b, DERATED).total for b in (ideal, chosen)]
    assert 0 < lost < gains <= late[0] - late[1]


def test_strips_much_slower_on_an_ideal_memory_gain_too_little() -> None:
    """A layer of ResNet-50: 102,614 cycles and 136,103, or 129,743 and 135,334."""
    shape = LayerShape(Op.DIRECT, 256, 64, 56, 56, keep=2, weight_bits=8)
    best = [best_blocking(ENGINE, shape, "conv", m) for m in ((IDEAL,), (DERATED,), MEMORIES)]
    assert best[0] == best[2] != best[1]


def test_larger_strips_win_a_tie() -> None:
    """Strips of 2 rows are bound by 4 blocks of 48 cycles, of 1 row by 112 cycles of features.

    The former end at 168 features + 3 x 192 + 48 results = 792, the latter at 6 x 112 + 96 + 24.
    """
    shape = LayerShape(Op.WINOGRAD, 16, 16, 12, 12, keep=1, weight_bits=4)  # 6 rows of 3 groups
    best = best_blocking(ENGINE, shape, "conv")
    assert (best.strip_rows, best.strip_groups) == (2, 3)
    smaller = replace(best, strip_rows=1)
    totals = [blocking_cycles(ENGINE, shape, b).total for b in (best, smaller)]
    assert totals == [FILL_CYCLES + DRAIN + 792] * 2


@pytest.mark.parametrize(
    ("shape", "strip_rows", "measured"),
    [
        (LayerShape(Op.WINOGRAD, 1, 16, 16, 16, keep=1, weight_bits=8), 1, 1225),
        (LayerShape(Op.WINOGRAD, 16, 32, 16, 16, keep=2, weight_bits=8, pool=True), 2, 2372),
        (LayerShape(Op.WINOGRAD, 32, 32, 8, 8, keep=2, weight_bits=8), 4, 1228),
        (LayerShape(Op.WINOGRAD, 32, 64, 8, 8, keep=2, weight_bits=4, pool=True), 4, 1533),
    ],
)
def test_model_is_near_the_cycles_of_rtl(shape: LayerShape, strip_rows: int, measured: int) -> None:
    """Measured with the strips named, in `make hls`."""
    assert best_blocking(ENGINE, shape, "conv").strip_rows == strip_rows
    assert layer_cycles(ENGINE, shape).total == pytest.approx(measured, rel=0.03)


def test_pointwise_by_hand() -> None:
    """128 pixels are 4 groups of 32; two blocks of 8 channels x 1 step, 16 results of 4 pixels.

    The 4 x 8 sums of a group leave in 32 cycles.

    F1 = 128, C1 = 128 + 128, C2 = 256 + 128, R1 = 384 + 128.
    """
    shape = LayerShape(Op.DIRECT, 8, 8, 8, 16, keep=1, weight_bits=4)
    cycles = blocking_cycles(ENGINE, shape, Blocking(1, 4, 1, 4, sub_rows=1, blocks=2, keep=1))
    assert cycles.features == 4 * 2 * 16
    assert cycles.compute == 2 * 4 * max(1, 4 * 8)
    assert cycles.weights == 2 * (2 + 1)
    assert cycles.results == 4 * 8 * 4
    assert cycles.total == FILL_CYCLES + 32 + 128 + 128 + 256
    assert cycles.bound == "compute"


def test_pointwise_weights_take_a_cycle_per_step() -> None:
    """16 pixels are one group; 32 steps of two blocks are 16 low beats behind 8 high ones each.

    A block's weights take 2 + 8 + 32 = 42 cycles, so W2 = 84 < F1 = 128. C2 = 128 + 2 x 32,
    R1 = C2 + 16.
    """
    shape = LayerShape(Op.DIRECT, 32, 8, 4, 4, keep=8, weight_bits=8)
    cycles = blocking_cycles(ENGINE, shape, Blocking(1, 1, 1, 1, sub_rows=4, blocks=2, keep=8))
    assert cycles.features == 4 * 2 * 16
    assert cycles.weights == 2 * 42
    assert cycles.total == FILL_CYCLES + 32 + 128 + 64 + 16


def test_weights_queue_in_front_of_their_bank() -> None:
    """One strip, 8 blocks: while the features load, two W banks and 4 of 8 steps of the next fill.

    A block takes 2 + 64 + 32 = 98 beats, 4 steps of it 2 + 32 + 16 = 50, less 4 to enter the bank.
    F1 = 8 x 4 x 10 = 320, C1 = 320 + 16 = 336, W3 = C1 + 98 - 46 = 388. Then weights come one after
    the other: W8 = 388 + 5 x 98 = 878, C8 = W8 + 16, R4 = C8 + 16.
    """
    shape = LayerShape(Op.WINOGRAD, 64, 32, 2, 8, keep=1, weight_bits=8)
    cycles = blocking_cycles(ENGINE, shape, Blocking(1, 2, 1, 2, sub_rows=8, blocks=8, keep=1))
    assert (cycles.features, cycles.weights) == (320, 8 * 98)
    assert cycles.total == FILL_CYCLES + DRAIN + 878 + 16 + 16


def test_dense_by_hand() -> None:
    """8 channel groups x 16 pixels are 8 words in each of 16 lanes.

    Weights never wait: W4 = 4 x 770. Then C4 = W4 + 64 and R2 = C4 + 1.
    """
    shape = LayerShape(Op.DENSE, 64, 10, 4, 4, keep=8, weight_bits=8)
    cycles = layer_cycles(ENGINE, shape)
    assert cycles.features == 8 * 2 * 16
    assert cycles.compute == 4 * 64
    assert cycles.weights == 4 * (2 + 64 * 8 + 64 * 4)
    assert cycles.results == 2
    assert cycles.total == FILL_CYCLES + DRAIN + 4 * 770 + 64 + 1
    assert cycles.bound == "weights"


def test_pooling_writes_a_quarter() -> None:
    """C2 = 228 as without pooling; R1 = C2 + 16."""
    pooled = blocking_cycles(ENGINE, replace(CONV, pool=True), cut(4))
    assert pooled.results == 16
    assert pooled.total == FILL_CYCLES + DRAIN + 228 + 16


@pytest.mark.parametrize(("pool", "results"), [(False, 7 * 5), (True, 3 * 2)])
def test_only_pixels_of_the_map_are_written(pool: bool, results: int) -> None:
    """4 rows of 2 groups of 2 tiles cover 8 x 8 pixels; 7 x 5 are there, 3 x 2 after a pool."""
    shape = LayerShape(Op.WINOGRAD, 8, 8, 7, 5, keep=1, weight_bits=4, pool=pool)
    whole, cut_up = (
        blocking_cycles(ENGINE, shape, Blocking(4, 2, rows, groups, sub_rows=1, blocks=2, keep=1))
        for rows, groups in ((4, 2), (2, 1))
    )
    assert whole.results == cut_up.results == results


@settings(deadline=None, max_examples=200)
@given(engines(), shapes | direct_shapes())
def test_total_covers_every_part(engine: EngineConfig, shape: LayerShape) -> None:
    try:
        cycles = layer_cycles(engine, shape)
    except ScheduleError:
        return
    parts = (cycles.compute, cycles.weights, cycles.features, cycles.results)
    fill = FILL_CYCLES + engine.po * tiles_per_group(engine, shape)
    assert max(parts) + fill <= cycles.total <= sum(parts) + fill + cycles.results
    assert getattr(cycles, cycles.bound) == max(parts)
    assert 0 < cycles.utilisation <= 1


def compared(engine: EngineConfig, shape: LayerShape, blocking: Blocking | None = None) -> int:
    """Return what strips, the best ones if none are given, are compared by."""
    blocking = blocking or best_blocking(engine, shape, "layer")
    return sum(blocking_cycles(engine, shape, blocking, memory).total for memory in MEMORIES)


def never_slower(engine: EngineConfig, shape: LayerShape, slow: LayerShape) -> None:
    try:
        before = compared(engine, slow)
    except ScheduleError:
        return
    assert compared(engine, shape) <= before


@settings(deadline=None, max_examples=150)
@given(engines(), shapes | direct_shapes())
def test_less_work_is_never_slower(engine: EngineConfig, shape: LayerShape) -> None:
    never_slower(engine, replace(shape, weight_bits=4), replace(shape, weight_bits=8))
    never_slower(engine, shape, replace(shape, keep=min(8, shape.keep + 1)))
    never_slower(engine, shape, replace(shape, out_channels=shape.out_channels + 1))
    never_slower(engine, replace(shape, pool=True), replace(shape, pool=False))


@settings(deadline=None, max_examples=150)
@given(engines(), shapes | direct_shapes())
def test_a_wider_weight_port_is_never_slower(engine: EngineConfig, shape: LayerShape) -> None:
    try:
        before = compared(engine, shape)
        wider = replace(engine, axi_bits=128)
    except (ScheduleError, ConfigError):
        return
    assert compared(wider, shape) <= before


@settings(deadline=None, max_examples=150)
@given(engines(), shapes | direct_shapes())
def test_more_channels_at_once_cost_at_most_one_block(
    engine: EngineConfig, shape: LayerShape
) -> None:
    """No part is busier; but the first, wider block must be loaded, and the last one computed."""
    assume(engine.po < 8)
    try:
        blocking = best_blocking(engine, shape, "layer")
        better = replace(engine, po=2 * engine.po)
    except (ScheduleError, ConfigError):
        return
    before = blocking_cycles(engine, shape, blocking)
    wider = replace(blocking, blocks=blocking.blocks // 2)
    after = blocking_cycles(better, shape, wider)
    assert after.compute <= before.compute
    assert after.weights <= before.weights
    assert (after.features, after.results) == (before.features, before.results)
    strips = list(blocking.strips())
    groups = max(s.num_groups for s in strips) / sum(s.num_groups for s in strips)
    block = after.weights / len(strips) / wider.blocks + after.compute * groups / wider.blocks
    assert after.total <= before.total + block
    assert compared(better, shape) <= compared(better, shape, wider)


@settings(deadline=None, max_examples=100)
@given(engines(), shapes | direct_shapes())
def test_best_strips_beat_a_single_group(engine: EngineConfig, shape: LayerShape) -> None:
    try:
        best = best_blocking(engine, shape, "layer")
    except ScheduleError:
        return
    least = replace(best, strip_rows=1, strip_groups=best.strip_groups)
    assert compared(engine, shape, best) <= compared(engine, shape, least)


def test_large_layers_are_compared_by_the_estimate() -> None:
    """816256 blocks over all strips to compare; more room is still never slower."""
    shape = LayerShape(Op.DIRECT, 64, 512, 224, 224, keep=2, weight_bits=8)
    others = [compared(replace(ENGINE, out_tiles=tiles), shape) for tiles in (64, 128)]
    assert compared(ENGINE, shape) <= min(others)
