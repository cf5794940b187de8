# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m sim VERB --config configs/NAME.toml --out build/NAME`."""

from __future__ import annotations

import sys
from pathlib import Path

from sim.bench import bench
from sim.bounded import depths
from sim.exits import exits
from sim.fill import fill
from sim.placement import MINUTES, place
from sim.regress import regress
from sim.report import report
from winnow.cli import guard
from winnow.stage_cli import add_verb, open_build, run_verb, stage_parser

VERBS = {
    "report": (report, "print the summary of a build"),
    "bench": (bench, "measure the speeds again, without caches, and print all numbers"),
    "depths": (depths, "run the C++ with streams as deep as declared; print their least depths"),
    "fill": (fill, "fit FILL_CYCLES of the cycle model to the RTL cycles of a build"),
}


def main() -> None:
    """Run one verb."""
    parser, verbs = stage_parser(
        "sim", "Check the generated hardware against the model, and report."
    )
    for name, (_, summary) in VERBS.items():
        add_verb(verbs, name, summary)
    cocotb = add_verb(verbs, "cocotb", "run the cocotb regression on the RTL of a build or a tool")
    cocotb.add_argument("--rtl", type=Path, help="folder of other RTL to run, e.g. of Vitis")
    cocotb.add_argument("--waves", action="store_true", help="write waveforms beside the log")
    leaving = add_verb(verbs, "exits", "write the programs of early exits, run them on the C++")
    leaving.add_argument(
        "--threshold",
        type=float,
        help="softmax probability at which images leave (the one chosen on validation images)",
    )
    placing = add_verb(verbs, "place", "place and route modules on an ECP5, beside estimates")
    placing.add_argument("--module", action="append", default=[], help="only this one; repeatable")
    placing.add_argument("--seeds", type=int, default=1, help="seeds of the placer per module (1)")
    placing.add_argument(
        "--minutes", type=int, default=MINUTES, help=f"a module may take ({MINUTES})"
    )
    options = parser.parse_args()
    build = open_build(options)
    if options.verb == "cocotb":
        regress(build, options.rtl, waves=options.waves)
    elif options.verb == "exits":
        exits(build, options.threshold)
    elif options.verb == "place":
        place(build, options.module, options.seeds, options.minutes)
    elif options.verb in VERBS:
        VERBS[options.verb][0](build)
    else:
        run_verb(options.verb, build)


if __name__ == "__main__":
    sys.exit(guard(main))
