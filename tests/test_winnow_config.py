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
    assert load_config(path) == Config().beside(path.parent)


def test_former_names_of_sections_still_count(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[shrink]\nmethod = "cascade"\n')
    assert load_config(path).prune_channels.method == "cascade"


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
    for name in ("b", "a", "pyproject"):
        (tmp_path / f"{name}.toml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "no.toml")
    assert str(caught.value) == text + "a, b"


def test_name_where_a_file_is_taken_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "net.toml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(Path("net"))
    assert str(caught.value) == (
        "configuration 'net' is missing; this command takes a file: configs/net.toml"
    )


def test_broken_toml(tmp_path: Path) -> None:
    assert rejected(tmp_path, b"seed = ").startswith("'x.toml' is not valid TOML: Invalid value")
    assert rejected(tmp_path, b"\xff").startswith("'x.toml' is not valid TOML: 'utf-8' codec")
    assert rejected(tmp_path, b"seed = 1\nseed = 2").startswith("'x.toml' is not valid TOML: ")


TOO_DEEP = "it is nested too deeply"
GARBAGE = [
    (b"seed = " + b"9" * 5000, "Exceeds the limit (4300 digits)"),
    (b"seed = [" * 5000, "Invalid"),
    (b"seed = " + b"[" * 100_000, TOO_DEEP),
    (b"seed = " + b"{a=" * 100_000, TOO_DEEP),
    (b"seed = " + b"[" * 100_000 + b"]" * 100_000, TOO_DEEP),
    (b"\x00" * 100, "Invalid statement"),
    (b'[data]\npath = "a\x00b"', "Illegal character"),
    (b"\xff\xfe\x00", "'utf-8' codec can't decode"),
    (b"x" * 100_000, "Expected '='"),
    (b"[" + b"a" * 100_000 + b"]\n[" + b"a" * 100_000 + b"]", "Cannot declare"),
    (b"\x7fELF\x02\x01\x01", "Invalid statement"),
    (b"\x80\x04\x95", "'utf-8' codec can't decode"),
]


@pytest.mark.parametrize(("content", "reason"), GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_one_short_line(tmp_path: Path, content: bytes, reason: str) -> None:
    message = rejected(tmp_path, content)
    assert message.startswith(f"'x.toml' is not valid TOML: {reason}")
    assert len(message) < 200
    assert message.isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed = 0x" + "f" * 5000, "seed must be an integer in 0..2147483647, got an int too long"),
        ("seed = " + "[" * 200 + "]" * 200, "seed must be an integer in 0..2147483647, got [[["),
        ('seed = "' + "y" * 10**6 + '"', "seed must be an integer in 0..2147483647, got 'yyyy"),
        ("y" * 10**5 + " = 1", "unknown key 'yyyyyyyyyy"),
        ('"a\\nb" = 1', r"unknown key 'a\nb'; the nearest valid one is '"),
        (
            '[data]\npath = "' + "y" * 10**5 + '"',
            "data.path must be one line of at most 1000 characters, got 'yyyyy",
        ),
        (
            '[distill]\nteacher = "a\\u0000b"',
            r"distill.teacher must be one line of at most 1000 characters, got 'a\x00b'",
        ),
        ('[model]\nname = "' + "y" * 10**5 + '"', "model.name must be one line of at most"),
        ("[train]\nlearning_rate = 1" + "0" * 400, "train.learning_rate must be a number in 1e-07"),
        ("[model]\nchannels = [" + "0," * 10**5 + "]", "model.channels must be a list of at least"),
    ],
    ids=range(10),
)
def test_values_are_cut_where_they_are_repeated(tmp_path: Path, content: str, message: str) -> None:
    found = rejected(tmp_path, content.encode())
    assert found.startswith(f"x.toml: {message}")
    assert len(found) < 300
    assert found.isprintable()


def test_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^configuration '.*' is a folder; name a \.toml file$"):
        load_config(tmp_path)


def test_path_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^configuration 'a\\x00b' cannot be a file's name$"):
        load_config(Path("a\0b"))
    with pytest.raises(ConfigError, match=r"^configuration '.*' cannot be read: File name too lo"):
        load_config(tmp_path / ("n" * 300))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^configuration '.*x.toml' is missing; .*has: none$"):
        load_config(tmp_path / "file" / "x.toml")


def test_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    with pytest.raises(ConfigError, match=r"^configuration 'x' cannot be read: Permission denied$"):
        load_config(Path("x"))


def test_many_neighbours_are_cut(tmp_path: Path) -> None:
    for i in range(200):
        (tmp_path / f"configuration{i}.toml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "no.toml")
    assert len(str(caught.value)) < 500 + 2 * len(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sed = 1", "unknown key 'sed'; the nearest valid one is 'seed'"),
        ("engine = 3", "engine must be a table ([engine]), got 3"),
        ("[engine]\nm = 3", "engine.m must be one of 2, 4; got 3"),
        ("[engine]\nm = 2.0", "engine.m must be one of 2, 4; got 2.0"),
        (
            "[shrink]\nlevels = 2\n[prune_channels]\nlevels = 2",
            "'shrink' is the former name of 'prune_channels'; give it once",
        ),
        (
            "[model]\nchannels = [8, 8]\npool_after = [3]\nexit_after = []",
            "model.pool_after must name one of the 2 convolutions of model.channels, got 3",
        ),
        (
            "[model]\npool_after = [0, 2]",
            "model.pool_after must number convolutions from 1, or be [0] for those that fit, got "
            "[0, 2]",
        ),
        (
            "[model]\nchannels = [8, 8]\npool_after = []\nexit_after = [3]",
            "model.exit_after must name one of the 2 convolutions of model.channels, got 3",
        ),
        (
            "[model]\nchannels = [8, 8]\npool_after = []\nexit_after = [1, 2]",
            "model.exit_after must number convolutions before the last one, whose map the "
            "network's own classifier reads, got 2 of 2",
        ),
        (
            "[model]\nwidth = 0.5",
            "model.width is for networks of the library; a chain is as wide as model.channels, got "
            "0.5",
        ),
    ],
)
def test_wrong_values_name_file_and_key(tmp_path: Path, content: str, message: str) -> None:
    assert rejected(tmp_path, content.encode()) == f"x.toml: {message}"
