# SPDX-License-Identifier: Apache-2.0
"""The Makefile: its help, its messages, and what it hands to the command line.

A fake .venv/bin/python logs its calls, so nothing is installed and nothing is trained.
"""

from __future__ import annotations

import importlib.util
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
INSTALL = [["-m", "pip", "--version"], ["-m", "winnow.host", "install", "pyproject.toml"]]
FAKE_PYTHON = """#!/bin/sh
for word; do printf '%s|' "$word" >> calls; done
echo >> calls
case "$2 $3" in
  "winnow run") test -z "$FAIL" || { echo "error: it failed" >&2; exit 1; } ;;
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

    def calls(self) -> list[list[str]]:
        """Return the words of the calls of Python since the last time."""
        log = self.folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.split("|")[:-1] for line in lines]


@pytest.fixture
def tree(tmp_path: Path, root: Path) -> Tree:
    folder, tools = tmp_path / "tree", tmp_path / "tools"
    for name in ("winnow", "configs"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(root / name, folder)
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
    assert tree.calls() == INSTALL
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


DIGITS = ["--config", "digits"]


def run_words(*more: str, config: str = "digits", device: str = "cpu") -> list[str]:
    return ["-m", "winnow", "run", "--config", config, *more, "--device", device]


def test_hls_runs_the_flow(tree: Tree) -> None:
    assert tree.make("hls").returncode == 0
    assert tree.calls() == [[*run_words(), "--hls", "csim"]]


def test_networks_are_chosen_by_words(tree: Tree) -> None:
    assert tree.make("networks").returncode == 0
    assert tree.calls() == [["-m", "sim.networks"]]
    tree.make("networks", "NETWORKS=resnet8:0.5 resnet18:1:224")
    assert tree.calls() == [["-m", "sim.networks", "resnet8:0.5", "resnet18:1:224"]]


def test_sim_needs_the_rtl_only(tree: Tree) -> None:
    assert tree.make("sim").returncode == 0
    assert tree.calls() == [
        [*run_words(), "--to", "rtlsim"],
        ["-m", "winnow", "cocotb", *DIGITS],
    ]
    tree.make("sim", "RTL=vitis/my rtl", "WAVES=1")
    assert tree.calls()[1][-3:] == ["--rtl", "vitis/my rtl", "--waves"]


def test_place_hands_on_modules_and_seeds(tree: Tree) -> None:
    assert tree.make("place").returncode == 0
    assert tree.calls() == [["-m", "winnow", "place", *DIGITS]]
    tree.make("place", "MODULES=finish lane", "SEEDS=3", "MINUTES=5")
    words = ["--module", "finish", "--module", "lane", "--seeds", "3", "--minutes", "5"]
    assert tree.calls() == [["-m", "winnow", "place", *DIGITS, *words]]


def deploy_calls(verb: str, to: str, *words: str) -> list[list[str]]:
    """What is wrong with the words is said before the build, which may be long."""
    command = ["-m", "deploy", verb, *DIGITS, *words]
    return [[*command, "--check"], [*run_words(), "--to", to], command]


def test_overlay_packs_what_a_run_left(tree: Tree) -> None:
    assert tree.make("overlay").returncode == 0
    assert tree.calls() == deploy_calls("overlay", "bundle")
    tree.make("overlay", "BIT=my design.bit", "CLOCK=100")
    words = ("--bit", "my design.bit", "--clock", "100")
    assert tree.calls() == deploy_calls("overlay", "bundle", *words)


def test_board_serves_what_a_run_left(tree: Tree) -> None:
    assert tree.make("board").returncode == 0
    assert tree.calls() == deploy_calls("board", "bundle")
    tree.make("board", "BOARD=KV260", "HOST=127.0.0.2")
    words = ("--board", "KV260", "--host", "127.0.0.2")
    assert tree.calls() == deploy_calls("board", "bundle", *words)


def test_vivado_writes_scripts_of_the_rtl(tree: Tree) -> None:
    assert tree.make("vivado", "BOARD=ZCU104").returncode == 0
    assert tree.calls() == deploy_calls("vivado", "rtl", "--board", "ZCU104")


def test_deploy_sends_what_overlay_left(tree: Tree) -> None:
    assert tree.make("deploy", "BOARD=xilinx@pynq").returncode == 0
    words = ["-m", "deploy", "push", *DIGITS, "--to", "xilinx@pynq"]
    assert tree.calls() == [words]
    tree.make("deploy", "BOARD=xilinx@pynq", "DRYRUN=1")
    assert tree.calls() == [[*words, "--dry-run"]]


def test_failed_flow_stops_make(tree: Tree) -> None:
    failed = tree.make("sim", FAIL="1")
    assert failed.returncode != 0
    assert "error: it failed" in failed.stderr
    assert len(tree.calls()) == 1


@pytest.mark.parametrize("verb", ["report", "status", "bench", "data"])
def test_reports_run_no_stage(tree: Tree, verb: str) -> None:
    assert tree.make(verb).returncode == 0
    assert tree.calls() == [["-m", "winnow", verb, *DIGITS]]


def test_config_may_be_anywhere(tree: Tree) -> None:
    shutil.copy(tree.folder / "configs/digits.toml", tree.folder / "configs/other.toml")
    tree.make("hls", "CONFIG=other", "DEVICE=cuda")
    assert tree.calls() == [[*run_words(config="other", device="cuda"), "--hls", "csim"]]
    odd = tree.folder.parent / "it's my net.toml"
    shutil.copy(tree.folder / "configs/digits.toml", odd)
    for config in (str(odd), f"../{odd.name}"):
        assert tree.make("hls", f"CONFIG={config}", "OUT=build/a").returncode == 0
        assert tree.calls() == [[*run_words("--out", "build/a", config=config), "--hls", "csim"]]


def test_checkout_in_a_folder_with_a_space_is_refused(tree: Tree) -> None:
    moved = tree.folder.parent / "my tree"
    tree.folder.rename(moved)
    result = Tree(moved, tree.tools).make("hls")
    assert result.returncode != 0
    assert result.stderr.startswith(f"error: '{moved}' must have no space, quote or any of ")
    assert "; move the checkout" in result.stderr
    assert not (moved / "calls").exists()


@pytest.mark.parametrize("verb", ["hls", "sim"])
def test_unknown_config_is_one_line_naming_the_known_ones(tree: Tree, verb: str) -> None:
    result = tree.make(verb, "CONFIG=digit")
    first, *rest = result.stderr.splitlines()
    assert (
        first == "error: configuration 'configs/digit.toml' is missing; "
        "configs/ has: colour, digits, fashion"
    )
    assert all(line.startswith("make: ***") for line in rest)
    assert tree.calls() == []


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
    assert tree.calls() == []


def test_vitis_is_asked_for_when_present(tree: Tree) -> None:
    (tree.tools / "vitis_hls").symlink_to(tree.tools / "sh")
    assert tree.make("hls", "HLS=vitis").returncode == 0
    assert tree.calls() == [[*run_words(), "--hls", "vitis"]]


def test_unknown_hls_names_the_choices(tree: Tree) -> None:
    result = tree.make("hls", "HLS=vivado")
    assert result.stderr.startswith("error: HLS must be one of csim, vitis; got 'vivado'")


def test_changed_pyproject_installs_again(tree: Tree) -> None:
    pyproject = tree.folder / "pyproject.toml"
    pyproject.touch()
    tree.make("setup")
    assert tree.calls() == []
    pyproject.write_text(pyproject.read_text() + "\n# changed\n")
    tree.make("setup")
    assert tree.calls() == INSTALL


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


def test_profiles_and_exits_are_checked_made_and_packed(tree: Tree) -> None:
    words = ["--config", "digits"]
    assert tree.make("profiles").returncode == 0
    assert tree.calls() == [
        ["-m", "deploy", "profiles", *words, "--check"],
        ["-m", "winnow", "profiles", *words, "--device", "cpu"],
    ]
    packed = ["--bit", "it's.bit", "--clock", "100"]
    assert tree.make("profiles", "BIT=it's.bit", "CLOCK=100").returncode == 0
    assert tree.calls()[-1] == ["-m", "deploy", "profiles", *words, *packed]
    assert tree.make("exits", "BIT=it's.bit", "CLOCK=100", "THRESHOLD=0.9").returncode == 0
    assert tree.calls() == [
        ["-m", "deploy", "exits", *words, *packed, "--threshold", "0.9", "--check"],
        [*run_words(), "--to", "bundle"],
        ["-m", "deploy", "exits", *words, *packed, "--threshold", "0.9"],
    ]
