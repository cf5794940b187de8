# SPDX-License-Identifier: Apache-2.0
"""The section [data]: which images, where they lie, and how they become the network's input."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from winnow.errors import ConfigError, shown
from winnow.own_code import files_of
from winnow.schema import choice, integer, reals, text

# Edge of the images of a source when data.image_size is 0; of the others it is their own.
EDGES = {"digits": 16, "colour": 32, "cifar10": 32}
FIXED = ("colour", "cifar10")  # never resized
PLACED = {  # sources that need data.path -> what it is
    "cifar10": "the folder of the images",
    "folder": "the folder of the images",
    "idx": "the folder of the IDX files",
    "npz": "the .npz file",
}
SOURCES = ("digits", "colour", "cifar10", "folder", "idx", "npz")
AUGMENTATIONS = ("auto", "none", "flip", "crop", "move")
SMALLEST, LARGEST = 16, 512  # edges to resize to


@dataclass(frozen=True)
class DataConfig:
    """Which images, their size, and the seed of the split (of the images themselves if generated).

    `source` is a name or `FILE.py:FUNCTION`. `path` is the file or folder that the source reads;
    both are relative to `base`, the folder of the configuration file, which is no key.
    `image_size` is the edge that digits and folders are resized to, 0 the source's own size.
    `channels` makes the images of folders grey (1) or coloured (3), 0 as they are.
    `augment` is how training images are varied. `train_images` and `test_images` size `colour`.
    `labels` are classes, or values that the network gives as they are.
    With `mean` or `std`, one value for all channels or one for each, the network is one of
    (image / 255 - mean) / std; without, of image / 256.
    """

    source: str = text("digits")
    path: str = text("")
    image_size: int = integer(0, low=0, high=LARGEST)
    channels: int = choice(0, (0, 1, 3))
    augment: str = choice("auto", AUGMENTATIONS)
    split_seed: int = integer(0, low=0, high=2**31 - 1)
    train_images: int = integer(6000, low=100, high=1000000)
    test_images: int = integer(2000, low=100, high=1000000)
    labels: str = choice("classes", ("classes", "values"))
    mean: tuple[float, ...] = reals((), low=0.0, high=1.0)
    std: tuple[float, ...] = reals((), low=1e-4, high=100.0)
    base: Path = field(default=Path(), kw_only=True, metadata={"key": False})

    def __post_init__(self) -> None:
        if self.source not in SOURCES and self.function is None:
            raise ConfigError(
                f"data.source must be one of {', '.join(SOURCES)}, or FILE.py:FUNCTION; "
                f"got {shown(self.source)}"
            )
        if self.source in PLACED and not self.path:
            raise ConfigError(
                f"data.path must name {PLACED[self.source]} for data.source '{self.source}', "
                "got ''; add it to [data]"
            )
        if self.has_values and self.function is None and self.source != "npz":
            raise ConfigError(
                "data.labels must be 'classes' for data.source "
                f"'{self.source}'; values are those of 'npz' or FILE.py:FUNCTION"
            )
        self._check_size()
        if not self.image_size and self.source in EDGES:
            object.__setattr__(self, "image_size", EDGES[self.source])

    def _check_size(self) -> None:
        if not self.image_size:
            return
        if self.source in FIXED and self.image_size != EDGES[self.source]:
            raise ConfigError(
                f"data.image_size must be {EDGES[self.source]} for data.source '{self.source}', "
                f"which is not resized, got {self.image_size}"
            )
        if self.image_size < SMALLEST:
            raise ConfigError(
                f"data.image_size must be 0 (the source's own size) or {SMALLEST}..{LARGEST}, got "
                f"{self.image_size}"
            )

    @property
    def has_values(self) -> bool:
        """Whether labels are values, which the network is to give with little squared error."""
        return self.labels == "values"

    @property
    def is_normalised(self) -> bool:
        """Whether the network is one of normalised images."""
        return bool(self.mean or self.std)

    @property
    def has_constant(self) -> bool:
        """Whether images get a last channel that is constant, whose weights subtract the mean."""
        return any(self.mean)

    @property
    def function(self) -> tuple[Path, str] | None:
        """File and name of the function that makes the data, if `source` names one."""
        file, _, name = self.source.rpartition(":")
        return (self.base / file, name) if file.endswith(".py") and name.isidentifier() else None

    @property
    def place(self) -> Path:
        """The file or folder that `path` names."""
        return self.base / self.path

    @property
    def places(self) -> tuple[Path, ...]:
        """All files and folders that the data come from; of a function also what it imports."""
        files = () if self.function is None else files_of(self.function[0])
        return (*files, *((self.place,) if self.path else ()))
