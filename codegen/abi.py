# SPDX-License-Identifier: Apache-2.0
"""The contract between host and engine: the program's frame, its header, opcodes, status codes.

This is the only definition; `codegen/descriptor.py` and `codegen/ports.py` hold the rest of the
contract. The C++ is generated from them, the program writer reads them and a test compares the
docs. A program is a header of `HEADER_WORDS` 64-bit words and one descriptor of `LAYER_WORDS` words
per layer; the last word of each is a checksum. Every layer's weights have one, in its descriptor.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum

from winnow.artefact import sha256_value
from winnow.engine import EngineConfig

MAGIC = 0x57494E4F  # "WINO"
VERSION = 7
HEADER_WORDS = 8
LAYER_WORDS = 32
EARLY_WORDS = 8  # of a descriptor, with all that products are formed of while the others arrive
MAX_LAYERS = 256
MAX_IMAGES = 255  # of a run: the register `status` counts them in 8 bits
WORD_BITS = 64
BOUND_BITS = 17  # of a loop bound: n - 2 of a 16-bit count
KEEP_BITS = 5  # of the bound of `keep`
MAX_V_LIMIT = 127
MAX_V_SHIFT = 15
MAX_SUM_SHIFT = 31
MAX_Y_SHIFT = 63
MAX_AVERAGE_SHIFT = 31
MAX_AVERAGE_PIXELS = 1 << 14
MAX_ADD_SHIFT = 7  # of what a sum adds, and of the sum


class Status(IntEnum):
    """How a run ended: the low bits of the status register."""

    OK = 0
    BAD_MAGIC = 1
    BAD_VERSION = 2
    WRONG_ENGINE = 3
    BAD_LAYER_COUNT = 4
    BAD_HEADER = 5
    BAD_OPCODE = 6
    BAD_SIZE = 7
    BAD_DESCRIPTOR = 8
    BAD_WEIGHTS = 9
    BAD_ADDRESS = 10
    BAD_IMAGE_COUNT = 11
    HUNG = 255


STATUS_TEXT = {
    Status.OK: "the network ran",
    Status.BAD_MAGIC: "the program does not start with the magic number",
    Status.BAD_VERSION: "the program has another layout version",
    Status.WRONG_ENGINE: "the program was scheduled for an engine with other parameters",
    Status.BAD_LAYER_COUNT: f"the number of layers is not 1..{MAX_LAYERS}",
    Status.BAD_HEADER: "the header is damaged",
    Status.BAD_OPCODE: "a layer has an unknown opcode",
    Status.BAD_SIZE: "a layer exceeds the engine's buffers, has a zero size or contradicts itself",
    Status.BAD_DESCRIPTOR: "the descriptor of a layer is damaged",
    Status.BAD_WEIGHTS: "the weights of a layer are damaged",
    Status.BAD_ADDRESS: "the program lies or reaches beyond the memory that the host allows",
    Status.BAD_IMAGE_COUNT: f"the number of images is not 1..{MAX_IMAGES}",
    Status.HUNG: "the run did not end and was stopped, by the watchdog or the host",
}


# The register `status`: the code, above it the number of layers of the last image that ran, and the
# number of images that did. After an error these are the numbers of the layer and the image that
# failed. A run that openhls' guard stopped reads as all ones.
STATUS_CODE_BITS = 8
STATUS_LAYERS_BITS = 16
STATUS_IMAGES_BITS = 8


def decode_status(word: int) -> tuple[int, int, int]:
    """Split the register `status` into (code, layers that ran, images that ran)."""
    code = word & (1 << STATUS_CODE_BITS) - 1
    above = word >> STATUS_CODE_BITS
    layers = above & (1 << STATUS_LAYERS_BITS) - 1
    return code, layers, above >> STATUS_LAYERS_BITS & (1 << STATUS_IMAGES_BITS) - 1


@dataclass(frozen=True)
class HeaderField:
    """A number in the header: `bits` wide at bit `low` of `word`, for the engine or the host."""

    name: str
    word: int
    low: int
    bits: int
    for_engine: bool
    doc: str


HEADER = (
    HeaderField("magic", 0, 0, 32, True, f'magic {MAGIC:#x} ("WINO")'),
    HeaderField("version", 0, 32, 16, True, f"version {VERSION}"),
    HeaderField("num_layers", 0, 48, 16, True, f"number of layers, 1..{MAX_LAYERS}"),
    HeaderField("signature", 1, 0, 64, True, "signature of the engine"),
    HeaderField("input_base", 2, 0, 64, False, "first word of the input"),
    HeaderField("input_words", 3, 0, 64, False, "words of the input"),
    HeaderField("feature_words", 4, 0, 64, False, "words of feature memory, of an image"),
    HeaderField("weight_beats", 5, 0, 64, False, "beats of weight memory"),
    HeaderField("num_images", 6, 0, 8, True, f"number of images of a run, 1..{MAX_IMAGES}"),
    HeaderField("image_words", 6, 32, 32, True, "words from the maps of one image to the next's"),
)


def checksum(words: Iterable[int]) -> int:
    """Return the CRC-32 of 64-bit words, lowest byte first: `zlib.crc32` of their bytes."""
    return zlib.crc32(b"".join(word.to_bytes(WORD_BITS // 8, "little") for word in words))


def engine_signature(engine: EngineConfig) -> int:
    """Return the 64-bit number that tells engines apart: a hash of every parameter."""
    return int(sha256_value(asdict(engine))[:16], 16)
