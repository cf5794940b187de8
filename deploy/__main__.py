# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m deploy VERB --config NAME_OR_FILE`.

bundle    the stage: what a board gets, checked on a virtual board
overlay   one wheel for a board, of a build that is current
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from deploy.wheel import Bitstream, write_wheel
from winnow.__main__ import open_build
from winnow.cli import guard
from winnow.errors import ConfigError
from winnow.flow import Build, require_current
from winnow.stage_cli import open_build as open_stage
from winnow.stage_cli import run_verb, stage_parser


def overlay(options: argparse.Namespace, build: Build) -> None:
    """Write the wheel of a build whose stages are current."""
    if (options.bit is None) != (options.clock is None):
        raise ConfigError(
            "--bit FILE and --clock MHZ go together: the clock at which timing closed"
        )
    require_current(["bundle"], build)
    bitstream = None if options.bit is None else Bitstream(options.bit, options.clock)
    path = write_wheel(build.out, build.out / "bundle", build.out.name, bitstream)
    kilobytes = path.stat().st_size / 1000
    held = "driver, network, bitstream" if bitstream else "driver and network, no bitstream"
    print(f"overlay: {path} ({held}, {kilobytes:.0f} kB)")


VERBS = {"overlay": (overlay, "write one wheel for a board, of a build that is current")}


def _add_verb(verbs: Any, name: str) -> argparse.ArgumentParser:
    summary = VERBS[name][1]
    verb: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=f"{summary.capitalize()}."
    )
    verb.add_argument("--config", required=True, metavar="NAME", help="in configs/, or a .toml")
    verb.add_argument("--out", type=Path, help="folder of the build's files (build/NAME)")
    return verb


def main() -> None:
    """Run one verb."""
    parser, verbs = stage_parser("deploy", "Bring a checked build to a board, or to a virtual one.")
    wheel = _add_verb(verbs, "overlay")
    wheel.add_argument("--bit", type=Path, help="a bitstream to pack, its .hwh beside it")
    wheel.add_argument("--clock", type=float, metavar="MHZ", help="at which its timing closed")
    options = parser.parse_args()
    if options.verb in VERBS:
        VERBS[options.verb][0](options, open_build(options))
    else:
        run_verb(options.verb, open_stage(options))


if __name__ == "__main__":
    sys.exit(guard(main))
