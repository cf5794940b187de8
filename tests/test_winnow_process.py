# SPDX-License-Identifier: Apache-2.0
"""Child processes: what they print, how they fail, and that none outlives us however we end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from winnow import process
from winnow.errors import ToolError

ROOT = Path(__file__).parent.parent


def test_output_and_code_come_back() -> None:
    ran = process.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert ran == process.Finished(3, "out\n", "err\n")
    assert process.run(["sh", "-c", "kill -SEGV $$"]).code == -signal.SIGSEGV


def test_output_need_not_be_text() -> None:
    assert process.run(["printf", r"a\377"]).stdout == "a\ufffd"


@pytest.mark.parametrize(
    ("stdout", "stderr", "line"),
    [("a\nb\n", "", "b"), ("a\n", "c\r\nd\x07\n", r"d\x07"), ("", "\n", "no message")],
)
def test_last_line_is_for_a_message(stdout: str, stderr: str, line: str) -> None:
    assert process.Finished(1, stdout, stderr).last_line == line


def test_log_takes_all_output(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    ran = process.run(["sh", "-c", "echo out; echo err >&2; pwd"], log=log, cwd=tmp_path)
    assert ran == process.Finished(0)
    assert log.read_text() == f"out\nerr\n{tmp_path}\n"


def test_shown_output_is_not_captured(capfd: pytest.CaptureFixture[str]) -> None:
    assert process.run(["echo", "hello"], capture=False) == process.Finished(0)
    assert capfd.readouterr().out == "hello\n"


def test_environment_is_the_one_given() -> None:
    assert process.run(["/bin/sh", "-c", "echo $A"], env={"A": "5"}).stdout == "5\n"


def test_missing_command_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        process.run(["winnow-none", "x"])
    assert str(caught.value) == (
        "cannot start 'winnow-none': No such file or directory; install it or put it on the PATH"
    )
    assert (caught.value.command, caught.value.exit_code) == ("winnow-none x", 127)
    path = tmp_path / "broken"
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    with pytest.raises(ToolError, match=r"^cannot start '.*broken': Exec format error"):
        process.run([path])


# --- nothing is left ------------------------------------------------------------------------------


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"  # not reaped yet
    except OSError:
        return False


def ends(pid: int, seconds: float = 20) -> bool:
    """Tell whether a process ends soon; kill it if not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not is_running(pid):
            return True
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return False


def read_pids(path: Path, count: int) -> list[int]:
    """Return the process numbers that children wrote, one a line."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if path.is_file() and len(lines := path.read_text().splitlines()) >= count:
            return [int(line) for line in lines]
        time.sleep(0.02)
    raise AssertionError(f"{path} has fewer than {count} lines")


# A tree: a child that has a child that has one, as make has g++ has cc1plus; one ignores requests.
TREE = "sh -c 'echo $$ >> {0}; trap \"\" TERM; sleep 600; sleep 600' & echo $$ >> {0}; sleep 600"


def test_timeout_ends_the_whole_tree(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(ToolError, match=r"^'sh' was stopped: it took more than 1 s$"):
        process.run(["sh", "-c", TREE.format(pids)], timeout=1)
    assert all(ends(pid) for pid in read_pids(pids, 2))


COMMAND = """
import sys
from winnow import process
from winnow.cli import guard
sys.exit(guard(lambda: process.run(["sh", "-c", sys.argv[1]])))
"""
POOL = """
import os, sys, time
from winnow import process
from winnow.cli import guard
def work(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(600)
def main():
    with process.worker_pool(2, sys.argv[2]) as pool:
        list(pool.map(work, [sys.argv[1]] * 3))
if __name__ == "__main__":
    sys.exit(guard(main))
"""
THREADS = """
import sys
from winnow import process
from winnow.cli import guard
def main():
    process.map_commands(lambda _: process.run(["sh", "-c", sys.argv[1]]), range(3), 2)
sys.exit(guard(main))
"""


@contextlib.contextmanager
def started(folder: Path, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script as a user would, in a session of its own, and kill it in the end."""
    path = folder / "script.py"
    path.write_text(script)
    with subprocess.Popen(
        [sys.executable, str(path), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        try:
            yield parent
        finally:
            parent.kill()


ENDINGS = [
    (signal.SIGINT, 130, "interrupted; run the same command again to resume\n"),
    (signal.SIGTERM, 143, "terminated; run the same command again to resume\n"),
    (signal.SIGHUP, 129, ""),
    (signal.SIGKILL, -9, ""),
]


@pytest.mark.parametrize(("number", "code", "line"), ENDINGS)
@pytest.mark.parametrize("kind", ["command", "threads", "fork", "spawn"])
def test_signal_ends_all_children(
    tmp_path: Path, kind: str, number: signal.Signals, code: int, line: str
) -> None:
    pids = tmp_path / "pids"
    tree = TREE.format(pids)
    script, arguments, count = {
        "command": (COMMAND, [tree], 2),
        "threads": (THREADS, [tree], 4),
        "fork": (POOL, [str(pids), "fork"], 2),
        "spawn": (POOL, [str(pids), "spawn"], 2),
    }[kind]
    with started(tmp_path, script, *arguments) as parent:
        children = read_pids(pids, count)
        parent.send_signal(number)
        _, error = parent.communicate(timeout=60)
    assert (parent.returncode, error) == (code, line)
    assert [pid for pid in children if not ends(pid)] == []
    assert len(read_pids(pids, count)) == count  # no further one was started


def test_ctrl_c_in_a_terminal_prints_one_line(tmp_path: Path) -> None:
    """A terminal sends it to the workers too."""
    pids = tmp_path / "pids"
    with started(tmp_path, POOL, str(pids), "fork") as parent:
        children = read_pids(pids, 2)
        os.killpg(parent.pid, signal.SIGINT)
        _, error = parent.communicate(timeout=60)
    assert (parent.returncode, error) == (130, ENDINGS[0][2])
    assert all(ends(pid) for pid in children)


def test_second_signal_leaves_nothing_either(tmp_path: Path) -> None:
    """While the tree is asked to end, impatience must not spare what ignores requests."""
    pids = tmp_path / "pids"
    with started(tmp_path, COMMAND, f"trap '' TERM; {TREE.format(pids)}") as parent:
        children = read_pids(pids, 2)
        parent.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        parent.send_signal(signal.SIGTERM)
        parent.communicate(timeout=60)
    assert all(ends(pid) for pid in children)


def test_signal_while_a_child_starts_is_not_lost(tmp_path: Path) -> None:
    """Ctrl-C amid many short commands, most likely in the start of one: one line, no traceback."""
    script = COMMAND.replace(
        'lambda: process.run(["sh", "-c", sys.argv[1]])',
        "lambda: [process.run(['sh', '-c', sys.argv[1]]) for _ in range(2000)]",
    )
    for attempt in range(8):
        began = tmp_path / f"began{attempt}"
        with started(tmp_path, script, f"touch {began}; sleep 0.00{attempt + 1}") as parent:
            while not began.exists() and parent.poll() is None:
                time.sleep(0.01)
            time.sleep(0.05 + 0.013 * attempt)
            parent.send_signal(signal.SIGINT)
            _, error = parent.communicate(timeout=60)
        assert (parent.returncode, error) == (130, ENDINGS[0][2])


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with process.termination_raises():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def _die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_worker_is_one_line() -> None:
    with (
        pytest.raises(ToolError, match=r"^a worker process was killed, most likely for want of"),
        process.worker_pool(2) as pool,
    ):
        list(pool.map(_die, range(2)))


def test_failure_of_one_command_ends_the_others(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    scripts = [TREE.format(pids), f"while ! [ -s {pids} ]; do sleep 0.02; done; exit 1"]

    def work(script: str) -> None:
        if process.run(["sh", "-c", script]).code == 1:
            raise ToolError("first")

    with pytest.raises(ToolError, match=r"^first$"):
        process.map_commands(work, scripts, 2)
    assert all(ends(pid) for pid in read_pids(pids, 1))


def children_of(pid: int) -> list[int]:
    """Return the numbers of a process's children."""
    parents = {
        int(path.parent.name): int(path.read_text().rpartition(") ")[2].split()[1])
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.is_file()
    }
    return [child for child, parent in parents.items() if parent == pid]


def test_no_guardian_is_left() -> None:
    before = children_of(os.getpid())  # other tests of this worker may have left some
    process.run(["true"])
    assert set(children_of(os.getpid())) <= set(before)
