# SPDX-License-Identifier: Apache-2.0
"""What is not our bug is one line and an exit code; what is keeps its traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from winnow.cli import guard
from winnow.errors import ConfigError
from winnow.process import Terminated

ROOT = Path(__file__).parent.parent
Captured = pytest.CaptureFixture[str]


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def main() -> NoReturn:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a\nb"), 1, r"error: a\nb"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to resume"),
        (Terminated(signal.SIGTERM), 143, "terminated; run the same command again to resume"),
        (
            MemoryError(),
            1,
            "error: out of memory; close other programs, or use a machine with more",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\n.."),
            1,
            "error: out of memory; close other programs, or use a machine with more",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            1,
            "error: 'a/b': Permission denied; change its permissions, or choose another place",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "error: No space left on device; free some space and run the same command again",
        ),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", b"a"),
            1,
            "error: 'a': Not a directory; a part of this path is a file; choose another one",
        ),
        (OSError(errno.EXDEV, "Cross-device", "a", None, "b"), 1, "error: 'a -> b': Cross-device"),
        (OSError("odd"), 1, "error: odd"),
        (OSError(), 1, "error: OSError"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "error: Broken pipe"),  # not stdout's
    ],
)
def test_error_is_one_line(error: BaseException, code: int, line: str, capsys: Captured) -> None:
    assert guard(raising(error)) == code
    assert capsys.readouterr() == ("", line + "\n")


def test_closed_terminal_ends_us_without_a_word(capsys: Captured) -> None:
    assert guard(raising(Terminated(signal.SIGHUP))) == 129
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), KeyError("x"), TypeError()])
def test_our_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        guard(raising(error))


def test_handlers_are_as_before() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert guard(lambda: None) == 0
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


# --- real processes -------------------------------------------------------------------------------

HEAD = "import sys\nfrom winnow.cli import guard\n"
TAIL = "\nsys.exit(guard(main))\n"
PRINTS = f"{HEAD}def main():\n    for i in range(100_000):\n        print(i){TAIL}"


def start(script: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", script],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("lines", [1, 100_000])
def test_reader_that_leaves_ends_us_quietly(lines: int) -> None:
    """One line stays in Python's buffer until the end; many are refused on the way."""
    reader, writer = os.pipe()
    process = start(PRINTS.replace("100_000", str(lines)), stdout=writer)
    os.close(writer)
    os.close(reader)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (128 + signal.SIGPIPE, "")


def test_help_to_a_reader_that_leaves_is_quiet() -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "winnow.host", "--help"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    os.close(reader)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode in (0, 128 + signal.SIGPIPE)  # some argparse see it, some do not


@pytest.mark.parametrize("lines", [1, 100_000])
def test_full_disk_under_stdout_is_one_line(lines: int) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(PRINTS.replace("100_000", str(lines)), stdout=full)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error == (
        "error: No space left on device; free some space and run the same command again\n"
    )


def test_full_disk_under_stderr_keeps_the_exit_code() -> None:
    script = f"{HEAD}def main():\n    raise OSError(5, 'x'){TAIL}"
    with Path("/dev/full").open("w") as full:
        code = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, stderr=full, check=False
        ).returncode
    assert code == 1


def test_no_memory_is_one_line() -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
    process = start(f"{HEAD}{limit}def main():\n    bytearray(2**32){TAIL}")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error == "error: out of memory; close other programs, or use a machine with more\n"
