# SPDX-License-Identifier: Apache-2.0
"""Bring a wheel to a board over ssh, install it there, and check the board.

The steps are shell commands that a user can paste; ssh must log in with a key, as nothing can ask
for a password.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow import process
from winnow.artefact import sha256_file
from winnow.errors import ConfigError, ToolError, shown

FOLDER = "winnow"  # in the user's home on the board
SECONDS = 600
_HOST = re.compile(r"([A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9][\w.:-]*")
_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
# pynq lives in an environment of its own, and its drivers need root.
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then run=; else run="sudo -n"; fi; $run bash -c '
_PYNQ = "test ! -f /etc/profile.d/pynq_venv.sh || . /etc/profile.d/pynq_venv.sh; "


@dataclass(frozen=True)
class Step:
    """A command on this machine, what it does, and what to do if it fails."""

    does: str
    command: tuple[str, ...]
    remedy: str

    @property
    def line(self) -> str:
        """Return the command as a shell takes it."""
        return shlex.join(self.command)


def require_host(host: str) -> str:
    """Return USER@HOST or HOST; ConfigError for what ssh would take for an option or a command."""
    if not _HOST.fullmatch(host):
        raise ConfigError(f"the board must be USER@HOST or HOST, got {shown(host)}")
    return host


def steps(wheel: Path, package: str, host: str, *, has_bitstream: bool) -> list[Step]:
    """Return the steps that bring a wheel to a board; the last one checks it."""
    place = f"{FOLDER}/{wheel.name}"
    digest = f"{sha256_file(wheel)}  {place}"
    found = [
        _remote(host, f"mkdir -p {FOLDER}", "log in", f"try: ssh-copy-id {host}"),
        Step(
            "copy the wheel",
            ("scp", *_OPTIONS, str(wheel), f"{host}:{place}"),
            "is the board's disk full?",
        ),
        _remote(
            host,
            f"echo {shlex.quote(digest)} | sha256sum -c --quiet -",
            "compare its hash",
            "it arrived damaged; try again",
        ),
        _remote(
            host,
            _root(f"pip install --no-index --no-deps --force-reinstall '{place}'"),
            "install it",
            "let the user be root, or use sudo without a password",
        ),
    ]
    if has_bitstream:
        check = _root(f"cd /; python3 -m {package}")
        remedy = "see above; the wheel is installed"
        found.append(_remote(host, check, "load the bitstream and run the self-test", remedy))
    return found


def _remote(host: str, command: str, does: str, remedy: str) -> Step:
    return Step(does, ("ssh", *_OPTIONS, host, command), remedy)


def _root(command: str) -> str:
    return _AS_ROOT + shlex.quote(_PYNQ + command)


def push(found: Sequence[Step], host: str) -> None:
    """Run the steps in order; ToolError names the one that failed and says what to do."""
    for step in found:
        print(f"deploy: {step.does} on {host}", flush=True)
        code = process.run(step.command, capture=False, timeout=SECONDS).code
        if code:
            raise ToolError(
                f"'{host}': could not {step.does} (see above); {step.remedy}", step.line, code
            )
