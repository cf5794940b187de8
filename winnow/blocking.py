# SPDX-License-Identifier: Apache-2.0
"""How a layer is cut to fit an engine: tiles, groups, strips and blocks.

A *tile group* is `pt` neighbouring tiles that share a weight. A *strip* is a rectangle of tile
groups whose operands V stay on chip while all weights stream past once. A *block* is `po` output
channels. For layers without a transform the map is a row of pixels: a direct tile is
`linear_pixels` of them, one per lane; a dense layer has a single group and spreads its input words
over the lanes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from winnow.engine import INDEX_BITS, EngineConfig
from winnow.errors import ScheduleError
from winnow.srbs import SUB_ROW, num_sub_rows

BIAS_BITS = 32
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
    """

    op: Op
    in_channels: int
    out_channels: int
    height: int
    width: int
    keep: int
    weight_bits: int
    pool: bool = False

    @property
    def wide_weights(self) -> bool:
        """Whether weights need two nibbles."""
        return self.weight_bits > NIBBLE


@dataclass(frozen=True)
class Strip:
    """One strip: first tile row and group, and how many of each."""

    row: int
    rows: int
    group: int
    groups: int

    @property
    def num_groups(self) -> int:
        return self.rows * self.groups


@dataclass(frozen=True)
class Blocking:
    """The loop bounds of a layer on an engine.

    Members:
        rows, groups: tile rows of the map, and tile groups in a row.
        strip_rows, strip_groups: the same for a full strip.
        sub_rows: sub-rows that a lane sums over.
        blocks: blocks of `po` output channels, a whole number of groups of 8 channels.
        keep: steps per sub-row.
    """

    rows: int
    groups: int
    strip_rows: int
    strip_groups: int
    sub_rows: int
    blocks: int
    keep: int

    @property
    def steps(self) -> int:
        """Steps of a lane for one (block, tile group); also the W words of a block."""
        return self.sub_rows * self.keep

    def strips(self) -> Iterator[Strip]:
        """Yield the strips in the order the engine runs them: left to right, then down."""
        for row in range(0, self.rows, self.strip_rows):
            for group in range(0, self.groups, self.strip_groups):
                yield Strip(
                    row,
                    min(self.strip_rows, self.rows - row),
                    group,
                    min(self.strip_groups, self.groups - group),
                )


def num_channel_groups(channels: int) -> int:
    """Return the groups of 8 channels that hold `channels`."""
    return -(-channels // SUB_ROW)


def map_size(engine: EngineConfig, shape: LayerShape) -> tuple[int, int, int]:
    """Return (tile rows, tile groups per row, sub-rows) of a layer."""
    if shape.op is Op.WINOGRAD:
        rows = -(-shape.height // engine.m)
        groups = -(-shape.width // (engine.m * engine.pt))
        return rows, groups, num_sub_rows(shape.in_channels)
    pixels = shape.height * shape.width
    if shape.op is Op.DIRECT:
        groups = -(-pixels // (engine.linear_pixels * engine.pt))
        return 1, groups, num_sub_rows(shape.in_channels)
    words = num_channel_groups(shape.in_channels) * pixels
    return 1, 1, -(-words // engine.num_lanes)


def tiles_per_group(engine: EngineConfig, shape: LayerShape) -> int:
    """Return the output tiles (m^2 pixels each) that one tile group yields per channel."""
    return engine.pt * (engine.linear_tiles if shape.op is Op.DIRECT else 1)


def max_strip(engine: EngineConfig, shape: LayerShape, name: str) -> tuple[int, int]:
    """Return the most (groups in a strip, groups in a strip row) the buffers hold.

    Raises ScheduleError naming layer `name` and the buffer that is too small for a single group.
    """
    _, _, sub_rows = map_size(engine, shape)
    if sub_rows * shape.keep > engine.w_words:
        raise ScheduleError(
            f"layer '{name}': one block needs {sub_rows} sub-rows x keep {shape.keep} = "
            f"{sub_rows * shape.keep} words of a W bank, engine.w_words is {engine.w_words}; "
            f"raise engine.w_words or reduce the {shape.in_channels} input channels or keep"
        )
    if sub_rows > engine.v_words:
        raise ScheduleError(
            f"layer '{name}': one tile group needs {sub_rows} words of a V bank, engine.v_words "
            f"is {engine.v_words}; raise engine.v_words or reduce the {shape.in_channels} input "
            f"channels"
        )
    per_strip = min(engine.v_words // sub_rows, engine.out_tiles // tiles_per_group(engine, shape))
    per_row = per_strip
    if shape.op is Op.WINOGRAD:
        per_row = min(per_row, (engine.line_pixels - 2) // (engine.m * engine.pt))
    return per_strip, per_row


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
