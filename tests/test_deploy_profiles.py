# SPDX-License-Identifier: Apache-2.0
"""Profiles on a board: several networks loaded together take turns, and belong to one build."""

from __future__ import annotations

import importlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.emit import emit_data, sealed_json
from codegen.golden import Golden
from codegen.ir import Graph
from codegen.schedule import schedule
from deploy import profiles
from deploy.bundle import FILES, write_bundle
from deploy.driver import winnow_pynq as driver
from deploy.driver.winnow_pynq import errors
from deploy.virtual_board import virtual_board
from deploy.wheel import Bitstream, write_wheel
from tests.builds import TRAINING, play
from tests.engines import ENGINES, expected_maps
from tests.fake_board import FakeBoard
from tests.test_deploy_driver import GRAPH, LAST, PLAN, golden
from tests.test_deploy_wheel import command
from tests.test_sim_rtl import harness, rtl_folder
from winnow.config import load_config
from winnow.errors import ArtefactError
from winnow.fixed_point import IntArray
from winnow.flow import Build, profile_builds

PROFILES = ("profiles", "--config", "net.toml")
TWO = "[profiles.fast]\nprune.keep = 1\n[profiles.exact]\nprune.keep = 4\n"


@cache
def graphs() -> dict[str, Graph]:
    """Two networks of the same images and results, with other weights in the last layer."""
    *nodes, last = GRAPH.nodes
    other: Any = last
    turned = replace(other, weight=np.roll(other.weight, 1, axis=0))
    return {"fast": GRAPH, "exact": Graph(GRAPH.input, (*nodes, turned))}


def values_of(name: str) -> Golden:
    images = golden().images
    return Golden(images, np.zeros(len(images), np.int64), expected_maps(graphs()[name], images))


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Build]:
    """The builds of two profiles, whose bundles are there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Path("net.toml").write_text(TWO)
    whole = Build(load_config(Path("net.toml")), Path("build/net"), config_path="net.toml")
    found = profile_builds(whole)
    for name, build in found.items():
        emit_data(build.hls / "data", schedule(graphs()[name], ENGINES["default"]))
        write_bundle(build.out / "bundle", build.hls / "data", values_of(name), name=name)
    return found


@pytest.fixture
def folder(builds: dict[str, Build], tmp_path: Path) -> Path:
    profiles.write_profiles(tmp_path / "both", builds)
    return tmp_path / "both"


def last_maps(name: str) -> IntArray:
    return values_of(name).layers[LAST]


# --- the driver -------------------------------------------------------------------------------


def test_networks_are_loaded_together_and_take_turns(folder: Path) -> None:
    assert not np.array_equal(last_maps("fast"), last_maps("exact"))
    with virtual_board(harness("default"), rtl_folder("default")) as board:
        with driver.Engine(board) as engine:
            networks = engine.load_profiles(folder, timeout_s=600)
            assert list(networks) == ["fast", "exact"]
            for i, name in enumerate(("fast", "exact", "exact", "fast")):
                found = networks[name].run(golden().images[i : i + 1])
                assert np.array_equal(found, last_maps(name)[i : i + 1])
        assert board.bus.live == 0


def test_a_bundle_is_the_one_profile_of_itself(folder: Path) -> None:
    with driver.Engine(FakeBoard(GRAPH, PLAN)) as engine:
        networks = engine.load_profiles(folder / "fast", batch=1)
        assert list(networks) == ["fast"]
        assert networks["fast"].batch == 1
        assert np.array_equal(networks["fast"].run(golden().images), last_maps("fast"))


def swapped(folder: Path) -> None:
    (folder / "fast").rename(folder / "x")
    (folder / "exact").rename(folder / "fast")
    (folder / "x").rename(folder / "exact")


def of_another_engine(folder: Path) -> None:
    """A profile of another engine's build, whole in itself."""
    path = folder / "exact" / "memory.json"
    content = json.loads(path.read_bytes())
    content.pop("seal")
    path.write_bytes(sealed_json({**content, "engine_id": f"{1:016x}"}))


def listed(**content: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "profiles.json").write_bytes(sealed_json(content)) and None


def truncated(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


BROKEN: list[tuple[str, Callable[[Path], Any], type[Exception], str]] = [
    ("a folder", lambda f: shutil.rmtree(f / "exact"), errors.NotFoundError, "exact/memory.json'"),
    ("a file", lambda f: (f / "exact/weights.bin").unlink(), errors.NotFoundError, "weights.bin'"),
    ("list", lambda f: (f / "profiles.json").unlink(), errors.NotFoundError, "cannot read '.*/pro"),
    ("cut", truncated("profiles.json"), errors.MismatchError, "profiles.json' is damaged; copy"),
    (
        "deep",
        lambda f: (f / "profiles.json").write_text("[" * 100_000),
        errors.MismatchError,
        "profiles.json' is damaged; copy",
    ),
    ("weights", truncated("exact/weights.bin"), errors.MismatchError, "weights.bin' is damaged"),
    ("swapped", swapped, errors.MismatchError, "fast/memory.json' is damaged or of another build"),
    (
        "engine",
        of_another_engine,
        errors.MismatchError,
        "exact/memory.json' is damaged or of",
    ),
    ("format", listed(format=9), errors.MismatchError, "profiles.json' has format 9, .* reads 1"),
    ("empty", listed(format=1), errors.MismatchError, "profiles.json' lacks something .'profiles'"),
    (
        "none",
        listed(format=1, profiles={}),
        errors.MismatchError,
        "json' has no profiles; copy",
    ),
    ("odd", listed(format=1, profiles=3), errors.MismatchError, "profiles.json' lacks something"),
]


@pytest.mark.parametrize(("name", "change", "kind", "text"), BROKEN, ids=[b[0] for b in BROKEN])
def test_profiles_that_do_not_belong_together_are_refused(
    name: str, change: Callable[[Path], Any], kind: type[Exception], text: str, folder: Path
) -> None:
    change(folder)
    board = FakeBoard(GRAPH, PLAN)
    with driver.Engine(board) as engine:
        with pytest.raises(kind, match=text) as found:
            engine.load_profiles(folder)
        assert "\n" not in str(found.value)
        assert board.buffers == [], name


# --- the folder and the wheel -----------------------------------------------------------------


def test_profiles_that_are_no_more_leave_the_folder(builds: dict[str, Build], folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "weights.bin").write_bytes(b"x")
    written = profiles.write_profiles(folder, {"fast": builds["fast"]})
    assert sorted(written) == sorted(p for p in folder.rglob("*") if p.is_file())


def test_files_beside_a_bundle_are_not_brought_along(
    builds: dict[str, Build], tmp_path: Path
) -> None:
    bundle = builds["fast"].out / "bundle"
    (bundle / "notes").mkdir()
    (bundle / "weights.bin~").write_bytes(b"x")
    written = profiles.write_profiles(tmp_path / "one", {"fast": builds["fast"]})
    names = {path.relative_to(tmp_path / "one").as_posix() for path in written}
    assert names == {"profiles.json", *(f"fast/{name}" for name in FILES)}


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("input", {"exponent": 3}, "profile 'exact' has another input than 'fast': "),
        ("engine_id", "12", "profile 'exact' has another engine than 'fast': 12, not "),
    ],
)
def test_profiles_of_other_images_or_engines_are_not_brought_together(
    key: str, value: Any, text: str, builds: dict[str, Build], tmp_path: Path
) -> None:
    path = builds["exact"].out / "bundle" / "memory.json"
    content = json.loads(path.read_bytes())
    content[key] = {**content[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(content))
    with pytest.raises(ArtefactError, match=f"^{text}") as found:
        profiles.write_profiles(tmp_path / "x", builds)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "x").exists()


def test_the_wheel_holds_all_profiles(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "design.bit").write_bytes(b"bits")
    (tmp_path / "design.hwh").write_bytes(b"<EDKSYSTEM/>")
    bitstream = Bitstream(tmp_path / "design.bit", 100.0)
    path = write_wheel(tmp_path, folder, "two-profiles", bitstream)
    zipfile.ZipFile(path).extractall(tmp_path / "place")
    monkeypatch.syspath_prepend(str(tmp_path / "place"))
    package: Any = importlib.import_module("winnow_two_profiles")
    engine: Any = importlib.import_module("winnow_two_profiles.winnow_pynq")
    main: Any = importlib.import_module("winnow_two_profiles.__main__")
    with virtual_board(harness("default"), rtl_folder("default")) as board:
        with engine.Engine(board) as opened:
            networks = opened.load_profiles(package.DATA)
            assert [network.bundle.clock_mhz for network in networks.values()] == [100.0] * 2
        monkeypatch.setattr(board, "clock_mhz", lambda: 100.0)
        with engine.Engine(board) as opened:
            main.check(opened)
    lines = capsys.readouterr().out.splitlines()
    names = [line for line in lines if line.startswith("profile ")]
    assert names == ["profile fast:", "profile exact:"]
    compared = sum(maps.size for maps in golden().layers.values())
    assert lines.count(f"selftest: {compared} integers equal the model's") == 2


# --- the command ------------------------------------------------------------------------------


def numbers(test: float) -> dict[str, dict[str, Any]]:
    return {
        "qat": {"quantized_accuracy": test, "validation_accuracy": test - 1},
        "schedule": {"total_cycles": 1000, "weight_bytes": 2048},
        "rtlsim": {"stall_0": {"cycles": [990, 990]}},
    }


@pytest.fixture
def played(builds: dict[str, Build]) -> dict[str, Build]:
    """Two builds whose stages are played."""
    stages = (*TRAINING, "golden", "lower", "schedule", "emit", "csim", "rtl", "rtlsim", "synth")
    for i, build in enumerate(builds.values()):
        build.rtl.mkdir(parents=True)
        top = build.rtl / "winnow_engine.sv"
        top.write_text("module winnow_engine; endmodule\n")
        for name in stages:
            files = [top] if name == "rtl" else []
            play(build, name, files, numbers(90.0 + i).get(name, {"stage": name}))
        play(build, "bundle", sorted((build.out / "bundle").iterdir()))
    return builds


@pytest.mark.usefixtures("played")
def test_the_command_writes_folder_wheel_and_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profiles, "load_golden", lambda build: values_of(build.out.name))
    made_before = harness("default")
    monkeypatch.setattr(profiles.rtl, "build", lambda *_: made_before)
    monkeypatch.setattr(
        profiles, "virtual_board", lambda h, _: virtual_board(h, rtl_folder("default"))
    )
    code, text, error = command(capsys, *PROFILES)
    assert (code, error) == (0, "")
    head, fast, exact, note, done = text.splitlines()
    assert head.split() == ["profile", "validation", "test", "modelled", "RTL", "weights"]
    row = ["%", "1,000", "990", "2,048", "B"]
    assert fast.split() == ["fast", "89.00", "%", "90.00", *row]
    assert exact.split() == ["exact", "90.00", "%", "91.00", *row]
    assert note.startswith("accuracy of the quantized networks, measured; cycles of an image, by")
    values = 2 * sum(maps.size for maps in golden().layers.values())
    assert f"= Brevitas on {values} values; build/net/bundle_profiles, build/net/winnow_net" in done
    monkeypatch.setattr(
        profiles, "load_golden", lambda build: values_of("fast" if build.out.name else "")
    )
    assert command(capsys, *PROFILES)[2].startswith(f"error: layer '{LAST}': image 0, channel ")


def test_what_is_not_current_or_of_other_rtl_is_refused(
    played: dict[str, Build], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(capsys, *PROFILES, "--check") == (0, "", "")
    top = played["exact"].rtl / "winnow_engine.sv"
    top.write_text("module winnow_engine; wire x; endmodule\n")
    error = command(capsys, *PROFILES)[2]
    assert error.startswith("error: 'build/net/profiles/exact': stage 'rtl' must run first: rtl/wi")
    for name in ("rtl", "rtlsim", "synth", "bundle"):
        files = {"rtl": [top], "bundle": sorted((played["exact"].out / "bundle").iterdir())}
        play(played["exact"], name, files.get(name, []), {"stage": name})
    assert command(capsys, *PROFILES)[2] == (
        "error: profiles 'fast' and 'exact' were checked on different RTL; run: python -m winnow "
        "profiles --config net.toml --out build/net\n"
    )
    Path("net.toml").write_text("")
    assert command(capsys, *PROFILES, "--check")[2].startswith(
        "error: net.toml: there are no profiles; add a"
    )
