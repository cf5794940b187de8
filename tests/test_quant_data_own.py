# SPDX-License-Identifier: Apache-2.0
"""A user's own data: .npz, functions, IDX files, grey and odd folders; and what is refused."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from quant.data import InputShape, input_shape, load_split, read_split
from quant.data.arrays import as_array, split_of
from quant.data.augment import PHOTOS
from quant.data.own import require_repeatable
from quant.data.source import describe
from winnow.config import Config, DataConfig, load_config
from winnow.errors import ConfigError, shown
from winnow.flow import BY_NAME, Build, stage_inputs
from winnow.schema import plain

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 2, 10, 14), np.uint8)
LABELS = np.arange(30) % 3


def npz(folder: Path, **arrays: Any) -> DataConfig:
    np.savez(folder / "x.npz", **arrays)
    return DataConfig(source="npz", path="x.npz", base=folder)


def by_image(*parts: Any) -> dict[bytes, int]:
    return {
        image.numpy().tobytes(): int(label)
        for part in parts
        for image, label in zip(part.images[: len(part)], part.labels, strict=True)
    }


def test_npz_is_cut_into_three_disjoint_parts_of_its_own_size(tmp_path: Path) -> None:
    config = npz(tmp_path, images=IMAGES, labels=LABELS)
    split = load_split(config)
    assert [len(p) for p in (split.train, split.validation, split.test)] == [21, 3, 6]
    assert split.test.labels.bincount().tolist() == [2, 2, 2]
    assert input_shape(config) == split.shape == InputShape(2, 10, 3, 14)
    assert split.train.images.dtype == torch.uint8
    expected = {x.tobytes(): int(y) for x, y in zip(IMAGES, LABELS, strict=True)}
    assert by_image(split.train, split.validation, split.test) == expected


def test_npz_keeps_the_parts_that_it_gives(tmp_path: Path) -> None:
    grey = IMAGES[:, 0]
    split = load_split(
        npz(
            tmp_path,
            images=grey,
            labels=LABELS,
            test_images=grey[:3],
            test_labels=np.array([1, 2, 0], np.uint8),
        )
    )
    assert split.shape.image == (1, 10, 14)
    assert split.test.labels.tolist() == [1, 2, 0]
    assert torch.equal(split.test.images[:3][:, 0], torch.from_numpy(grey[:3]))
    assert len(split.train) + len(split.validation) == 30


@pytest.mark.parametrize("words", [False, True])
def test_split_marks_the_parts(words: bool, tmp_path: Path) -> None:
    marks = np.repeat([0, 2, 1], [12, 12, 6])
    told = np.array(["train", "validation", "test"])[marks] if words else marks
    split = load_split(npz(tmp_path, images=IMAGES, labels=LABELS, split=told))
    for part, mark in zip((split.train, split.validation, split.test), range(3), strict=True):
        assert np.array_equal(part.images[: len(part)].numpy(), IMAGES[marks == mark])


def test_augmentation_is_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    x = torch.rand(4, 2, 10, 14)
    generator = torch.Generator().manual_seed(0)
    plain_split = load_split(DataConfig(source="npz", path="x.npz", base=tmp_path))
    assert torch.equal(plain_split.augment(x, generator), x)
    config = DataConfig(source="npz", path="x.npz", base=tmp_path, augment="crop")
    assert load_split(config).augmentation == PHOTOS


def one_hot(labels: NDArray[Any]) -> NDArray[Any]:
    return np.eye(3)[labels]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"labels": None}, "'X' has no 'labels'; it must hold images, labels and at most"),
    "keras names": ({"x_train": IMAGES}, "has also 'x_train'; it must hold images, labels"),
    "flat": ({"images": IMAGES.reshape(30, -1)}, "images must be [n, c, h, w] or [n, h, w], got"),
    "channels last": (
        {"images": np.zeros((30, 10, 14, 3), np.uint8)},
        "with the channels last; use images.transpose(0, 3, 1, 2)",
    ),
    "floats in 0..1": (
        {"images": IMAGES / np.float32(255)},
        "images must be uint8, got float32 in 0..1; use np.round(images * 255).astype(np.uint8)",
    ),
    "floats in 0..255": (
        {"images": IMAGES.astype(float)},
        "got float64 in 0..255; use np.round(images).astype(np.uint8)",
    ),
    "normalised": (
        {"images": IMAGES / 255.0 - 0.5},
        "store the pixels as they were before a mean was subtracted",
    ),
    "NaN": (
        {"images": np.full(IMAGES.shape, np.nan)},
        "got float64 with NaN or Inf; repair or remove those images",
    ),
    "masked": (
        {"images": np.ma.masked_array(IMAGES, IMAGES > 9)},
        "images must be a plain array, is a masked one; fill it: images.filled(0)",
    ),
    "no image": ({"images": IMAGES[:0]}, "got the shape [0, 2, 10, 14]; leave no axis empty"),
    "words": ({"images": np.full((30, 4, 4), "x")}, "got <U1; use bytes in 0..255"),
    "bools": ({"images": IMAGES > 9}, "got bool; use images.astype(np.uint8) * 255"),
    "16 bits": (
        {"images": IMAGES.astype(np.uint16) * 256},
        "scale them to 0..255 before astype(np.uint8)",
    ),
    "black": ({"images": IMAGES * 0}, "images are all black (0); store pixels in 0..255, not"),
    "huge": (
        {"images": np.ones((30, 1, 1025), np.uint8)},
        "images must have at most 1024 rows and columns, got [30, 1, 1025]",
    ),
    "from 1": (
        {"labels": LABELS + 1},
        "labels of training images do not start at 0; number the classes that there are from 0: "
        "np.unique(labels, return_inverse=True)[1]",
    ),
    "empty class": (
        {"labels": np.where(LABELS == 1, 3, LABELS)},
        "labels of training images lack class 1 of 0..3; number",
    ),
    "negative": ({"labels": LABELS - 1}, "labels must be in 0..65535, got -1..1; number"),
    "one class": ({"labels": LABELS * 0}, "labels must tell two classes or more apart, all"),
    "one-hot": ({"labels": one_hot(LABELS)}, "labels must be [n], got the shape [30, 3]; use"),
    "names": ({"labels": np.array(list("abc" * 10))}, "labels must be integers, got <U1; number"),
    "too few": ({"labels": LABELS[:7]}, "labels must be one per image, got 7 for 30 images"),
    "lonely class": (
        {"labels": np.array([0, 1] * 14 + [0, 2])},
        "class 2 must have more images to cut a test and a validation part from; add some, or",
    ),
    "half a part": ({"test_images": IMAGES}, "test_images and test_labels must both be there"),
    "other size": (
        {"test_images": IMAGES[:, :1], "test_labels": LABELS},
        "test images must be [2, 10, 14] (c, h, w) as those of training, got [1, 10, 14]",
    ),
    "new class in test": (
        {"test_images": IMAGES, "test_labels": LABELS + 1},
        "labels of training images lack class 3 of 0..3",
    ),
    "short split": ({"split": [0, 1]}, "split must mark every one of the 30 images, and be the"),
    "odd split": ({"split": [7] * 30}, "split must be 0, 1, 2 or train, validation, test, got 7"),
    "no training": ({"split": [1] * 30}, "split leaves no image for training"),
    "two divisions": (
        {"split": [0] * 30, "test_images": IMAGES, "test_labels": LABELS},
        "be the only division; it stands beside other parts",
    ),
}


def refused(load: Callable[[], object], *parts: str) -> None:
    """Check that a load is refused in one line with these parts."""
    with pytest.raises(ConfigError) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arrays_are_refused_with_the_remedy(case: str, tmp_path: Path) -> None:
    changes, message = REFUSED[case]
    arrays = {"images": IMAGES, "labels": LABELS} | changes
    given = {name: array for name, array in arrays.items() if array is not None}
    place = f"'{tmp_path / 'x.npz'}'"
    config = DataConfig(source="npz", path="x.npz")
    refused(lambda: split_of(given, config, place), message.replace("X", str(tmp_path / "x.npz")))


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    config = DataConfig(source="npz", path="x.npz", base=tmp_path)
    place = tmp_path / "x.npz"
    refused(lambda: load_split(config), f"data.path '{place}' cannot be read: No such file")
    for content in (b"", b"hello", b"PK\x03\x04 and nothing"):
        place.write_bytes(content)
        refused(lambda: load_split(config), f"data.path '{place}' must be a .npz of plain arrays:")
    np.save(tmp_path / "x.npy", IMAGES)
    (tmp_path / "x.npy").replace(place)
    refused(lambda: load_split(config), "must be a .npz of plain arrays:", "np.savez(path,")


def test_images_are_not_resized_silently(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    config = DataConfig(source="npz", path="x.npz", base=tmp_path, image_size=16)
    refused(
        lambda: load_split(config),
        "data.image_size must be 0 or the size of the images, which are not resized: 10 rows and "
        "14 columns, got 16",
    )


# --- functions --------------------------------------------------------------------------------

SOURCE = """
import numpy as np
from beside import COUNT

def make_data(path=None):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 6), np.uint8)
    return {"images": images, "labels": np.arange(COUNT) % (3 if path else 2)}

def pair():
    return tuple(make_data().values())

def nothing():
    return 7

def broken():
    return 1 / 0
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "data.py").write_text(SOURCE)
    (tmp_path / "beside.py").write_text("COUNT = 24\n")
    return tmp_path


def own(folder: Path, name: str, **more: Any) -> DataConfig:
    return DataConfig(source=f"data.py:{name}", base=folder, **more)


def test_function_makes_the_data(code: Path) -> None:
    assert load_split(own(code, "make_data")).shape == InputShape(1, 8, 2, 6)
    assert load_split(own(code, "pair")).classes == 2
    assert load_split(own(code, "make_data", path="anything")).classes == 3


def test_function_that_fails_is_named_with_its_line(code: Path) -> None:
    start = "data.source 'data.py:"
    refused(lambda: load_split(own(code, "nothing")), f"{start}nothing' must be (images, labels)")
    refused(
        lambda: load_split(own(code, "broken")),
        f"{start}broken' failed: ZeroDivisionError at data.py:16: division by zero",
    )
    refused(lambda: load_split(own(code, "np_")), "must define the function 'np_', and does not")
    (code / "data.py").write_text("import beside\n\nbeside.gone\n")
    refused(
        lambda: load_split(own(code, "x")),
        "data.py' cannot be imported: AttributeError at data.py:3: module 'beside' has no",
    )
    (code / "data.py").unlink()
    refused(lambda: load_split(own(code, "x")), "names the file", "which is missing; it is relat")


def test_change_of_an_imported_file_makes_stages_stale(code: Path) -> None:
    build = Build(Config(data=own(code, "make_data")), code / "out")

    def digest() -> str:
        return stage_inputs(BY_NAME["train"], build)["data.path"]

    first = digest()
    (code / "other.py").write_text("")
    assert digest() == first
    assert load_split(build.config.data).classes == 2
    (code / "beside.py").write_text("COUNT = 32\n")
    assert digest() != first


def test_imports_in_a_function_are_those_of_its_folder(tmp_path: Path) -> None:
    """Two folders have a module of one name; each function gets its own."""
    source = (
        "import numpy as np\n"
        "def make():\n"
        "    from beside import COUNT\n"
        "    return np.ones((COUNT, 8, 8), np.uint8), np.arange(COUNT) % 2\n"
    )
    for count in (20, 30):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "data.py").write_text(source)
        (folder / "beside.py").write_text(f"COUNT = {count}\n")
        split = load_split(own(folder, "make"))
        assert sum(len(p) for p in (split.train, split.validation, split.test)) == count


def test_function_that_ends_the_process_or_is_random_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import sys\n\nimport numpy as np\n\n\n"
        "def ends():\n    sys.exit(3)\n\n\n"
        "def random():\n"
        "    return np.random.randint(0, 256, (20, 8, 8)).astype(np.uint8), np.arange(20) % 2\n\n\n"
        "def seeded():\n    np.random.seed(0)\n    return random()\n"
    )
    refused(lambda: load_split(own(tmp_path, "ends")), "failed: SystemExit at data.py:7: 3")
    message = "must give the same data whenever it is called, and does not; seed its random numbers"
    refused(lambda: require_repeatable(own(tmp_path, "random")), message)
    require_repeatable(own(tmp_path, "seeded"))


@pytest.mark.parametrize(
    "value", [[[1], [2, 3]], torch.ones(2, 2).to_sparse(), np.ma.masked_array([1], [True])]
)
def test_what_is_no_plain_array_is_refused(value: Any) -> None:
    refused(lambda: as_array(value, "X"), "X must be a")


def test_tensors_of_all_kinds_become_arrays() -> None:
    ones = torch.ones(2)
    for value in (ones, ones.bfloat16(), ones.requires_grad_(), [1.0, 1.0]):
        assert as_array(value, "X").tolist() == [1.0, 1.0]


def test_working_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import os\n\nimport numpy as np\n\n\n"
        "def make():\n    os.chdir('/')\n"
        "    return np.ones((20, 8, 8), np.uint8), np.arange(20) % 2\n"
    )
    before = Path.cwd()
    load_split(own(tmp_path, "make"))
    assert Path.cwd() == before


# --- IDX --------------------------------------------------------------------------------------


def idx(array: NDArray[np.uint8]) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.tobytes()


def mnist(folder: Path, dot: str = "-", *, packed: bool = False) -> DataConfig:
    """Write four small files as MNIST's."""
    for stem, count in (("train", 30), ("t10k", 9)):
        images, labels = IMAGES[:count, 0], LABELS[:count].astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx(array)
            file = f"{stem}-{name.replace('-idx', f'{dot}idx')}-ubyte"
            if packed:
                (folder / f"{file}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / file).write_bytes(content)
    return DataConfig(source="idx", path=".", base=folder)


@pytest.mark.parametrize(("dot", "packed"), [("-", False), (".", False), ("-", True)])
def test_idx_files_are_read(dot: str, packed: bool, tmp_path: Path) -> None:
    split = load_split(mnist(tmp_path, dot, packed=packed))
    assert split.shape == InputShape(1, 10, 3, 14)
    assert np.array_equal(split.test.images[:9][:, 0].numpy(), IMAGES[:9, 0])
    assert split.test.labels.tolist() == LABELS[:9].tolist()
    assert [len(p) for p in (split.train, split.validation)] == [27, 3]


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    config = mnist(tmp_path)
    place = tmp_path / "train-images-idx3-ubyte"
    content = place.read_bytes()
    for damaged, message in (
        (content[:-5], "must hold 4200 bytes after its header, got 4195; replace it"),
        (b"\x00\x00\x0d\x03" + content[4:], "must be an IDX file of bytes with 3 axes, and begins"),
        (b"", "and begins with nothing; replace it"),
    ):
        place.write_bytes(damaged)
        refused(lambda: load_split(config), f"'{place}' {message}"[:60], message)
    place.unlink()
    refused(lambda: load_split(config), "must hold the IDX file train-images-idx3-ubyte (or .gz)")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content)[:-9])
    refused(lambda: load_split(config), "train-images-idx3-ubyte.gz' cannot be read (")


def test_data_are_described_or_how_to_get_them(tmp_path: Path) -> None:
    config = mnist(tmp_path)
    assert describe(config).splitlines() == [
        f"data.source 'idx', data.path {shown(str(tmp_path))}",
        "27 training, 3 validation and 9 test images of 1 x 10 x 14; 3 classes",
    ]
    normalised = replace(config, mean=(0.25,), std=(0.5,))
    assert describe(normalised).endswith("of 2 x 10 x 14, the last channel constant; 3 classes")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    refused(lambda: describe(config), "must hold the IDX file train-labels-idx1-ubyte")
    refused(lambda: describe(config), "package dataset-fashion-mnist")
    missing = DataConfig(source="cifar10", path="nothing", base=tmp_path)
    refused(lambda: describe(missing), "Nothing is downloaded: get CIFAR-10's binary")
    own = DataConfig(source="npz", path="nothing.npz", base=tmp_path)
    with pytest.raises(ConfigError) as found:
        describe(own)
    assert "downloaded" not in str(found.value)


# --- folders ----------------------------------------------------------------------------------


def pictures(root: Path, mode: str, size: tuple[int, int] = (12, 9)) -> Path:
    for name in "ab":
        (root / "train" / name).mkdir(parents=True)
        for i in range(5):
            colour = 20 * i + 1 if mode == "L" else (20 * i + 1, 5, 5)
            Image.new(mode, size, colour).save(root / "train" / name / f"{i}.png")
    return root


def test_grey_folders_have_one_channel_and_their_own_size(tmp_path: Path) -> None:
    config = DataConfig(source="folder", path=".", base=pictures(tmp_path, "L"))
    split = load_split(config)
    assert input_shape(config) == split.shape == InputShape(1, 9, 2, 12)
    assert set(split.train.images[:9].unique().tolist()) <= {1, 21, 41, 61, 81}
    coloured = DataConfig(source="folder", path=".", base=tmp_path, channels=3, image_size=16)
    assert load_split(coloured).shape.image == (3, 16, 16)
    assert load_split(coloured).train.images[0:1].shape == (1, 3, 16, 16)


def test_images_that_do_not_fit_the_first_ones_are_named(tmp_path: Path) -> None:
    config = DataConfig(source="folder", path=".", base=pictures(tmp_path, "L"))
    paths = sorted((tmp_path / "train" / "a").iterdir())
    Image.new("RGB", (12, 9), (1, 2, 3)).save(paths[-1])
    split = load_split(config)
    parts = (split.train, split.validation, split.test)
    refused(
        lambda: [part.images[: len(part)] for part in parts],
        f"'{paths[-1]}' is coloured (RGB), the first images are grey; set data.channels = 3",
    )
    Image.new("L", (12, 8)).save(paths[-1])
    refused(
        lambda: [part.images[: len(part)] for part in parts],
        f"'{paths[-1]}' has 8 rows and 12 columns, the first image 9 and 12; set data.image_size",
    )


def test_coloured_folders_are_not_made_grey(tmp_path: Path) -> None:
    base = pictures(tmp_path, "RGB")
    config = DataConfig(source="folder", path=".", base=base, channels=1)
    refused(lambda: load_split(config), "data.channels must be 3 or 0: '")


# --- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "edge"), [("digits", 16), ("colour", 32), ("cifar10", 32), ("folder", 0), ("npz", 0)]
)
def test_image_size_has_a_default_that_works(source: str, edge: int) -> None:
    config = DataConfig(source=source, path="x")
    assert config.image_size == edge
    assert "base" not in plain(config)


def test_small_edges_are_refused() -> None:
    message = r"^data.image_size must be 0 \(the source's own size\) or 16\.\.512, got 5$"
    with pytest.raises(ConfigError, match=message):
        DataConfig(image_size=5)


def test_paths_are_relative_to_the_configuration(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    np.savez(code / "x.npz", images=IMAGES, labels=LABELS)
    (folder / "a.toml").write_text('[data]\nsource = "npz"\npath = "../x.npz"\n')
    (folder / "b.toml").write_text('[data]\nsource = "../data.py:make_data"\n')
    monkeypatch.chdir(Path(__file__).parent)
    assert load_split(load_config(folder / "a.toml").data).classes == 3
    assert load_split(load_config(folder / "b.toml").data).classes == 2


def test_contents_of_the_users_files_count(code: Path) -> None:
    """A stage is stale when the file changes, also in one process, and not when it moves."""
    np.savez(code / "x.npz", images=IMAGES, labels=LABELS)
    (code / "a.toml").write_text('[data]\nsource = "npz"\npath = "x.npz"\n')
    (code / "b.toml").write_text('[data]\nsource = "data.py:make_data"\npath = "x.npz"\n')

    def hashes(name: str) -> str:
        build = Build(load_config(code / name), code / "out")
        return stage_inputs(BY_NAME["train"], build)["data.path"]

    before = {name: hashes(name) for name in ("a.toml", "b.toml")}
    assert read_split(load_config(code / "a.toml").data).classes == 3
    np.savez(code / "x.npz", images=IMAGES, labels=LABELS % 2)
    after = {name: hashes(name) for name in ("a.toml", "b.toml")}
    assert all(before[name] != after[name] for name in before)
    assert read_split(load_config(code / "a.toml").data).classes == 2
    (code / "data.py").write_text(SOURCE + "# changed\n")
    assert hashes("b.toml") != after["b.toml"]
    assert hashes("a.toml") == after["a.toml"]
