# SPDX-License-Identifier: Apache-2.0
"""How a layer is cut to fit an engine: tiles, groups, strips and blocks.

A *tile group* is `pt` neighbouring tiles that share a weight, or a single tile of a layer so deep
that a V bank holds no more. A *strip* is a rectangle of tile groups whose operands V stay on chip
while all weights stream past once. A *block* is `po` output channels. In direct layers each lane
has a pixel of the result: `linear_pixels` of them take the place of a tile. A 1x1 layer takes its
map as one row of pixels; for other kernels a strip is a rectangle of pixels, dealt to groups row by
row. A dense layer has a single group and spreads its input words over the lanes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from winnow.engine import INDEX_BITS, EngineConfig
from winnow.errors import ScheduleError
from winnow.srbs import SUB_ROW, num_sub_rows
from winnow.window import MAX_KERNEL, MAX_STRIDE, Axis, Window

BIAS_BITS = 32
PART_CHANNELS = 32  # of a layer that does some groups of a convolution: measured in docs/engine.md
NIBBLE = 4


class Op(IntEnum):
    """How the lanes of the engine multiply; the number is the one in a layer's descriptor."""

    WINOGRAD = 0
    DIRECT = 1
    DENSE = 2

    def __str__(self) -> str:
        return self.name.lower()

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


@dataclass(frozen=True)
class LayerShape:
    """What the engine needs to know of a layer's size.

    Members:
        in_channels, height, width: the input map; a dense layer flattens it.
        keep: non-zeros per sub-row, 1..8.
        weight_bits: 2..8; up to 4 bits use the short weight record.
        pool: 2x2 max pool after the layer.
        window: of a direct layer.
        maximum: a direct layer that takes the maximum under its window instead of sums: a max pool
            standing alone, or an average. Its lanes add zeros.
        average: the maxima of each channel are averaged: they are the pixels of the map, since the
            window is AVERAGE_WINDOW. A group of 8 channels is a row of pixels then.
        groups: of a convolution, whose weights between different ones are 0.
    """

    op: Op
    in_channels: int
    out_channels: int
    height: int
    width: int
    keep: int
    weight_bits: int
    pool: bool = False
    window: Window = Window()
    maximum: bool = False
    average: bool = False
    groups: int = 1

    @property
    def gathers(self) -> bool:
        """Whether the lanes' pixels are gathered from a plane on chip, a place of the kernel after
        another."""
        return self.op is Op.DIRECT and not self.window.is_plain

    @property
    def sub_rows(self) -> int:
        """Sub-rows of 8 channels that a lane of a layer that gathers sums over."""
        return 1 if self.maximum else num_sub_rows(self.in_channels) * self.window.positions

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the result before a pool; of an average, groups and pixels."""
        if self.op is Op.DENSE:
            return 1, 1
        if self.average:
            return num_channel_groups(self.in_channels), self.height * self.width
        return self.window.outputs(self.height, self.width)

    @property
    def parts(self) -> tuple[LayerShape, ...]:
        """The layers that the engine runs a convolution in groups as; others are one."""
        reads, writes = self.in_channels // self.groups, self.out_channels // self.groups
        each = groups_of_parts(self.groups, reads, writes)
        counts = [min(each, self.groups - first) for first in range(0, self.groups, each)]
        return tuple(
            replace(self, in_channels=n * reads, out_channels=n * writes, groups=n) for n in counts
        )

    @property
    def wide_weights(self) -> bool:
        """Whether weights need two nibbles."""
        return self.weight_bits > NIBBLE


# A pixel, and zeros below it, which count for no maximum.
AVERAGE_WINDOW = Window(Axis(kernel=2, after=1), Axis())


@dataclass(frozen=True)
class Strip:
    """One strip: first tile row and group, and how many of each; `unit` as in Blocking."""

    row: int
    rows: int
    group: int
    groups: int
    unit: int = 1

    @property
    def num_groups(self) -> int:
        return -(-self.rows * self.groups // self.unit)


@dataclass(frozen=True)
class Blocking:
    """The loop bounds of a layer on an engine.

    Members:
        rows, groups: tile rows of the map, and tile groups in a row.
        strip_rows, strip_groups: the same for a full strip.
        sub_rows: sub-rows that a lane sums over.
        blocks: blocks of `po` output channels, a whole number of groups of 8 channels.
        keep: steps per sub-row.
        w_words: that half of a bank holds. A block of more comes in parts, which needs strips of a
            single group.
        unit: 1, or where pixels are gathered those of a tile group: rows and groups are then rows
            and columns of pixels.
    """

    rows: int
    groups: int
    strip_rows: int
    strip_groups: int
    sub_rows: int
    blocks: int
    keep: int
    w_words: int = 1 << 16
    unit: int = 1

    @property
    def steps(self) -> int:
        """Steps of a lane for one (block, tile group); also the W words of a block."""
        return self.sub_rows * self.keep

    @property
    def part_steps(self) -> int:
        """W words of a part of a block but the last, which has no more: about equal parts.

        Lanes and weights wait for each other least then.
        """
        return -(-self.steps // -(-self.steps // self.w_words))

    @property
    def parts(self) -> tuple[int, ...]:
        """W words of the parts of a block."""
        whole, rest = divmod(self.steps, self.part_steps)
        return (self.part_steps,) * whole + ((rest,) if rest else ())

    def strips(self) -> Iterator[Strip]:
        """Yield the strips in the order the engine runs them: left to right, then down."""
        for row in range(0, self.rows, self.strip_rows):
            for group in range(0, self.groups, self.strip_groups):
                yield Strip(
                    row,
                    min(self.strip_rows, self.rows - row),
                    group,
                    min(self.strip_groups, self.groups - group),
                    self.unit,
                )


def num_channel_groups(channels: int) -> int:
    """Return the groups of 8 channels that hold `channels`."""
    return -(-channels // SUB_ROW)


def groups_of_parts(groups: int, reads: int, writes: int, channels: int = PART_CHANNELS) -> int:
    """Return how many groups of a convolution a layer of the engine does.

    A group reads and writes so many channels; a layer about `channels`, and a multiple of 8, if
    other groups follow.
    """
    least = math.lcm(SUB_ROW // math.gcd(SUB_ROW, reads), SUB_ROW // math.gcd(SUB_ROW, writes))
    return min(groups, least * max(1, channels // (least * max(reads, writes))))


def lane_sub_rows(engine: EngineConfig, shape: LayerShape) -> int:
    """Return the sub-rows that a lane sums over."""
    if shape.gathers:
        return shape.sub_rows
    if shape.op is not Op.DENSE:
        return num_sub_rows(shape.in_channels)
    words = num_channel_groups(shape.in_channels) * shape.height * shape.width
    return -(-words // engine.num_lanes)


def group_width(engine: EngineConfig, shape: LayerShape) -> int:
    """Return the tiles of a tile group: `pt`, or one if V of so many is more than a bank holds.

    A V word then has `pt` sub-rows of that tile.
    """
    return engine.pt if lane_sub_rows(engine, shape) <= engine.v_words else 1


def map_size(engine: EngineConfig, shape: LayerShape) -> tuple[int, int, int]:
    """Return (tile rows, tile groups per row, sub-rows) of a layer.

    Where pixels are gathered these are (rows, columns) of the result.
    """
    sub_rows, width = lane_sub_rows(engine, shape), group_width(engine, shape)
    if shape.gathers:
        return *shape.output_size, sub_rows
    if shape.op is Op.WINOGRAD:
        return -(-shape.height // engine.m), -(-shape.width // (engine.m * width)), sub_rows
    if shape.op is Op.DIRECT:
        groups = -(-shape.height * shape.width // (engine.linear_pixels * width))
        return 1, groups, sub_rows
    return 1, 1, sub_rows


def group_unit(engine: EngineConfig, shape: LayerShape) -> int:
    """Return `Blocking.unit` of a layer."""
    return group_width(engine, shape) * engine.linear_pixels if shape.gathers else 1


def places_fit(axis: Axis, pixels: int, span: int) -> bool:
    """Whether strips of `span` outputs along an axis differ by their place only.

    Padding in front then belongs to the first strip alone, padding behind to the last one.
    """
    outputs = axis.outputs(pixels)
    last = outputs - (-(-outputs // span) - 1) * span
    alone = span >= outputs
    return alone or (
        span * axis.stride >= axis.before and last * axis.stride >= axis.missing(pixels)
    )


def plane_size(shape: LayerShape, rows: int, columns: int) -> int:
    """Return the pixels of a padded strip of rows x columns outputs."""
    return shape.window.rows.reach(rows) * shape.window.columns.reach(columns)


def tiles_per_group(engine: EngineConfig, shape: LayerShape) -> int:
    """Return the output tiles (m^2 pixels each) that one tile group yields per channel."""
    return group_width(engine, shape) * (engine.linear_tiles if shape.op is Op.DIRECT else 1)


def max_strip(engine: EngineConfig, shape: LayerShape, name: str) -> tuple[int, int]:
    """Return the most (groups in a strip, groups in a strip row) the buffers hold.

    Raises ScheduleError naming layer `name` and the buffer that is too small for a single group.
    """
    sub_rows, width = lane_sub_rows(engine, shape), group_width(engine, shape)
    _check_window(shape, name)
    held = engine.v_words * engine.pt // width  # sub-rows of a tile group
    if sub_rows > held:
        raise ScheduleError(
            f"layer '{name}': one tile needs {-(-sub_rows // engine.pt)} words of a V bank, "
            f"engine.v_words is {engine.v_words}; raise engine.v_words or reduce the "
            f"{shape.in_channels} input channels"
        )
    per_strip = min(held // sub_rows, engine.out_tiles // tiles_per_group(engine, shape))
    if sub_rows * shape.keep > engine.w_words:
        per_strip = 1  # a block comes in parts, which only one sum can wait for
    per_row = per_strip
    if shape.op is Op.WINOGRAD:
        per_row = min(per_row, (engine.line_pixels - 2) // (engine.m * width))
    return per_strip, per_row


def _check_window(shape: LayerShape, name: str) -> None:
    """Raise ScheduleError for a kernel or a stride that the engine has no counters for."""
    if shape.maximum and shape.window.positions == 1:
        raise ScheduleError(
            f"layer '{name}': a max pool of 1x1 pixels: at least 2 pixels; leave it out, or let a "
            "convolution stride"
        )
    for axis in shape.window.axes:
        if axis.kernel > MAX_KERNEL and shape.maximum:
            raise ScheduleError(
                f"layer '{name}': window {shape.window}: at most {MAX_KERNEL}x{MAX_KERNEL}; use "
                "several smaller ones"
            )
        if axis.kernel > MAX_KERNEL:
            raise ScheduleError(
                f"layer '{name}': kernel {shape.window}: at most {MAX_KERNEL}x{MAX_KERNEL}; use "
                f"several smaller convolutions"
            )
        if axis.stride > MAX_STRIDE:
            raise ScheduleError(
                f"layer '{name}': stride {axis.stride}: at most {MAX_STRIDE}; use a stride of "
                f"{MAX_STRIDE} and another layer or a pool"
            )


def entry_bits(engine: EngineConfig) -> int:
    """Return the bits of one W-bank word: po pairs of an 8-bit value and an index."""
    return engine.po * (8 + INDEX_BITS)


def bias_beats(engine: EngineConfig) -> int:
    """Return the beats of the weight port that hold the biases of one block."""
    return -(-engine.po * BIAS_BITS // engine.axi_bits)


def weight_beats(engine: EngineConfig, shape: LayerShape, steps: int) -> int:
    """Return the beats of the entries of one block, without its biases.

    A beat holds (low nibble, index) pairs of `lanes_per_beat` lane words. Wide weights put one
    beat of high nibbles before every two of those. A direct layer stores one word per step,
    which all lanes share.
    """
    words = steps * (1 if shape.op is Op.DIRECT else engine.num_lanes)
    low = -(-words // engine.lanes_per_beat)
    return low + (-(-low // 2) if shape.wide_weights else 0)
