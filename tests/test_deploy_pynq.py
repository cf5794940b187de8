# SPDX-License-Identifier: Apache-2.0
"""The virtual board on the network: an unmodified pynq against the RTL, and how it is started."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import deploy.__main__
from deploy import pynq_venv
from deploy.handoff import write_overlay
from deploy.virtual_board import rtl_digest
from tests.conftest import ROOT
from tests.test_deploy_virtual_board import ENGINE, IMAGES, LAST, MAPS, PLAN, bundle  # noqa: F401
from tests.test_deploy_wheel import build, command  # noqa: F401
from tests.test_sim_rtl import harness, rtl_folder
from winnow.boards import BOARDS
from winnow.errors import ToolError
from winnow.flow import Build

START_SECONDS = 60.0
MHZ = {"PYNQ-Z2": 100.0, "KV260": 99.999}  # what pynq makes of 100


def python_of(version: str) -> str:
    """Return the interpreter that has a version of pynq; skips the test where there is none."""
    python = ROOT / pynq_venv.folder_of(version) / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"needs make setup-pynq PYNQ={version}")
    return str(python)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


@contextmanager
def served(name: str, host: str, log: Path, version: str) -> Iterator[None]:
    """Serve a board on `host` from its own process."""
    binary, digest = harness(ENGINE).binary, rtl_digest(rtl_folder(ENGINE)).hex()
    words = [python_of(version), "-m", "deploy.server", str(binary), digest, "--board", name]
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*words, "--host", host], cwd=ROOT, env=environment(), stdout=file, stderr=file
        )
        try:
            limit = time.monotonic() + START_SECONDS
            while "board: ready" not in log.read_text():
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < limit
                time.sleep(0.1)
            yield
        finally:
            server.terminate()
            server.wait(10)


def client(
    bit: Path, folder: Path, version: str, *, within: tuple[str, ...] = (), **variables: str
) -> dict[str, Any]:
    """Run the client, or what runs it, and return what it found."""
    words = [*within, "tests/pynq_client.py", "deploy/driver", str(bit), str(folder)]
    result = subprocess.run(
        [python_of(version), "-W", "ignore", *words],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def require_right(found: dict[str, Any], mhz: float) -> None:
    """Check what the client found."""
    assert found["numpy"].startswith("1.")
    assert found["compared"] == sum(maps.size for maps in MAPS.values())
    assert found["after"] == MAPS[LAST].tolist()
    assert len(found["cycles"]) == len(PLAN.layers)
    assert all(cycles > 0 for cycles in found["cycles"])
    assert found["clock_mhz"] == pytest.approx(mhz)
    assert found["added"]
    assert found["timeout"].startswith("RunTimeoutError: no result after 0 s: control ")
    assert found["memory"].startswith("MemoryFullError: no 268435456 bytes of contiguous")
    assert re.search(r"lonely\.hwh' is missing; a \.bit and its \.hwh", found["lonely"])
    assert found["cut"].startswith("NotFoundError: pynq cannot load '")
    assert "the bitstream is of another build" in found["foreign"]
    assert all("\n" not in found[name] for name in ("cut", "foreign"))
    assert found["other"].startswith("NotFoundError: the overlay has no winnow:hls:")
    assert "axi_dma_0 (xilinx.com:ip:axi_dma:7.1)" in found["other"]
    assert found["seconds_per_image"] < 5


@pytest.mark.slow
@pytest.mark.parametrize("name", MHZ)
@pytest.mark.parametrize("version", pynq_venv.REQUIREMENTS)
def test_unmodified_pynq_gives_the_golden_integers_in_one_process(
    version: str,
    name: str,
    bundle: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """So also pynq 3.0.1, of boards' images, which knows no boards on the network."""
    digest = rtl_digest(rtl_folder(ENGINE))
    bit = write_overlay(tmp_path, BOARDS[name], digest)
    words = ("-m", "deploy.inprocess", str(harness(ENGINE).binary), digest.hex(), "--board", name)
    found = client(bit, bundle, version, within=words)
    assert found["pynq"] == version
    require_right(found, MHZ[name])
    assert found["interrupted_seconds"] < 300  # through pynq's controller and UIO file


@pytest.mark.slow
@pytest.mark.parametrize("version", pynq_venv.REMOTE)
def test_unmodified_pynq_gives_the_golden_integers_on_two_boards_at_once(
    version: str,
    bundle: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    digest = rtl_digest(rtl_folder(ENGINE))
    with (
        served("PYNQ-Z2", "127.0.0.2", tmp_path / "a.log", version),
        served("KV260", "127.0.0.3", tmp_path / "b.log", version),
    ):
        for name, host in (("PYNQ-Z2", "127.0.0.2"), ("KV260", "127.0.0.3")):
            bit = write_overlay(tmp_path / name, BOARDS[name], digest)
            found = client(bit, bundle, version, PYNQ_REMOTE_DEVICES=host)
            assert found["pynq"] == version
            require_right(found, MHZ[name])
            assert "interrupted_seconds" not in found  # pynq has none on remote boards


@pytest.mark.slow
@pytest.mark.parametrize("version", pynq_venv.REMOTE)
def test_a_board_that_goes_away_is_told_in_a_line(
    version: str,
    bundle: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    digest = rtl_digest(rtl_folder(ENGINE))
    bit = write_overlay(tmp_path, BOARDS["PYNQ-Z2"], digest)
    words = [str(harness(ENGINE).binary), digest.hex(), str(bit), str(bundle)]
    result = subprocess.run(
        [python_of(version), "-W", "ignore", "tests/pynq_gone.py", *words],
        cwd=ROOT,
        env=environment(PYNQ_REMOTE_DEVICES="127.0.0.5"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.pop("close") == ""  # there is nothing left to free
    assert len(found) == 5
    for error in found.values():
        assert re.fullmatch(
            r"NotFoundError: pynq does not reach the board \(\w+: .+\): is .*", error
        )


@pytest.mark.slow
def test_a_second_board_on_one_address_is_refused_in_a_line(tmp_path: Path) -> None:
    with served("PYNQ-Z2", "127.0.0.4", tmp_path / "a.log", pynq_venv.DEFAULT):
        python = python_of(pynq_venv.DEFAULT)
        words = [python, "-m", "deploy.server", str(harness(ENGINE).binary), "00"]
        result = subprocess.run(
            [*words, "--board", "PYNQ-Z2", "--host", "127.0.0.4"],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: port 7967 of 127.0.0.4 is taken")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("bin", "00", "--board", "PYNQ-Z2", "a.py"), 1, "error: .*; run this with .venv-pynq-3"),
        (("bin", "00", "--board", "Zybo", "a.py"), 1, "error: board must be one of PYNQ-Z1, "),
        (
            ("bin", "no", "--board", "KV260", "a.py"),
            1,
            "error: argument digest: invalid fromhex val",
        ),
    ],
)
def test_a_script_that_cannot_be_run_in_one_process_is_told_why(
    words: tuple[str, ...], code: int, text: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "deploy.inprocess", *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code
    assert re.match(text, result.stderr.splitlines()[-1])


def test_board_lets_only_this_machine_in(build: Build, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001, F811
    words = ("board", "--config", "net.toml", "--host", "0.0.0.0")
    assert command(capsys, *words) == (
        1,
        "",
        "error: --host must be 127.0.0.N, got '0.0.0.0'; other machines get in with --anyone: "
        "whoever reaches the port may run what they like on the board\n",
    )
    error = command(capsys, *words, "--anyone")[2]  # goes on; here there is no pynq
    assert error == "error: '.venv-pynq' with pynq is missing; make it with: make setup-pynq\n"
    error = command(capsys, "board", "--config", "net.toml", "--board", "Zybo")[2]
    assert error.startswith("error: board must be one of PYNQ-Z1, ")


def test_board_starts_the_server_and_prints_two_lines(
    build: Build,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    python = Path(".venv-pynq/bin/python")
    python.parent.mkdir(parents=True)
    python.touch()
    started: list[list[str]] = []

    def run(words: list[Any], **_: Any) -> Any:
        started.append([str(word) for word in words])
        return deploy.__main__.process.Finished(3)

    monkeypatch.setattr(deploy.__main__, "rtl_digest", lambda _: bytes(32))
    monkeypatch.setattr(deploy.__main__.rtl, "build", lambda *_: harness_of(build))
    monkeypatch.setattr(deploy.__main__.process, "run", run)
    with pytest.raises(SystemExit) as ended:
        command(capsys, "board", "--config", "net.toml", "--board", "kv260")
    assert ended.value.code == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "board: KV260 at 127.0.0.1, simulated; in another terminal:"
    assert lines[1].startswith("  .venv-pynq/bin/python -m pip install --no-index --no-deps ")
    (bit,) = (build.out / "board").glob("*.bit")
    assert lines[2] == f"  PYNQ_REMOTE_DEVICES=127.0.0.1 {python} -m winnow_net {bit}"
    (words,) = started
    assert words == [
        *(str(python), "-m", "deploy.server", "rtlsim", "00" * 32),
        *("--board", "KV260", "--host", "127.0.0.1"),
    ]


def harness_of(_: Build) -> Any:
    return deploy.__main__.rtl.Harness(Path("rtlsim"))


# --- the environment of pynq ------------------------------------------------------------------


@pytest.mark.parametrize("version", pynq_venv.REQUIREMENTS)
def test_pins_are_exact_and_have_numpy_1(version: str) -> None:
    lines = pynq_venv.REQUIREMENTS[version].read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    assert {f"pynq=={version}", "numpy==1.26.4", "pycparser==2.23"} <= set(pins)


def test_setup_makes_the_environment_and_installs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    steps: list[list[str]] = []

    def create(folder: Path) -> None:
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()

    monkeypatch.setattr(pynq_venv.host, "create_venv", create)
    monkeypatch.setattr(pynq_venv.host, "run", lambda words, _: steps.append(words))
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    pynq_venv.main([])
    pynq_venv.main(["3.1.2"])
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    pynq_venv.main(["3.0.1"])
    folders = (".venv-pynq", ".venv-pynq-3.1.2", ".venv-pynq-3.0.1")
    for words, folder, version in zip(steps, folders, pynq_venv.REQUIREMENTS, strict=True):
        assert words[:4] == [f"{folder}/bin/python", "-m", "pip", "install"]
        assert words[-2:] == ["-r", str(pynq_venv.REQUIREMENTS[version])]
    with pytest.raises(
        ToolError, match=r"PYNQ must be one of 4\.0\.0, 3\.1\.2, 3\.0\.1, got '2\.7'"
    ):
        pynq_venv.main(["2.7"])
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(ToolError, match=r"needs Python 3\.11 or 3\.12, got 3\.13; name one with"):
        pynq_venv.main([])
    with pytest.raises(
        ToolError, match=r"needs Python 3\.10, got .* PYNQ=3\.0\.1 PYTHON=python3\.10"
    ):
        pynq_venv.main(["3.0.1"])
