# SPDX-License-Identifier: Apache-2.0
"""The `winnow` command: which stages run, in which order, and what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import winnow.__main__ as command
from tests.builds import play
from winnow import process, programs
from winnow.cli import TOLD, guard
from winnow.config import load_config
from winnow.errors import ToolError
from winnow.flow import BY_NAME, STAGES, Build
from winnow.place import ROOT
from winnow.programs import Program

NAMES = [stage.name for stage in STAGES if not stage.optional]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def calls() -> list[list[str]]:
    """Words of the processes that were started, after `python -m`."""
    return []


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[list[str]],
) -> Run:
    """Return `run(verb, *words, fail=stage)` -> exit code, stdout, stderr; stages are played."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "net.toml").write_text("seed = 1\n")
    failing: list[str] = []

    def start(
        words: list[str], *, capture: bool, ending: int, env: dict[str, str]
    ) -> process.Finished:
        assert (capture, ending) == (False, signal.SIGHUP)
        assert env["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
        calls.append(words[2:])
        folder, verb, config, out = words[2], words[3], words[5], words[7]
        if verb in failing:
            return process.Finished(7)
        if verb in BY_NAME:
            assert BY_NAME[verb].folder == folder
            build = Build(load_config(Path(config)), Path(out), config_path=config)
            files = [build.out / f"{verb}.txt"]
            build.out.mkdir(parents=True, exist_ok=True)
            files[0].write_text(verb)
            play(build, verb, files)
        return process.Finished(0)

    monkeypatch.setattr(process, "run", start)

    def main(*words: str, fail: str = "") -> tuple[int, str, str]:
        failing[:] = [fail]
        calls.clear()
        monkeypatch.setattr(sys, "argv", ["winnow", *words])
        try:
            code = guard(command.main)
        except SystemExit as error:
            code = int(str(error.code))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return main


def verbs(calls: list[list[str]]) -> list[str]:
    return [call[1] for call in calls]


def test_run_does_everything_once_in_order(run: Run, calls: list[list[str]]) -> None:
    assert run("run", "--config", "net")[0] == 0
    assert verbs(calls) == [*NAMES, "report"]
    assert all(c[2:6] == ["--config", "configs/net.toml", "--out", "build/net"] for c in calls)
    code, text, _ = run("run", "--config", "net")
    assert (code, verbs(calls)) == (0, ["report"])
    assert text == f"up to date: {', '.join(NAMES)}\n"


@pytest.mark.parametrize(
    ("called", "name"),
    [("/x/bin/winnow", "winnow"), ("/x/winnow/__main__.py", ".venv/bin/python -m winnow")],
)
def test_new_names_the_command_that_it_was_called_by(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    called: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [called, "new", "mine"])
    assert guard(command.main) == 0
    text = capsys.readouterr().out
    assert text.endswith(f"\nnext: {name} check --config mine/mine.toml\n")


def test_training_stages_get_the_device(run: Run, calls: list[list[str]]) -> None:
    run("run", "--config", "net", "--device", "cuda", "--threads", "2", "--progress")
    for call in calls:
        more = ["--device", "cuda", "--threads", "2", "--progress"] if call[0] == "quant" else []
        assert call[6:] == more


def test_impossible_number_of_threads_starts_nothing(run: Run, calls: list[list[str]]) -> None:
    code, _, error = run("run", "--config", "net", "--threads", "0")
    assert (code, calls) == (1, [])
    assert error == "error: --threads must be at least 1, got 0\n"


@pytest.mark.parametrize("name", NAMES)
def test_damaged_result_is_made_again_before_the_report(
    run: Run, calls: list[list[str]], name: str
) -> None:
    run("run", "--config", "net")
    Path("build/net", f"{name}.txt").write_text("damaged")
    assert run("run", "--config", "net")[0] == 0
    assert verbs(calls) == [name, "report"]


@pytest.mark.parametrize("name", ["train", "emit", "synth"])
def test_failed_stage_stops_the_run_and_is_tried_again(
    run: Run, calls: list[list[str]], name: str
) -> None:
    code, _, error = run("run", "--config", "net", fail=name)
    assert (code, error) == (7, f"error: '{name}' ended with exit code 7 and no word of its own\n")
    assert verbs(calls) == NAMES[: NAMES.index(name) + 1]
    assert run("run", "--config", "net")[0] == 0
    assert verbs(calls) == [*NAMES[NAMES.index(name) :], "report"]


def test_stage_that_left_nothing_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "run", lambda *_, **__: process.Finished(0))
    code, _, error = run("run", "--config", "net")
    assert code == 1
    assert error == (
        f"error: 'build/net': stage '{NAMES[0]}' ended, but it has not run; run it again\n"
    )


def test_to_runs_what_a_stage_needs(run: Run, calls: list[list[str]]) -> None:
    run("run", "--config", "net", "--to", "emit")
    assert verbs(calls) == ["emit"]
    run("run", "--config", "net", "--to", "schedule")
    assert verbs(calls)[-1] == "schedule"
    assert "rtl" not in verbs(calls)


def test_status_says_why(run: Run, calls: list[list[str]]) -> None:
    run("run", "--config", "net")
    Path("build/net/prune.txt").unlink()
    Path("build/net/csim.json").unlink()
    code, text, _ = run("status", "--config", "net")
    lines = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert list(lines) == [stage.name for stage in STAGES]  # a gap behind the longest name too
    assert (code, calls) == (0, [])
    assert lines["train"] == "current"
    assert lines["prune"] == "must run: prune.txt is missing"
    assert lines["bits"] == "must run: after prune"
    assert lines["emit"] == "current"
    assert lines["vitis"] == "must run: it has not run"


def test_build_in_a_folder_with_a_space_is_refused(run: Run, tmp_path: Path) -> None:
    code, _, error = run("run", "--config", "net", "--out", "my build")
    assert code == 1
    assert error.startswith(f"error: '{tmp_path / 'my build'}' must have no space")
    assert error.endswith("choose another folder with --out\n")
    assert not (tmp_path / "my build").exists()


def test_config_with_a_space_has_a_folder_without(run: Run, calls: list[list[str]]) -> None:
    Path("my net.toml").write_text("seed = 2\n")
    run("run", "--config", "my net.toml", "--to", "emit")
    assert calls[0][2:6] == ["--config", "my net.toml", "--out", "build/my_net"]


def test_real_process_ends_with_one_line(root: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "winnow", "report", "--config", "digits", "--out", str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: '{tmp_path}': stage 'check' must run first: it has")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (-signal.SIGKILL, "error: 'check' was ended by SIGKILL, most often for want of memory\n"),
        (-signal.SIGSEGV, "error: 'check' was ended by SIGSEGV\n"),
        (1, "error: 'check' ended with exit code 1 and no word of its own\n"),
        (TOLD, ""),
        (130, ""),
    ],
)
def test_stage_that_could_not_say_why_it_ended(
    run: Run, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    monkeypatch.setattr(process, "run", lambda *_, **__: process.Finished(code))
    ended, _, error = run("run", "--config", "net")
    assert (ended, error) == (1 if code == TOLD else code if code > 0 else 128 - code, told)


@pytest.mark.parametrize(
    "verb", ["status", "check", "run", "report", "trace", "bench", "cocotb", "place"]
)
def test_file_for_a_folder_is_refused(run: Run, calls: list[list[str]], verb: str) -> None:
    Path("taken").write_text("")
    code, text, error = run(verb, "--config", "net", "--out", "taken")
    assert (code, text, calls) == (1, "", [])
    assert error == "error: --out: 'taken' is a file; name a folder\n"


def lacking(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let programs be missing."""
    for name in names:
        monkeypatch.setitem(programs.PROGRAMS, name, Program())  # type: ignore[index]


@pytest.mark.parametrize("verb", ["check", "run"])
def test_missing_programs_are_named_before_anything_runs(
    run: Run, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    lacking(monkeypatch, "perl", "Yosys")
    code, text, error = run(verb, "--config", "net")
    assert (code, text, calls) == (1, "", [])
    assert error == (
        "error: perl, Yosys are missing, which later stages need (rtl, rtlsim, synth, bundle); "
        "install them with: apt-get install perl and make setup\n"
    )


def test_programs_of_other_stages_are_not_asked_for(
    run: Run, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch, "Verilator", "Yosys")
    assert run("run", "--config", "net", "--to", "csim")[0] == 0
    lacking(monkeypatch, "g++")
    assert run("run", "--config", "net", "--to", "csim")[0] == 0  # all is current
    assert verbs(calls) == []
    code, _, error = run("run", "--config", "net", "--to", "rtl")
    assert (code, verbs(calls)) == (1, [])
    assert error == (
        "error: Verilator is missing, which later stages need (rtl); install it with: make setup\n"
    )


def test_installed_package_names_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    with pytest.raises(ToolError, match=r"install them with: pip install ziglang pyosys$"):
        programs.refuse_missing(["clang", "Yosys"], ["rtl", "synth"])


def test_check_says_which_programs_it_found(run: Run, calls: list[list[str]]) -> None:
    code, text, _ = run("check", "--config", "net")
    assert (code, verbs(calls)) == (0, ["check"])
    first = "check: found g++, make, perl, clang, XLS, Verilator, Yosys\n"
    assert text.startswith(first)


def test_every_program_is_there_by_its_name() -> None:
    used = {name for stage in STAGES for name in stage.programs}
    assert used == programs.PROGRAMS.keys()
    assert programs.missing(used) == []
    assert not Program(command="no-such-command", module="no_such_module").is_there


def test_profiles_share_what_is_the_same_and_are_brought_together(
    run: Run, calls: list[list[str]]
) -> None:
    text = "[profiles.fast]\nprune.keep = 1\n[profiles.exact]\nprune.keep = 4\n"
    Path("configs/net.toml").write_text(text)
    code, text, error = run("profiles", "--config", "net", "--threads", "2")
    assert (code, error) == (0, "")
    fast, exact = "configs/net.toml:fast", "configs/net.toml:exact"
    done = [(call[1], call[3]) for call in calls]
    assert done[:2] == [("check", fast), ("check", exact)]  # before anything trains
    shared = ("train", "prune_channels", "emit", "rtl", "synth")
    assert [verb for verb, config in done if config == fast] == NAMES
    # Played stages of the same name write the same, so these two are all that differs.
    assert [verb for verb, config in done if config == exact] == ["check", "prune"]
    assert done[-1] == ("profiles", "configs/net.toml")
    assert all(
        f"{name}: that of 'build/net/profiles/fast', which is the same" in text for name in shared
    )
    assert next(call for call in calls if call[1] == "train")[-2:] == ["--threads", "2"]
    calls.clear()
    assert run("profiles", "--config", "net")[0] == 0
    assert verbs(calls) == ["profiles"]
    code, _, error = run("profiles", "--config", "net", fail="prune")
    assert code == 0
    assert run("profiles", "--config", "net:fast")[2].startswith(
        "error: configs/net.toml:fast: one profile is not several; name the configuration"
    )
