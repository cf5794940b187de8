# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m quant VERB --config configs/NAME.toml --out build/NAME`."""

from __future__ import annotations

import argparse
import sys

import torch

from quant.build import Build
from quant.exchange import TOOLS
from quant.run import STAGES, run_stage
from quant.train.distributed import join, leave
from quant.train.training import pick_device
from winnow.cli import Parser, guard, stage_options
from winnow.config import load_config
from winnow.errors import ConfigError

_EXAMPLE = "example: python -m quant train --config configs/digits.toml --out build/digits"


def parser() -> Parser:
    """Return the parser of all verbs."""
    whole = Parser(
        prog="python -m quant",
        description="Train, prune and quantize a network; each verb reads the files of the one "
        "before, is skipped when up to date and continues when interrupted.",
        epilog=_EXAMPLE,
    )
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    for stage in STAGES.values():
        summary = stage.summary.capitalize()
        results = (
            f"{stage.name}.json" if stage.name == "bits" else f"{stage.name}.npz and its record"
        )
        verb = verbs.add_parser(
            stage.name,
            help=summary,
            description=f"{summary}. Writes {results}.",
            epilog=_EXAMPLE.replace("train", stage.name),
        )
        _add_options(verb)
    for name, tool in TOOLS.items():
        verb = verbs.add_parser(name, help=tool.summary, description=f"{tool.summary}.")
        _add_options(verb)
        tool.add_options(verb)
    return whole


def _add_options(verb: argparse.ArgumentParser) -> None:
    """Add what every verb has."""
    stage_options(verb)
    verb.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (cpu)"
    )
    # One thread: sums keep their order on any number of cores, and a network this small gains
    # little from more, while OpenMP's spinning threads lose much on a busy machine.
    verb.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="CPU threads (1); another number rounds sums differently: not the same weights",
    )
    verb.add_argument(
        "--progress", action="store_true", help="show progress bars without a terminal too"
    )


def main() -> None:
    """Run one verb."""
    options = parser().parse_args()
    config = load_config(options.config)
    if options.threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {options.threads}")
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    world = join(device)
    path = str(options.config)
    build = Build(config, options.out, device, options.progress, world, config_path=path)
    try:
        if options.verb in TOOLS:
            TOOLS[options.verb].run(build, options)
        else:
            run_stage(STAGES[options.verb], build)
    finally:
        leave(world)


if __name__ == "__main__":
    sys.exit(guard(main))
