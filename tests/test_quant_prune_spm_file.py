# SPDX-License-Identifier: Apache-2.0
"""The SPM file: back bit for bit, as large as the record says, and no damage goes unseen."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from quant.build import load_pruned
from quant.network.rewrite import tap_layers
from quant.prune.spm_file import Form, Layer, quantized_layers, read_spm, write_spm
from quant.prune.storage import pack, unpack
from tests.test_quant_prune_pattern import PATTERN, kernels_of_u
from tests.test_quant_prune_storage import random_case
from tests.test_quant_stages import TINY, build_at, run_all
from winnow.artefact import Record
from winnow.errors import ArtefactError

CASES = ((5, 3, 7, 4), (16, 4, 3, 33), (1, 9, 2, 5), (9, 1, 6, 6), (126, 4, 20, 20))


def layers_of(cases: Sequence[tuple[int, int, int, int]]) -> list[Layer]:
    """Return random layers for (patterns, places, output channels, input channels)."""
    layers = []
    for seed, (count, places, out, channels) in enumerate(cases):
        patterns, kernels = random_case(seed, count, places, out * channels)
        form = Form(f"conv{seed}", out, channels, -seed, 8, count, places)
        layers.append(Layer(form, pack(kernels, patterns)))
    return layers


def check_equal(found: Sequence[Layer], wanted: Sequence[Layer]) -> None:
    assert [layer.form for layer in found] == [layer.form for layer in wanted]
    for got, want in zip(found, wanted, strict=True):
        assert got.packed.values.dtype == np.int8
        np.testing.assert_array_equal(got.packed.patterns, want.packed.patterns)
        np.testing.assert_array_equal(got.packed.values, want.packed.values)
        assert got.packed.indices == want.packed.indices
        np.testing.assert_array_equal(unpack(got.packed), unpack(want.packed))


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path, layers = tmp_path / "a.spm", layers_of(CASES)
    write_spm(path, layers)
    check_equal(read_spm(path, ""), layers)
    again = tmp_path / "b.spm"
    write_spm(again, read_spm(path, ""))
    assert again.read_bytes() == path.read_bytes()
    header = int.from_bytes(path.read_bytes()[4:8], "little")
    bits = sum(layer.packed.bits(8) for layer in layers)
    assert path.stat().st_size == 12 + header + -(-bits // 8)


def test_bytes_are_those_of_the_document(tmp_path: Path) -> None:
    """Two patterns, two kernels, values 5, -1 and 7, 0."""
    patterns = np.zeros((2, 9), dtype=bool)
    patterns[0, [0, 1]] = patterns[1, [1, 8]] = True
    kernels = np.zeros((2, 9), dtype=np.int8)
    kernels[0, [1, 8]] = 5, -1
    kernels[1, 0] = 7
    layer = Layer(Form("c", 2, 1, -6, 8, 2, 2), pack(kernels, patterns))
    write_spm(tmp_path / "a.spm", [layer])
    content = (tmp_path / "a.spm").read_bytes()
    start = 12 + int.from_bytes(content[4:8], "little")
    string = "110000000" + "010000001" + "10" + "00000101" + "11111111" + "00000111" + "00000000"
    want = int(string.ljust(56, "0"), 2).to_bytes(7, "big")
    assert content[start:] == want
    assert json.loads(content[12:start]) == [asdict(layer.form)]
    assert content[:4] == b"SPM1"
    assert int.from_bytes(content[8:12], "little") == zlib.crc32(content[12:])


def sealed(rows: object, payload: bytes) -> bytes:
    """Return a file with a right checksum."""
    header = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
    crc = zlib.crc32(header + payload).to_bytes(4, "little")
    return b"SPM1" + len(header).to_bytes(4, "little") + crc + header + payload


ROW = asdict(Form("c", 1, 1, 0, 8, 3, 1))
KERNEL = (0b100000000_010000000_001000000_01_00000011 << 3).to_bytes(5, "big")


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ArtefactError) as found:
        read_spm(path, "python -m quant prune")
    start, end = f"'{path}' is damaged: ", "; run: python -m quant prune"
    text = str(found.value)
    assert (text[: len(start)], text[-len(end) :], "\n" in text) == (start, end, False)
    return text.removeprefix(start).removesuffix(end)


def test_a_file_made_by_hand_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.spm"
    path.write_bytes(sealed([ROW], KERNEL))
    (layer,) = read_spm(path, "")
    assert unpack(layer.packed).tolist() == [[0, 3, 0, 0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it begins with b'', not b'SPM1'"),
        (b"PK\x03\x04 and more", "it begins with b'PK\\x03\\x04', not b'SPM1'"),
        (b"SPM1\xff\x00\x00\x00", "it ends after 8 bytes, in its header"),
        (sealed(b"[", b""), "its header cannot be read"),
        (sealed(b"\xff", b""), "its header cannot be read"),
        (sealed([3], b""), "its header cannot be read"),
        (sealed({"a": 1}, b""), "its header must be a list of layers, got {'a': 1}"),
        (sealed({}, b""), "its header must be a list of layers, got {}"),
        (sealed([], b""), "its header must be a list of layers, got []"),
        (sealed(b'""', b""), "its header must be a list of layers, got ''"),
        (sealed(None, b""), "its header must be a list of layers, got None"),
        (sealed([{"name": "c"}], b""), "its header cannot be read"),
        (sealed([ROW | {"exponent": "x"}], KERNEL), "its header cannot be read"),
        (sealed([ROW | {"places": 10}], KERNEL), "places of a layer must be in 1..9, got 10"),
        (
            sealed([ROW | {"out_channels": -1}], KERNEL),
            "out_channels of a layer must be in 1..2147483648, got -1",
        ),
        (sealed([ROW], KERNEL[:4]), "it has 4 bytes of kernels, its header 5"),
        (sealed([ROW], KERNEL + b"\0"), "it has 6 bytes of kernels, its header 5"),
        (sealed([ROW], KERNEL[:4] + b"\x19"), "there are bits beyond its kernels"),
        (sealed([ROW], b"\xff" + KERNEL[1:]), "a pattern of 'c' has not 1 places"),
        (
            sealed([ROW], (int.from_bytes(KERNEL, "big") | 3 << 11).to_bytes(5, "big")),
            "a kernel of 'c' has a pattern that is not there",
        ),
    ],
)
def test_what_no_writer_wrote_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert refused(tmp_path / "a.spm", content) == message


def test_every_damaged_bit_and_every_end_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.spm"
    write_spm(path, layers_of(CASES[2:4]))
    content = path.read_bytes()
    for size in range(len(content)):
        assert refused(path, content[:size])
    for place in range(len(content)):
        for bit in (1, 128):
            damaged = bytearray(content)
            damaged[place] ^= bit
            assert refused(path, bytes(damaged))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prune.spm"
    with pytest.raises(ArtefactError) as found:
        read_spm(path, "python -m quant prune")
    assert str(found.value) == f"'{path}' is missing; make it with: python -m quant prune"


def test_build_writes_what_its_record_counts(tmp_path: Path) -> None:
    """The pruned network's kernels, rounded to 8 bits; another method's build has no such file."""
    config = replace(TINY, prune=replace(PATTERN, epochs=2))
    build = build_at(tmp_path, config)
    run_all(build, ("train", "prune_channels", "prune"))
    record = Record.load(tmp_path / "prune.json", "")
    assert "prune.spm" in record.outputs
    path = tmp_path / "prune.spm"
    (layer,) = read_spm(path, "")
    header = int.from_bytes(path.read_bytes()[4:8], "little")
    stored = record.numbers["storage"]["stored_bits"]
    assert path.stat().st_size == 12 + header + -(-stored // 8)
    net = load_pruned(build)
    exact = kernels_of_u(tap_layers(net)["conv2"].u)
    given = unpack(layer.packed).reshape(exact.shape) * 2.0**layer.form.exponent
    step = 2.0**layer.form.exponent
    inside = np.abs(exact) <= 127 * step
    assert np.abs(given - exact)[inside].max() <= step / 2 + 1e-5
    assert inside.mean() > 0.9
    assert ((given != 0).sum(axis=2) <= 3).all()
    patterns = record.numbers["patterns"]
    check_equal((layer,), quantized_layers(net, patterns))
    texts = ["".join(str(int(place)) for place in row) for row in layer.packed.patterns]
    assert texts == patterns["conv2"]
    run_all(build_at(tmp_path, replace(TINY, prune=replace(TINY.prune, epochs=1))), ("prune",))
    assert not path.exists()
