# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m codegen VERB --config configs/NAME.toml --out build/NAME`."""

from __future__ import annotations

import sys

from winnow.cli import guard
from winnow.stage_cli import open_build, run_verb, stage_parser


def main() -> None:
    """Run one stage."""
    parser, _ = stage_parser(
        "codegen", "Lower a quantized model to an integer graph, schedule it, emit HLS C++."
    )
    options = parser.parse_args()
    run_verb(options.verb, open_build(options))


if __name__ == "__main__":
    sys.exit(guard(main))
