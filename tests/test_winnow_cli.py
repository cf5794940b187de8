# SPDX-License-Identifier: Apache-2.0
"""The guard around every command line: one line for the user, a traceback for our bugs."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from winnow.cli import guard, stage_options
from winnow.errors import GraphError, ToolError


def raiser(error: BaseException) -> None:
    raise error


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_users_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(lambda: raiser(GraphError("layer 'a': keep must be 1..8, got 9"))) == 1
    assert capsys.readouterr() == ("", "error: layer 'a': keep must be 1..8, got 9\n")


def test_interrupt_tells_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(lambda: raiser(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"


def test_our_own_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        guard(lambda: raiser(ZeroDivisionError()))


def test_tool_error_keeps_the_facts() -> None:
    error = ToolError("g++ failed", command="g++ a.cpp", exit_code=2, log=Path("a.log"))
    assert (str(error), error.command, error.exit_code) == ("g++ failed", "g++ a.cpp", 2)
    assert error.log == Path("a.log")


def test_stage_options_are_required(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="x")
    stage_options(parser)
    options = parser.parse_args(["--config", "a.toml", "--out", "build/a"])
    assert (options.config, options.out) == (Path("a.toml"), Path("build/a"))
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "--config, --out" in capsys.readouterr().err
