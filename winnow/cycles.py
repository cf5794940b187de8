# SPDX-License-Identifier: Apache-2.0
"""The cycle model: clock cycles of a layer on an engine, and the strips that minimise them.

Loading the operands of the next strip, streaming the weights of the next block, computing and
writing results overlap as far as the two halves of each bank allow. What is printed is of an ideal
memory: one beat per port and cycle, no arbitration; `make report` prints it beside RTL cycles, and
`python -m sim fill` fits FILL_CYCLES to the RTL of a build. Strips are compared on that memory and
on a derated one, so that none are taken that gain little on the first and lose much on the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TypeVar

from winnow.blocking import (
    Blocking,
    LayerShape,
    Op,
    Strip,
    bias_beats,
    group_unit,
    group_width,
    map_size,
    max_strip,
    num_channel_groups,
    places_fit,
    plane_size,
    tiles_per_group,
    weight_beats,
)
from winnow.engine import EngineConfig
from winnow.errors import ScheduleError

T = TypeVar("T")


@dataclass(frozen=True)
class Memory:
    """A memory that moves `beats` on each port in `cycles` when it is asked for them."""

    beats: int = 1
    cycles: int = 1

    def late(self, beats: int) -> int:
        """Return the cycles, of those that `beats` take, in which none comes."""
        return -(-beats * (self.cycles - self.beats) // self.beats)


IDEAL = Memory()
DERATED = Memory(3, 4)  # every port stalls in a quarter of the cycles
MEMORIES = (IDEAL, DERATED)  # on which strips are compared

FILL_CYCLES = 118  # descriptor, first memory latency and pipeline fill of one layer, from RTL
POOL_AHEAD = 18  # of these, in a max pool, are over when the first window is
SUMS_PERIOD = 2  # cycles between two sums of a lane: the stream behind it is one register
W_QUEUE = 4  # W words of a lane that wait in front of its bank: the depth of stream `w_words`
PATHS = ("compute", "weights", "features", "results")
MAX_SIMULATED = 200_000  # blocks, over all strips compared: the search ends behind them


@dataclass(frozen=True)
class LayerCycles:
    """Modelled cycles of one layer.

    Members:
        total: from the start of the layer to its last written beat.
        compute, weights, features, results: busy cycles of the lanes, of the weight path, of the
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
        return max(PATHS, key=lambda path: int(getattr(self, path)))


def _feature_cycles(
    engine: EngineConfig, shape: LayerShape, sub_rows: int, strip: Strip, memory: Memory
) -> int:
    """Cycles to load and transform the operands of a strip."""
    if shape.gathers:
        planes = 1 if shape.maximum else num_channel_groups(shape.in_channels)
        return planes * max(_plane_cycles(engine, shape, strip, memory))
    width, map_words = group_width(engine, shape), shape.height * shape.width
    if shape.op is Op.DENSE:
        words = num_channel_groups(shape.in_channels) * map_words
        return sub_rows * width * engine.num_lanes + memory.late(words)
    if shape.op is Op.DIRECT:
        tiles = strip.num_groups * width
        words = min(tiles * engine.linear_pixels, map_words)
        return sub_rows * tiles * engine.num_lanes + memory.late(sub_rows * words)
    rows = strip.rows * engine.m + 2
    columns = strip.groups * width * engine.m + 2
    words = min(rows, shape.height) * min(columns, shape.width)
    return sub_rows * rows * columns + memory.late(sub_rows * words)


def _plane_words(shape: LayerShape, strip: Strip) -> int:
    """Words that memory sends for 8 channels of a strip whose pixels are gathered."""
    if shape.average:
        return strip.groups
    rows, columns = shape.window.axes
    return min(rows.reach(strip.rows), shape.height) * min(columns.reach(strip.groups), shape.width)


def _plane_cycles(
    engine: EngineConfig, shape: LayerShape, strip: Strip, memory: Memory
) -> tuple[int, int]:
    """Cycles to put 8 channels of a padded strip on chip, and to gather pixels from there."""
    stored = plane_size(shape, strip.rows, strip.groups)
    stored += memory.late(_plane_words(shape, strip))
    pixels = strip.num_groups * group_width(engine, shape) * engine.num_lanes
    if shape.maximum:
        pixels = strip.rows * strip.groups
    return stored, shape.window.positions * pixels


def _weight_cycles(engine: EngineConfig, shape: LayerShape, steps: int, memory: Memory) -> int:
    """Cycles to unpack the weights of a block: a beat each, but a low one of a direct layer
    holds several steps, and takes a cycle for each of them, in which others may be late."""
    beats = bias_beats(engine) + weight_beats(engine, shape, steps)
    sent = beats + memory.late(beats)
    if shape.op is not Op.DIRECT:
        return sent
    return max(sent, beats + steps - -(-steps // engine.lanes_per_beat))


def _part_weights(
    engine: EngineConfig, shape: LayerShape, blocking: Blocking, memory: Memory
) -> tuple[int, ...]:
    """Cycles to unpack the weights of each part of a block, the biases with the first."""
    ends = accumulate(blocking.parts)
    cycles = [0, *(_weight_cycles(engine, shape, steps, memory) for steps in ends)]
    return tuple(after - before for before, after in pairwise(cycles))


def _drain_cycles(engine: EngineConfig, shape: LayerShape) -> int:
    """Cycles in which the sums of a tile group leave the lanes."""
    return engine.po * tiles_per_group(engine, shape)


def _result_words(engine: EngineConfig, shape: LayerShape, strip: Strip) -> int:
    """Results of a strip for one group of 8 channels: a word for each pixel inside the map."""
    if shape.op is Op.DENSE:
        return 1
    if shape.gathers:
        return strip.rows * strip.groups
    if shape.op is Op.DIRECT:
        group = engine.linear_pixels * group_width(engine, shape)
        return min(strip.groups * group, shape.height * shape.width - strip.group * group)
    rows = min(strip.rows * engine.m, shape.height - strip.row * engine.m)
    group = group_width(engine, shape) * engine.m
    columns = min(strip.groups * group, shape.width - strip.group * group)
    return (rows // 2) * (columns // 2) if shape.pool else rows * columns


@dataclass(frozen=True)
class _Busy:
    """Busy cycles of the parts of a layer.

    Members: `features` and `results` per strip (results of one group of 8 channels), `compute` per
    strip and part of a block, `weights` per part. Of these `ahead` are over when a W bank becomes
    free: the first words wait in front of it.
    """

    features: tuple[int, ...]
    compute: tuple[tuple[int, ...], ...]
    results: tuple[int, ...]
    weights: tuple[int, ...]
    ahead: int
    blocks: int
    out_groups: int

    @property
    def total(self) -> tuple[int, int, int, int]:
        """Compute, weights, features and results, if each ran alone."""
        return (
            sum(map(sum, self.compute)) * self.blocks,
            sum(self.weights) * self.blocks * len(self.compute),
            sum(self.features),
            sum(self.results) * self.out_groups,
        )


def _planes_of_strip(shape: LayerShape) -> int:
    """How often a max pool walks over a strip: once per plane; in an average planes are rows."""
    return num_channel_groups(shape.in_channels) if shape.maximum and not shape.average else 1


def _by_size(strips: list[Strip], cycles: Callable[[Strip], T], planes: int) -> list[T]:
    """Return `cycles` of all strips, `planes` times each; those of one size are alike."""
    known: dict[tuple[int, int], T] = {}
    for strip in strips:
        size = strip.rows, strip.groups
        if size not in known:
            known[size] = cycles(strip)
    return [known[strip.rows, strip.groups] for strip in strips for _ in range(planes)]


def _busy(engine: EngineConfig, shape: LayerShape, blocking: Blocking, memory: Memory) -> _Busy:
    """Return the busy cycles of a layer; a max pool has strips of 8 channels and their results."""

    def result(strip: Strip) -> int:
        words = _result_words(engine, shape, strip)
        return words + memory.late(words)

    per_group = max(blocking.steps, _drain_cycles(engine, shape), SUMS_PERIOD)
    queued = min(blocking.steps, W_QUEUE)
    planes = _planes_of_strip(shape)
    strips, parts = list(blocking.strips()), blocking.parts
    per_part = (*parts[:-1], parts[-1] + per_group - blocking.steps)
    features = _by_size(
        strips, lambda s: _feature_cycles(engine, shape, blocking.sub_rows, s, memory), planes
    )
    results = [result(strip) for strip in strips for _ in range(planes)]
    if shape.gathers:  # nothing is gathered while the first plane comes
        features[0] += min(_plane_cycles(engine, shape, strips[0], memory))
        results = _by_size(strips, result, planes)
    return _Busy(
        features=tuple(features),
        compute=tuple(
            _by_size(strips, lambda s: tuple(n * s.num_groups for n in per_part), planes)
        ),
        results=tuple(results),
        weights=_part_weights(engine, shape, blocking, memory),
        ahead=_weight_cycles(engine, shape, queued, memory) - queued,
        blocks=blocking.blocks // planes,
        out_groups=blocking.blocks // planes // engine.blocks_per_group,
    )


def _least(busy: _Busy) -> int:
    """A bound that is quick to compute: `_simulate` returns no less.

    Each part runs without waiting, behind what it needs first and before what follows it last.
    """
    compute, weights, features, results = busy.total
    last = busy.compute[-1]
    return max(
        busy.features[0] + compute + busy.results[-1],
        busy.features[0] + sum(busy.compute[0]) + results,
        features + sum(last) * busy.blocks + busy.results[-1],
        weights + last[-1] + busy.results[-1],
    )


def _simulate(busy: _Busy, blocks_per_group: int) -> int:
    """Return the cycle in which the last result is written.

    V banks, W banks and output banks have two halves each: a part may run one ahead of the next.
    """
    features_end = [0, 0]  # of the last two strips
    compute_end = [0, 0]  # of the last two blocks, or parts of one
    strip_end = [0, 0]  # of the last two strips' computation
    results_end = [0, 0]  # of the last two groups of 8 channels
    weights_end = 0
    for features, compute, results in zip(busy.features, busy.compute, busy.results, strict=True):
        features_end = [features_end[1], max(features_end[1], strip_end[0]) + features]
        for block in range(busy.blocks):
            for weights, steps in zip(busy.weights, compute, strict=True):
                freed = compute_end[0] + weights - busy.ahead
                weights_end = max(weights_end + weights, freed)
                ready = max(compute_end[1], weights_end, features_end[1], results_end[0])
                compute_end = [compute_end[1], ready + steps]
            if (block + 1) % blocks_per_group == 0:
                written = max(results_end[1], compute_end[1]) + results
                results_end = [results_end[1], written]
        strip_end = [strip_end[1], compute_end[1]]
    return results_end[1]


def blocking_cycles(
    engine: EngineConfig, shape: LayerShape, blocking: Blocking, memory: Memory = IDEAL
) -> LayerCycles:
    """Return the modelled cycles of a layer for given strips."""
    busy = _busy(engine, shape, blocking, memory)
    compute, weights, features, results = busy.total
    fill = FILL_CYCLES + _drain_cycles(engine, shape)
    if shape.maximum:  # zeros are summed before there is a maximum to add them to
        fill = FILL_CYCLES - POOL_AHEAD
    total = fill + _simulate(busy, engine.blocks_per_group)
    useful = blocking.blocks * blocking.steps * sum(s.num_groups for s in blocking.strips())
    if shape.maximum:
        useful = 0  # the lanes add zeros
    return LayerCycles(total, compute, weights, features, results, useful / total)


def _candidates(engine: EngineConfig, shape: LayerShape, name: str) -> Iterator[Blocking]:
    """Yield the blockings worth comparing: rows and columns cut into near-equal parts."""
    rows, groups, sub_rows = map_size(engine, shape)
    per_strip, per_row = max_strip(engine, shape, name)
    blocks = num_channel_groups(shape.out_channels) * engine.blocks_per_group
    if shape.gathers:
        yield from _gathered_candidates(engine, shape, name, per_strip)
        return
    seen = set()
    for column_parts in range(-(-groups // per_row), groups + 1):
        strip_groups = -(-groups // column_parts)
        for row_parts in range(1, rows + 1):
            strip_rows = -(-rows // row_parts)
            size = (strip_rows, strip_groups)
            if strip_rows * strip_groups > per_strip or size in seen:
                continue
            seen.add(size)
            yield Blocking(rows, groups, *size, sub_rows, blocks, shape.keep, engine.w_words)
        if seen and shape.op is Op.WINOGRAD:
            return  # full-width strips read whole rows in one burst; cut columns only if needed


def _cuts(count: int) -> list[int]:
    """Return the sizes of near-equal parts that `count` can be cut into, the largest first."""
    return sorted({-(-count // parts) for parts in range(1, count + 1)}, reverse=True)


def _gathered_candidates(
    engine: EngineConfig, shape: LayerShape, name: str, per_strip: int
) -> Iterator[Blocking]:
    """Yield the rectangles of pixels worth comparing."""
    rows, columns, sub_rows = map_size(engine, shape)
    out_groups = 1 if shape.average else num_channel_groups(shape.out_channels)
    blocks = out_groups * engine.blocks_per_group
    unit, window = group_unit(engine, shape), shape.window
    heights = [n for n in _cuts(rows) if places_fit(window.rows, shape.height, n)]
    widths = [n for n in _cuts(columns) if places_fit(window.columns, shape.width, n)]
    if shape.average:  # a strip is pixels of one group of channels
        heights, widths = [1], _cuts(columns)
    sizes = [(height, width) for width in widths for height in heights]
    least = min(plane_size(shape, *size) for size in sizes)
    if least > engine.plane_pixels:
        raise ScheduleError(
            f"layer '{name}': a strip of its {window} kernel with padding has {least} pixels, "
            f"engine.plane_pixels is {engine.plane_pixels}; raise engine.plane_pixels"
        )
    for size in sizes:
        fits = -(-size[0] * size[1] // unit) <= per_strip
        if fits and plane_size(shape, *size) <= engine.plane_pixels:
            yield Blocking(rows, columns, *size, sub_rows, blocks, shape.keep, engine.w_words, unit)


@lru_cache(maxsize=4096)
def best_blocking(
    engine: EngineConfig, shape: LayerShape, name: str, memories: Sequence[Memory] = MEMORIES
) -> Blocking:
    """Return the strips with the fewest modelled cycles in all, on an ideal and a derated memory.

    Fewer, larger strips win a tie. The search takes the strips in the order of a lower bound and
    ends where no bound is below the best; for a very large layer, after MAX_SIMULATED blocks.
    Raises ScheduleError naming layer `name` when a single tile group does not fit.
    """
    choices = [
        (blocking, [_busy(engine, shape, blocking, memory) for memory in memories])
        for blocking in _candidates(engine, shape, name)
    ]
    if not choices:
        raise ScheduleError(
            f"layer '{name}': not even a strip of one tile group fits the engine's buffers; raise "
            "engine.plane_pixels, engine.line_pixels, engine.v_words or engine.out_tiles"
        )
    choices.sort(key=lambda choice: sum(map(_least, choice[1])))
    best: tuple[tuple[int, int], Blocking] | None = None
    simulated = 0
    for blocking, busy in choices:
        least = sum(map(_least, busy))
        if best is not None and (least > best[0][0] or simulated > MAX_SIMULATED):
            break
        simulated += busy[0].blocks * len(busy[0].weights) * len(busy[0].compute)
        total = sum(_simulate(each, engine.blocks_per_group) for each in busy)
        key = (total, -blocking.strip_rows * blocking.strip_groups)
        if best is None or key < best[0]:
            best = key, blocking
    assert best is not None
    return best[1]


def layer_cycles(engine: EngineConfig, shape: LayerShape, name: str = "layer") -> LayerCycles:
    """Return the modelled cycles of a layer with its best strips; of all parts if it has some."""
    parts = [blocking_cycles(engine, x, best_blocking(engine, x, name)) for x in shape.parts]
    if len(parts) == 1:
        return parts[0]
    total = sum(part.total for part in parts)
    return LayerCycles(
        total=total,
        **{path: sum(int(getattr(x, path)) for x in parts) for path in PATHS},
        utilisation=sum(x.utilisation * x.total for x in parts) / total,
    )
