# SPDX-License-Identifier: Apache-2.0
"""Folders of images: which part and class a file belongs to, how it is cut, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from quant.data import InputShape, LazyImages, Split, folder, input_shape, load_split
from winnow.config import DataConfig
from winnow.errors import ConfigError, shown

EDGE = 16


def config(path: Path) -> DataConfig:
    return DataConfig(source="folder", path=str(path), image_size=EDGE)


def plain(path: Path, red: int, size: tuple[int, int] = (EDGE, EDGE)) -> None:
    """Write an image of one colour, told by its red."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 100, 50)).save(path)


def tree(root: Path, **parts: dict[str, int]) -> Path:
    """Write `parts[part][class]` images each; red counts them through."""
    red = 0
    for part, classes in parts.items():
        for name, count in classes.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                plain(root / part / name / f"{i:02}.png", red)
                red += 1
    return root


def reds(split: Split) -> list[dict[int, int]]:
    """Return red -> label of every part."""
    parts = (split.train, split.validation, split.test)
    return [
        dict(
            zip(
                part.images[: len(part)][:, 0, 0, 0].tolist(),
                part.labels.tolist(),
                strict=True,
            )
        )
        for part in parts
    ]


def test_three_folders_are_the_three_parts(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"b": 3, "a": 2}, val={"a": 1, "b": 1}, test={"a": 1, "b": 2})
    split = load_split(config(root))
    expected = [{0: 1, 1: 1, 2: 1, 3: 0, 4: 0}, {5: 0, 6: 1}, {7: 0, 8: 1, 9: 1}]
    assert reds(split) == expected  # classes are numbered by name
    assert split.shape.image == (3, EDGE, EDGE)
    assert split.classes == 2
    assert input_shape(config(root)) == InputShape(3, EDGE, 2, EDGE)


def test_val_alone_is_the_test_part(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"a": 20, "b": 10}, val={"a": 1, "b": 1})
    train, validation, test = reds(load_split(config(root)))
    assert test == {30: 0, 31: 1}
    assert np.bincount(list(validation.values())).tolist() == [2, 1]
    assert train | validation == {i: int(i >= 20) for i in range(30)}
    assert len(train) == 27


def test_missing_parts_are_cut_from_train(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"a": 50, "b": 10})
    parts = reds(load_split(config(root)))
    counts = [np.bincount(list(part.values())).tolist() for part in parts]
    assert counts == [[36, 7], [4, 1], [10, 2]]
    assert parts[0] | parts[1] | parts[2] == {i: int(i >= 50) for i in range(60)}
    assert parts == reds(load_split(config(root)))


def test_images_are_read_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, train={"a": 9, "b": 9})
    opened = []
    read = folder.read_image
    monkeypatch.setattr(folder, "read_image", lambda p, f: opened.append(p) or read(p, f))
    images = load_split(config(root)).train.images
    assert isinstance(images, LazyImages)
    assert opened == []
    chosen = torch.tensor([4, 0, 4])
    assert torch.equal(images[chosen], torch.stack([images[i : i + 1][0] for i in (4, 0, 4)]))
    assert opened == [images.paths[i] for i in (4, 0, 4, 4, 0, 4)]
    assert torch.equal(images[-2:], images[torch.tensor([len(images) - 2, len(images) - 1])])
    assert images[0:0].shape == (0, 3, EDGE, EDGE)


def test_other_files_are_no_images(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"a": 5, "b": 5})
    (root / "train" / "a" / "notes.txt").write_text("x")
    (root / "train" / "a" / ".hidden.png").write_text("x")
    (root / "train" / "notes.txt").write_text("x")
    (root / "train" / ".cache").mkdir()
    plain(root / "train" / "a" / "large.JPG", 200)
    parts = reds(load_split(config(root)))
    assert sum(len(part) for part in parts) == 11
    assert (split_names := folder.class_names(config(root))) == ("a", "b"), split_names


# --- one image --------------------------------------------------------------------------------


def read(path: Path, edge: int = EDGE) -> NDArray[np.uint8]:
    return folder.read_image(str(path), folder.Format(3, edge, edge))


def test_image_of_the_asked_size_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (EDGE, EDGE, 3), np.uint8)
    for name in ("x.png", "x.ppm", "x.bmp"):
        Image.fromarray(pixels).save(tmp_path / name)
        assert np.array_equal(read(tmp_path / name), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("upright", [False, True])
def test_middle_of_a_long_image_is_cut_out(upright: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (EDGE, 3 * EDGE, 3), np.uint8)
    shown = pixels.transpose(1, 0, 2) if upright else pixels
    Image.fromarray(np.ascontiguousarray(shown)).save(tmp_path / "x.png")
    middle = pixels[:, EDGE : 2 * EDGE]
    expected = middle.transpose(2, 1, 0) if upright else middle.transpose(2, 0, 1)
    assert np.array_equal(read(tmp_path / "x.png"), expected)


@pytest.mark.parametrize("factor", [2, 6])
def test_larger_image_is_resized_without_aliasing(factor: int, tmp_path: Path) -> None:
    """Stripes of one pixel become their mean, and halves stay where they are."""
    edge = factor * EDGE
    pixels = np.zeros((edge, edge, 3), np.uint8)
    pixels[::2, : edge // 2] = 200
    Image.fromarray(pixels).save(tmp_path / "x.png")
    small = read(tmp_path / "x.png").astype(int)
    assert np.abs(small[:, 2:-2, : EDGE // 2 - 2] - 100).max() <= 10
    assert (small[:, :, EDGE // 2 + 2 :] == 0).all()


def test_large_jpeg_keeps_its_places(tmp_path: Path) -> None:
    pixels = np.zeros((640, 960, 3), np.uint8)
    pixels[:320, 160:480, 0] = 240  # upper left quarter of the middle square
    Image.fromarray(pixels).save(tmp_path / "x.jpg", quality=95)
    red = read(tmp_path / "x.jpg")[0].astype(int)
    assert red[: EDGE // 2 - 1, : EDGE // 2 - 1].min() > 200  # colours bleed
    assert max(red[EDGE // 2 + 1 :].max(), red[:, EDGE // 2 + 1 :].max()) < 15


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("P", 3, None),
        ("RGBA", (200, 100, 50, 255), (200, 100, 50)),
        ("RGBA", (200, 100, 50, 0), (0, 0, 0)),
        ("LA", (80, 255), (80, 80, 80)),
        ("I;16", 40000, (156, 156, 156)),
    ],
)
def test_every_mode_becomes_rgb(
    mode: str, colour: int, rgb: tuple[int, int, int] | None, tmp_path: Path
) -> None:
    image = Image.new(mode, (EDGE, EDGE), colour)
    if mode == "P":
        image.putpalette([9, 8, 7] * 3 + [30, 60, 90])
        rgb = (30, 60, 90)
    image.save(tmp_path / "x.png")
    assert set(map(tuple, read(tmp_path / "x.png").reshape(3, -1).T.tolist())) == {rgb}


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (EDGE, EDGE), (0, 255, 255, 0)).save(tmp_path / "x.jpg")
    red, green, blue = read(tmp_path / "x.jpg").reshape(3, -1).mean(1)
    assert red > 240
    assert max(green, blue) < 15


# --- what is refused --------------------------------------------------------------------------


def refused(root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_split(config(root))
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"'{root}/", "'ROOT/")


def test_folder_without_train_is_refused(tmp_path: Path) -> None:
    message = (
        f"data.path {shown(str(tmp_path))} must hold train/CLASS/ folders of images, and has no "
        "folder 'train'; "
        "name the folder above it"
    )
    assert refused(tmp_path) == message
    with pytest.raises(ConfigError, match="must hold train/CLASS/ folders"):
        input_shape(config(tmp_path / "none"))


@pytest.mark.parametrize(("classes", "got"), [({}, "none"), ({"only": 3}, "only")])
def test_fewer_than_two_classes_are_refused(
    classes: dict[str, int], got: str, tmp_path: Path
) -> None:
    (tmp_path / "train").mkdir()
    for name, count in classes.items():
        for i in range(count):
            plain(tmp_path / "train" / name / f"{i}.png", i)
    assert refused(tmp_path) == (
        f"'ROOT/train' must hold two or more class folders, got {got}; "
        "put the images of each class in a folder of its name"
    )


def test_empty_class_is_named(tmp_path: Path) -> None:
    kinds = ".bmp, .jpeg, .jpg, .pgm, .png, .ppm, .webp"
    root = tree(tmp_path, train={"a": 3, "b": 0})
    end = f"must hold images ({kinds}), got none; add some, or delete the class everywhere"
    assert refused(root) == f"'ROOT/train/b' {end}"
    for i in range(3):
        plain(root / "train" / "b" / f"{i}.png", i)
    plain(root / "val" / "a" / "x.png", 0)
    assert refused(root) == f"'ROOT/val/b' {end}"


def test_class_that_train_lacks_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"a": 3, "b": 3}, test={"a": 1, "b": 1, "c": 1})
    assert refused(root) == (
        "'ROOT/test' must hold the classes of 'ROOT/train', got also 'c'; "
        "move its images or delete it"
    )


def test_class_too_small_to_cut_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path, train={"a": 9, "b": 2})
    assert refused(root) == (
        "'ROOT/train/b' must hold more images to cut a test and a validation part from it; "
        "add some, or folders 'val' and 'test' beside 'train'"
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "ppm"])
def test_unreadable_image_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    start = f"'{path}' must be an image, and cannot be read ("
    for damaged in (content[: len(content) // 2], content[:4], b"", b"hello"):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError) as caught:
            read(path)
        assert str(caught.value).startswith(start)
        assert str(caught.value).endswith("); replace or delete it")
    assert "no known image format" in str(caught.value)
    path.unlink()
    with pytest.raises(ConfigError, match="No such file or directory"):
        read(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_image_never_gives_another_error(tmp_path: Path) -> None:
    draw, path = np.random.default_rng(1), tmp_path / "x"
    for suffix in ("png", "jpg", "ppm", "bmp", "webp"):
        Image.new("RGB", (8, 8), (1, 2, 3)).save(path, {"jpg": "jpeg"}.get(suffix, suffix))
        content = path.read_bytes()
        for _ in range(200):
            damaged = bytearray(content)
            damaged[draw.integers(len(content))] = draw.integers(256)
            path.write_bytes(damaged)
            try:
                assert read(path).shape == (3, EDGE, EDGE)
            except ConfigError:
                continue


def test_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(tmp_path / "x.png", 0, (64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ConfigError, match=r"x\.png' must be a smaller image: Image size \(4096"):
        read(tmp_path / "x.png")
