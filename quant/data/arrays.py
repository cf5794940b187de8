# SPDX-License-Identifier: Apache-2.0
"""Arrays that a user made: a .npz file, or what a function `FILE.py:FUNCTION` returns.

    images             uint8 [n, c, h, w] or [n, h, w]
    labels             integers [n] in 0..classes-1, every class there
    split              optional [n]: 0 training, 1 validation, 2 test, or those words
    validation_images, validation_labels, test_images, test_labels       optional parts

A part that is not there is cut from the training images, stratified. Images are never resized or
scaled: what is not bytes is refused with what to do.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quant.data.augment import NAMED
from quant.data.samples import TEST_SHARE, VALIDATION_SHARE, Samples, Split, cut
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown, shown_text

Part = tuple[NDArray[np.uint8], NDArray[Any]]  # images [n, c, h, w], labels [n] or [n, k]
PARTS = ("train", "validation", "test")
MAX_EDGE, MAX_CLASSES = 1024, 65536
LARGEST_VALUE = 1e6
SMALLEST_MAP = 6  # rows and columns from which a last axis of 1 or 3 is taken for the channels
KNOWN = (
    *("images", "labels", "split", "validation_images", "validation_labels"),
    *("test_images", "test_labels"),
)
_DAMAGE = (
    AttributeError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_npz(config: DataConfig) -> Split:
    """Read the .npz file `data.path`; ConfigError names the array that is missing or wrong."""
    place = config.place
    try:
        content = io.BytesIO(place.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"data.path '{place}' cannot be read: {error.strerror}; it is relative to the "
            "configuration file"
        ) from error
    try:
        with np.load(content, allow_pickle=False) as archive:
            arrays = dict(archive)
    except _DAMAGE as error:
        raise ConfigError(
            f"data.path '{place}' must be a .npz of plain arrays: {shown_text(str(error))}; write "
            "it with np.savez(path, images=images, labels=labels)"
        ) from error
    return split_of(arrays, config, f"'{place}'")


def split_of(arrays: Mapping[str, Any], config: DataConfig, place: str) -> Split:
    """Return the split of named arrays; ConfigError names what is wrong in `place`."""
    unknown = sorted(set(map(str, arrays)) - set(KNOWN))
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing or unknown:
        got = shown_text(", ".join(map(str, arrays))) or "none"
        wrong = f"has no '{missing[0]}'" if missing else f"has also {shown(unknown[0])}"
        raise ConfigError(
            f"{place} {wrong}; it must hold images, labels and at most {', '.join(KNOWN[2:])}, "
            f"got {got}"
        )
    read = checked_values if config.has_values else checked
    found = {"train": read(arrays["images"], arrays["labels"], f"{place}: ")}
    for part in PARTS[1:]:
        images, labels = (arrays.get(f"{part}_{what}") for what in ("images", "labels"))
        if (images is None) != (labels is None):
            raise ConfigError(f"{place}: {part}_images and {part}_labels must both be there")
        if images is not None:
            found[part] = read(images, labels, f"{place}: {part}_")
    if "split" in arrays:
        found = _divided(found, arrays["split"], place)
    return finished(found, config, place)


def named_arrays(made: Any, place: str) -> dict[str, Any]:
    """Return (images, labels) or a dict of arrays as a dict; ConfigError for anything else."""
    if isinstance(made, tuple) and len(made) == 2:
        return {"images": made[0], "labels": made[1]}
    if isinstance(made, Mapping):
        return dict(made)
    raise ConfigError(
        f"{place} must be (images, labels) or a dict of arrays, got "
        f"{shown_text(type(made).__name__)}"
    )


def finished(found: dict[str, Part], config: DataConfig, place: str) -> Split:
    """Return the split of checked parts, with those that are missing cut from training."""
    count = _num_values if config.has_values else _num_classes
    classes = count(found, place)
    _check_sizes(found, config, place)
    for part, share in (("test", TEST_SHARE), ("validation", VALIDATION_SHARE)):
        if part not in found:
            found["train"], found[part] = _cut(found["train"], share, config.split_seed, place)
    samples = [Samples(*map(torch.from_numpy, found[part])) for part in PARTS]
    return Split.of(samples, classes, NAMED["none"])


def checked(images: Any, labels: Any, what: str) -> Part:
    """Return images as uint8 [n, c, h, w] and labels as int64 [n]; ConfigError says the remedy.

    `what` is put before the names in messages.
    """
    pixels = checked_images(as_array(images, f"{what}images"), what)
    numbers = _labels(as_array(labels, f"{what}labels"), what)
    if len(pixels) != len(numbers):
        raise ConfigError(
            f"{what}labels must be one per image, got {len(numbers)} for {len(pixels)} images"
        )
    return pixels, numbers


def as_array(value: Any, name: str) -> NDArray[Any]:
    """Return an array, tensor or list as an array; ConfigError says what of `name` is none."""
    if isinstance(value, np.ma.MaskedArray):
        raise ConfigError(
            f"{name} must be a plain array, is a masked one; fill it: {name.split()[-1]}.filled(0)"
        )
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = value.float() if value.dtype == torch.bfloat16 else value
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = shown_text(str(error).splitlines()[0])
        raise ConfigError(f"{name} must be an array of numbers: {reason}") from error


def checked_values(images: Any, labels: Any, what: str) -> Part:
    """Return images as `checked` does and values as float32 [n, k]; ConfigError says the remedy."""
    pixels = checked_images(as_array(images, f"{what}images"), what)
    values = as_array(labels, f"{what}labels")
    is_real = np.issubdtype(values.dtype, np.floating) or np.issubdtype(values.dtype, np.integer)
    if values.ndim not in (1, 2) or not is_real or 0 in values.shape:
        raise ConfigError(
            f"{what}labels must be numbers [n] or [n, k] for data.labels 'values', got "
            f"{values.dtype} of the shape {list(values.shape)}"
        )
    if len(pixels) != len(values):
        raise ConfigError(
            f"{what}labels must be one per image, got {len(values)} for {len(pixels)} images"
        )
    if not np.isfinite(values).all() or np.abs(values).max() > LARGEST_VALUE:
        raise ConfigError(
            f"{what}labels must be finite and at most {LARGEST_VALUE:g} for data.labels 'values'; "
            "scale them, or repair those that are NaN or Inf"
        )
    return pixels, values.reshape(len(values), -1).astype(np.float32)


def checked_images(images: NDArray[Any], what: str) -> NDArray[np.uint8]:
    name = f"{what}images"
    if images.ndim not in (3, 4) or 0 in images.shape:
        remedy = "leave no axis empty" if 0 in images.shape else "reshape them"
        raise ConfigError(
            f"{name} must be [n, c, h, w] or [n, h, w], got the shape {list(images.shape)}; "
            f"{remedy}"
        )
    if images.ndim == 4 and images.shape[3] in (1, 3) and min(images.shape[1:3]) >= SMALLEST_MAP:
        raise ConfigError(
            f"{name} must be [n, c, h, w], got the shape {list(images.shape)} with the channels "
            "last; use images.transpose(0, 3, 1, 2)"
        )
    if images.dtype != np.uint8:
        raise ConfigError(f"{name} must be uint8, got {_not_bytes(images)}")
    if not images.any():
        raise ConfigError(f"{name} are all black (0); store pixels in 0..255, not 0..1")
    shaped = images[:, None] if images.ndim == 3 else images
    if max(shaped.shape[2:]) > MAX_EDGE:
        raise ConfigError(
            f"{name} must have at most {MAX_EDGE} rows and columns, got {list(images.shape)}; "
            "make them smaller"
        )
    return np.require(shaped, np.uint8, ["C", "W"])


def _not_bytes(images: NDArray[Any]) -> str:
    """Return what images are that are not bytes, and the remedy."""
    kind = images.dtype
    if np.issubdtype(kind, np.bool_):
        return "bool; use images.astype(np.uint8) * 255"
    if not np.issubdtype(kind, np.integer) and not np.issubdtype(kind, np.floating):
        return f"{kind}; use bytes in 0..255"
    if not np.isfinite(images).all():
        return f"{kind} with NaN or Inf; repair or remove those images"
    low, high = images.min(), images.max()
    if low < 0:
        return (
            f"{kind} in {low:.4g}..{high:.4g}; store the pixels as they were before a mean was "
            "subtracted, and set data.mean and data.std"
        )
    if high > 255:
        return f"{kind} in {low:.4g}..{high:.4g}; scale them to 0..255 before astype(np.uint8)"
    if high <= 1 and np.issubdtype(kind, np.floating):
        return f"{kind} in 0..1; use np.round(images * 255).astype(np.uint8)"
    return f"{kind} in {low:.4g}..{high:.4g}; use np.round(images).astype(np.uint8)"


def _labels(labels: NDArray[Any], what: str) -> NDArray[np.int64]:
    name = f"{what}labels"
    if labels.ndim != 1:
        remedy = "use labels.argmax(1)" if labels.ndim == 2 and labels.shape[1] > 1 else "flatten"
        raise ConfigError(f"{name} must be [n], got the shape {list(labels.shape)}; {remedy}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(
            f"{name} must be integers, got {labels.dtype}; number the classes from 0: "
            "np.unique(labels, return_inverse=True)[1]"
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= MAX_CLASSES):
        raise ConfigError(
            f"{name} must be in 0..{MAX_CLASSES - 1}, got {labels.min()}..{labels.max()}; number "
            "the classes from 0"
        )
    return labels.astype(np.int64)


def _divided(found: dict[str, Part], split: Any, place: str) -> dict[str, Part]:
    """Return the parts that the array `split` tells apart."""
    images, labels = found["train"]
    marks = as_array(split, f"{place}: split")
    if len(found) > 1 or marks.shape != labels.shape[:1]:
        wrong = "stands beside other parts" if len(found) > 1 else f"has {list(marks.shape)} marks"
        raise ConfigError(
            f"{place}: split must mark every one of the {len(labels)} images, and be the only "
            f"division; it {wrong}"
        )
    names = dict(enumerate(PARTS)) | {name: name for name in PARTS}
    told = [names.get(mark, "") for mark in marks.tolist()]
    if "" in told:
        raise ConfigError(
            f"{place}: split must be 0, 1, 2 or {', '.join(PARTS)}, got "
            f"{shown(marks.tolist()[told.index('')])}"
        )
    chosen = np.array(told)
    parts = {part: chosen == part for part in PARTS if (chosen == part).any()}
    if "train" not in parts:
        raise ConfigError(f"{place}: split leaves no image for training")
    return {part: (images[mask], labels[mask]) for part, mask in parts.items()}


def _num_classes(found: Mapping[str, Part], place: str) -> int:
    """Return how many classes there are; ConfigError names one without images."""
    present = np.unique(found["train"][1])
    count = int(max(labels.max() for _, labels in found.values())) + 1
    empty = sorted(set(range(count)) - set(present.tolist()))
    if len(present) < 2:
        raise ConfigError(f"{place}: labels must tell two classes or more apart, all are the same")
    if empty:
        start = "do not start at 0" if empty[0] == 0 else f"lack class {empty[0]} of 0..{count - 1}"
        raise ConfigError(
            f"{place}: labels of training images {start}; number the classes that there are from "
            "0: np.unique(labels, return_inverse=True)[1]"
        )
    return count


def _num_values(found: Mapping[str, Part], place: str) -> int:
    """Return how many values every image has; ConfigError if parts differ."""
    counts = {part: labels.shape[1] for part, (_, labels) in found.items()}
    for part, count in counts.items():
        if count != counts["train"]:
            raise ConfigError(
                f"{place}: {part} labels must have {counts['train']} values each as those of "
                f"training, got {count}"
            )
    return counts["train"]


def _check_sizes(found: Mapping[str, Part], config: DataConfig, place: str) -> None:
    shape = found["train"][0].shape[1:]
    for part, (images, _) in found.items():
        if images.shape[1:] != shape:
            raise ConfigError(
                f"{place}: {part} images must be {list(shape)} (c, h, w) as those of training, got "
                f"{list(images.shape[1:])}"
            )
    edge = config.image_size
    if edge and shape[1:] != (edge, edge):
        raise ConfigError(
            f"data.image_size must be 0 or the size of the images, which are not resized: "
            f"{shape[1]} rows and {shape[2]} columns, got {edge}"
        )


def _cut(part: Part, share: float, seed: int, place: str) -> tuple[Part, Part]:
    images, labels = part
    if labels.ndim == 2:
        return _cut_values(part, share, seed, place)
    count = np.bincount(labels)
    if count.min() < 2:
        raise ConfigError(
            f"{place}: class {count.argmin()} must have more images to cut a test and a "
            "validation part from; add some, or test_images and validation_images"
        )
    first, second = ((images[chosen], labels[chosen]) for chosen in cut(labels, share, seed))
    return first, second


def _cut_values(part: Part, share: float, seed: int, place: str) -> tuple[Part, Part]:
    images, labels = part
    held = max(1, round(share * len(labels)))
    if held >= len(labels):
        raise ConfigError(
            f"{place}: there must be more images to cut a test and a validation part from, got "
            f"{len(labels)}; add some, or test_images and validation_images"
        )
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(labels))
    first, second = np.sort(order[held:]), np.sort(order[:held])
    return (images[first], labels[first]), (images[second], labels[second])
