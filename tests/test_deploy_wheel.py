# SPDX-License-Identifier: Apache-2.0
"""The wheel for a board: what it holds, that pip takes it, that its copy of the driver runs."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import deploy.__main__
from deploy.driver import winnow_pynq
from deploy.wheel import Bitstream, package_name, write_wheel
from tests.builds import TRAINING, play, play_all
from tests.conftest import ROOT
from tests.fake_board import FakeBoard
from tests.test_deploy_driver import GRAPH, PLAN, bundle, golden  # noqa: F401
from winnow.cli import guard
from winnow.config import load_config, read_toml
from winnow.errors import ArtefactError, ConfigError
from winnow.flow import Build

PARTS = {"program.bin", "weights.bin", "memory.json", "golden.npz"}


@pytest.fixture
def bitstream(tmp_path: Path) -> Bitstream:
    (tmp_path / "design.bit").write_bytes(b"bits")
    (tmp_path / "design.hwh").write_bytes(b"<EDKSYSTEM/>")
    return Bitstream(tmp_path / "design.bit", 100.0)


def test_wheel_holds_driver_and_network(bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    path = write_wheel(tmp_path, bundle, "my-chain")
    assert path.name.startswith("winnow_my_chain-0.1.0+")
    assert path.name.endswith("-py3-none-any.whl")
    assert path.stat().st_size < 1_000_000
    names = set(zipfile.ZipFile(path).namelist())
    assert {f"winnow_my_chain/data/{part}" for part in PARTS} <= names
    driver = {p.name for p in (ROOT / "deploy/driver/winnow_pynq").glob("*.py")}
    assert {f"winnow_my_chain/winnow_pynq/{name}" for name in driver} <= names
    before = path.read_bytes()
    assert write_wheel(tmp_path, bundle, "my-chain").read_bytes() == before
    assert [p.name for p in tmp_path.glob("*.whl")] == [path.name]


def test_a_bitstream_comes_with_its_clock_and_a_name_of_its_own(
    bundle: Path,  # noqa: F811
    bitstream: Bitstream,
    tmp_path: Path,
) -> None:
    def packed() -> tuple[list[str], float]:
        with zipfile.ZipFile(write_wheel(tmp_path, bundle, "x", bitstream)) as wheel:
            clock = json.loads(wheel.read("winnow_x/data/memory.json"))["clock_mhz"]
            return sorted(n for n in wheel.namelist() if n.endswith((".bit", ".hwh"))), clock

    (bit, hwh), clock = packed()
    assert clock == 100.0
    assert bit.removesuffix(".bit") == hwh.removesuffix(".hwh")
    bitstream.path.write_bytes(b"other bits")
    assert packed()[0][0] != bit
    bitstream.path.with_suffix(".hwh").unlink()
    with pytest.raises(ArtefactError, match=r"design.hwh' is missing; a .bit and its .hwh"):
        packed()


@pytest.mark.parametrize("name", ["a b", "_x", "", "net!", "a__b"])
def test_a_folder_that_gives_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no package can be named after the folder"):
        package_name(name)


def test_driver_has_the_version_of_the_project(root: Path) -> None:
    assert winnow_pynq.__version__ == read_toml(root / "pyproject.toml")["project"]["version"]


def test_pip_installs_it_and_its_driver_passes_the_selftest(
    bundle: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "place"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--disable-pip-version-check", "--target", str(place)]
    subprocess.run([*command, str(write_wheel(tmp_path, bundle, "chain"))], check=True)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    installed: Any = importlib.import_module("winnow_chain")
    driver: Any = importlib.import_module("winnow_chain.winnow_pynq")
    main: Any = importlib.import_module("winnow_chain.__main__")
    assert installed.BIT is None
    assert str(place) in driver.__file__
    with driver.Engine(FakeBoard(GRAPH, PLAN)) as engine:
        main.check(engine)
    lines = capsys.readouterr().out.splitlines()
    compared = sum(maps.size for maps in golden().layers.values())
    assert lines[0] == f"selftest: {compared} integers equal the model's"
    assert [line.split()[0] for line in lines[1:-1]] == [layer.name for layer in PLAN.layers]
    assert lines[-1].startswith("throughput: ")
    monkeypatch.setattr(sys, "argv", ["winnow_chain"])
    with pytest.raises(SystemExit, match="this wheel has no bitstream; give one"):
        main.main()
    monkeypatch.setattr(sys, "argv", ["winnow_chain", "design.bit"])
    monkeypatch.setitem(sys.modules, "pynq", None)
    with pytest.raises(SystemExit, match=r"error: .*(pynq|numpy 1).*; on a board: sudo -i, then"):
        main.main()


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture
def build(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:  # noqa: F811
    """A build whose stages are played."""
    monkeypatch.chdir(tmp_path)
    Path("net.toml").write_text("")
    out = Path("build/net")
    out.mkdir(parents=True)
    shutil.copytree(bundle, out / "bundle")
    build = Build(load_config(Path("net.toml")), out, config_path="net.toml")
    play_all(build, (*TRAINING, "golden", "lower", "schedule", "emit", "rtl"), {})
    build.rtl.mkdir(exist_ok=True)
    top = "module winnow_engine (\n  input  logic ap_clk\n);\nendmodule\n"
    (build.rtl / "winnow_engine.sv").write_text(top)
    play(build, "bundle", sorted((out / "bundle").iterdir()))
    return build


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    sys.argv = ["deploy", *words]
    code = guard(deploy.__main__.main)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("vivado", "--board", "nope"), r"must be one of PYNQ-Z1, .*, got 'nope'"),
        (("board", "--board", "nope"), r"must be one of PYNQ-Z1, .*, got 'nope'"),
        (("board",), r"\.venv-pynq.* make setup-pynq"),
        (("board", "--host", "10.0.0.1"), r"--host must be 127\.0\.0\.N, got '10\.0\.0\.1'"),
        (("overlay", "--bit", "x.bit"), r"--bit FILE and --clock MHZ go together"),
        (("overlay", "--bit", "x.bit", "--clock", "9"), r"'x\.bit' is missing"),
        (("push", "--to=-x"), r"'-x'"),
    ],
)
def test_wrong_words_are_refused_before_a_build_is_made(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`make` asks with --check, where nothing is built yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.toml").touch()
    verb, *rest = words
    code, text, error = command(capsys, verb, "--config", "net.toml", "--check", *rest)
    assert (code, text) == (1, "")
    assert re.search(said, error)
    assert error.count("\n") == 1
    code, text, error = command(capsys, "vivado", "--config", "net.toml", "--check")
    assert (code, text, error) == (0, "", "")


def test_overlay_packs_a_build_that_is_current(
    build: Build, bitstream: Bitstream, capsys: pytest.CaptureFixture[str]
) -> None:
    text = command(capsys, "vivado", "--config", "net.toml", "--board", "zcu104")[1]
    assert text.splitlines()[1:] == [
        f"  vivado -mode batch -source build/net/vivado/ZCU104/{name}.tcl"
        for name in ("package", "overlay")
    ]
    assert "zcu104:part0:1.1" in (build.out / "vivado/ZCU104/settings.tcl").read_text()
    code, text, error = command(capsys, "overlay", "--config", "net.toml")
    assert (code, error) == (0, "")
    assert text.startswith("overlay: build/net/winnow_net-0.1.0+")
    assert "(driver and network, no bitstream, " in text
    words = ["--bit", str(bitstream.path), "--clock", "100"]
    text = command(capsys, "overlay", "--config", "net.toml", *words)[1]
    assert "(driver, network, bitstream, " in text
    error = command(capsys, "overlay", "--config", "net.toml", *words[:2])[2]
    assert error.startswith("error: --bit FILE and --clock MHZ go together: the clock")
    (build.out / "bundle" / "weights.bin").write_bytes(b"x")
    code, text, error = command(capsys, "overlay", "--config", "net.toml")
    assert (code, text) == (1, "")
    assert error == (
        "error: 'build/net': stage 'bundle' must run first: bundle/weights.bin is not the one it "
        "made; run: python -m winnow run --config net.toml --out build/net\n"
    )
