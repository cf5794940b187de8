# SPDX-License-Identifier: Apache-2.0
"""The file of a network's 3x3 kernels as sparsity pattern masks (SPM).

    bytes 0..3    "SPM1"
    bytes 4..7    size of the header in bytes, lowest byte first
    bytes 8..11   CRC-32 of all that follows, lowest byte first
    header        JSON: a list of layers, each with the members of `Form`
    payload       one string of bits, highest bit of a byte first, with zeros to a whole byte

The string has layer after layer what `Spm.bits` counts: the patterns of 9 bits, a place of the
kernel each, row by row; the pattern's index of every kernel; the values of every kernel in two's
complement, in the order of their places.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quant.network.calibrate import best_exponents
from quant.network.rewrite import tap_layers
from quant.prune.pattern import nearest, spatial_kernels
from quant.prune.storage import PIXELS, WEIGHT_BITS, Spm, index_bits, pack, spm_bits
from winnow.artefact import write_bytes
from winnow.errors import ArtefactError, shown, shown_text
from winnow.fixed_point import int_range

SPM_FILE = "prune.spm"  # in a build
MAGIC = b"SPM1"
START = 12  # bytes before the header
MOST = 2**31  # of any number in a header


@dataclass(frozen=True)
class Form:
    """What the header says of a layer: its kernels are integers times 2^`exponent`."""

    name: str
    out_channels: int
    in_channels: int
    exponent: int
    weight_bits: int
    patterns: int
    places: int

    @property
    def kernels(self) -> int:
        """How many kernels there are; those of an output channel's inputs follow each other."""
        return self.out_channels * self.in_channels

    @property
    def bits(self) -> int:
        """The size of its part of the payload."""
        return spm_bits(self.kernels, self.places, self.patterns, self.weight_bits)


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer and its packed kernels."""

    form: Form
    packed: Spm


@torch.no_grad()
def quantized_layers(
    net: torch.nn.Module, patterns: Mapping[str, Sequence[str]]
) -> tuple[Layer, ...]:
    """Return the 3x3 kernels of a pattern-pruned network, their weights rounded to 8 bits.

    `patterns` are those of each layer as the record of stage `prune` has them. A layer's exponent
    is the one of least squared error.
    """
    layers, found = tap_layers(net), []
    bounds = int_range(WEIGHT_BITS, signed=True, narrow=True)
    for name, texts in patterns.items():
        table = torch.tensor([[int(place) for place in text] for text in texts])
        kernels = spatial_kernels(layers[name]).double().cpu()
        kernels = kernels * nearest(kernels, table)  # the zeros of a Winograd layer are rounded
        exponent = int(best_exponents(kernels.reshape(1, -1), bounds))
        integers = (kernels * 2.0**-exponent).round().clamp(*bounds).to(torch.int8)
        packed = pack(integers.flatten(0, 1).numpy(), table.numpy().astype(bool))
        out, channels, _ = kernels.shape
        form = Form(name, out, channels, exponent, WEIGHT_BITS, *packed.shape)
        found.append(Layer(form, packed))
    return tuple(found)


def write_spm(path: Path, layers: Sequence[Layer]) -> None:
    """Write layers; the payload takes the sum of their `bits`, rounded up to bytes."""
    header = json.dumps([asdict(layer.form) for layer in layers], separators=(",", ":")).encode()
    strings = [_string(layer) for layer in layers]
    rest = header + np.packbits(np.concatenate(strings)).tobytes()
    start = MAGIC + len(header).to_bytes(4, "little") + zlib.crc32(rest).to_bytes(4, "little")
    write_bytes(path, start + rest)


def _string(layer: Layer) -> NDArray[np.uint8]:
    """Return the bits of a layer."""
    form, spm = layer.form, layer.packed
    count = form.kernels * index_bits(form.patterns)
    indices = np.unpackbits(np.frombuffer(spm.indices, np.uint8), count=count)
    values = spm.values.astype(np.int64)[:, :, None] >> _falling(form.weight_bits) & 1
    return np.concatenate([spm.patterns.ravel(), indices, values.ravel()]).astype(np.uint8)


def _falling(bits: int) -> NDArray[np.int64]:
    """Return the places of a number's bits, the highest first."""
    return np.arange(bits)[::-1]


def read_spm(path: Path, made_by: str) -> tuple[Layer, ...]:
    """Read the layers of a file that `write_spm` wrote, bit for bit.

    `made_by` is the command that makes the file. Raises ArtefactError for one that is missing, is
    none, is short or damaged.
    """
    if not path.is_file():
        raise ArtefactError(f"'{path}' is missing; make it with: {made_by}")
    content = path.read_bytes()
    try:
        return _parsed(content)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else "its header cannot be read"
        raise ArtefactError(f"'{path}' is damaged: {reason}; run: {made_by}") from error


def _parsed(content: bytes) -> tuple[Layer, ...]:
    """Return the layers of a file's content; ValueError with a reason if it is damaged."""
    if content[:4] != MAGIC:
        raise ValueError(f"it begins with {content[:4]!r}, not {MAGIC!r}")
    size, crc = (int.from_bytes(content[i : i + 4], "little") for i in (4, 8))
    if len(content) < START + size:
        raise ValueError(f"it ends after {len(content)} bytes, in its header")
    if zlib.crc32(content[START:]) != crc:
        raise ValueError("its checksum is wrong")
    rows = json.loads(content[START : START + size])
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"its header must be a list of layers, got {shown(rows)}")
    forms = [_form(row) for row in rows]
    wanted, payload = -(-sum(form.bits for form in forms) // 8), content[START + size :]
    if len(payload) != wanted:
        raise ValueError(f"it has {len(payload)} bytes of kernels, its header {wanted}")
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    layers, start = [], 0
    for form in forms:
        layers.append(Layer(form, _packed(form, bits[start : start + form.bits])))
        start += form.bits
    if bits[start:].any():
        raise ValueError("there are bits beyond its kernels")
    return tuple(layers)


def _form(row: dict[str, Any]) -> Form:
    """Return what a header says of a layer; ValueError or TypeError for what no layer has."""
    form = Form(**row)
    ranges = {"out_channels": 1, "in_channels": 1, "patterns": 1, "places": 1, "weight_bits": 2}
    tops = {"places": PIXELS, "weight_bits": 8, "patterns": 126}
    for name, low in ranges.items():
        value, high = getattr(form, name), tops.get(name, MOST)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} of a layer must be in {low}..{high}, got {shown(value)}")
    if not isinstance(form.name, str) or type(form.exponent) is not int:
        raise TypeError
    return form


def _packed(form: Form, bits: NDArray[np.uint8]) -> Spm:
    """Return the kernels of a layer's bits."""
    ends = np.cumsum([form.patterns * PIXELS, form.kernels * index_bits(form.patterns)])
    first, second, third = np.split(bits, ends)
    patterns = first.reshape(-1, PIXELS).astype(bool)
    if (patterns.sum(axis=1) != form.places).any():
        raise ValueError(f"a pattern of '{shown_text(form.name)}' has not {form.places} places")
    weights = 1 << _falling(form.weight_bits)
    weights[0] *= -1  # two's complement
    values = third.reshape(form.kernels, form.places, -1) @ weights
    packed = Spm(patterns, np.packbits(second).tobytes(), values.astype(np.int8))
    if packed.index.max() >= form.patterns:
        raise ValueError(f"a kernel of '{shown_text(form.name)}' has a pattern that is not there")
    return packed
