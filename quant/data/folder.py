# SPDX-License-Identifier: Apache-2.0
"""Images in folders named after their class: ImageNet's own layout.

    data.path/train/CLASS/*.jpg   val/CLASS/*.jpg   test/CLASS/*.jpg

`val` and `test` are optional. Without `test`, `val` is the test part (ImageNet publishes no labels
of its test set); parts still missing are cut from `train`, stratified. An image is decoded when it
is asked for, made RGB, resized so that its short edge is `image_size`, and cropped to the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from quant.data.augment import PHOTOS
from quant.data.samples import Samples, Split, cut
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown, shown_text

CHANNELS = 3
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".webp"})
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1  # of train, where the folder is missing


@dataclass(frozen=True)
class LazyImages:
    """Image files that are read when indexed: uint8 [n, 3, edge, edge] for a slice or a tensor."""

    paths: Sequence[str]
    edge: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """n, c, h, w."""
        return len(self.paths), CHANNELS, self.edge, self.edge

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """Read the chosen images; ConfigError names one that cannot be read."""
        numbers = range(len(self))[chosen] if isinstance(chosen, slice) else chosen.tolist()
        images = torch.empty((len(numbers), *self.shape[1:]), dtype=torch.uint8)
        for place, number in enumerate(numbers):
            images[place] = torch.from_numpy(read_image(self.paths[number], self.edge))
        return images


def read_image(path: str, edge: int) -> NDArray[np.uint8]:
    """Return an image as uint8 [3, edge, edge]: short edge resized, middle cut out, RGB."""
    try:
        with Image.open(path) as image:
            # A large JPEG is decoded at a fraction of its size, which is many times faster.
            image.draft("RGB", (2 * edge, 2 * edge))
            rgb = to_rgb(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        is_unknown = isinstance(error, UnidentifiedImageError)
        reason = "no known image format" if is_unknown else shown_text(str(error))
        raise ConfigError(
            f"'{path}' must be an image, and cannot be read ({reason}); replace or delete it"
        ) from error
    except Image.DecompressionBombError as error:
        raise ConfigError(f"'{path}' must be a smaller image: {error}; replace it") from error
    width, height = rgb.size
    cut_out = min(width, height)
    left, top = (width - cut_out) / 2, (height - cut_out) / 2
    middle = (left, top, left + cut_out, top + cut_out)
    small = rgb.resize((edge, edge), Image.Resampling.BILINEAR, box=middle)
    return np.asarray(small).transpose(2, 0, 1).copy()


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
    train = Path(config.path) / "train"
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
    root, edge, seed = Path(config.path), config.image_size, config.split_seed
    train = Listing.read(root / "train", names)
    folders = [root / part for part in ("val", "test") if (root / part).is_dir()]
    held = [Listing.read(folder, names) for folder in folders]
    test = held.pop() if held else None
    if test is None:
        train, test = train.cut(TEST_SHARE, seed)
    validation = held.pop() if held else None
    if validation is None:
        train, validation = train.cut(VALIDATION_SHARE, seed)
    parts = [part.samples(edge) for part in (train, validation, test)]
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

    def samples(self, edge: int) -> Samples:
        """Return the samples, images read when asked for."""
        return Samples(LazyImages(self.paths, edge), torch.from_numpy(self.labels))


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
