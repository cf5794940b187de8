# SPDX-License-Identifier: Apache-2.0
"""The program and the contract it follows: fields, checksums, signatures, registers."""

from __future__ import annotations

import zlib
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen import abi, ports
from codegen.abi import checksum, engine_signature
from codegen.descriptor import layer_fields
from codegen.program import header_words, layer_words, parse_layer, program_words
from codegen.schedule import schedule
from tests.engines import ENGINES, chain_case, layer_cases
from winnow.blocking import Op
from winnow.engine import EngineConfig

words64 = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40)


@pytest.mark.parametrize("name", ENGINES)
def test_fields_do_not_overlap_and_leave_the_checksum_alone(name: str) -> None:
    taken: set[int] = set()
    for field in layer_fields(ENGINES[name]):
        first = field.word * 64 + field.low
        bits = set(range(first, first + field.bits * field.count))
        assert not bits & taken, field.name
        assert field.is_array or field.low + field.bits <= 64, f"{field.name} straddles two words"
        taken |= bits
    assert max(taken) < (abi.LAYER_WORDS - 1) * 64


def test_names_of_fields_are_unique() -> None:
    names = [field.name for field in layer_fields(EngineConfig())]
    assert len(set(names)) == len(names)


def test_fields_hold_what_the_limits_allow() -> None:
    of = {field.name: field for field in layer_fields(EngineConfig())}
    assert 2 ** of["y_shift"].bits > abi.MAX_Y_SHIFT
    assert 2 ** of["v_shift"].bits > abi.MAX_V_SHIFT
    assert 2 ** of["sum_shift"].bits > abi.MAX_SUM_SHIFT
    assert max(Op) < 2 ** of["op"].bits
    assert set(abi.STATUS_TEXT) == set(abi.Status)


@pytest.mark.parametrize("name", ENGINES)
def test_parsing_a_program_gives_the_schedule_back(name: str) -> None:
    engine = ENGINES[name]
    for _, plan in layer_cases(name, 20):
        words = program_words(plan)
        assert len(words) == abi.HEADER_WORDS + abi.LAYER_WORDS
        assert parse_layer(engine, words[abi.HEADER_WORDS :]) == plan.layers[0].values


@pytest.mark.parametrize("name", ENGINES)
def test_any_value_of_a_field_survives(name: str) -> None:
    engine = ENGINES[name]
    rng = np.random.default_rng(0)
    for style in ("random", "low", "high"):
        values = {}
        for field in layer_fields(engine):
            low, high = field.bounds
            pick = {"random": rng.integers(low, high + 1, size=field.count)}
            numbers = pick.get(style, np.full(field.count, low if style == "low" else high))
            values[field.name] = tuple(numbers.tolist()) if field.is_array else int(numbers[0])
        assert parse_layer(engine, np.array(layer_words(engine, values), np.uint64)) == values


def test_header_tells_host_and_engine_what_they_need() -> None:
    plan = schedule(chain_case(0, 4), EngineConfig())
    words = header_words(plan)
    assert words[0] & 0xFFFFFFFF == 0x57494E4F
    assert words[0] >> 32 & 0xFFFF == abi.VERSION
    assert words[0] >> 48 == 4
    assert words[1] == engine_signature(EngineConfig())
    assert words[2:6] == [0, plan.input.words, plan.feature_words, plan.weight_beats]
    assert words[6] == 1 | plan.feature_words << 32
    assert words[7] == checksum(words[:7])
    assert header_words(plan, 5)[6] == 5 | plan.feature_words << 32


def test_every_descriptor_ends_with_its_checksum() -> None:
    words = [int(word) for word in program_words(schedule(chain_case(0, 4), EngineConfig()))]
    for layer in range(4):
        start = abi.HEADER_WORDS + layer * abi.LAYER_WORDS
        body = words[start : start + abi.LAYER_WORDS - 1]
        assert words[start + abi.LAYER_WORDS - 1] == checksum(body)
        assert any(body)


@pytest.mark.parametrize(
    ("name", "value"),
    [("keep", 18), ("keep", -15), ("op", 256), ("op", -1), ("low", -(2**15) - 1), ("high", 2**15)],
)
def test_value_beyond_its_field_is_our_bug(name: str, value: int) -> None:
    values = layer_cases("default", 1)[0][1].layers[0].values
    with pytest.raises(AssertionError, match=f"descriptor field {name} = {value} exceeds"):
        layer_words(EngineConfig(), values | {name: value})


def test_loop_bound_is_stored_less_two() -> None:
    """A counter from the stored number down is negative in its last step and only there."""
    field = next(f for f in layer_fields(EngineConfig()) if f.name == "sub_rows")
    assert field.bounds == (2 - 2**16, 2**16 + 1)
    values = layer_cases("default", 1)[0][1].layers[0].values
    for count in (1, 2, 3, 65535):
        words = layer_words(EngineConfig(), values | {"sub_rows": count})
        stored = words[field.word] >> field.low & 2**17 - 1
        signs = [(stored - step) >> 16 & 1 for step in range(count)]
        assert signs == [0] * (count - 1) + [1]


def flipped(words: list[int], *bits: int) -> list[int]:
    """Return words with other bits, counted from bit 0 of the first one."""
    changed = list(words)
    for bit in bits:
        changed[bit // 64] ^= 1 << bit % 64
    return changed


@settings(deadline=None)
@given(words64)
def test_checksum_sees_every_single_bit_flip(words: list[int]) -> None:
    right = checksum(words)
    assert 0 <= right < 2**32
    for bit in range(0, 64 * len(words), 7):
        assert checksum(flipped(words, bit)) != right


def syndromes(bits: int) -> list[int]:
    """Return what a flip of each of `bits` bits changes in the checksum of that many."""
    none = [0] * (bits // 64)
    return [checksum(none) ^ checksum(flipped(none, bit)) for bit in range(bits)]


def test_checksum_sees_up_to_four_flips_of_a_descriptor() -> None:
    """The checksum is linear: flips are missed where their syndromes, or a bit of it, cancel.

    No two pairs have the same sum, so no four of them are zero.
    """
    found = syndromes((abi.LAYER_WORDS - 1) * 64) + [1 << bit for bit in range(32)]
    singles = np.array(found, dtype=np.uint64)
    first, second = np.triu_indices(len(singles), 1)
    pairs = singles[first] ^ singles[second]
    assert len(np.unique(singles)) == len(singles)
    assert not np.isin(pairs, singles).any()
    assert len(np.unique(pairs)) == len(pairs)
    assert (pairs != 0).all()


def test_checksum_sees_every_burst() -> None:
    """Up to 32 bits in a row: the flips of 32 neighbours are independent."""
    found = syndromes(128)
    for first in range(97):
        window = np.array([[s >> bit & 1 for bit in range(32)] for s in found[first : first + 32]])
        for column in range(32):
            rows = [row for row in range(column, 32) if window[row, column]]
            assert rows, first
            window[[column, rows[0]]] = window[[rows[0], column]]
            for row in range(32):
                if row != column and window[row, column]:
                    window[row] ^= window[column]


def test_checksum_of_known_words() -> None:
    assert checksum([]) == 0
    text = b"123456789abcdefg"
    words = [int.from_bytes(text[i : i + 8], "little") for i in (0, 8)]
    assert checksum(words) == zlib.crc32(text) == 0xA2CAAFFF


def test_signature_tells_engines_apart() -> None:
    """Every parameter counts: a program relies on the word lengths its bounds were proved for."""
    base = EngineConfig()
    changes = {
        "m": 4,
        "po": 8,
        "pt": 1,
        "axi_bits": 128,
        "v_words": 513,
        "w_words": 257,
        "out_tiles": 255,
        "line_pixels": 1024,
        "plane_pixels": 1024,
        "acc_bits": 32,
        "y_bits": 48,
    }
    assert changes.keys() == {f.name for f in fields(EngineConfig)}
    engines = [base, *(replace(base, **{key: value}) for key, value in changes.items())]
    signatures = [engine_signature(engine) for engine in engines]
    assert len(set(signatures)) == len(engines)
    assert all(0 <= signature < 2**64 for signature in signatures)


@settings(deadline=None, max_examples=200)
@given(st.integers(16, 4096), st.integers(16, 4096), st.integers(16, 4096), st.integers(16, 4096))
def test_signature_differs_for_other_buffers(v: int, w: int, out: int, line: int) -> None:
    base = EngineConfig()
    other = EngineConfig(v_words=v, w_words=w, out_tiles=out, line_pixels=line)
    assert (engine_signature(base) == engine_signature(other)) == (base == other)


def test_registers_do_not_overlap_and_are_aligned() -> None:
    ends = 0x10  # the control registers of AXI4-Lite come first
    for register in ports.REGISTERS:
        assert register.offset >= ends, register.name
        assert register.offset % 4 == 0
        ends = register.offset + register.bits // 8
    for register in ports.ADDED_REGISTERS:
        assert register.offset >= ends, register.name
        ends = register.offset + register.bits // 8
    assert [r.name for r in ports.REGISTERS] == [a.name for a in ports.ARGUMENTS]
