# SPDX-License-Identifier: Apache-2.0
"""The program: header and layer descriptors as 64-bit words, and the way back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codegen.abi import (
    HEADER,
    HEADER_WORDS,
    LAYER_WORDS,
    MAGIC,
    VERSION,
    checksum,
    engine_signature,
)
from codegen.descriptor import Field, layer_fields
from codegen.schedule import Schedule, Values
from winnow.engine import EngineConfig

Words = NDArray[np.uint64]


EVERY = slice(None)


def header_words(schedule: Schedule, images: int = 1, layers: slice = EVERY) -> list[int]:
    """Return the header for a run of some images: every field of `abi.HEADER`, and the checksum.

    A program of some `layers` has the memory of all of them.
    """
    values = {
        "magic": MAGIC,
        "version": VERSION,
        "num_layers": len(schedule.layers[layers]),
        "signature": engine_signature(schedule.engine),
        "input_base": schedule.input.base,
        "input_words": schedule.input.words,
        "feature_words": schedule.feature_words,
        "weight_beats": schedule.weight_beats,
        "num_images": images,
        "image_words": schedule.feature_words,
    }
    words = [0] * HEADER_WORDS
    for field in HEADER:
        words[field.word] |= values[field.name] << field.low
    words[-1] = checksum(words[:-1])
    return words


def _put(words: list[int], field: Field, value: int, position: int = 0) -> None:
    low, high = field.bounds
    if not low <= value <= high:
        raise AssertionError(f"descriptor field {field.name} = {value} exceeds {field.bits} bits")
    word = field.word + position * field.bits // 64
    shift = field.low + position * field.bits % 64
    words[word] |= ((value - field.bias) & ((1 << field.bits) - 1)) << shift


def layer_words(engine: EngineConfig, values: Values) -> list[int]:
    """Return a descriptor: every field of `descriptor.layer_fields`, and the checksum."""
    words = [0] * LAYER_WORDS
    for field in layer_fields(engine):
        value = values[field.name]
        for position, item in enumerate(value if isinstance(value, tuple) else (value,)):
            _put(words, field, item, position)
    words[-1] = checksum(words[:-1])
    return words


def program_words(schedule: Schedule, images: int = 1, layers: slice = EVERY) -> Words:
    """Return the program for a run of some images, uint64: of all layers or of some in a row."""
    words = header_words(schedule, images, layers)
    for plan in schedule.layers[layers]:
        words += layer_words(schedule.engine, plan.values)
    return np.array(words, dtype="<u8")


def parse_layer(engine: EngineConfig, words: Words) -> Values:
    """Inverse of `layer_words`, without its checksum."""
    values: Values = {}
    for field in layer_fields(engine):
        items = []
        for position in range(field.count):
            word = int(words[field.word + position * field.bits // 64])
            item = (word >> (field.low + position * field.bits % 64)) & ((1 << field.bits) - 1)
            if field.signed and item >> (field.bits - 1):
                item -= 1 << field.bits
            items.append(item + field.bias)
        values[field.name] = tuple(items) if field.is_array else items[0]
    return values
