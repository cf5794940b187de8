# SPDX-License-Identifier: Apache-2.0
"""Run a script that uses pynq with a virtual board in the same process.

    python -m deploy.inprocess BINARY DIGEST --board PYNQ-Z2 SCRIPT [ARGUMENTS]

For pynq 3.0.1, which knows no remote boards; later versions work as well. Runs in an environment of
`make setup-pynq`. The script sees a machine of the board's kind, as pynq would on the board.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from importlib import import_module
from pathlib import Path

from deploy.bus import Bus
from deploy.device import open_device
from winnow.boards import find_board
from winnow.cli import Parser, guard
from winnow.errors import ToolError


def main() -> None:
    """Register the board with pynq and run the script."""
    parser = Parser(prog="python -m deploy.inprocess", description=__doc__)
    parser.add_argument("binary", type=Path, help="the engine's harness")
    parser.add_argument(
        "digest", type=bytes.fromhex, help="hash of the RTL that its bitstream must carry"
    )
    parser.add_argument("--board", required=True)
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    board = find_board(options.board)
    machine = os.uname_result((*os.uname()[:4], board.arch))
    os.uname = lambda: machine  # pynq chooses its clock registers by it
    try:
        boards = import_module("deploy.pynq_device")  # imports pynq
    except ImportError as error:
        raise ToolError(
            f"{error}; run this with .venv-pynq-3.0.1/bin/python, of: make setup-pynq PYNQ=3.0.1"
        ) from error
    with (
        open_device(options.binary) as device,
        boards.registered(board, Bus(device, options.digest)),
    ):
        sys.argv = [options.script, *options.arguments]
        runpy.run_path(options.script, run_name="__main__")


if __name__ == "__main__":
    sys.exit(guard(main))
