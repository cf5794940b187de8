# SPDX-License-Identifier: Apache-2.0
"""Profiles of a configuration: what they may change, how they are named, what they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builds import play
from winnow.config import load_config, load_profiles
from winnow.errors import ConfigError
from winnow.flow import BY_NAME, Build, adopt, profile_builds, stage_inputs, staleness
from winnow.place import config_place, default_out

TWO = """
seed = 3
[prune]
keep = 2
[profiles.fast]
prune.keep = 1
[profiles.exact]
prune.keep = 4
quantize.weight_bits = [8]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    path = Path("configs/net.toml")
    path.write_text(TWO)
    return path


def test_profiles_are_the_configuration_with_their_values(file: Path) -> None:
    found = load_profiles(file)
    assert list(found) == ["fast", "exact"]
    assert [config.prune.keep for config in found.values()] == [1, 4]
    assert {config.seed for config in found.values()} == {3}
    assert found["exact"].quantize.weight_bits == (8,)
    base = load_config(file)
    assert base.prune.keep == 2
    assert base.quantize == found["fast"].quantize


def test_a_profile_is_named_behind_a_colon(file: Path) -> None:
    place = config_place("net:fast")
    assert str(place) == "configs/net.toml:fast"
    assert config_place("configs/net.toml:fast") == place
    assert load_config(place) == load_profiles(file)["fast"]
    assert default_out(place) == Path("build/net/profiles/fast")
    assert default_out(file) == Path("build/net")
    with pytest.raises(ConfigError, match=r"^configs/net.toml: no profile is called 'slow'; it ha"):
        load_config(config_place("net:slow"))
    with pytest.raises(ConfigError, match=r"^configs/net.toml:fast: one profile is not several; n"):
        load_profiles(place)
    with pytest.raises(ConfigError, match=r"^configuration 'configs/nat.toml' is missing; "):
        config_place("nat:fast")
    odd = Path("configs/net.toml:odd.toml")  # a file may be called like that
    odd.write_text("seed = 7")
    assert load_config(config_place(str(odd))).seed == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no profiles; add a table [profiles.NAME] for each, with the keys in which"),
        ("profiles = 3", "profiles must be tables [profiles.NAME], got 3"),
        ("profiles.fast = 3", "profiles.fast must be a table, got 3"),
        ("[profiles.'a b']", "the name of a profile must be at most 60 letters, digits, _ and -, "),
        (
            "[profiles.-a]",
            "the name of a profile must be at most 60 letters, digits, _ and -, the first a letter "
            "or digit, got '-a'",
        ),
        (
            "[profiles.fast]\nengine.m = 4",
            "profiles.fast.engine.m: all profiles read the same images and run on one engine; set "
            "[engine] once, outside the profiles",
        ),
        ("[profiles.fast]\ndata.image_size = 20", "profiles.fast.data.image_size: all profiles"),
        ("[profiles.fast.target]", "profiles.fast.target: all profiles read the same images"),
        ("[profiles.fast]\nengine = 3", "profiles.fast.engine: all profiles read the same images"),
        ("[profiles.fast]\nprune.kep = 3", "profile 'fast': unknown key 'prune.kep'; the nearest"),
        ("[profiles.fast]\nprune.keep = 9", "profile 'fast': prune.keep must be an integer in 1.."),
    ],
)
def test_what_no_profile_may_be_is_refused_by_name(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as found:
        load_profiles(file)
    assert str(found.value).startswith(f"{file}: {message}")
    if text:  # whatever the verb
        with pytest.raises(ConfigError) as found:
            load_config(file)
        assert str(found.value).startswith(f"{file}: {message}")


def test_builds_of_profiles_share_compiled_things_with_their_neighbours(file: Path) -> None:
    build = Build(load_config(file), Path("build/net"), config_path=str(file))
    found = profile_builds(build)
    assert [each.out for each in found.values()] == [
        Path("build/net/profiles/fast"),
        Path("build/net/profiles/exact"),
    ]
    assert {each.cache for each in found.values()} == {build.cache} == {Path("build/.cache")}
    assert found["fast"].command("prune") == (
        "python -m quant prune --config configs/net.toml:fast --out build/net/profiles/fast"
    )
    elsewhere = Build(load_config(file), Path("profiles/net"), config_path=str(file))
    assert elsewhere.cache == Path("profiles/.cache")


def test_what_another_build_made_of_the_same_is_taken(file: Path) -> None:
    builds = profile_builds(Build(load_config(file), Path("build/net"), config_path=str(file)))
    fast, exact = builds["fast"], builds["exact"]
    for build in builds.values():
        play(build, "check")
    made = fast.out / "train.npz"
    made.write_bytes(b"weights")
    play(fast, "train", [made])
    stage = BY_NAME["train"]
    inputs = stage_inputs(stage, exact)
    assert adopt(stage, exact, inputs, fast.out)
    assert (exact.out / "train.npz").read_bytes() == b"weights"
    assert staleness(stage, exact) is None
    assert not adopt(BY_NAME["check"], exact, stage_inputs(BY_NAME["check"], exact), fast.out)
    made.write_bytes(b"damaged")
    (exact.out / "train.json").unlink()
    assert not adopt(stage, exact, inputs, fast.out)
    assert not (exact.out / "train.json").exists()
