# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m codegen VERB --config configs/NAME.toml --out build/NAME`."""

from __future__ import annotations

import argparse
import sys

from codegen.stages import STAGES, Build
from winnow.cli import guard, stage_options
from winnow.config import load_config


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    whole = argparse.ArgumentParser(
        prog="python -m codegen",
        description="Lower a quantized model to an integer graph, schedule it, emit HLS C++.",
    )
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, stage in STAGES.items():
        summary = (stage.__doc__ or "").strip().splitlines()[0]
        stage_options(verbs.add_parser(name, help=summary, description=summary))
    return whole


def main() -> None:
    """Run one stage."""
    options = parser().parse_args()
    STAGES[options.verb](Build(load_config(options.config), options.config, options.out))


if __name__ == "__main__":
    sys.exit(guard(main))
