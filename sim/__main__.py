# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m sim VERB --config configs/NAME.toml --out build/NAME`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from codegen.stages import Build
from sim import bench, rtl_stages, stages
from winnow.cli import guard, stage_options
from winnow.config import load_config

STAGES = {**stages.STAGES, **rtl_stages.STAGES, **bench.STAGES}


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    whole = argparse.ArgumentParser(
        prog="python -m sim",
        description="Check the generated hardware against the model, and report.",
    )
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, stage in STAGES.items():
        summary = (stage.__doc__ or "").strip().splitlines()[0]
        verb = verbs.add_parser(name, help=summary, description=summary)
        stage_options(verb)
        if name == "cocotb":
            verb.add_argument("--rtl", type=Path, help="folder of other RTL to run, e.g. of Vitis")
            verb.add_argument("--waves", action="store_true", help="write waveforms beside the log")
        if name == "synth":
            verb.add_argument("--brief", action="store_true", help="one line instead of the table")
    return whole


def main() -> None:
    """Run one stage."""
    options = parser().parse_args()
    build = Build(load_config(options.config), options.config, options.out)
    if options.verb == "cocotb":
        rtl_stages.regress(build, options.rtl, waves=options.waves)
    elif options.verb == "synth":
        rtl_stages.synthesise_rtl(build, brief=options.brief)
    else:
        STAGES[options.verb](build)


if __name__ == "__main__":
    sys.exit(guard(main))
