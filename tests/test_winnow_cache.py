# SPDX-License-Identifier: Apache-2.0
"""Cache entries: right and whole, or a miss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from winnow.cache import is_sealed, read_entry, seal, write_entry

VALUE = {"verilog": "module a;", "stages": 3, "ns": [0.1, 1e-9]}


def test_value_comes_back_under_its_key(tmp_path: Path) -> None:
    assert read_entry(tmp_path / "none", "k") is None
    write_entry(tmp_path, "k", VALUE)
    assert read_entry(tmp_path, "k") == VALUE
    assert read_entry(tmp_path, "j") is None


def test_no_flipped_bit_or_cut_is_believed(tmp_path: Path) -> None:
    write_entry(tmp_path, "k", VALUE)
    path = tmp_path / "k.json"
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(bytes(flipped))
        assert read_entry(tmp_path, "k") in (None, VALUE)
        path.write_bytes(content[:place])
        assert read_entry(tmp_path, "k") is None


def test_swapped_entries_are_misses(tmp_path: Path) -> None:
    write_entry(tmp_path, "a", 1)
    write_entry(tmp_path, "b", 2)
    a, b = (tmp_path / "a.json").read_bytes(), (tmp_path / "b.json").read_bytes()
    (tmp_path / "a.json").write_bytes(b)
    (tmp_path / "b.json").write_bytes(a)
    assert read_entry(tmp_path, "a") is None
    assert read_entry(tmp_path, "b") is None


FOREIGN = [
    b"",
    b"null",
    b"3",
    b"[]",
    b"{}",
    b'{"value": 1}',
    b'{"value": 1, "sha256": null}',
    b"\x80\x04\x95",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"value": ' + b"9" * 5000 + b', "sha256": ""}',
    json.dumps({"value": 1, "sha256": "0" * 64}).encode(),
]


@pytest.mark.parametrize("content", FOREIGN, ids=range(len(FOREIGN)))
def test_foreign_entry_is_a_miss(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k.json").write_bytes(content)
    assert read_entry(tmp_path, "k") is None


def test_folder_in_an_entrys_place_is_a_miss(tmp_path: Path) -> None:
    (tmp_path / "k.json").mkdir()
    assert read_entry(tmp_path, "k") is None


def test_seal_holds_for_one_program_and_key(tmp_path: Path) -> None:
    program = tmp_path / "csim"
    assert not is_sealed(program, "k")
    program.write_bytes(b"\x7fELF 1")
    assert not is_sealed(program, "k")
    seal(program, "k")
    assert is_sealed(program, "k")
    assert not is_sealed(program, "j")
    for damage in (b"", b"\x7fELF", b"\x7fELF 0", b"\x7fELF 1 "):
        program.write_bytes(damage)
        assert not is_sealed(program, "k")
    program.write_bytes(b"\x7fELF 1")
    assert is_sealed(program, "k")
    (tmp_path / "csim.sha256").write_bytes(b"\xff")
    assert not is_sealed(program, "k")
