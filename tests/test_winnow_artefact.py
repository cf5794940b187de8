# SPDX-License-Identifier: Apache-2.0
"""Files between stages: whole or absent, verified when read."""

from __future__ import annotations

import errno
import json
import os
import stat
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from winnow.artefact import (
    Record,
    listing_hash,
    load_arrays,
    save_arrays,
    sha256_bytes,
    sha256_file,
    sha256_value,
    write_atomic,
    write_bytes,
    write_text,
)
from winnow.errors import ArtefactError

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_hash_of_bytes_and_file(tmp_path: Path) -> None:
    assert sha256_bytes(b"") == EMPTY
    write_bytes(tmp_path / "a", b"")
    assert sha256_file(tmp_path / "a") == EMPTY


def test_hash_of_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError) as caught:
        sha256_file(tmp_path / "gone")
    assert str(caught.value) == f"cannot read '{tmp_path}/gone': No such file or directory"


def test_hash_of_value_ignores_key_order_only() -> None:
    assert sha256_value({"a": 1, "b": 2}) == sha256_value({"b": 2, "a": 1})
    assert sha256_value({"a": 1}) != sha256_value({"a": 2})
    assert sha256_value([1, 2]) != sha256_value([2, 1])


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "x" / "y.txt"
    write_text(path, "long old text")
    write_text(path, "µ")
    assert path.read_bytes() == b"\xc2\xb5"
    assert list(path.parent.iterdir()) == [path]


def test_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half of the new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            write_text(tmp_path / f"{mask}", "x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{mask}").stat().st_mode) == mode


def test_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 255), "x")
    assert len(list(tmp_path.iterdir())) == 1


def _write_often(path: Path, letter: str) -> int:
    for _ in range(25):
        write_text(path, letter * 50_000)
    return 25


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_many_writers_of_one_path_all_succeed(tmp_path: Path, pool: type[Executor]) -> None:
    """Of 600 writes at once 57 failed when all shared one temporary name."""
    path = tmp_path / "a"
    with pool(8) as workers:
        assert sum(workers.map(_write_often, [path] * 8, "abcdefgh")) == 200
    text = path.read_text()
    assert text == text[0] * 50_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_full_disk_leaves_the_old_file_and_names_it(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomic(path, full if step == "write" else lambda file: file.write(b"new"))
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_path_through_a_file_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match=r"a/b'$") as caught:
        write_text(tmp_path / "a" / "b", "x")
    assert caught.value.filename == str(tmp_path / "a" / "b")


def test_folder_is_not_a_file_of_a_stage(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"^cannot read '.*': Is a directory$"):
        sha256_file(tmp_path)


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"a.b": np.arange(6).reshape(2, 3), "c": np.array(-1.5, dtype=np.float32)}
    save_arrays(tmp_path / "x.npz", arrays)
    loaded = load_arrays(tmp_path / "x.npz", "make x")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_objects_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^array 'a' holds Python objects and would need pickle$"):
        save_arrays(tmp_path / "x.npz", {"a": np.array([{}])})
    assert list(tmp_path.iterdir()) == []


def test_missing_arrays_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError) as caught:
        load_arrays(tmp_path / "x.npz", "make x")
    assert str(caught.value) == f"'{tmp_path}/x.npz' is missing; make it with: make x"


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip archive", b"\x93NUMPY\x01\x00"])
def test_damaged_arrays_name_the_command(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    write_bytes(path, content)
    with pytest.raises(ArtefactError) as caught:
        load_arrays(path, "make x")
    assert str(caught.value) == f"'{path}' is damaged (BadZipFile); delete it and run: make x"


def test_no_flipped_bit_escapes_as_another_error_or_value(tmp_path: Path) -> None:
    """A damaged zip directory may hide an array (its reader misses it), never change one."""
    path = tmp_path / "x.npz"
    arrays = {"a": np.arange(50), "b": np.zeros((3, 4)), "c": np.array(["text"])}
    save_arrays(path, arrays)
    content = path.read_bytes()
    num_rejected = 0
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(bytes(flipped))
        try:
            loaded = load_arrays(path, "make x")
        except ArtefactError:
            num_rejected += 1
            continue
        for name, array in loaded.items():
            np.testing.assert_array_equal(arrays[name], array)
    assert num_rejected > len(content) / 2


def record() -> Record:
    return Record("lower", {"config": "1"}, {"out.txt": sha256_bytes(b"done")}, {"layers": 3})


def test_record_comes_back_and_is_stable(tmp_path: Path) -> None:
    path = tmp_path / "lower.json"
    record().save(path)
    assert Record.load(path, "make x") == record()
    assert json.loads(path.read_text())["numbers"] == {"layers": 3}
    first = path.read_bytes()
    record().save(path)
    assert path.read_bytes() == first


def test_missing_record_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError) as caught:
        Record.load(tmp_path / "lower.json", "make x")
    assert str(caught.value) == f"'{tmp_path}/lower.json' is missing; make it with: make x"


DAMAGED_RECORDS = [
    "",
    "{",
    "[]",
    "null",
    '{"stage": "a"}',
    '{"stage": "a", "inputs": {}, "outputs": {}, "numbers": {}, "more": 1}',
    '{"stage": "a", "inputs": {}, "outputs": []}',
    '{"stage": "a", "inputs": 3, "outputs": {}}',
    '{"stage": ' + "9" * 5000 + "}",
    "[" * 100_000,
]


@pytest.mark.parametrize("content", DAMAGED_RECORDS, ids=range(len(DAMAGED_RECORDS)))
def test_damaged_record_names_the_command(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lower.json"
    write_text(path, content)
    with pytest.raises(ArtefactError) as caught:
        Record.load(path, "make x")
    assert str(caught.value) == f"'{path}' is damaged; delete it and run: make x"


def test_result_is_the_files_or_the_numbers_but_no_time() -> None:
    files = record()
    assert replace(files, numbers={"layers": 4}).result_hash() == files.result_hash()
    assert replace(files, outputs={"out.txt": "x"}).result_hash() != files.result_hash()
    alone = replace(files, outputs={})
    assert replace(alone, numbers={"layers": 4}).result_hash() != alone.result_hash()
    timed = replace(alone, numbers={"layers": 3, "seconds": 5.0})
    assert timed.result_hash() == alone.result_hash()


def test_listing_sees_names_sizes_and_times(tmp_path: Path) -> None:
    place = tmp_path / "images"
    hashes = [listing_hash(place)]
    (place / "a").mkdir(parents=True)
    for name, text in (("1.png", "x"), ("a/2.png", "y"), ("1.png", "xx")):
        (place / name).write_text(text)
        hashes.append(listing_hash(place))
    os.utime(place / "1.png", (1, 1))
    hashes.append(listing_hash(place))
    assert len(set(hashes)) == 5
    assert hashes[0] == "missing"
    assert listing_hash(place / "1.png") == sha256_bytes(b"xx")
