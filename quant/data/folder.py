# SPDX-License-Identifier: Apache-2.0
"""Images in folders named after their class: ImageNet's own layout.

    data.path/train/CLASS/*.jpg   val/CLASS/*.jpg   test/CLASS/*.jpg

`val` and `test` are optional. Without `test`, `val` is the test part (ImageNet publishes no labels
of its test set); parts still missing are cut from `train`, stratified. An image is decoded when it
is asked for, resized so that its short edge is `image_size`, and cropped to the middle; without
`image_size` all must have one size. Images are RGB, or have one channel if the first one of every
class is grey.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from quant.data.augment import PHOTOS
from quant.data.samples import (
    TEST_SHARE,
    VALIDATION_SHARE,
    InputShape,
    Samples,
    Split,
    cut,
)
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown, shown_text

T = TypeVar("T")

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".webp"})
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True)
class Format:
    """What images become: channels (1 or 3), height, width; `resized` if they may have others."""

    channels: int
    height: int
    width: int
    resized: bool = True


@dataclass(frozen=True)
class LazyImages:
    """Image files that are read when indexed: uint8 [n, c, h, w] for a slice or a tensor."""

    paths: Sequence[str]
    format: Format

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """n, c, h, w."""
        return len(self.paths), self.format.channels, self.format.height, self.format.width

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """Read the chosen images; ConfigError names one that cannot be read."""
        numbers = range(len(self))[chosen] if isinstance(chosen, slice) else chosen.tolist()
        images = torch.empty((len(numbers), *self.shape[1:]), dtype=torch.uint8)
        for place, number in enumerate(numbers):
            images[place] = torch.from_numpy(read_image(self.paths[number], self.format))
        return images


def read_image(path: str, wanted: Format) -> NDArray[np.uint8]:
    """Return an image as uint8 [c, h, w]: short edge resized and middle cut out, or as it is.

    Raises ConfigError for a file that is no image, a coloured one where grey ones are wanted, and
    one of another size that must not be resized.
    """
    pixels = _opened(path, lambda image: _decoded(image, path, wanted))
    if wanted.resized:
        width, height = pixels.size
        cut_out = min(width, height)
        left, top = (width - cut_out) / 2, (height - cut_out) / 2
        middle = (left, top, left + cut_out, top + cut_out)
        size = (wanted.width, wanted.height)
        pixels = pixels.resize(size, Image.Resampling.BILINEAR, box=middle)
    array = np.asarray(pixels)
    return (array[None] if array.ndim == 2 else array.transpose(2, 0, 1)).copy()


def _decoded(image: Image.Image, path: str, wanted: Format) -> Image.Image:
    if wanted.resized:
        # A large JPEG is decoded at a fraction of its size, which is many times faster.
        image.draft("RGB", (2 * wanted.width, 2 * wanted.height))
    elif image.size != (wanted.width, wanted.height):
        raise ConfigError(
            f"'{path}' has {image.height} rows and {image.width} columns, the first image "
            f"{wanted.height} and {wanted.width}; set data.image_size to resize all of them"
        )
    if wanted.channels == 1 and image.mode not in GREY_MODES:
        raise ConfigError(
            f"'{path}' is coloured ({image.mode}), the first images are grey; set data.channels = "
            "3, or make it grey"
        )
    rgb = to_rgb(image)
    return rgb.getchannel(0) if wanted.channels == 1 else rgb


def _opened(path: str, use: Callable[[Image.Image], T]) -> T:
    """Return what `use` makes of an image file; ConfigError if it cannot be read."""
    try:
        with Image.open(path) as image:
            return use(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        is_unknown = isinstance(error, UnidentifiedImageError)
        reason = "no known image format" if is_unknown else shown_text(str(error))
        raise ConfigError(
            f"'{path}' must be an image, and cannot be read ({reason}); replace or delete it"
        ) from error
    except Image.DecompressionBombError as error:
        raise ConfigError(f"'{path}' must be a smaller image: {error}; replace it") from error


def shape_of(config: DataConfig) -> InputShape:
    """Return what the images become, and the number of classes; one image of each is opened."""
    names = class_names(config)
    train = config.place / "train"
    found = format_of([_images(train / name)[0] for name in names], config)
    return InputShape(found.channels, found.height, len(names), found.width)


def format_of(firsts: Sequence[str], config: DataConfig) -> Format:
    """Return what the images become, from the first ones of all classes."""
    heads = [_opened(path, lambda image: (image.mode, image.size)) for path in firsts]
    grey = all(mode in GREY_MODES for mode, _ in heads)
    channels = config.channels or (1 if grey else 3)
    if channels == 1 and not grey:
        raise ConfigError(
            f"data.channels must be 3 or 0: '{config.place}' holds coloured images, got 1"
        )
    if config.image_size:
        return Format(channels, config.image_size, config.image_size)
    width, height = heads[0][1]
    return Format(channels, height, width, resized=False)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return any mode as RGB; transparent pixels show black."""
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return image.convert("RGB")


def class_names(config: DataConfig) -> tuple[str, ...]:
    """Return the names of the class folders of `train`, sorted: the label is the position."""
    train = config.place / "train"
    if not train.is_dir():
        raise ConfigError(
            f"data.path {shown(config.path)} must hold train/CLASS/ folders of images, and has no "
            "folder 'train'; name the folder above it"
        )
    names = tuple(sorted(f.name for f in train.iterdir() if f.is_dir() and f.name[0] != "."))
    if len(names) < 2:
        got = shown_text(", ".join(names)) or "none"
        raise ConfigError(
            f"'{train}' must hold two or more class folders, got {got}; "
            "put the images of each class in a folder of its name"
        )
    return names


def load_folder(config: DataConfig) -> Split:
    """List the images below `data.path`; none is decoded yet."""
    names = class_names(config)
    root, seed = config.place, config.split_seed
    train = Listing.read(root / "train", names)
    form = format_of(
        [train.paths[i] for i in np.unique(train.labels, return_index=True)[1]], config
    )
    folders = [root / part for part in ("val", "test") if (root / part).is_dir()]
    held = [Listing.read(folder, names) for folder in folders]
    test = held.pop() if held else None
    if test is None:
        train, test = train.cut(TEST_SHARE, seed)
    validation = held.pop() if held else None
    if validation is None:
        train, validation = train.cut(VALIDATION_SHARE, seed)
    parts = [part.samples(form) for part in (train, validation, test)]
    return Split.of(parts, len(names), PHOTOS)


@dataclass(frozen=True)
class Listing:
    """The image files of one part and their labels, class by class."""

    paths: tuple[str, ...]
    labels: NDArray[np.int64]

    @classmethod
    def read(cls, folder: Path, names: tuple[str, ...]) -> Listing:
        """List `folder`/CLASS/*; every class needs an image, and no other class may be there."""
        others = {f.name for f in folder.iterdir() if f.is_dir() and f.name[0] != "."} - {*names}
        if others:
            raise ConfigError(
                f"'{folder}' must hold the classes of '{folder.parent / 'train'}', got also "
                f"'{min(others)}'; move its images or delete it"
            )
        found = [_images(folder / name) for name in names]
        labels = np.repeat(np.arange(len(names)), [len(paths) for paths in found])
        return cls(tuple(path for paths in found for path in paths), labels)

    def cut(self, share: float, seed: int) -> tuple[Listing, Listing]:
        """Cut a share of every class off; ConfigError names a class with a single image."""
        count = np.bincount(self.labels)
        if count.min() < 2:
            alone = int(np.flatnonzero(self.labels == count.argmin())[0])
            raise ConfigError(
                f"'{Path(self.paths[alone]).parent}' must hold more images to cut a test and a "
                "validation part from it; add some, or folders 'val' and 'test' beside 'train'"
            )
        first, second = (
            Listing(tuple(self.paths[i] for i in chosen), self.labels[chosen])
            for chosen in cut(self.labels, share, seed)
        )
        return first, second

    def samples(self, form: Format) -> Samples:
        """Return the samples, images read when asked for."""
        return Samples(LazyImages(self.paths, form), torch.from_numpy(self.labels))


def _images(folder: Path) -> list[str]:
    """Return the image files of a class, sorted; ConfigError if it has none."""
    files = folder.iterdir() if folder.is_dir() else ()
    paths = [str(f) for f in files if f.suffix.lower() in SUFFIXES and f.name[0] != "."]
    if not paths:
        raise ConfigError(
            f"'{folder}' must hold images ({', '.join(sorted(SUFFIXES))}), got none; "
            "add some, or delete the class everywhere"
        )
    return sorted(paths)
