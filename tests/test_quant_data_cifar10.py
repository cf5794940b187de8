# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10's own files: both versions give the images they hold, and damage is named.

The files are written here byte by byte from the format's description; pickles as Python 2 did.
"""

from __future__ import annotations

import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quant.data import InputShape, input_shape, load_split
from quant.data.cifar10 import read_binary, read_python
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown

NAMES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
PER_FILE = 40
REPLACE = "replace it with the file of the official archive"


def pixel(file: int, image: int, place: int) -> int:
    """Return the byte of a plane position (channel * 1024 + row * 32 + column)."""
    return (file, image)[place] if place < 2 else (file * 41 + image * 7 + place * 13) % 251


def label(file: int, image: int) -> int:
    return (3 * image + file) % 10


def planes(file: int, count: int = PER_FILE) -> list[bytes]:
    return [bytes(pixel(file, i, place) for place in range(3072)) for i in range(count)]


def binary(file: int) -> bytes:
    return b"".join(bytes([label(file, i)]) + p for i, p in enumerate(planes(file)))


def python2(pixels: bytes, count: int, labels: list[int], width: int = 3072) -> bytes:
    """Return Python 2's pickle of {"data": uint8 [count, width], "labels": [...]}, protocol 2."""
    shape = b"M" + struct.pack("<H", count) + b"M" + struct.pack("<H", width) + b"\x86"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
    kind += b"J\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    array += b"(K\x01" + shape + kind + b"\x89T" + struct.pack("<I", len(pixels)) + pixels + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([number]) for number in labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels" + numbers + b"u."


def python(file: int) -> bytes:
    return python2(b"".join(planes(file)), PER_FILE, [label(file, i) for i in range(PER_FILE)])


VERSIONS: dict[str, Callable[[int], bytes]] = {".bin": binary, "": python}


def write(folder: Path, suffix: str) -> Path:
    """Write all files of a version; return `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, name in enumerate(NAMES):
        (folder / f"{name}{suffix}").write_bytes(VERSIONS[suffix](file))
    return folder


def config(path: Path) -> DataConfig:
    return DataConfig(source="cifar10", path=str(path), image_size=32)


@pytest.mark.parametrize("suffix", VERSIONS)
def test_test_part_is_the_official_file(suffix: str, tmp_path: Path) -> None:
    split = load_split(config(write(tmp_path, suffix)))
    assert split.test.labels.tolist() == [label(5, i) for i in range(PER_FILE)]
    expected = torch.tensor([list(p) for p in planes(5)], dtype=torch.uint8)
    assert torch.equal(split.test.images[:PER_FILE], expected.view(PER_FILE, 3, 32, 32))
    assert split.shape.image == (3, 32, 32)
    assert split.classes == 10
    assert input_shape(config(tmp_path)) == InputShape(3, 32, 10)


@pytest.mark.parametrize("suffix", VERSIONS)
def test_training_files_are_cut_by_class(suffix: str, tmp_path: Path) -> None:
    split = load_split(config(write(tmp_path, suffix)))
    parts = (split.train, split.validation)
    assert [part.labels.bincount().tolist() for part in parts] == [[18] * 10, [2] * 10]
    whole = {p: label(file, i) for file in range(5) for i, p in enumerate(planes(file))}
    assert len(whole) == 200
    found = [
        (bytes(image.flatten().tolist()), int(number))
        for part in parts
        for image, number in zip(part.images[: len(part)], part.labels, strict=True)
    ]
    assert sorted(found) == sorted(whole.items())


@pytest.mark.parametrize(("suffix", "inside"), [(".bin", "batches-bin"), ("", "batches-py")])
def test_path_may_be_where_the_archive_was_unpacked(
    suffix: str, inside: str, tmp_path: Path
) -> None:
    write(tmp_path / f"cifar-10-{inside}", suffix)
    assert len(load_split(config(tmp_path)).test) == PER_FILE


def test_pickles_of_todays_python_and_numpy_are_read(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    pixels = torch.tensor([list(p) for p in planes(0)], dtype=torch.uint8).numpy()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        batch = {b"data": pixels, b"labels": [label(0, i) for i in range(PER_FILE)]}
        path.write_bytes(pickle.dumps(batch, protocol))
        images, labels = read_python(path)
        assert images.tobytes() == b"".join(planes(0))
        assert labels.tolist() == batch[b"labels"]


def refused(read: Callable[[Path], Any], path: Path) -> str:
    """Return the one-line message of what `read` refuses, without the folder."""
    with pytest.raises(ConfigError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path.parent}/", "")


def test_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_split(config(tmp_path / "none"))
    assert str(caught.value) == (
        f"data.path {shown(f'{tmp_path}/none')} must hold CIFAR-10's data_batch_1.bin (binary "
        "version) or data_batch_1 (Python version), and has neither; unpack the archive there"
    )


@pytest.mark.parametrize("suffix", VERSIONS)
@pytest.mark.parametrize("name", NAMES[1:])
def test_missing_file_is_named(name: str, suffix: str, tmp_path: Path) -> None:
    (write(tmp_path, suffix) / f"{name}{suffix}").unlink()
    with pytest.raises(ConfigError) as caught:
        load_split(config(tmp_path))
    assert str(caught.value) == (
        f"cannot read '{tmp_path}/{name}{suffix}': No such file or directory; {REPLACE}"
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "must be whole records of 3073 bytes, got 0 bytes"),
        (binary(0)[:-1], "must be whole records of 3073 bytes, got 122919 bytes"),
        (binary(0) + b"x", "must be whole records of 3073 bytes, got 122921 bytes"),
    ],
    ids=["empty", "truncated", "longer"],
)
def test_binary_file_of_another_length_is_refused(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "b.bin"
    path.write_bytes(content)
    assert refused(read_binary, path) == f"'b.bin' {complaint}; {REPLACE}"


def test_binary_label_out_of_range_is_named(tmp_path: Path) -> None:
    path, content = tmp_path / "b.bin", bytearray(binary(0))
    content[3073 * 17] = 10
    path.write_bytes(content)
    message = refused(read_binary, path)
    assert message == f"'b.bin': the label of record 17 must be in 0..9, got 10; {REPLACE}"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (pickle.dumps([1, 2]), " must hold a dict, got list"),
        (pickle.dumps({b"labels": [1]}), ": data must be a uint8 array [n, 3072]"),
        (python2(bytes(20), 2, [1, 2], 10), ": data must be a uint8 array [n, 3072]"),
        (python2(bytes(6144), 2, [1, 2, 3]), ": every image must have a label, got 3 labels for 2"),
        (python2(b"", 0, []), ": every image must have a label, got 0 labels for 0 images"),
        (python2(bytes(6144), 2, [1, 10]), ": the label of record 1 must be in 0..9, got 10"),
        (
            python2(bytes(3072), 1, [1]).replace(b"](K\x01e", b"U\x01a"),
            ": labels must be a list of integers",
        ),
        (b"", " must be a pickle of plain values and arrays, but Ran out of input"),
    ],
    ids=["list", "no data", "width", "labels", "empty", "range", "text", "no bytes"],
)
def test_pickle_of_something_else_is_refused(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "batch"
    path.write_bytes(content)
    message = refused(read_python, path)
    assert message.startswith(f"'batch'{complaint}")
    assert message.endswith(f"; {REPLACE}")


class Harmful:
    """Runs a command when a plain unpickler reads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


def test_pickle_that_asks_for_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({b"data": Harmful()}))
    message = refused(read_python, path)
    assert message == (
        "'batch' must be a pickle of plain values and arrays, but it asks for posix.system; "
        f"{REPLACE}"
    )
    assert not (tmp_path / "harmed").exists()
    pickle.loads(path.read_bytes())  # the same bytes do harm where nothing restricts them
    assert (tmp_path / "harmed").exists()


def test_damaged_pickle_never_gives_another_error(tmp_path: Path) -> None:
    """Truncated anywhere it is refused; with a byte changed it is read or refused."""
    path, draw = tmp_path / "batch", random.Random(0)
    content = python2(b"".join(planes(0, 2)), 2, [3, 4])
    structure = [i for i in range(len(content)) if i < 230 or i > len(content) - 24]
    for place in structure:
        path.write_bytes(content[:place])
        refused(read_python, path)
    outcomes = set()
    for _ in range(1500):
        changed = bytearray(content)
        changed[draw.choice(structure)] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            images, labels = read_python(path)
        except ConfigError:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert images.shape == (len(labels), 3, 32, 32)
    assert outcomes == {"read", "refused"}
