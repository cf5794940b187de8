# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m deploy VERB --config configs/NAME.toml --out build/NAME`."""

from __future__ import annotations

import sys

from winnow.cli import guard
from winnow.stage_cli import open_build, run_verb, stage_parser


def main() -> None:
    """Run one verb."""
    parser, _ = stage_parser("deploy", "Bring a checked build to a board, or to a virtual one.")
    options = parser.parse_args()
    run_verb(options.verb, open_build(options))


if __name__ == "__main__":
    sys.exit(guard(main))
