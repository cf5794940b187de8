# SPDX-License-Identifier: Apache-2.0
"""The lock of a folder: one process at a time, the second waits and says so."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from winnow.errors import ArtefactError
from winnow.lock import folder_lock

HOLD = """
import sys, time
from pathlib import Path
from winnow.lock import folder_lock
with folder_lock(Path(sys.argv[1]), "the build"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holding(folder: Path, seconds: float, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    return subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_second_process_waits_with_a_message(tmp_path: Path, root: Path) -> None:
    first = holding(tmp_path, 60, root)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    second = holding(tmp_path, 0, root)
    assert second.stderr is not None
    assert second.stderr.readline() == (
        f"waiting: process {first.pid} works in the build '{tmp_path}'\n"
    )
    assert second.poll() is None
    first.kill()  # also a killed process gives the lock back
    first.communicate()
    output, _ = second.communicate(timeout=60)
    assert (output, second.returncode) == ("held\n", 0)


def test_child_works_under_its_parents_lock(tmp_path: Path, root: Path) -> None:
    with folder_lock(tmp_path, "the build"):
        started = time.monotonic()
        child = holding(tmp_path, 0, root)
        assert child.communicate(timeout=60) == ("held\n", "")
        assert child.returncode == 0
        assert time.monotonic() - started < 60
    assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_place_that_cannot_be_locked_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lock = folder_lock(tmp_path / "file", "the build")
    with (
        pytest.raises(ArtefactError, match=r"^cannot lock '.*file': (File exists|Not a dir)"),
        lock,
    ):
        pass
