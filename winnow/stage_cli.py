# SPDX-License-Identifier: Apache-2.0
"""What `python -m FOLDER` does for the stages of its folder, one verb each."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from winnow.cli import Parser
from winnow.config import load_config
from winnow.flow import BY_NAME, STAGES, Build, run_stage


def stage_parser(folder: str, description: str) -> tuple[Parser, Any]:
    """Return a folder's parser with a verb per stage, and its verbs to add others to."""
    whole = Parser(prog=f"python -m {folder}", description=description)
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    for stage in STAGES:
        if stage.folder == folder:
            add_verb(verbs, stage.name, stage.summary)
    return whole, verbs


def add_verb(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """Add a verb that works on a build."""
    verb: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=f"{summary.capitalize()}."
    )
    verb.add_argument(
        "--config", type=Path, required=True, help="configuration file, configs/NAME.toml"
    )
    verb.add_argument(
        "--out", type=Path, required=True, help="folder of the build's files, build/NAME"
    )
    return verb


def open_build(options: argparse.Namespace) -> Build:
    """Return the build that the options of a verb name."""
    return Build(load_config(options.config), options.out, config_path=str(options.config))


def run_verb(name: str, build: Build) -> None:
    """Run a stage unless it is current."""
    stage = BY_NAME[name]
    run_stage(stage, build, lambda inputs: import_module(stage.module).run(build, inputs))
