# SPDX-License-Identifier: Apache-2.0
"""Child processes that never outlive us: every command and every pool of the flow starts here.

A command runs in a session of its own. Ctrl-C, SIGTERM, a timeout or any exception here ends the
whole session, what the command started included. A guardian, a shell that waits for the end of a
pipe whose other end only we hold, does so too when we are killed and cannot act. Standard library
only: `winnow.host` runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from winnow.errors import LateError, ToolError, one_line

GRACE_SECONDS = 2.0  # between asking a session to end and killing it
# Reads which session to guard, then that all is well; the end of the pipe, without us, is not.
_GUARDIAN = 'trap "" INT TERM HUP; read group || exit; read well || kill -s KILL -- "-$group"'
_PR_SET_PDEATHSIG = 1
ENDING = (int(signal.SIGTERM), int(signal.SIGHUP))
T = TypeVar("T")
_running: set[subprocess.Popen[bytes]] = set()  # of all threads


class Terminated(KeyboardInterrupt):
    """Somebody asked us to end; `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


@dataclass(frozen=True)
class Finished:
    """How a command ended: exit code (negative: the signal), and what it printed, if captured."""

    code: int
    stdout: str = ""
    stderr: str = ""

    @property
    def last_line(self) -> str:
        """Return the last line of what it printed, errors first, for a message."""
        lines = (self.stderr or self.stdout).strip().splitlines()
        return one_line(lines[-1]) if lines else "no message"


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    capture: bool = True,
    timeout: float | None = None,
    ending: int = signal.SIGTERM,
) -> Finished:
    """Run a command to its end; nothing that it started is left when this does not return.

    `log` receives all output; otherwise it is captured, or shown if not `capture`. `ending` is the
    signal that asks its session to end. Raises ToolError when the command cannot be started,
    LateError when it takes more than `timeout` seconds.
    """
    pipe = subprocess.PIPE if capture else None
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"cwd": cwd, "env": env, "stdout": pipe, "stderr": pipe}
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(log.open("wb"))
            options |= {"stdout": file, "stderr": subprocess.STDOUT}
        child = stack.enter_context(_guarded([str(part) for part in command], options, ending))
        try:
            out, error = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as late:
            raise LateError(
                f"'{Path(command[0]).name}' was stopped: it took more than {timeout:g} s",
                " ".join(map(str, command)),
                log=log,
            ) from late
    return Finished(child.returncode, _text(out), _text(error))


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")


@contextlib.contextmanager
def _guarded(
    command: Sequence[str], options: Mapping[str, Any], ending: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a child; end its session unless the block ends well, even when we are killed in it."""
    guardian = child = None
    well = False
    try:
        with _undisturbed():
            guardian = _start_guardian()
            child = _start(command, options)  # after the guardian: it is never without one
            _running.add(child)
            guardian.stdin.write(f"{child.pid}\n".encode())  # type: ignore[union-attr]
            guardian.stdin.flush()  # type: ignore[union-attr]
        yield child
        well = True
    except BaseException:
        if child is not None:
            end_session(child, ending)
        well = True
        raise
    finally:
        _running.discard(child)
        if guardian is not None:
            with contextlib.suppress(OSError):  # it was killed
                guardian.communicate(b"well\n" if well else b"")


def _start(command: Sequence[str], options: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
    except OSError as error:
        raise ToolError(
            f"cannot start '{command[0]}': {error.strerror}; install it or put it on the PATH",
            " ".join(command),
            127,
        ) from error


def _start_guardian() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARDIAN],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold signals back in the block: an exception inside Popen would lose track of the child."""
    held: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other one gets signals
        for number in (int(signal.SIGINT), *ENDING):
            if callable(signal.getsignal(number)):
                before[number] = signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in held:
            signal.raise_signal(number)


def end_session(child: subprocess.Popen[bytes], ending: int) -> None:
    """End a child that leads a session, and all that it started: first asked, then killed."""
    _signal_session(child, ending)
    until = time.monotonic() + GRACE_SECONDS
    while _is_running(child) and time.monotonic() < until:
        time.sleep(0.02)
    _signal_session(child, signal.SIGKILL)  # before it is reaped: its number is still its own
    child.wait()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def _signal_session(child: subprocess.Popen[bytes], number: int) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)


def _is_running(child: subprocess.Popen[bytes]) -> bool:
    """Tell whether a child runs, without reaping it."""
    if child.returncode is not None:
        return False
    try:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, child.pid, options) is None
    except ChildProcessError:
        return False


def map_commands(work: Callable[[T], object], items: Sequence[T], workers: int) -> None:
    """Call `work` on every item in threads; a failure or Ctrl-C ends what the others run."""
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(work, item) for item in items]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            for job in jobs:
                job.cancel()
            while not all(job.done() for job in jobs):
                for child in list(_running):
                    _signal_session(child, signal.SIGKILL)
                time.sleep(0.02)
            raise


def end_with_parent() -> None:
    """Make this process end when its parent does, however that ends: nothing works on unseen."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):  # Linux only; the thread serves elsewhere
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def begin_worker() -> None:
    """Set up a worker of a pool: only its parent ends it, quietly, and it never outlives that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()


@contextlib.contextmanager
def _quiet_tracker() -> Iterator[None]:
    """Start multiprocessing's tracker so that it cleans up after workers we kill without a word."""
    name, ours = "PYTHONWARNINGS", "ignore:resource_tracker:UserWarning"
    before = os.environ.get(name)
    os.environ[name] = f"{before},{ours}" if before else ours
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def worker_pool(workers: int, start: str | None = None) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes, killed at once when the block fails or is interrupted.

    `start` is a start method of multiprocessing. Raises ToolError when a worker dies.
    """
    context = multiprocessing.get_context(start)
    others = set(multiprocessing.active_children())
    with _quiet_tracker():
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker)
    try:
        yield pool
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise ToolError(
                "a worker process was killed, most likely for want of memory; run the same "
                "command again, with fewer jobs or more memory"
            ) from error
        raise
    pool.shutdown(wait=True)


@contextlib.contextmanager
def termination_raises() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into Terminated inside the block, as Ctrl-C is KeyboardInterrupt."""

    def handle(number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # others may not set handlers
        for number in ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:  # under nohup it is ignored
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
