# SPDX-License-Identifier: Apache-2.0
"""`winnow new`: what it writes runs, and nothing that is there is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winnow.config import load_config
from winnow.errors import ConfigError
from winnow.new import write_new
from winnow.place import child_environment


def winnow(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "winnow", *words],
        cwd=folder,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def pictures(root: Path, classes: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for label in range(classes):
        (root / "train" / f"c{label}").mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(root / "train" / f"c{label}" / f"{i}.png")
    return root


def test_what_is_written_passes_check(tmp_path: Path) -> None:
    made = winnow(tmp_path, "new", "mine")
    assert (made.returncode, made.stderr) == (0, "")
    first, second = made.stdout.splitlines()
    assert first == "new: mine/mine.toml, mine/net.py, mine/data.py"
    assert second == "next: .venv/bin/python -m winnow check --config mine/mine.toml"
    result = winnow(tmp_path, *second.split()[4:])
    assert (result.returncode, result.stderr) == (0, "")
    assert "\ncheck: 3 layers fit, " in result.stdout


@pytest.mark.parametrize(
    ("installed", "check", "run"),
    [
        (True, "winnow check --config 'a b/mine/mine.toml'", "winnow run --config "),
        (
            False,
            ".venv/bin/python -m winnow check --config 'a b/mine/mine.toml'",
            "make hls CONFIG=",
        ),
    ],
)
def test_configuration_names_the_commands_that_there_are(
    installed: bool, check: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (file, *_) = write_new("a b/mine", installed=installed)
    lines = file.read_text().splitlines()
    assert lines[1].startswith(f"#   {check}  ")
    assert lines[2].startswith(f"#   {run}'a b/mine/mine.toml'  ")


def test_images_of_the_users_pass_check(tmp_path: Path) -> None:
    pictures(tmp_path / "my images")
    made = winnow(tmp_path, "new", "photos", "--folder", "my images")
    assert (made.returncode, made.stderr) == (0, "")
    config = load_config(tmp_path / "photos" / "photos.toml")
    assert config.data.place.resolve() == (tmp_path / "my images").resolve()
    assert not (tmp_path / "photos" / "data.py").exists()
    result = winnow(tmp_path, "check", "--config", "photos/photos.toml")
    assert (result.returncode, result.stderr) == (0, "")


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = write_new("mine")
    files[0].write_text("changed")
    with pytest.raises(ConfigError, match="'mine' is there already and is left as it is; choose"):
        write_new("mine")
    assert files[0].read_text() == "changed"


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "-x", "a;b"])
def test_odd_names_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="must be letters, digits, dots, dashes and underscores"):
        write_new(name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    root = pictures(tmp_path / "images", 1)
    for place, count in ((root, 1), (tmp_path / "none", 0)):
        with pytest.raises(ConfigError, match=rf"of two or more classes, got {count}; see docs"):
            write_new(str(tmp_path / "x"), place)
    assert not (tmp_path / "x").exists()
