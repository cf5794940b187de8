# SPDX-License-Identifier: Apache-2.0
"""The way to a board over ssh, with stand-ins of ssh, scp and pip that work in a folder."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from deploy.push import require_host
from tests.test_deploy_wheel import bitstream, build, bundle, command  # noqa: F401
from winnow.errors import ConfigError
from winnow.flow import Build

HOST = "xilinx@pynq"
# What ssh runs there, it runs in the folder BOARD; every call is logged.
SSH = """#!/bin/sh
echo "ssh $*" >> "$BOARD/calls"
while [ "$1" = -o ]; do shift 2; done
test "$1" = xilinx@pynq || { echo "no such host" >&2; exit 255; }
cd "$BOARD" && exec sh -c "$2"
"""
SCP = """#!/bin/sh
echo "scp $*" >> "$BOARD/calls"
while [ "$1" = -o ]; do shift 2; done
cp "$1" "$BOARD/${2#*:}"
test -z "$DAMAGE" || printf x >> "$BOARD/${2#*:}"
"""
LOGS = '#!/bin/sh\necho "$(basename "$0") $*" >> "$BOARD/calls"\nexit "${FAIL:-0}"\n'


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the board's home, and its tools first on the PATH."""
    folder, tools = tmp_path / "home", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    sudo = '#!/bin/sh\ntest "$1" = -n && shift\nexec "$@"\n'
    scripts = {"ssh": SSH, "scp": SCP, "sudo": sudo, "pip": LOGS, "python3": LOGS}
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BOARD", str(folder))
    return folder


def packed(capsys: pytest.CaptureFixture[str], *more: str) -> Path:
    assert command(capsys, "overlay", "--config", "net.toml", *more)[0] == 0
    (wheel,) = Path("build/net").glob("*.whl")
    return wheel


PUSH = ("push", "--config", "net.toml", "--to", HOST)


def calls(board: Path) -> list[str]:
    return (board / "calls").read_text().splitlines()


@pytest.mark.usefixtures("build")
def test_wheel_arrives_whole_and_is_installed(
    board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = packed(capsys)
    code, text, error = command(capsys, *PUSH)
    assert (code, error) == (0, "")
    assert (board / "winnow" / wheel.name).read_bytes() == wheel.read_bytes()
    assert text.splitlines() == [
        f"deploy: {step} on {HOST}"
        for step in ("log in", "copy the wheel", "compare its hash", "install it")
    ]
    assert calls(board)[-1] == (
        f"pip install --no-index --no-deps --force-reinstall winnow/{wheel.name}"
    )


def test_a_bitstream_is_checked_on_the_board(
    build: Build,  # noqa: ARG001, F811
    bitstream,  # type: ignore[no-untyped-def]  # noqa: F811
    board: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    packed(capsys, "--bit", str(bitstream.path), "--clock", "100")
    text = command(capsys, *PUSH)[1]
    assert text.splitlines()[-1].startswith("deploy: load the bitstream and run the self-test on ")
    assert calls(board)[-1] == "python3 -m winnow_net"


@pytest.mark.usefixtures("build")
def test_dry_run_prints_what_a_shell_can_run(
    board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = packed(capsys)
    code, text, error = command(capsys, *PUSH, "--dry-run")
    assert (code, error) == (0, "")
    assert not (board / "calls").exists()
    for line in text.splitlines():
        assert shlex.split(line)[0] in ("ssh", "scp")
        subprocess.run(["sh", "-c", line], check=True)
    assert (board / "winnow" / wheel.name).is_file()
    assert calls(board)[-1].startswith("pip install ")


@pytest.mark.usefixtures("build")
@pytest.mark.parametrize(
    ("variables", "to", "text"),
    [
        ({}, "xilinx@else", "could not log in (see above); try: ssh-copy-id xilinx@else"),
        ({"DAMAGE": "1"}, HOST, "could not compare its hash (see above); it arrived damaged"),
        ({"FAIL": "1"}, HOST, "could not install it (see above); let the user be root"),
    ],
)
def test_a_step_that_fails_is_named(
    variables: dict[str, str],
    to: str,
    text: str,
    board: Path,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed(capsys)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, _, error = command(capsys, *PUSH[:-1], to)
    assert code == 1
    assert f"error: '{to}': {text}" in error


def test_only_the_wheel_of_this_build_is_sent(
    build: Build,  # noqa: F811
    board: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = command(capsys, *PUSH)[2]
    assert error == "error: 'build/net' holds 0 wheels, must be 1; run: make overlay\n"
    wheel = packed(capsys)
    content = wheel.read_bytes()
    wheel.write_bytes(content[:1000])
    assert command(capsys, *PUSH)[2] == f"error: '{wheel}' is damaged; run: make overlay\n"
    wheel.write_bytes(content)
    (build.out / "bundle" / "program.bin").write_bytes(b"x")
    assert "bundle/program.bin is not the one it made" in command(capsys, *PUSH)[2]
    assert not (board / "calls").exists()


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "a;b", "", "@x", "x@"])
def test_a_host_that_ssh_would_misread_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="the board must be USER@HOST or HOST, got "):
        require_host(host)


def test_hosts_are_names_and_addresses() -> None:
    for host in ("pynq", "xilinx@192.168.2.99", "root@fe80::1", "a_b@pynq-2.local"):
        assert require_host(host) == host
