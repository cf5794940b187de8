# SPDX-License-Identifier: Apache-2.0
"""The way to a board over ssh against a real server on loopback: OpenSSH's sshd, where it is.

The user's folder and the tools behind it (pip, sudo, python3) are stand-ins; keys, login, copying,
hashes and exit codes are not. Nothing of the user's own shell is read: a bash under sshd would take
~/.bashrc, and with it other tools than the stand-ins.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_deploy_push import LOGS, PUSH, calls, packed
from tests.test_deploy_wheel import build, bundle, command  # noqa: F401

PLACES = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/openssh", "/usr/libexec"]
)
SSHD, SFTP = (shutil.which(name, path=PLACES) for name in ("sshd", "sftp-server"))
SSH, SCP, KEYGEN = map(shutil.which, ("ssh", "scp", "ssh-keygen"))
START_SECONDS = 20
SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp {sftp}
ForceCommand {folder}/login
"""
CLIENT = """
Host board
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking accept-new
"""
LOGIN = """#!/bin/sh
cd {folder}/home || exit 1
test ! -f {folder}/full || ulimit -f 1
exec env -i HOME={folder}/home BOARD={folder}/home PATH={folder}/tools:/usr/bin:/bin \\
  sh -c "$SSH_ORIGINAL_COMMAND"
"""
SUDO = '#!/bin/sh\ntest "$1" = -n && shift\nexec "$@"\n'

pytestmark = pytest.mark.skipif(
    not all((SSHD, SFTP, SSH, SCP, KEYGEN)), reason="needs OpenSSH's sshd and sftp-server"
)


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server whose logins end in the folder `home`; ssh and scp know it as the host `board`."""
    folder = tmp_path / "ssh"
    (folder / "home").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        names = {"port": free.getsockname()[1], "folder": folder, "sftp": SFTP}
    for name in ("host", "key"):
        make = [str(KEYGEN), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(make, check=True)
    (folder / "server").write_text(SERVER.format(**names))
    (folder / "client").write_text(CLIENT.format(**names))
    script(folder / "login", LOGIN.format(**names))
    for name, text in {"sudo": SUDO, "pip": LOGS, "python3": LOGS}.items():
        script(folder / "tools" / name, text)
    for name, tool in (("ssh", SSH), ("scp", SCP)):
        script(folder / "mine" / name, f'#!/bin/sh\nexec {tool} -F {folder}/client "$@"\n')
    monkeypatch.setenv("PATH", f"{folder / 'mine'}{os.pathsep}{os.environ['PATH']}")
    tested = subprocess.run(
        [str(SSHD), "-t", "-f", str(folder / "server")], capture_output=True, text=True, check=False
    )
    if tested.returncode:
        pytest.skip(f"sshd cannot run here: {tested.stderr.strip()}")
    with (folder / "log").open("wb") as log:
        arguments = ["-D", "-e", "-f", str(folder / "server")]
        server = subprocess.Popen([str(SSHD), *arguments], stderr=log)
        limit = time.monotonic() + START_SECONDS
        while "Server listening" not in (folder / "log").read_text():
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < limit
            time.sleep(0.05)
        yield folder / "home"
        server.terminate()
        server.wait(10)


def push_to(host: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    return command(capsys, *PUSH[:-1], host)


@pytest.mark.usefixtures("build")
def test_wheel_arrives_whole_over_a_real_ssh(
    board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = packed(capsys)
    host = f"{getpass.getuser()}@board"
    code, text, error = push_to(host, capsys)
    assert (code, error) == (0, ""), (board.parent / "log").read_text()
    assert (board / "winnow" / wheel.name).read_bytes() == wheel.read_bytes()
    assert text.splitlines()[-1] == f"deploy: install it on {host}"
    assert calls(board) == [
        f"pip install --no-index --no-deps --force-reinstall winnow/{wheel.name}"
    ]


@pytest.mark.usefixtures("build")
def test_a_real_server_that_refuses_or_is_full_is_named(
    board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(capsys)
    (board.parent / "full").touch()  # no file of more than a kilobyte
    error = push_to("board", capsys)[2]
    assert (
        "error: 'board': could not copy the wheel (see above); is the board's disk full?" in error
    )
    (board.parent / "key.pub").write_text("")
    error = push_to("board", capsys)[2]
    assert "error: 'board': could not log in (see above); try: ssh-copy-id board" in error
