# SPDX-License-Identifier: Apache-2.0
"""The fields of a layer's descriptor, and which process of the engine reads each of them.

This is the only definition. The layout of the program, the C++ records that every process is sent
and the code that fills them follow from it: a new field is one row here, its value in the scheduler
and the process that uses it. `codegen/configs.py` makes the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from codegen.abi import (
    BOUND_BITS,
    KEEP_BITS,
    LAYER_WORDS,
    MAX_ADD_SHIFT,
    MAX_AVERAGE_SHIFT,
    MAX_SUM_SHIFT,
    MAX_V_LIMIT,
    MAX_V_SHIFT,
    MAX_Y_SHIFT,
    WORD_BITS,
)
from winnow.blocking import Op
from winnow.engine import EngineConfig

CHECKER = "configure"  # reads a descriptor before the others are sent their part of it


@dataclass(frozen=True)
class Process:
    """A process that is sent a part of the descriptor at the start of a layer.

    `name` is the instance, `function` its C++ function: two instances may share one.
    """

    name: str
    function: str


# In the order in which `configure` sends. The channel to a process is called `<name>_config`.
PROCESSES = (
    Process("plan_reads", "plan_rows"),
    Process("store_plane", "store_plane"),
    Process("gather_pixels", "gather_pixels"),
    Process("take_maxima", "take_maxima"),
    Process("form_tiles", "form_tiles"),
    Process("transform_input", "transform_input"),
    Process("read_weights", "read_weights"),
    Process("unpack_weights", "unpack_weights"),
    Process("sequence", "sequence"),
    Process("transform_output", "transform_output"),
    Process("plan_shortcuts", "plan_rows"),
    Process("read_shortcuts", "read_shortcuts"),
    Process("finish", "finish"),
    Process("plan_writes", "plan_rows"),
    Process("write_features", "write_features"),
)


@dataclass(frozen=True)
class Read:
    """That a process reads a number, and where in its record: `member`, `part.member`, or ""."""

    process: str
    member: str


def _reads(text: str, member: str) -> tuple[Read, ...]:
    """Parse "process process.member process.part.member"; a process alone reads `member`."""
    pairs = (word.partition(".") for word in text.split())
    return tuple(
        Read(process, "" if process == CHECKER else place or member) for process, _, place in pairs
    )


@dataclass(frozen=True)
class Field:
    """A number in a descriptor: `bits` wide at bit `low` of `word`; two's complement if signed.

    A field with `count` > 1 is an array of bytes that starts at `word`. The number is stored less
    `bias`: a loop bound n as n - 2, where a counter down from it is negative in the last step, so
    that the engine never compares. `reads` is empty for a field that only the host reads. `held` is
    the C++ type in the records of the processes.
    """

    name: str
    bits: int
    word: int
    low: int
    signed: bool
    count: int
    doc: str
    bias: int
    reads: tuple[Read, ...]
    held: str

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest value that the field holds."""
        least = self.bias - (1 << self.bits - 1 if self.signed else 0)
        return least, least + (1 << self.bits) - 1

    @property
    def is_array(self) -> bool:
        return self.count > 1


@dataclass(frozen=True)
class Flag:
    """A bit that follows from the opcode: whether `op` is, or is not, one certain opcode."""

    name: str
    op: Op
    equal: bool
    reads: tuple[Read, ...]
    doc: str
    count: int = 1
    held: str = "ap_uint<1>"


@dataclass(frozen=True)
class Given:
    """A number that no descriptor holds: the host's, for the run, or that of an image."""

    name: str
    reads: tuple[Read, ...]
    doc: str
    held: str
    count: int = 1


def _unsigned(greatest: int) -> str:
    return f"ap_uint<{greatest.bit_length()}>"


def _number(name: str, bits: int, doc: str, reads: str, held: str = "") -> Field:
    held = held or ("Address" if bits == ADDRESS_BITS else f"ap_uint<{bits}>")
    return Field(name, bits, 0, 0, False, 1, doc, 0, _reads(reads, name), held)


def _signed(name: str, bits: int, doc: str, reads: str) -> Field:
    return Field(name, bits, 0, 0, True, 1, doc, 0, _reads(reads, name), f"ap_int<{bits}>")


def _bound(name: str, doc: str, reads: str, bits: int = BOUND_BITS) -> Field:
    """Return a loop bound, stored less 2 in two's complement; all are checked."""
    return replace(_signed(name, bits, doc, f"{CHECKER} {reads}"), bias=2, held=_BOUND_TYPES[bits])


def _walkers(member: str) -> str:
    """Return the reads of all processes that walk over the strips."""
    names = (
        *("plan_reads", "store_plane", "gather_pixels", "form_tiles"),
        *("read_weights", "unpack_weights", "sequence"),
        *("plan_shortcuts", "plan_writes"),
    )
    return " ".join(f"{name}.{member}" for name in names)


def _results(*members: str) -> str:
    """Return the reads of the processes that walk over the pixels of results."""
    names = ("plan_shortcuts", "plan_writes")
    return " ".join(f"{name}.{member}" for name in names for member in members)


def _per_lane(name: str, doc: str, reads: str, held: str) -> Field:
    return Field(name, 8, 0, 0, False, 0, doc, 0, _reads(reads, name), held)


ADDRESS_BITS = 32  # of the C++ type Address
WIDE_BITS = BOUND_BITS + 1
_BOUND_TYPES = {BOUND_BITS: "Bound", WIDE_BITS: "WideBound", KEEP_BITS: "KeepBound"}

FLAGS = (
    Flag(
        "linear",
        Op.WINOGRAD,
        False,
        _reads("form_tiles transform_input read_shortcuts write_features", "linear"),
        "direct or dense: no tiles, a run of words",
    ),
    Flag(
        "dense",
        Op.DENSE,
        True,
        _reads("plan_reads form_tiles", "dense"),
        "the last column's words are those of the last plane only",
    ),
    Flag(
        "direct",
        Op.DIRECT,
        True,
        _reads("unpack_weights.broadcast finish", "direct"),
        "a pass of the lanes yields several tiles, and all lanes share a weight word",
    ),
)
GIVEN = (
    Given(
        "feature_words",
        _reads("plan_reads plan_shortcuts plan_writes", "limit"),
        "words of the feature maps that may be read and written",
        "Address",
    ),
    Given(
        "image_base",
        _reads("plan_reads plan_shortcuts plan_writes", "image_base"),
        "first word of the image's maps",
        "Address",
    ),
)
_SCALARS = (
    # name, bits, meaning, "process" or "process.member" of those who read it, C++ type there
    _number(
        "op",
        8,
        "0 winograd, 1 direct, 2 dense",
        "configure transform_output",
        held=_unsigned(max(Op)),
    ),
    _number(
        "in_signed",
        1,
        "features are signed bytes",
        "store_plane take_maxima transform_input",
    ),
    _number("wide_weights", 1, "weights have two nibbles", "configure unpack_weights.wide"),
    _number("pool", 1, "2x2 max pool", "finish write_features"),
    _number("raw", 1, "write 32-bit accumulators instead of bytes", "finish"),
    _number("skip_last_row", 1, "strips in the last row have no output (pool)", "plan_writes"),
    _number(
        "skip_last_column", 1, "strips in the last column have no output (pool)", "plan_writes"
    ),
    _bound("keep", "steps per sub-row, 1..8", "unpack_weights sequence", KEEP_BITS),
    _bound("sub_rows", "sub-rows a lane sums over", "form_tiles unpack_weights sequence"),
    _bound(
        "part_steps",
        "W words of a half of a bank: all of a block or, with one tile group, a part",
        "unpack_weights sequence",
    ),
    _number(
        "gathers",
        1,
        "direct: pixels are gathered from a plane on chip",
        "configure plan_reads store_plane gather_pixels form_tiles",
    ),
    _number("pad_top", 3, "rows of zeros above the map", "configure store_plane"),
    _number("pad_left", 3, "zeros to the left of a row", "configure store_plane"),
    _number(
        "one_tile",
        1,
        "a tile group is one tile, and a V word two sub-rows of it",
        "configure gather_pixels transform_input sequence finish",
    ),
    _bound("blocks", "blocks of po output channels", "unpack_weights sequence"),
    _bound("channel_groups", "groups of 8 output channels", _results("planes")),
    _bound("strips_down", "strips in a column of strips", _walkers("strips.down")),
    _bound("strips_across", "strips in a row of strips", _walkers("strips.across")),
    _bound("groups_full", "tile groups of a full strip", "sequence"),
    _bound("groups_last_column", "tile groups of a strip in the last column", "sequence"),
    _bound("groups_last_row", "tile groups of a strip in the last row", "sequence"),
    _bound("groups_last_both", "tile groups of the last strip", "sequence"),
    _bound("rows_full", "rows of a padded strip", "store_plane form_tiles"),
    _bound("rows_last", "the same in the last row of strips", "store_plane form_tiles"),
    _bound(
        "columns_full",
        "pixels in a row of a padded strip; linear: words of its patches",
        "store_plane form_tiles",
        WIDE_BITS,
    ),
    _bound(
        "columns_last",
        "the same in the last column of strips",
        "store_plane form_tiles",
        WIDE_BITS,
    ),
    _bound(
        "read_rows_first",
        "rows to read in the first of several rows of strips",
        "plan_reads.rows.first store_plane.read_rows.first form_tiles.read_rows.first",
    ),
    _bound(
        "read_rows_middle",
        "rows to read in a row of strips that is neither first nor last",
        "plan_reads.rows.middle store_plane.read_rows.middle form_tiles.read_rows.middle",
    ),
    _bound(
        "read_rows_last",
        "rows to read in the last row of strips",
        "plan_reads.rows.last store_plane.read_rows.last form_tiles.read_rows.last",
    ),
    _bound(
        "read_words_first",
        "words of a row in the first of several columns of strips",
        "plan_reads.words.first store_plane.read_words.first form_tiles.read_words.first",
    ),
    _bound(
        "read_words_middle",
        "words of a row in a column of strips that is neither first nor last",
        "plan_reads.words.middle store_plane.read_words.middle form_tiles.read_words.middle",
    ),
    _bound(
        "read_words_last",
        "words of a row in the last column of strips (dense: in the last sub-row)",
        "plan_reads.words.last store_plane.read_words.last form_tiles.read_words.last",
    ),
    _bound(
        "planes",
        "groups of 8 input channels; dense: sub-rows",
        "plan_reads store_plane gather_pixels",
    ),
    _bound("kernel_rows", "rows of the kernel, 1..7", "gather_pixels", KEEP_BITS),
    _bound("kernel_columns", "columns of the kernel, 1..7", "gather_pixels", KEEP_BITS),
    _number("stride_columns", 2, "plane words from one output to the next", "gather_pixels"),
    _number(
        "pitch",
        16,
        "plane words from one row to the next",
        "store_plane gather_pixels",
        held="PlaneAddress",
    ),
    _number(
        "row_step",
        16,
        "plane words from one row of outputs to the next",
        "gather_pixels",
        held="PlaneAddress",
    ),
    _number("feature_base", 32, "first input word, in 8-byte words", "plan_reads.base"),
    _number("row_words", 16, "input words from one row to the next", "plan_reads", held="Address"),
    _number("plane_words", 32, "input words from one sub-row to the next", "plan_reads"),
    _number(
        "read_right_first",
        32,
        "input words from the first strip of a row of strips to its neighbour",
        "plan_reads.right_first",
    ),
    _number(
        "read_right",
        32,
        "input words from any other strip to its right neighbour",
        "plan_reads.right",
    ),
    _number(
        "read_down_first",
        32,
        "input words from the first row's last strip to the next strip",
        "plan_reads.down_first",
    ),
    _number(
        "read_down",
        32,
        "input words from any other row's last strip to the next strip",
        "plan_reads.down",
    ),
    _number(
        "weight_base",
        32,
        "first weight beat, in beats of the weight port",
        "configure read_weights.base",
    ),
    _number("strip_beats", 32, "weight beats of the layer", "configure read_weights"),
    _number(
        "v_limit",
        8,
        "V is clamped to -v_limit..v_limit",
        "configure transform_input",
        held=_unsigned(MAX_V_LIMIT),
    ),
    _number(
        "y_shift",
        8,
        "right shift of the requantization, 0..63",
        "finish.shift",
        held=_unsigned(MAX_Y_SHIFT),
    ),
    _signed("low", 16, "lower clamp bound of the output", "finish"),
    _signed("high", 16, "upper clamp bound of the output", "finish"),
    _number("result_base", 32, "first output word, in 8-byte words", "plan_writes.base"),
    _number(
        "out_row_words",
        16,
        "output words from one row to the next",
        _results("row_words"),
        held="Address",
    ),
    _number(
        "out_plane_words",
        32,
        "output words from one channel group to the next",
        _results("plane_words"),
    ),
    _number(
        "write_right",
        32,
        "output words from one strip to its right neighbour",
        _results("right_first", "right"),
    ),
    _number(
        "write_down",
        32,
        "output words from a row's last strip to the next strip",
        _results("down_first", "down"),
    ),
    _bound(
        "write_rows_full",
        "rows to write of a full strip",
        _results("rows.first", "rows.middle") + " gather_pixels.rows_full",
    ),
    _bound(
        "write_rows_last",
        "rows to write in the last row of strips",
        _results("rows.last") + " gather_pixels.rows_last",
    ),
    _bound(
        "write_words_full",
        "words of a row to write of a full strip",
        _results("words.first", "words.middle") + " gather_pixels.words_full",
    ),
    _bound(
        "write_words_last",
        "words of a row to write in the last column of strips",
        _results("words.last") + " gather_pixels.words_last",
    ),
    _number(
        "tiles_full",
        16,
        "output tiles in a row of a full strip (winograd)",
        "read_shortcuts write_features",
        held="TileAddress",
    ),
    _number(
        "tiles_last",
        16,
        "output tiles in a row of a strip in the last column (winograd)",
        "read_shortcuts write_features",
        held="TileAddress",
    ),
    _number("shortcut_base", 32, "first word of the map that is added", "plan_shortcuts.base"),
    _number(
        "no_add",
        1,
        "no map is added to the results",
        "configure plan_shortcuts.idle read_shortcuts finish",
    ),
    _number("shortcut_signed", 1, "what is added are signed bytes", "finish"),
    _number(
        "own_shift",
        3,
        "left shift of the result that something is added to, 0..7",
        "finish",
        held=_unsigned(MAX_ADD_SHIFT),
    ),
    _number(
        "shortcut_shift",
        3,
        "left shift of what is added, 0..7",
        "finish",
        held=_unsigned(MAX_ADD_SHIFT),
    ),
    _number(
        "add_shift", 3, "right shift of the sum, 0..7", "finish", held=_unsigned(MAX_ADD_SHIFT)
    ),
    _signed("add_low", 9, "lower clamp bound of the sum", "finish"),
    _signed("add_high", 9, "upper clamp bound of the sum", "finish"),
    _number("average", 1, "write the average over the map", "plan_writes write_features"),
    _number("average_signed", 1, "what is averaged are signed bytes", "write_features"),
    _number(
        "average_shift",
        5,
        "right shift of the sum over the map, 0..31",
        "write_features",
        held=_unsigned(MAX_AVERAGE_SHIFT),
    ),
    _signed("average_low", 9, "lower clamp bound of the average", "write_features"),
    _signed("average_high", 9, "upper clamp bound of the average", "write_features"),
    _number(
        "maximum",
        1,
        "direct: the maximum under the kernel, which is added to zero sums",
        "configure store_plane gather_pixels take_maxima sequence read_shortcuts",
    ),
    _number(
        "weight_checksum",
        32,
        "CRC-32 of the layer's weights",
        "read_weights.checksum",
        held="ap_uint<32>",
    ),
)
_ARRAYS = (
    _per_lane(
        "v_shift",
        "right shift that makes V, one byte per lane, 0..15",
        "transform_input",
        _unsigned(MAX_V_SHIFT),
    ),
    _per_lane(
        "sum_shift",
        "left shift of a lane's sum, one byte per lane, 0..31",
        "transform_output",
        _unsigned(MAX_SUM_SHIFT),
    ),
)


def _placed(engine: EngineConfig) -> Iterator[Field]:
    word, low = 0, 0
    for field in _SCALARS:
        if low + field.bits > WORD_BITS:
            word, low = word + 1, 0
        yield replace(field, word=word, low=low)
        low += field.bits
    word += 1
    for field in _ARRAYS:
        yield replace(field, word=word, count=engine.num_lanes)
        word += -(-engine.num_lanes // 8)
    if word > LAYER_WORDS - 1:
        raise AssertionError(f"the descriptor needs {word} words and a checksum")


def layer_fields(engine: EngineConfig) -> tuple[Field, ...]:
    """Return the descriptor's fields in order; none straddles a 64-bit word."""
    return tuple(_placed(engine))


def readers(field: Field) -> list[str]:
    """Return the processes that read a field, each once; `op` also reaches them as a flag."""
    reads = list(field.reads)
    if field.name == "op":
        reads += [read for flag in FLAGS for read in flag.reads]
    order = (CHECKER, *(process.name for process in PROCESSES))
    found = {read.process for read in reads}
    return [name for name in order if name in found]
