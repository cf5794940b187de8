# SPDX-License-Identifier: Apache-2.0
"""The configuration file: what is shipped loads, and what is wrong gets one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow.config import Config, load_config
from winnow.errors import ConfigError


def test_every_shipped_configuration_loads(root: Path) -> None:
    paths = sorted((root / "configs").glob("*.toml"))
    assert root / "configs" / "digits.toml" in paths
    for path in paths:
        assert isinstance(load_config(path), Config)


def test_empty_file_is_the_default_build(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("")
    assert load_config(path) == Config()


def test_sections_are_plain_values() -> None:
    section = Config().section("seed", "engine")
    assert list(section) == ["seed", "engine"]
    assert section["engine"]["m"] == Config().engine.m


def rejected(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{tmp_path}/", "")


def test_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "no.toml")
    text = f"configuration '{tmp_path}/no.toml' is missing; {tmp_path}/ has: "
    assert str(caught.value) == text + "none"
    for name in ("b", "a"):
        (tmp_path / f"{name}.toml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "no.toml")
    assert str(caught.value) == text + "a, b"


def test_broken_toml(tmp_path: Path) -> None:
    assert rejected(tmp_path, b"seed = ").startswith("'x.toml' is not valid TOML: Invalid value")
    assert rejected(tmp_path, b"\xff").startswith("'x.toml' is not valid TOML: 'utf-8' codec")
    assert rejected(tmp_path, b"seed = 1\nseed = 2").startswith("'x.toml' is not valid TOML: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sed = 1", "unknown key 'sed'; the nearest valid one is 'seed'"),
        ("engine = 3", "engine must be a table ([engine]), got 3"),
        ("[engine]\nm = 3", "engine.m must be one of 2, 4; got 3"),
        ("[engine]\nm = 2.0", "engine.m must be one of 2, 4; got 2.0"),
        (
            "[model]\nchannels = [8, 8]\npool_after = [3]\nexit_after = []",
            "model.pool_after must name one of the 2 convolutions of model.channels, got 3",
        ),
        (
            "[model]\nchannels = [8, 8]\npool_after = []\nexit_after = [3]",
            "model.exit_after must name one of the 2 convolutions of model.channels, got 3",
        ),
    ],
)
def test_wrong_values_name_file_and_key(tmp_path: Path, content: str, message: str) -> None:
    assert rejected(tmp_path, content.encode()) == f"x.toml: {message}"
