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
VERSION = 1
HEADER_WORDS = 8
LAYER_WORDS = 32
MAX_LAYERS = 256
WORD_BITS = 64
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

    A field with `count` > 1 is an array of bytes that starts at `word`.
    """

    name: str
    bits: int
    word: int
    low: int
    signed: bool
    count: int
    doc: str

    @property
    def is_array(self) -> bool:
        return self.count > 1


_SCALARS = (
    # name, bits, signed, meaning
    ("op", 8, False, "0 winograd, 1 pointwise, 2 dense"),
    ("in_signed", 1, False, "features are signed bytes"),
    ("wide_weights", 1, False, "weights have two nibbles"),
    ("pool", 1, False, "2x2 max pool"),
    ("raw", 1, False, "write 32-bit accumulators instead of bytes"),
    ("keep", 4, False, "steps per sub-row, 1..8"),
    ("sub_rows", 16, False, "sub-rows a lane sums over"),
    ("steps", 16, False, "sub_rows * keep: W words of a block"),
    ("blocks", 16, False, "blocks of po output channels"),
    ("rows", 16, False, "tile rows of the map"),
    ("groups", 16, False, "tile groups in a row"),
    ("strip_rows", 16, False, "tile rows of a full strip"),
    ("strip_groups", 16, False, "tile groups in a row of a full strip"),
    ("groups_full", 16, False, "tile groups of a full strip"),
    ("groups_last_column", 16, False, "tile groups of a strip in the last column"),
    ("groups_last_row", 16, False, "tile groups of a strip in the last row"),
    ("groups_last_both", 16, False, "tile groups of the last strip"),
    ("v_words", 16, False, "V words of a full strip"),
    ("out_tiles", 16, False, "output tiles of a full strip, per channel"),
    ("height", 16, False, "input rows (winograd)"),
    ("width", 16, False, "input columns (winograd)"),
    ("feature_base", 32, False, "first input word, in 8-byte words"),
    ("plane_words", 32, False, "input words from one sub-row to the next"),
    ("strip_words", 32, False, "input words from one strip (row) to the next"),
    ("full_words", 32, False, "input words of a full strip and sub-row (linear ops)"),
    ("tail_words", 32, False, "the same for the last strip (dense: last sub-row)"),
    ("weight_base", 32, False, "first weight beat, in beats of the weight port"),
    ("strip_beats", 32, False, "weight beats of the layer"),
    ("num_strips", 16, False, "strips"),
    ("num_banks", 32, False, "strips * groups of 8 output channels"),
    ("v_limit", 8, False, "V is clamped to -v_limit..v_limit"),
    ("y_shift", 8, False, "right shift of the requantization, 0..63"),
    ("low", 16, True, "lower clamp bound of the output"),
    ("high", 16, True, "upper clamp bound of the output"),
    ("result_base", 32, False, "first output word, in 8-byte words"),
    ("out_plane_words", 32, False, "output words from one channel group to the next"),
    ("out_strip_words", 32, False, "output words from one strip (row) to the next"),
    ("out_full_words", 32, False, "output words of a full strip (linear ops)"),
    ("out_tail_words", 32, False, "the same for the last strip"),
    ("out_height", 16, False, "output rows (winograd)"),
    ("out_width", 16, False, "output columns (winograd)"),
)
_ARRAYS = (
    ("v_shift", "right shift that makes V, one byte per lane, 0..15"),
    ("sum_shift", "left shift of a lane's sum, one byte per lane, 0..31"),
)


def layer_fields(engine: EngineConfig) -> tuple[Field, ...]:
    """Return the descriptor's fields in order; none straddles a 64-bit word."""
    fields = []
    word, low = 0, 0
    for name, bits, signed, doc in _SCALARS:
        if low + bits > WORD_BITS:
            word, low = word + 1, 0
        fields.append(Field(name, bits, word, low, signed, 1, doc))
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
