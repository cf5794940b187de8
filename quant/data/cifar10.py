# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10's own files (Krizhevsky 2009): the binary version or the Python version.

Binary, `data_batch_1.bin` .. `data_batch_5.bin` and `test_batch.bin`: records of one label byte and
3,072 bytes of red, green and blue planes, rows first. Python, `data_batch_1` .. and `test_batch`:
pickles of a dict whose `data` is uint8 [n, 3072] of the same bytes and whose `labels` is a list.

The official test file is the test part; a stratified tenth of the training files is for
validation. Files may hold fewer records than the official 10,000.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quant.data.augment import PHOTOS
from quant.data.samples import Samples, Split, cut
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown, shown_text

NUM_CLASSES = 10
SHAPE = (3, 32, 32)
IMAGE_BYTES = 3 * 32 * 32
RECORD_BYTES = 1 + IMAGE_BYTES
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILE = "test_batch"
VALIDATION_SHARE = 0.1
FOLDERS = {".bin": "cifar-10-batches-bin", "": "cifar-10-batches-py"}  # inside the archives
REPLACE = "replace it with the file of the official archive"

# What unpickling damaged files raises, found by truncating and flipping bytes.
_DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)

Records = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load_cifar10(config: DataConfig) -> Split:
    """Read the files below `data.path`; ConfigError names the file that is missing or damaged."""
    folder, suffix = find_files(config.place)
    read = read_binary if suffix else read_python
    train = [read(folder / f"{name}{suffix}") for name in TRAIN_FILES]
    images, labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    test = read(folder / f"{TEST_FILE}{suffix}")
    kept, held = cut(labels, VALIDATION_SHARE, config.split_seed)
    records = ((images[kept], labels[kept]), (images[held], labels[held]), test)
    parts = [Samples(torch.from_numpy(x), torch.from_numpy(y)) for x, y in records]
    return Split.of(parts, NUM_CLASSES, PHOTOS)


def find_files(path: Path) -> tuple[Path, str]:
    """Return the folder of the files and their suffix: ".bin", or "" for pickles."""
    for suffix, inside in FOLDERS.items():
        for folder in (path, path / inside):
            if (folder / f"{TRAIN_FILES[0]}{suffix}").is_file():
                return folder, suffix
    raise ConfigError(
        f"data.path {shown(str(path))} must hold CIFAR-10's {TRAIN_FILES[0]}.bin (binary version) "
        f"or {TRAIN_FILES[0]} (Python version), and has neither; unpack the archive there"
    )


def read_binary(path: Path) -> Records:
    """Read a file of the binary version: images [n, 3, 32, 32] and labels [n]."""
    content = np.frombuffer(_read(path), np.uint8)
    if len(content) == 0 or len(content) % RECORD_BYTES:
        raise ConfigError(
            f"'{path}' must be whole records of {RECORD_BYTES} bytes, got {len(content)} bytes; "
            f"{REPLACE}"
        )
    records = content.reshape(-1, RECORD_BYTES)
    return _checked(path, records[:, 1:], records[:, 0].astype(np.int64))


def read_python(path: Path) -> Records:
    """Read a file of the Python version: images [n, 3, 32, 32] and labels [n]."""
    batch = _unpickle(path)
    if not isinstance(batch, dict):
        raise ConfigError(f"'{path}' must hold a dict, got {type(batch).__name__}; {REPLACE}")
    array, labels = (batch.get(key, batch.get(key.encode())) for key in ("data", "labels"))
    pixels = array.pixels() if isinstance(array, PickledArray) else None
    if pixels is None:
        raise ConfigError(f"'{path}': data must be a uint8 array [n, {IMAGE_BYTES}]; {REPLACE}")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ConfigError(f"'{path}': labels must be a list of integers; {REPLACE}")
    if len(labels) != len(pixels) or not labels:
        raise ConfigError(
            f"'{path}': every image must have a label, got {len(labels)} labels for "
            f"{len(pixels)} images; {REPLACE}"
        )
    return _checked(path, pixels, np.array(labels, np.int64))


class PickledArray:
    """What a pickle says of an array, unchecked: (shape, type, order, bytes)."""

    def __init__(self, *told: Any) -> None:
        self.told = told

    def __setstate__(self, state: Any) -> None:
        _, *self.told = state  # after a version

    def pixels(self) -> NDArray[np.uint8] | None:
        """Return the array if it is uint8 [n, 3072] and complete."""
        if len(self.told) != 4:
            return None
        shape, kind, column_order, content = self.told
        is_table = isinstance(shape, tuple) and len(shape) == 2 and shape[1] == IMAGE_BYTES
        is_uint8 = isinstance(kind, PickledType) and kind.told[:1] in (("u1",), (b"u1",))
        if not is_table or not is_uint8 or column_order or not isinstance(content, bytes):
            return None
        is_complete = type(shape[0]) is int and shape[0] * IMAGE_BYTES == len(content)
        return np.frombuffer(content, np.uint8).reshape(-1, IMAGE_BYTES) if is_complete else None


class PickledType:
    """What a pickle says of an array's type."""

    def __init__(self, *told: Any) -> None:
        self.told = told

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and alignment: a byte has none."""


def _array(*_: Any) -> PickledArray:
    return PickledArray()


def _array_in_place(content: Any, kind: Any, shape: Any, order: Any) -> PickledArray:
    return PickledArray(shape, kind, order != "C", bytes(content))


def _encode(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {codec}")
    return text.encode("latin1")


# What pickles of arrays may call, and what is called in its place; all else is refused.
STAND_INS: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy._core.numeric._frombuffer": _array_in_place,
    "numpy.core.numeric._frombuffer": _array_in_place,
    "numpy.ndarray": PickledArray,
    "numpy.dtype": PickledType,
    "_codecs.encode": _encode,  # how Python 3 writes bytes for Python 2
}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler of plain values and `PickledArray`; it imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        stand_in = STAND_INS.get(f"{module}.{name}")
        if stand_in is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return stand_in


def _unpickle(path: Path) -> Any:
    content = _read(path)
    try:
        return RestrictedUnpickler(io.BytesIO(content), encoding="bytes").load()
    except _DAMAGE as error:
        first_line = shown_text((str(error).splitlines() or [type(error).__name__])[0])
        raise ConfigError(
            f"'{path}' must be a pickle of plain values and arrays, but {first_line}; {REPLACE}"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror}; {REPLACE}") from error


def _checked(path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Records:
    """Return images and labels; ConfigError names the first label out of range."""
    wrong = np.flatnonzero((labels < 0) | (labels >= NUM_CLASSES))
    if len(wrong):
        raise ConfigError(
            f"'{path}': the label of record {wrong[0]} must be in 0..{NUM_CLASSES - 1}, got "
            f"{labels[wrong[0]]}; {REPLACE}"
        )
    return pixels.reshape(-1, *SHAPE).copy(), labels
