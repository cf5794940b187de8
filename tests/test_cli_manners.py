# SPDX-License-Identifier: Apache-2.0
"""Real command lines where things go wrong: one line, an honest exit code, nothing left running."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_winnow_process import ENDINGS, TREE, ends, read_pids
from winnow.cli import guard

ROOT = Path(__file__).parent.parent
NOT_FOLDERS = ("winnow.host", "sim.networks")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text("")
    return path


def command(module: str, verb: str, config: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", module, verb, "--config", str(config), "--out", str(out)]


def run(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, **options
    )


def error_of(ran: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of a command that failed."""
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    return ran.stderr.removeprefix("error: ").rstrip("\n")


def test_output_folder_that_is_a_file_is_one_line(config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out, reason in (("file", "File exists"), ("file/below", "Not a directory")):
        message = error_of(run(command("codegen", "emit", config, tmp_path / out)))
        assert message == f"cannot lock '{tmp_path}/{out}': {reason}"
    assert (tmp_path / "file").read_text() == "mine"


def test_folder_in_a_files_place_is_one_line(config: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "out" / "hls" / "csynth.tcl"
    blocked.mkdir(parents=True)
    message = error_of(run(command("codegen", "emit", config, tmp_path / "out")))
    assert message == (
        f"'{blocked}': Is a directory; this must be a file and is a folder; choose another one"
    )
    assert not list((tmp_path / "out").rglob("*.partial"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_one_line(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    message = error_of(run(command("codegen", "emit", config, out)))
    assert message.endswith("Permission denied; change its permissions, or choose another place")


@pytest.mark.parametrize("module", ["quant", "codegen", "sim"])
def test_folder_as_configuration_is_one_line(module: str, tmp_path: Path) -> None:
    verb = {"quant": "train", "codegen": "emit", "sim": "report"}[module]
    message = error_of(run(command(module, verb, tmp_path, tmp_path / "out")))
    assert message == f"configuration '{tmp_path}' is a folder; name a .toml file"


def test_full_disk_under_the_summary_is_one_line(config: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ran = run(command("codegen", "emit", config, tmp_path / "out"), stdout=full)
    assert error_of(ran).startswith("No space left on device; ")
    assert run(command("codegen", "emit", config, tmp_path / "out")).returncode == 0


@pytest.mark.parametrize(("number", "code", "line"), ENDINGS)
def test_signal_to_a_stage_ends_its_tool(
    config: Path, tmp_path: Path, number: signal.Signals, code: int, line: str
) -> None:
    """Vitis HLS, which takes minutes and starts further programs, stands for every tool."""
    out, tool, pids = tmp_path / "out", tmp_path / "bin" / "vitis_hls", tmp_path / "pids"
    assert run(command("codegen", "emit", config, out)).returncode == 0
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{TREE.format(pids)}\n")
    tool.chmod(0o755)
    rest = [p for p in os.environ["PATH"].split(os.pathsep) if "itis" not in p]
    with subprocess.Popen(
        command("codegen", "vitis", config, out),
        cwd=ROOT,
        env={**os.environ, "PATH": os.pathsep.join([str(tool.parent), *rest])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as stage:
        children = read_pids(pids, 2)
        stage.send_signal(number)
        _, error = stage.communicate(timeout=60)
    assert (stage.returncode, error) == (code, line)
    assert [pid for pid in children if not ends(pid)] == []
    assert not (out / "vitis.json").exists()


@pytest.mark.parametrize(("fails", "verbs"), [("none", "lint test "), ("lint", "lint ")])
def test_ci_lints_and_then_tests(tmp_path: Path, fails: str, verbs: str) -> None:
    make, log = tmp_path / "make", tmp_path / "log"
    make.write_text(f'#!/bin/sh\nprintf "%s " "$*" >> {log}\n[ "$*" != {fails} ]\n')
    make.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    ran = run([str(ROOT / ".ci" / "run")], env={**os.environ, "PATH": path})
    assert (ran.returncode == 0) == (fails == "none")
    assert log.read_text() == verbs


# What `winnow run` is to a stage: a command that starts another one and waits for it.
STARTS = """
import sys
from pathlib import Path
from winnow.__main__ import start
from winnow.cli import guard
from winnow.config import Config
from winnow.flow import Build
build = Build(Config(), Path("out"), config_path="x")
sys.exit(guard(lambda: start("stage", "x", build)))
"""


def whole_run(folder: Path, stage: str) -> subprocess.Popen[str]:
    """Start a run whose only stage guards the expression `stage`."""
    (folder / "stage").mkdir()
    (folder / "stage" / "__main__.py").write_text(
        f"import sys\nfrom winnow import process\nfrom winnow.cli import Parser, guard\n"
        f"sys.exit(guard(lambda: {stage}))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", STARTS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(("number", "code", "line"), ENDINGS)
def test_signal_to_a_run_ends_the_stage_and_its_tool(
    tmp_path: Path, number: signal.Signals, code: int, line: str
) -> None:
    """The run starts a stage, a command of its own, which starts a tool: one line in all."""
    pids = tmp_path / "pids"
    tree = TREE.format(pids)
    with whole_run(tmp_path, f"process.run(['sh', '-c', {tree!r}])") as whole:
        children = read_pids(pids, 2)
        whole.send_signal(number)
        _, error = whole.communicate(timeout=60)
    assert (whole.returncode, error) == (code, line)
    assert [pid for pid in children if not ends(pid)] == []


@pytest.mark.parametrize(
    ("stage", "code", "last", "lines"),
    [
        ("__import__('posix')._exit(1)", 1, "error: 'x' ended with exit code 1 and no word of", 1),
        ("__import__('posix')._exit(2)", 2, "error: 'x' ended with exit code 2 and no word of", 1),
        ("Parser(prog='x').error('bad')", 1, "error: bad; see: x --help", 1),
        ("1 / 0", 1, "ZeroDivisionError: division by zero", 0),
    ],
)
def test_stage_that_ends_is_told_once(
    tmp_path: Path, stage: str, code: int, last: str, lines: int
) -> None:
    """By itself, or by who started it if the network's code ended it without a word."""
    with whole_run(tmp_path, stage) as whole:
        _, error = whole.communicate(timeout=60)
    assert whole.returncode == code
    assert error.splitlines()[-1].startswith(last)
    assert error.count("error: ") == lines


@pytest.mark.parametrize(
    ("closed", "lines"),
    [(">&-", ["error: no such thing"]), ("2>&-", ["printed"]), (">&- 2>&-", [])],
)
@pytest.mark.parametrize("inner", ["", "subprocess.run(['echo']); "])
def test_closed_streams_take_nothing_and_are_no_error_of_their_own(
    closed: str, lines: list[str], inner: str
) -> None:
    """What a command opens or starts does not get into their places either."""
    code = (
        "import subprocess, sys\nfrom winnow.cli import guard\n"
        "from winnow.errors import ConfigError\n"
        "def main():\n"
        f"    {inner}print('printed'); sys.stderr.write('')\n"
        "    raise ConfigError('no such thing')\n"
        "sys.exit(guard(main))\n"
    )
    command = f'exec "$0" -c "$1" {closed}'
    found = subprocess.run(
        ["sh", "-c", command, sys.executable, code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert [line for line in (found.stdout + found.stderr).splitlines() if line] == lines


WRONG = [
    (("winnow",), "the following arguments are required: VERB; see: python -m winnow --help"),
    (
        ("winnow", "run"),
        "the following arguments are required: --config; see: python -m winnow run",
    ),
    (("winnow", "run", "--config", "x", "--threads", "a"), "argument --threads: invalid int value"),
    (("winnow.host", "x"), "argument verb: invalid choice: 'x' (choose from "),
    (("quant", "train", "--config", "x", "--out", "y", "--device", "z"), "argument --device: inv"),
    (("quant.bench", "--jobs", "many"), "argument --jobs: invalid int value: 'many'; see: "),
    (("codegen", "lower", "--x"), "the following arguments are required: --config, --out; see: "),
    (("sim", "place", "--config", "x", "--out", "y", "--seeds", "1.5"), "argument --seeds: inv"),
    (("sim.networks", "--keep", "two"), "argument --keep: invalid int value: 'two'; see: py"),
    (("deploy", "exits", "--config", "x", "--threshold", "x"), "argument --threshold: invalid fl"),
    (("winnow", "run", "--config", "x", "\n" + "long" * 9999), "unrecognized arguments: \\nlong"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w)[:40] for w, _ in WRONG])
def test_wrong_command_line_is_one_line(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = words[0] if words[0] in NOT_FOLDERS else f"{words[0]}.__main__"
    main = importlib.import_module(module).main
    monkeypatch.setattr(sys, "argv", list(words))
    assert guard(main) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"error: {message}")
    assert line.endswith(" --help\n")
    assert (line.count("\n"), len(line) < 400) == (1, True)


def test_every_command_line_of_ours_is_one_that_was_tried_or_has_no_options() -> None:
    """Whoever guards `main` reads the command line; argparse itself is for `winnow.cli` only."""
    folders = ("winnow", "quant", "codegen", "sim", "deploy", "openhls")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    own = [p for p in files if "argparse.ArgumentParser(" in p.read_text()]
    assert own == []
    mains = {p.relative_to(ROOT).as_posix() for p in files if "sys.exit(guard(" in p.read_text()}
    tried = {f"{w[0].replace('.', '/')}" for w, _ in WRONG}
    plain = {name.removesuffix(".py").removesuffix("/__main__") for name in mains}
    of_pynq = {f"deploy/{name}" for name in ("bench_client", "inprocess", "pynq_venv", "server")}
    assert plain - tried == of_pynq
