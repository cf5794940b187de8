# SPDX-License-Identifier: Apache-2.0
"""The cycle model: clock cycles of a layer on an engine, and the strips that minimise them.

Loading the operands of the next strip, streaming weights, computing and writing results overlap;
the first load and the last write do not. The model takes an ideal memory: one beat per port and
cycle, no arbitration. It is *modelled*, and checked against RTL by the regression.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from winnow.blocking import (
    POINTWISE,
    WINOGRAD,
    Blocking,
    LayerShape,
    Strip,
    bias_beats,
    map_size,
    max_strip,
    num_channel_groups,
    tiles_per_group,
    weight_beats,
)
from winnow.engine import EngineConfig

FILL_CYCLES = 64  # pipeline fill and drain of one layer, an estimate until RTL is measured


@dataclass(frozen=True)
class LayerCycles:
    """Modelled cycles of one layer.

    Members:
        total: from the start of the layer to its last written beat.
        compute, weights, features, results: busy cycles of the lanes, of the weight port, of the
            feature path and of the result port, if each ran alone.
        products: multiplications the lanes do; `utilisation` is their share of the array.
    """

    total: int
    compute: int
    weights: int
    features: int
    results: int
    utilisation: float

    @property
    def bound(self) -> str:
        """Name the busiest part: what limits the layer."""
        parts = ("compute", "weights", "features", "results")
        return max(parts, key=lambda part: int(getattr(self, part)))


def _feature_cycles(engine: EngineConfig, shape: LayerShape, sub_rows: int, strip: Strip) -> int:
    """Cycles to load and transform the operands of a strip."""
    tiles = strip.num_groups * engine.pt
    if shape.op != WINOGRAD:
        lanes = engine.linear_pixels if shape.op == POINTWISE else engine.num_lanes
        return sub_rows * tiles * lanes
    rows = strip.rows * engine.m + 2
    columns = strip.groups * engine.pt * engine.m + 2
    return sub_rows * rows * columns


def _result_cycles(engine: EngineConfig, shape: LayerShape, strip: Strip) -> int:
    """Cycles to write the results of a strip for one group of 8 channels."""
    tiles = strip.num_groups * tiles_per_group(engine, shape)
    return tiles * engine.tile_pixels // (4 if shape.pool else 1)


def blocking_cycles(engine: EngineConfig, shape: LayerShape, blocking: Blocking) -> LayerCycles:
    """Return the modelled cycles of a layer for given strips."""
    drain = engine.po * tiles_per_group(engine, shape)
    per_group = max(blocking.steps, drain)
    per_strip_weights = blocking.blocks * (
        bias_beats(engine) + weight_beats(engine, shape, blocking.steps)
    )
    out_groups = num_channel_groups(shape.out_channels)
    strips = list(blocking.strips())
    features = [_feature_cycles(engine, shape, blocking.sub_rows, s) for s in strips]
    compute = [blocking.blocks * per_group * s.num_groups for s in strips]
    results = [_result_cycles(engine, shape, s) for s in strips]
    total = FILL_CYCLES + features[0] + results[-1]
    for i in range(len(strips)):
        following = features[i + 1] if i + 1 < len(strips) else 0
        total += max(compute[i], following, per_strip_weights, out_groups * results[i])
    useful = blocking.blocks * blocking.steps * sum(s.num_groups for s in strips)
    return LayerCycles(
        total=total,
        compute=sum(compute),
        weights=per_strip_weights * len(strips),
        features=sum(features),
        results=out_groups * sum(results),
        utilisation=useful / total,
    )


def _candidates(engine: EngineConfig, shape: LayerShape, name: str) -> Iterator[Blocking]:
    """Yield the blockings worth comparing: rows and columns cut into near-equal parts."""
    rows, groups, sub_rows = map_size(engine, shape)
    per_strip, per_row = max_strip(engine, shape, name)
    blocks = num_channel_groups(shape.out_channels) * engine.blocks_per_group
    seen = set()
    for column_parts in range(-(-groups // per_row), groups + 1):
        strip_groups = -(-groups // column_parts)
        for row_parts in range(1, rows + 1):
            strip_rows = -(-rows // row_parts)
            size = (strip_rows, strip_groups)
            if strip_rows * strip_groups > per_strip or size in seen:
                continue
            seen.add(size)
            yield Blocking(rows, groups, *size, sub_rows, blocks, shape.keep)
        if seen and shape.op == WINOGRAD:
            return  # full-width strips read whole rows in one burst; cut columns only if needed


@lru_cache(maxsize=4096)
def best_blocking(engine: EngineConfig, shape: LayerShape, name: str) -> Blocking:
    """Return the strips with the fewest modelled cycles; fewer, larger strips win a tie.

    Raises ScheduleError naming layer `name` when a single tile group does not fit.
    """
    return min(
        _candidates(engine, shape, name),
        key=lambda b: (
            blocking_cycles(engine, shape, b).total,
            -b.strip_rows * b.strip_groups,
        ),
    )


def layer_cycles(engine: EngineConfig, shape: LayerShape, name: str = "layer") -> LayerCycles:
    """Return the modelled cycles of a layer with its best strips."""
    return blocking_cycles(engine, shape, best_blocking(engine, shape, name))
