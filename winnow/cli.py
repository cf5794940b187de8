# SPDX-License-Identifier: Apache-2.0
"""What every command line of the flow shares: the stage options and the one-line error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from winnow.errors import WinnowError


def guard(main: Callable[[], None]) -> int:
    """Run `main`; turn a user's error into one line on stderr and exit code 1.

    Ctrl-C gives exit code 130 and no traceback. Other exceptions are our bugs and keep theirs.
    """
    try:
        main()
    except WinnowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    return 0


def stage_options(parser: argparse.ArgumentParser) -> None:
    """Add the options every stage takes: which build, and where its files live."""
    parser.add_argument(
        "--config", type=Path, required=True, help="configuration file, configs/NAME.toml"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the build's files, build/NAME"
    )
