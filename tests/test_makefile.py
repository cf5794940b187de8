# SPDX-License-Identifier: Apache-2.0
"""The Makefile: its help, its messages, and which stages a change invokes.

Stages are played by a fake .venv/bin/python that logs its calls and writes the records, so nothing
is installed and nothing is trained.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from winnow import host
from winnow.errors import ToolError

TOOLS = ("sh", "find", "cksum", "awk", "touch", "rm", "mkdir", "g++", "make", "perl")
BEFORE_SIM = ["train", "shrink", "prune", "bits", "qat", "golden", "lower", "schedule", "emit"]
STAGES = [*BEFORE_SIM, "csim", "rtl", "rtlsim", "synth"]
SOURCES = (
    "quant/a.py",
    "codegen/a.py",
    "hls_templates/a.hpp",
    "openhls/a.py",
    "openhls/library/a.sv",
    "sim/harness/a.cpp",
    "sim/a.py",
    "tests/a.py",
)
FAKE_PYTHON = """#!/bin/sh
echo "$*" >> calls
case "$2 $3" in
  "quant $FAIL" | "codegen $FAIL" | "sim $FAIL") echo "error: $FAIL failed" >&2; exit 1 ;;
  "sim report" | "sim bench" | "sim cocotb") ;;
  "quant "* | "codegen "* | "sim "*) mkdir -p "$7"; test -e "$7/$3.json" || : > "$7/$3.json" ;;
esac
"""


@dataclass(frozen=True)
class Tree:
    """A small copy of the repository, and the only tools on its PATH."""

    folder: Path
    tools: Path

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.tools), "PYTHONDONTWRITEBYTECODE": "1"} | variables
        command = ["make", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def verbs(self) -> list[str]:
        """Return the verbs called since the last time."""
        log = self.folder / "calls"
        calls = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [call.split()[2] for call in calls]

    def change(self, name: str) -> None:
        """Make a file newer than every record."""
        for path in self.folder.rglob("*"):
            os.utime(path, (1, 1), follow_symlinks=False)
        (self.folder / name).touch()


@pytest.fixture
def tree(tmp_path: Path, root: Path) -> Tree:
    folder, tools = tmp_path / "tree", tmp_path / "tools"
    for name in ("winnow", "configs"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(root / name, folder)
    for name in SOURCES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))
    (tools / "python3").symlink_to(sys.executable)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    tree = Tree(folder, tools)
    assert tree.make("setup").returncode == 0
    assert tree.verbs() == ["--version", "install"]
    return tree


def test_makefile_is_short(root: Path) -> None:
    assert len((root / "Makefile").read_text().splitlines()) < 100


def test_help_is_the_default_and_lists_every_verb(tree: Tree, root: Path) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    output = tree.make().stdout
    listed = re.findall(r"^  ([\w-]+) +\w", output, re.MULTILINE)
    assert sorted(listed) == sorted(set(phony[1].split()) - {"check", "check-hls"})
    assert output == tree.make("help").stdout
    assert all(len(line) <= 100 for line in output.splitlines())


def test_hls_runs_the_stages_in_order_and_once(tree: Tree) -> None:
    assert tree.make("hls").returncode == 0
    assert tree.verbs() == [*STAGES, "report"]
    assert tree.make("hls").returncode == 0
    assert tree.verbs() == ["report"]


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ("configs/digits.toml", STAGES),
        ("winnow/config.py", STAGES),
        ("quant/a.py", STAGES),
        ("codegen/a.py", STAGES[6:]),
        ("hls_templates/a.hpp", ["emit", "csim", "rtl", "rtlsim", "synth"]),
        ("openhls/a.py", ["rtl", "rtlsim", "synth"]),
        ("openhls/library/a.sv", ["rtl", "rtlsim", "synth"]),
        ("sim/a.py", ["csim", "rtlsim"]),
        ("sim/harness/a.cpp", ["rtlsim"]),
    ],
)
def test_a_change_invokes_the_stages_from_there_once(
    tree: Tree, changed: str, stages: list[str]
) -> None:
    tree.make("hls")
    tree.verbs()
    tree.change(changed)
    assert tree.make("hls").returncode == 0
    assert tree.verbs() == [*stages, "report"]
    assert tree.make("hls").returncode == 0
    assert tree.verbs() == ["report"]


@pytest.mark.parametrize("stage", ["bits", "emit", "rtl"])
def test_a_failed_stage_stops_the_flow_and_is_tried_again(tree: Tree, stage: str) -> None:
    place = STAGES.index(stage)
    failed = tree.make("hls", FAIL=stage)
    assert failed.returncode != 0
    assert f"error: {stage} failed" in failed.stderr
    assert tree.verbs() == STAGES[: place + 1]
    assert tree.make("hls").returncode == 0
    assert tree.verbs() == [*STAGES[place:], "report"]


@pytest.mark.parametrize(
    ("verb", "stages", "last"),
    [("sim", ["rtl", "rtlsim"], "cocotb")],
)
def test_verbs_run_only_the_stages_they_need(
    tree: Tree, verb: str, stages: list[str], last: str
) -> None:
    assert tree.make(verb).returncode == 0
    assert tree.verbs() == [*BEFORE_SIM, *stages, last]
    assert tree.make(verb).returncode == 0
    assert tree.verbs() == [last]


@pytest.mark.parametrize("verb", ["report", "bench"])
def test_reports_run_no_stage(tree: Tree, verb: str) -> None:
    assert tree.make(verb).returncode == 0
    assert tree.verbs() == [verb]


def test_stages_get_config_out_and_device(tree: Tree) -> None:
    shutil.copy(tree.folder / "configs/digits.toml", tree.folder / "configs/other.toml")
    tree.make("hls", "CONFIG=other", "DEVICE=cuda")
    calls = (tree.folder / "calls").read_text().splitlines()
    files = "--config configs/other.toml --out build/other"
    assert calls[0] == f"-m quant train {files} --device cuda"
    assert calls[6] == f"-m codegen lower {files}"
    assert calls[10] == f"-m sim rtl {files}"
    assert calls[-1] == f"-m sim report {files}"


def test_cocotb_gets_other_rtl_and_waves(tree: Tree) -> None:
    tree.make("sim", "RTL=vitis/rtl", "WAVES=1")
    calls = (tree.folder / "calls").read_text().splitlines()
    files = "--config configs/digits.toml --out build/digits"
    assert calls[-1] == f"-m sim cocotb {files} --rtl vitis/rtl --waves"


@pytest.mark.parametrize("verb", ["hls", "report", "bench"])
def test_unknown_config_is_one_line_naming_the_known_ones(tree: Tree, verb: str) -> None:
    result = tree.make(verb, "CONFIG=digit")
    first, *rest = result.stderr.splitlines()
    assert first.startswith("error: CONFIG=digit: configs/digit.toml is missing; configs/ has: ")
    assert "digits" in first
    assert all(line.startswith("make: ***") for line in rest)
    assert tree.verbs() == []


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["g++"], "error: g++ is missing; install it with: apt-get install g++"),
        (["perl"], "error: perl is missing; install it with: apt-get install perl"),
        (
            ["g++", "perl"],
            "error: g++ and perl are missing; install them with: apt-get install g++ perl",
        ),
        (
            ["python3"],
            "error: python3 is missing; install it with: apt-get install python3 python3-venv",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["hls", "setup"])
def test_missing_tool_is_named_before_anything_runs(
    tree: Tree, verb: str, missing: list[str], message: str
) -> None:
    shutil.rmtree(tree.folder / ".venv")
    for tool in missing:
        (tree.tools / tool).unlink()
    result = tree.make(verb)
    assert result.returncode != 0
    assert result.stderr.splitlines()[0] == message
    assert result.stdout == ""
    assert not (tree.folder / ".venv").exists()


def test_old_python_is_refused_before_anything_runs(tree: Tree) -> None:
    shutil.rmtree(tree.folder / ".venv")
    (tree.tools / "python3.9").write_text("#!/bin/sh\nexit 1\n")
    (tree.tools / "python3.9").chmod(0o755)
    result = tree.make("setup", "PYTHON=python3.9")
    assert result.stderr.startswith("error: python3.9 must be Python 3.10 or newer; ")
    assert not (tree.folder / ".venv").exists()


def test_missing_ensurepip_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "executable", "python3")
    with pytest.raises(ToolError, match=r"ensurepip is missing; .*: apt-get install python3-venv$"):
        host.check_tools()


def test_vitis_is_looked_for_before_training(tree: Tree) -> None:
    result = tree.make("hls", "HLS=vitis")
    assert result.returncode != 0
    assert result.stderr.startswith("error: Vitis HLS is missing (no vitis-run or vitis_hls ")
    assert tree.verbs() == []


def test_vitis_runs_after_emit_when_present(tree: Tree) -> None:
    (tree.tools / "vitis_hls").symlink_to(tree.tools / "sh")
    assert tree.make("hls", "HLS=vitis").returncode == 0
    assert sorted(tree.verbs()) == sorted([*STAGES, "vitis", "report"])


def test_unknown_hls_names_the_choices(tree: Tree) -> None:
    result = tree.make("hls", "HLS=vivado")
    assert result.stderr.startswith("error: HLS must be one of csim, vitis; got 'vivado'")


def test_changed_pyproject_installs_again(tree: Tree) -> None:
    pyproject = tree.folder / "pyproject.toml"
    pyproject.touch()
    tree.make("setup")
    assert tree.verbs() == []
    pyproject.write_text(pyproject.read_text() + "\n# changed\n")
    tree.make("setup")
    assert tree.verbs() == ["--version", "install"]


def test_pins_are_exact_and_hls4ml_comes_alone(root: Path) -> None:
    complete, alone = host.requirements(root / "pyproject.toml")
    assert all(re.match(r"[\w-]+==[\w.]+(;|$)", pin) for pin in complete + alone)
    assert [pin.split("==")[0] for pin in alone] == ["hls4ml"]


def test_broken_venv_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], failed: str, *, quiet: bool = False) -> None:
        commands.append(command)
        if quiet:
            raise ToolError(failed)

    monkeypatch.setattr(host, "run", run)
    host.create_venv(tmp_path / ".venv")
    assert commands[1] == [sys.executable, "-m", "venv", "--clear", str(tmp_path / ".venv")]


def test_failed_tool_keeps_its_command_and_exit_code() -> None:
    with pytest.raises(ToolError, match=r"^it failed$") as caught:
        host.run(["sh", "-c", "exit 3"], "it failed")
    assert (caught.value.command, caught.value.exit_code) == ("sh -c exit 3", 3)
