# SPDX-License-Identifier: Apache-2.0
"""Configurations may lie anywhere; builds only where every tool can read their path."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow.errors import ConfigError
from winnow.place import config_place, default_out, require_plain


def test_a_colon_without_a_profile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/net.toml").touch()
    with pytest.raises(ConfigError, match=r"^configuration 'net:' names no profile behind the "):
        config_place("net:")


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("configs/net.toml", "here.toml", "a b/my net.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert config_place("net") == Path("configs/net.toml")
    assert config_place("here.toml") == Path("here.toml")
    assert config_place("./here.toml") == Path("here.toml")
    assert config_place(str(tmp_path / "a b/my net.toml")) == tmp_path / "a b/my net.toml"
    with pytest.raises(ConfigError) as caught:
        config_place("nett")
    assert str(caught.value) == "configuration 'configs/nett.toml' is missing; configs/ has: net"
    with pytest.raises(ConfigError, match=r"^configuration 'a b' is a folder; name a .toml file$"):
        config_place("a b/")


@pytest.mark.parametrize(
    ("config", "out"),
    [("configs/digits.toml", "digits"), ("/x/my net.v2.toml", "my_net.v2"), ("a$b.toml", "a_b")],
)
def test_default_folder_has_plain_characters(config: str, out: str) -> None:
    assert default_out(Path(config)) == Path("build") / out


@pytest.mark.parametrize("name", ["a b", "a\tb", "a$b", "a#b", "a:b", "a'b", "a\\b"])
def test_folder_that_makefiles_cannot_take_is_refused(tmp_path: Path, name: str) -> None:
    require_plain(tmp_path, "")
    with pytest.raises(ConfigError, match=r"must have no space, quote or any of .*; move it"):
        require_plain(tmp_path / name / "x", "move it")
