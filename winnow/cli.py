# SPDX-License-Identifier: Apache-2.0
"""What every command line of the flow shares: the stage options and the one-line error."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TextIO

from winnow.errors import ConfigError, WinnowError, one_line, shown_text
from winnow.process import Terminated, termination_raises

SIGNALLED = 128  # a shell's exit code of a process that a signal ended, less the signal's number
STARTED = "WINNOW_STARTED"  # set for a command that another one of ours starts and waits for
TOLD = 101  # the exit code of such a command in the place of 1: it has said why
_COMPLAINT = 300  # characters of what is wrong with a command line
AGAIN = "run the same command again to resume"
_REMEDIES = {
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.ENOTDIR: "a part of this path is a file; choose another one",
    errno.EISDIR: "this must be a file and is a folder; choose another one",
    errno.EEXIST: "this is in the way; move it or choose another one",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
}
_MEMORY = ("out of memory", "can't allocate memory")  # what torch's RuntimeError says


class Parser(argparse.ArgumentParser):
    """A parser whose error is one like all of ours: one line and exit code 1."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError: what is wrong, and the command that tells what is right."""
        raise ConfigError(f"{shown_text(message, _COMPLAINT)}; see: {self.prog} --help")


def guard(main: Callable[[], None]) -> int:
    """Run `main`; turn what is not our bug into one line on stderr, and return the exit code.

    1 is a user's error, a file or device that refuses, or too little memory; 130 Ctrl-C; 143
    SIGTERM; silently, 129 SIGHUP and 141 that nobody reads stdout any more. Other exceptions are
    our bugs and keep their traceback. Where another command of ours waits for this one, TOLD stands
    for 1, so that an end without a word, by a user's code, is known from one with it.
    """
    _open_closed()
    is_started = os.environ.pop(STARTED, None) is not None
    try:
        code = _guarded(main)
    except Exception:
        if not is_started:
            raise
        traceback.print_exc()
        code = 1
    return TOLD if is_started and code == 1 else code


def _open_closed() -> None:
    """Let stdout and stderr that were closed before we began lead nowhere: Python has none then."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)  # for programs that we start
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8"))


def _guarded(main: Callable[[], None]) -> int:
    try:
        with termination_raises():
            try:
                main()
            finally:  # here, not when Python ends, where a full disk is no longer ours to tell
                sys.stdout.flush()
    except WinnowError as error:
        return _fail(f"error: {error}", 1)
    except Terminated as ended:
        if ended.number == signal.SIGHUP:  # the terminal is gone, or who started us tells
            return SIGNALLED + ended.number
        return _fail(f"terminated; {AGAIN}", SIGNALLED + ended.number)
    except KeyboardInterrupt:
        return _fail(f"interrupted; {AGAIN}", SIGNALLED + signal.SIGINT)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_unread(sys.stdout):
            _drop(sys.stdout)
            return SIGNALLED + signal.SIGPIPE
        return _fail(f"error: {os_error_text(error)}", 1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(x in str(error) for x in _MEMORY):
            raise
        return _fail("error: out of memory; close other programs, or use a machine with more", 1)
    return 0


def os_error_text(error: OSError) -> str:
    """Return what the system refused: the file, the reason, and what to do where that is known."""
    reason = error.strerror or str(error) or type(error).__name__
    names = [
        os.fsdecode(x) for x in (error.filename, error.filename2) if isinstance(x, str | bytes)
    ]
    place = f"'{' -> '.join(names)}': " if names else ""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{place}{reason}{f'; {remedy}' if remedy else ''}"


def _fail(message: str, code: int) -> int:
    """Print the one line of a failed command, after what it printed before; return `code`."""
    _write(sys.stdout, "")
    _write(sys.stderr, one_line(message) + "\n")
    return code


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):  # full, unread or closed: there is nobody left to tell
        _drop(stream)


def _is_unread(stream: TextIO) -> bool:
    """Tell whether a stream is a pipe that nobody reads from."""
    with contextlib.suppress(OSError, ValueError):  # not a file at all
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False


def _drop(stream: TextIO) -> None:
    """Let a stream that takes nothing lead nowhere: Python writes its rest when it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def stage_options(parser: argparse.ArgumentParser) -> None:
    """Add the options every stage takes: which build, and where its files live."""
    parser.add_argument(
        "--config", type=Path, required=True, help="configuration file, configs/NAME.toml"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the build's files, build/NAME"
    )
