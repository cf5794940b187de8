# SPDX-License-Identifier: Apache-2.0
"""Real command lines where things go wrong: one line, an honest exit code, nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_winnow_process import ENDINGS, TREE, ends, read_pids

ROOT = Path(__file__).parent.parent


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


@pytest.mark.parametrize(("number", "code", "line"), ENDINGS)
def test_signal_to_a_run_ends_the_stage_and_its_tool(
    tmp_path: Path, number: signal.Signals, code: int, line: str
) -> None:
    """The run starts a stage, a command of its own, which starts a tool: one line in all."""
    script, pids = tmp_path / "run.py", tmp_path / "pids"
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "__main__.py").write_text(
        "import sys\nfrom winnow import process\nfrom winnow.cli import guard\n"
        f"tree = {TREE.format(pids)!r}\n"
        'sys.exit(guard(lambda: process.run(["sh", "-c", tree])))\n'
    )
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom winnow.__main__ import start\n"
        "from winnow.cli import guard\nfrom winnow.config import Config\n"
        "from winnow.flow import Build\n"
        "build = Build(Config(), Path('out'), config_path='x')\n"
        'sys.exit(guard(lambda: start("stage", "x", build)))\n'
    )
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    with subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as whole:
        children = read_pids(pids, 2)
        whole.send_signal(number)
        _, error = whole.communicate(timeout=60)
    assert (whole.returncode, error) == (code, line)
    assert [pid for pid in children if not ends(pid)] == []
