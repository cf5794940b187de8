# SPDX-License-Identifier: Apache-2.0
"""The cycle model: examples computed by hand, bounds, and what may never slow a layer down."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.test_winnow_blocking import engines, shapes
from winnow.blocking import DENSE, POINTWISE, WINOGRAD, Blocking, LayerShape
from winnow.cycles import FILL_CYCLES, best_blocking, blocking_cycles, layer_cycles
from winnow.engine import EngineConfig
from winnow.errors import ConfigError, ScheduleError

ENGINE = EngineConfig()
CONV = LayerShape(WINOGRAD, 8, 8, 8, 8, keep=2, weight_bits=8)  # 4 tile rows of 2 groups, 2 blocks


def cut(strip_rows: int) -> Blocking:
    return Blocking(4, 2, strip_rows, 2, sub_rows=1, blocks=2, keep=2)


@pytest.mark.parametrize(
    ("strip_rows", "features", "total"),
    [
        # features: (2 rows + 2) x 10 pixels. A group takes max(2 steps, 4 po x 2 tiles) = 8 cycles
        # in each of 2 blocks; weights take 2 x (2 + 16 + 8) = 52; a tile is 4 results.
        (4, 100, 64 + 100 + 64 + max(128, 52, 64)),
        (2, 2 * 60, 64 + 60 + 32 + max(64, 60, 52, 32) + max(64, 52, 32)),
        (1, 4 * 40, 64 + 40 + 16 + 4 * 52),
    ],
)
def test_convolution_by_hand(strip_rows: int, features: int, total: int) -> None:
    cycles = blocking_cycles(ENGINE, CONV, cut(strip_rows))
    assert cycles.features == features
    assert (cycles.compute, cycles.results) == (128, 64)
    assert cycles.weights == 52 * (4 // strip_rows)
    assert cycles.total == total
    assert cycles.utilisation == 2 * 2 * 8 / total


def test_best_strips_of_the_convolution() -> None:
    assert best_blocking(ENGINE, CONV, "conv") == cut(2)
    assert layer_cycles(ENGINE, CONV).total == 284


def test_larger_strips_win_a_tie() -> None:
    shape = LayerShape(WINOGRAD, 32, 16, 12, 12, keep=1, weight_bits=8)  # 6 rows of 3 groups
    best = best_blocking(ENGINE, shape, "conv")
    assert (best.strip_rows, best.strip_groups) == (3, 3)
    smaller = replace(best, strip_rows=2)
    totals = [blocking_cycles(ENGINE, shape, b).total for b in (best, smaller)]
    assert totals == [1320, 1320]


def test_pointwise_by_hand() -> None:
    """128 pixels are 4 groups of 32; two blocks of 8 channels x 1 step, 16 results of 4 pixels."""
    shape = LayerShape(POINTWISE, 8, 8, 8, 16, keep=1, weight_bits=4)
    cycles = blocking_cycles(ENGINE, shape, Blocking(1, 4, 1, 4, sub_rows=1, blocks=2, keep=1))
    assert cycles.features == 4 * 2 * 16
    assert cycles.compute == 2 * 4 * max(1, 4 * 8)
    assert cycles.weights == 2 * (2 + 1)
    assert cycles.results == 4 * 8 * 4
    assert cycles.total == FILL_CYCLES + 128 + 128 + 256
    assert cycles.bound == "compute"


def test_dense_by_hand() -> None:
    """8 channel groups x 16 pixels are 8 words in each of 16 lanes."""
    shape = LayerShape(DENSE, 64, 10, 4, 4, keep=8, weight_bits=8)
    cycles = layer_cycles(ENGINE, shape)
    assert cycles.features == 8 * 2 * 16
    assert cycles.compute == 4 * 64
    assert cycles.weights == 4 * (2 + 64 * 8 + 64 * 4)
    assert cycles.results == 2 * 2 * 4
    assert cycles.total == FILL_CYCLES + 256 + 8 + 4 * 770
    assert cycles.bound == "weights"


def test_pooling_writes_a_quarter() -> None:
    pooled = blocking_cycles(ENGINE, replace(CONV, pool=True), cut(4))
    assert pooled.results == 16
    assert pooled.total == 64 + 100 + 16 + 128


@settings(deadline=None, max_examples=200)
@given(engines(), shapes)
def test_total_covers_every_part(engine: EngineConfig, shape: LayerShape) -> None:
    try:
        cycles = layer_cycles(engine, shape)
    except ScheduleError:
        return
    parts = (cycles.compute, cycles.weights, cycles.features, cycles.results)
    assert max(parts) + FILL_CYCLES <= cycles.total <= sum(parts) + FILL_CYCLES + cycles.results
    assert getattr(cycles, cycles.bound) == max(parts)
    assert 0 < cycles.utilisation <= 1


def never_slower(engine: EngineConfig, shape: LayerShape, slow: LayerShape) -> None:
    try:
        before = layer_cycles(engine, slow).total
    except ScheduleError:
        return
    assert layer_cycles(engine, shape).total <= before


@settings(deadline=None, max_examples=150)
@given(engines(), shapes)
def test_less_work_is_never_slower(engine: EngineConfig, shape: LayerShape) -> None:
    never_slower(engine, replace(shape, weight_bits=4), replace(shape, weight_bits=8))
    never_slower(engine, shape, replace(shape, keep=min(8, shape.keep + 1)))
    never_slower(engine, shape, replace(shape, out_channels=shape.out_channels + 1))
    never_slower(engine, replace(shape, pool=True), replace(shape, pool=False))


@settings(deadline=None, max_examples=150)
@given(engines(), shapes)
def test_more_hardware_is_never_slower(engine: EngineConfig, shape: LayerShape) -> None:
    try:
        before = layer_cycles(engine, shape).total
    except ScheduleError:
        return
    for key, value in (("po", 2 * engine.po), ("axi_bits", 128)):
        try:
            better = replace(engine, **{key: value})
        except ConfigError:
            continue
        if better.po <= 8:
            assert layer_cycles(better, shape).total <= before, key


@settings(deadline=None, max_examples=100)
@given(engines(), shapes)
def test_best_strips_beat_a_single_group(engine: EngineConfig, shape: LayerShape) -> None:
    try:
        best = best_blocking(engine, shape, "layer")
    except ScheduleError:
        return
    least = replace(best, strip_rows=1, strip_groups=best.strip_groups)
    assert blocking_cycles(engine, shape, best).total <= blocking_cycles(engine, shape, least).total
