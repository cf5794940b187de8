# SPDX-License-Identifier: Apache-2.0
"""What `python -m deploy bench` measures of pynq: its own client against a virtual board.

Runs in .venv-pynq, with PYNQ_REMOTE_DEVICES naming the address; server and client share a process.
Prints seconds of `Overlay()` and per image.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

from deploy.bus import Bus
from deploy.device import open_device
from deploy.server import serve
from winnow.boards import find_board
from winnow.cli import guard

SECONDS = 600.0  # for an image: a simulator's speed says nothing about the engine's


def main(binary: str, digest: str, bit: str, bundle: str) -> None:
    """Serve a board, open its overlay, run the golden images one by one."""
    with open_device(Path(binary)) as device:
        bus = Bus(device, bytes.fromhex(digest))
        server = serve(find_board("PYNQ-Z2"), bus, os.environ["PYNQ_REMOTE_DEVICES"])
        board = import_module("deploy.driver.winnow_pynq.pynq_board")  # it looks for the board
        started = time.monotonic()
        with board.open_overlay(bit) as engine:
            opened = time.monotonic() - started
            with engine.load(bundle, timeout_s=SECONDS, batch=1) as network:
                images = network.bundle.golden()["images"]
                started = time.monotonic()
                network.run(images)
                seconds = time.monotonic() - started
        print(json.dumps([opened, seconds / len(images)]))
        server.stop(0)


if __name__ == "__main__":
    sys.exit(guard(lambda: main(*sys.argv[1:])))
