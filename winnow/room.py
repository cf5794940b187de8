# SPDX-License-Identifier: Apache-2.0
"""What an engine needs at least of a part, known from its configuration before there is RTL.

Multipliers follow from it, and the block RAMs of the lanes' banks, which are most of all. LUTs and
flip-flops are not known before synthesis.
"""

from __future__ import annotations

from math import ceil, log2

from winnow.engine import INDEX_BITS, EngineConfig
from winnow.errors import ConfigError
from winnow.parts import Part, Resources
from winnow.srbs import SUB_ROW

VALUE_BITS = 8  # of an operand and of a weight in its bank
# A block RAM of 18 Kbit as (words, bits of a word), AMD UG473; one of 36 Kbit has twice the bits.
SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2))
LARGE = (4096, 9)  # one of 36 Kbit, better than two of 18
SMALLEST = 128  # words that are surely kept in block RAM


def bank_brams(bits: int, words: int) -> float:
    """Return the block RAMs of 36 Kbit that a bank of two halves of `words` needs."""
    depth = (1 << ceil(log2(words))) + words  # openhls_bank.sv
    if depth < SMALLEST:
        return 0
    least = min(ceil(bits / width) * ceil(depth / rows) / 2 for rows, width in SHAPES)
    return min(least, float(ceil(bits / LARGE[1]) * ceil(depth / LARGE[0])))


def least_resources(engine: EngineConfig) -> Resources:
    """Return the multipliers of an engine, and the block RAMs of its lanes' banks alone."""
    v = bank_brams(SUB_ROW * engine.pt * VALUE_BITS, engine.v_words)
    w = bank_brams(engine.po * (VALUE_BITS + INDEX_BITS), engine.w_words)
    return Resources(dsp=engine.num_dsp, bram=engine.num_lanes * (v + w))


def require_room(engine: EngineConfig, part: Part) -> str:
    """Return a line of what was compared; ConfigError if a part surely does not hold an engine."""
    need, have = least_resources(engine), part.device.resources
    if need.dsp > have.dsp:
        raise ConfigError(
            f"target.part: {part.name} has {have.dsp:g} DSP, the lanes need {need.dsp:g}; choose a "
            "larger part, or a smaller engine.po"
        )
    if need.bram > have.bram:
        raise ConfigError(
            f"target.part: {part.name} has {have.bram:g} BRAM36, the banks of the lanes alone need "
            f"{need.bram:g}; choose a larger part, or smaller engine.v_words, engine.w_words, "
            "engine.pt or engine.po"
        )
    return (
        f"{part.name}: lanes need {need.dsp:g} of {have.dsp:g} DSP, their banks {need.bram:g} of "
        f"{have.bram:g} BRAM36; stage synth counts the rest, and LUTs and flip-flops"
    )
