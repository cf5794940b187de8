# SPDX-License-Identifier: Apache-2.0
"""Feature maps in the engine's memory: words of 8 channels, [ceil(c / 8)][h][w][8] bytes.

A map of 32 bits has four byte planes instead, [ceil(c / 8)][4][8], lowest byte first. The images
may be unrolled: the c of a pixel are then what lies under a kernel there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .unrolled import GROUP, Kernel, unrolled

Array = NDArray[Any]

WORD_BYTES = 8
RAW_BITS = 32


@dataclass(frozen=True)
class Region:
    """A feature map's place and type: `value = integer * 2^exponent`.

    Members: `base` and `words` count words of 8 bytes; `shape` is (c, h, w); `cycles` are the
    modelled ones of the layer that writes it, 0 for the input; `unrolled` is the kernel that
    images of that shape are unrolled by, if they are. ValueError if `words` are too few for that.
    """

    name: str
    base: int
    words: int
    shape: tuple[int, int, int]
    bits: int
    signed: bool
    exponent: int
    cycles: int = 0
    unrolled: Kernel | None = None

    def __post_init__(self) -> None:
        if self.unrolled is not None:
            self.unrolled.require(self.shape, self.words)

    @property
    def bounds(self) -> tuple[int, int]:
        """Return the lowest and the highest integer."""
        low = -(1 << self.bits - 1) if self.signed else 0
        return low, low + (1 << self.bits) - 1

    @property
    def dtype(self) -> Any:
        """Return numpy's type of an integer."""
        if self.bits == RAW_BITS:
            return np.dtype(np.int32)
        return np.dtype(np.int8 if self.signed else np.uint8)

    @property
    def place(self) -> slice:
        """Return which bytes of feature memory it takes."""
        return slice(self.base * WORD_BYTES, (self.base + self.words) * WORD_BYTES)


def as_array(given: Any) -> Array:
    """Return what a caller gave as an array; InputError for lists of different lengths."""
    try:
        return np.asarray(given)
    except ValueError as error:
        raise InputError(f"images must be an array: {error}") from error


def require_images(images: Array, region: Region) -> Array:
    """Return images if they are integers [n, c, h, w] of a region, or raise InputError."""
    shape = ", ".join(str(length) for length in region.shape)
    if images.ndim != 4 or images.shape[1:] != region.shape:
        raise InputError(f"images must be [n, {shape}], got {list(images.shape)}")
    if images.dtype.kind not in "iu":
        raise InputError(f"images must be integers, got {images.dtype}; classify() takes floats")
    low, high = region.bounds
    if images.size and (images.min() < low or images.max() > high):
        raise InputError(f"images must be in {low}..{high}, got {images.min()}..{images.max()}")
    return images


def quantized(given: Any, region: Region) -> Array:
    """Return floats, or bytes if these are the region's integers, as integers.

    Floats are rounded to the nearest integer, ties to even, and clamped, as the model does it.
    """
    images = as_array(given)
    if images.dtype.kind != "f":
        if images.dtype != region.dtype:
            raise InputError(f"images must be floats or {region.dtype}, got {images.dtype}")
        return images
    if not np.isfinite(images).all():
        raise InputError("images must be finite, got NaN or infinity")
    step = 2.0**region.exponent
    low, high = region.bounds
    clamped: Array = np.clip(images, low * step, high * step)  # before it grows beyond its type
    return np.rint(clamped / step).astype(region.dtype)


def pack(image: Array, region: Region) -> Array:
    """Return integers [c, h, w] as the bytes of a region."""
    if region.unrolled is not None:
        return unrolled(image.astype(region.dtype).view(np.uint8), region.unrolled)
    c, h, w = image.shape
    groups = -(-c // GROUP)
    padded = np.zeros((groups * GROUP, h, w), np.uint8)
    padded[:c] = image.astype(region.dtype).view(np.uint8)
    return padded.reshape(groups, GROUP, h, w).transpose(0, 2, 3, 1).reshape(-1)


def unpack(memory: Array, region: Region) -> Array:
    """Return a region of feature memory, bytes, as integers [c, h, w]."""
    content = np.array(memory[region.place])
    c, h, w = region.shape
    groups = -(-c // GROUP)
    if region.bits == RAW_BITS:
        planes = content.reshape(groups, 4, GROUP).transpose(0, 2, 1)
        values = np.ascontiguousarray(planes).view("<i4")
        return values.astype(np.int32).reshape(groups * GROUP, 1, 1)[:c]
    words = content.view(region.dtype).reshape(groups, h, w, GROUP)
    return np.ascontiguousarray(words.transpose(0, 3, 1, 2).reshape(groups * GROUP, h, w)[:c])
