# SPDX-License-Identifier: Apache-2.0
"""The contract between host and engine: program layout, error codes and registers.

This is the only definition. The C++ (`config.hpp`), the program writer and the docs are generated
from it. A program is a header of `HEADER_WORDS` 64-bit words and one descriptor of `LAYER_WORDS`
words per layer; the last word of each is a checksum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum

from winnow.artefact import sha256_value
from winnow.engine import EngineConfig

MAGIC = 0x57494E4F  # "WINO"
VERSION = 2
HEADER_WORDS = 8
LAYER_WORDS = 32
MAX_LAYERS = 256
WORD_BITS = 64
BOUND_BITS = 17  # of a loop bound: n - 2 of a 16-bit count
MAX_V_SHIFT = 15
MAX_SUM_SHIFT = 31
MAX_Y_SHIFT = 63


class OpCode(IntEnum):
    """Value of the descriptor field `op`."""

    WINOGRAD = 0
    POINTWISE = 1
    DENSE = 2


class Status(IntEnum):
    """Bits 7..0 of the status register; bits 23..8 hold the number of the layer that failed."""

    OK = 0
    BAD_MAGIC = 1
    BAD_VERSION = 2
    WRONG_ENGINE = 3
    BAD_LAYER_COUNT = 4
    BAD_CHECKSUM = 5
    BAD_OPCODE = 6
    BAD_SIZE = 7


STATUS_TEXT = {
    Status.OK: "the network ran",
    Status.BAD_MAGIC: "the program does not start with the magic number",
    Status.BAD_VERSION: "the program has another layout version",
    Status.WRONG_ENGINE: "the program was scheduled for an engine with other parameters",
    Status.BAD_LAYER_COUNT: f"the number of layers is not 1..{MAX_LAYERS}",
    Status.BAD_CHECKSUM: "a header or layer descriptor is damaged",
    Status.BAD_OPCODE: "a layer has an unknown opcode",
    Status.BAD_SIZE: "a layer exceeds the engine's buffers or has a zero size",
}


@dataclass(frozen=True)
class Field:
    """A number in a descriptor: `bits` wide at bit `low` of `word`; two's complement if signed.

    A field with `count` > 1 is an array of bytes that starts at `word`. The number is stored less
    `bias`: a loop bound n as n - 2, where a counter down from it is negative in the last step, so
    that the engine never compares.
    """

    name: str
    bits: int
    word: int
    low: int
    signed: bool
    count: int
    doc: str
    bias: int = 0

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest value that the field holds."""
        least = self.bias - (1 << self.bits - 1 if self.signed else 0)
        return least, least + (1 << self.bits) - 1

    @property
    def is_array(self) -> bool:
        return self.count > 1


_BOUND = "bound"  # stored less 2, two's complement
_SCALARS = (
    # name, bits, signed or bound, meaning
    ("op", 8, False, "0 winograd, 1 pointwise, 2 dense"),
    ("in_signed", 1, False, "features are signed bytes"),
    ("wide_weights", 1, False, "weights have two nibbles"),
    ("pool", 1, False, "2x2 max pool"),
    ("raw", 1, False, "write 32-bit accumulators instead of bytes"),
    ("skip_last_row", 1, False, "strips in the last row have no output (pool)"),
    ("skip_last_column", 1, False, "strips in the last column have no output (pool)"),
    ("keep", 5, _BOUND, "steps per sub-row, 1..8"),
    ("sub_rows", BOUND_BITS, _BOUND, "sub-rows a lane sums over"),
    ("steps", BOUND_BITS, _BOUND, "sub_rows * keep: W words of a block"),
    ("blocks", BOUND_BITS, _BOUND, "blocks of po output channels"),
    ("channel_groups", BOUND_BITS, _BOUND, "groups of 8 output channels"),
    ("strips_down", BOUND_BITS, _BOUND, "strips in a column of strips"),
    ("strips_across", BOUND_BITS, _BOUND, "strips in a row of strips"),
    ("num_strips", BOUND_BITS, _BOUND, "strips"),
    ("groups_full", BOUND_BITS, _BOUND, "tile groups of a full strip"),
    ("groups_last_column", BOUND_BITS, _BOUND, "tile groups of a strip in the last column"),
    ("groups_last_row", BOUND_BITS, _BOUND, "tile groups of a strip in the last row"),
    ("groups_last_both", BOUND_BITS, _BOUND, "tile groups of the last strip"),
    ("v_words", 16, False, "V words of a full strip"),
    ("out_tiles", 16, False, "output tiles of a full strip, per channel"),
    ("rows_full", BOUND_BITS, _BOUND, "rows of a padded strip"),
    ("rows_last", BOUND_BITS, _BOUND, "the same in the last row of strips"),
    (
        "columns_full",
        BOUND_BITS + 1,
        _BOUND,
        "pixels in a row of a padded strip; linear: words of its patches",
    ),
    ("columns_last", BOUND_BITS + 1, _BOUND, "the same in the last column of strips"),
    ("feature_base", 32, False, "first input word, in 8-byte words"),
    ("row_words", 16, False, "input words from one row to the next"),
    ("plane_words", 32, False, "input words from one sub-row to the next"),
    (
        "read_right_first",
        32,
        False,
        "input words from the first strip of a row of strips to its neighbour",
    ),
    ("read_right", 32, False, "input words from any other strip to its right neighbour"),
    ("read_down_first", 32, False, "input words from the first row's last strip to the next strip"),
    ("read_down", 32, False, "input words from any other row's last strip to the next strip"),
    ("read_rows_first", BOUND_BITS, _BOUND, "rows to read in the first of several rows of strips"),
    (
        "read_rows_middle",
        BOUND_BITS,
        _BOUND,
        "rows to read in a row of strips that is neither first nor last",
    ),
    ("read_rows_last", BOUND_BITS, _BOUND, "rows to read in the last row of strips"),
    (
        "read_words_first",
        BOUND_BITS,
        _BOUND,
        "words of a row in the first of several columns of strips",
    ),
    (
        "read_words_middle",
        BOUND_BITS,
        _BOUND,
        "words of a row in a column of strips that is neither first nor last",
    ),
    (
        "read_words_last",
        BOUND_BITS,
        _BOUND,
        "words of a row in the last column of strips (dense: in the last sub-row)",
    ),
    ("weight_base", 32, False, "first weight beat, in beats of the weight port"),
    ("strip_beats", 32, False, "weight beats of the layer"),
    ("v_limit", 8, False, "V is clamped to -v_limit..v_limit"),
    ("y_shift", 8, False, "right shift of the requantization, 0..63"),
    ("low", 16, True, "lower clamp bound of the output"),
    ("high", 16, True, "upper clamp bound of the output"),
    ("result_base", 32, False, "first output word, in 8-byte words"),
    ("out_row_words", 16, False, "output words from one row to the next"),
    ("out_plane_words", 32, False, "output words from one channel group to the next"),
    ("write_right", 32, False, "output words from one strip to its right neighbour"),
    ("write_down", 32, False, "output words from a row's last strip to the next strip"),
    ("write_rows_full", BOUND_BITS, _BOUND, "rows to write of a full strip"),
    ("write_rows_last", BOUND_BITS, _BOUND, "rows to write in the last row of strips"),
    ("write_words_full", BOUND_BITS, _BOUND, "words of a row to write of a full strip"),
    (
        "write_words_last",
        BOUND_BITS,
        _BOUND,
        "words of a row to write in the last column of strips",
    ),
    ("tiles_full", 16, False, "output tiles in a row of a full strip (winograd)"),
    ("tiles_last", 16, False, "output tiles in a row of a strip in the last column (winograd)"),
)
_ARRAYS = (
    ("v_shift", "right shift that makes V, one byte per lane, 0..15"),
    ("sum_shift", "left shift of a lane's sum, one byte per lane, 0..31"),
)


def layer_fields(engine: EngineConfig) -> tuple[Field, ...]:
    """Return the descriptor's fields in order; none straddles a 64-bit word."""
    fields = []
    word, low = 0, 0
    for name, bits, kind, doc in _SCALARS:
        if low + bits > WORD_BITS:
            word, low = word + 1, 0
        bias = 2 if kind == _BOUND else 0
        fields.append(Field(name, bits, word, low, bool(kind), 1, doc, bias))
        low += bits
    word += 1
    for name, doc in _ARRAYS:
        fields.append(Field(name, 8, word, 0, False, engine.num_lanes, doc))
        word += -(-engine.num_lanes // 8)
    if word > LAYER_WORDS - 1:
        raise AssertionError(f"the descriptor needs {word} words and a checksum")
    return tuple(fields)


def checksum(words: Iterable[int]) -> int:
    """Return the 64-bit checksum of words: rotate left by one, then exclusive or."""
    state = 0
    mask = (1 << WORD_BITS) - 1
    for word in words:
        state = (((state << 1) | (state >> (WORD_BITS - 1))) & mask) ^ word
    return state


def engine_signature(engine: EngineConfig) -> int:
    """Return the 64-bit number that tells engines apart: a hash of every parameter."""
    return int(sha256_value(asdict(engine))[:16], 16)


@dataclass(frozen=True)
class Argument:
    """An argument of the engine's top function, and its offset in the AXI4-Lite registers."""

    name: str
    offset: int
    bits: int
    doc: str


ARGUMENTS = (
    Argument("program", 0x10, 64, "address of the program"),
    Argument("weights", 0x1C, 64, "address of the packed weights"),
    Argument("features", 0x28, 64, "address of the feature maps, for reading"),
    Argument("results", 0x34, 64, "address of the feature maps, for writing"),
    Argument("status", 0x40, 32, "how the run ended, read only"),
)

# Added by openhls behind the arguments; RTL exported by Vitis HLS has no such register.
AXI_ERROR = Argument(
    "axi_error", 0x48, 32, "bit i: master gmem<i> saw an error response, read only"
)
