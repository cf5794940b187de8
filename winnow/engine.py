# SPDX-License-Identifier: Apache-2.0
"""Parameters of one engine build, and the sizes that follow from them.

Scheduler, packer, C++ emission and cycle model all read this one description.
"""

from __future__ import annotations

from dataclasses import dataclass

from winnow.errors import ConfigError
from winnow.schema import choice, integer
from winnow.srbs import SUB_ROW
from winnow.winograd import KERNEL, TILE_SIZES

INDEX_BITS = 3


@dataclass(frozen=True)
class EngineConfig:
    """What is fixed when the engine is built.

    Members:
        m: output tile edge of F(m, 3).
        po: output channels computed in parallel by a lane; divides 8.
        pt: tiles that share one weight; 2 packs two products into one DSP.
        axi_bits: data width of the weight port; the other ports are 64 bits wide.
        v_words: depth of one half of a V bank, in words of 8 channels x pt tiles.
        w_words: depth of one half of a W bank, in words of po (value, index) pairs.
        out_tiles: depth of one half of an output bank, in output tiles.
        line_pixels: longest padded strip row the line buffers hold, in pixels.
        plane_pixels: most pixels of a padded strip of direct convolution: half of its buffer.
        acc_bits: signed width of a lane's sum M.
        y_bits: signed width inside the output transform and of its result Y.
    """

    m: int = choice(2, TILE_SIZES)
    po: int = choice(4, (1, 2, 4, 8))
    pt: int = choice(2, (1, 2))
    axi_bits: int = choice(64, (64, 128))
    v_words: int = integer(512, low=16, high=4096)
    w_words: int = integer(256, low=16, high=4096)
    out_tiles: int = integer(256, low=16, high=4096)
    line_pixels: int = integer(256, low=16, high=4096)
    plane_pixels: int = integer(512, low=64, high=4096)
    acc_bits: int = integer(24, low=16, high=32)
    y_bits: int = integer(40, low=32, high=48)

    def __post_init__(self) -> None:
        per_beat = self.axi_bits // (SUB_ROW * self.po)
        if per_beat == 0 or self.num_lanes % per_beat:
            raise ConfigError(
                f"engine.axi_bits: a {self.axi_bits}-bit beat carries the weights of {per_beat} "
                f"lanes at po = {self.po}, which must divide the {self.num_lanes} lanes of "
                f"F({self.m},3); change engine.po or engine.axi_bits"
            )

    @property
    def alpha(self) -> int:
        return self.m + KERNEL - 1

    @property
    def num_lanes(self) -> int:
        """Tap lanes, one per Winograd tap."""
        return self.alpha**2

    @property
    def num_dsp(self) -> int:
        """Multipliers in the lanes, one DSP block each."""
        return self.num_lanes * self.po

    @property
    def tile_pixels(self) -> int:
        """Outputs of one tile."""
        return self.m**2

    @property
    def linear_tiles(self) -> int:
        """Output tiles that one pass of the lanes yields in a direct layer."""
        return self.num_lanes // self.tile_pixels

    @property
    def linear_pixels(self) -> int:
        """Pixels that the lanes hold in a direct layer: a whole number of output tiles."""
        return self.linear_tiles * self.tile_pixels

    @property
    def lanes_per_beat(self) -> int:
        """Lanes whose (value nibble, index) pairs share one beat of the weight port."""
        return self.axi_bits // (SUB_ROW * self.po)

    @property
    def blocks_per_group(self) -> int:
        """Blocks of po output channels in a group of 8 channels."""
        return SUB_ROW // self.po

    @property
    def transform_channels(self) -> int:
        """Channels the input transform handles per cycle: one tile every m cycles."""
        return SUB_ROW // self.m
