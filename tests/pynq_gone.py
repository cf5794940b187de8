# SPDX-License-Identifier: Apache-2.0
"""What tests/test_deploy_pynq.py runs under pynq: a board that goes away between two runs.

    PYNQ_REMOTE_DEVICES=127.0.0.N python pynq_gone.py BINARY DIGEST OVERLAY.bit BUNDLE

Prints one JSON object: what every step raises then, by its name.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from deploy.bus import Bus
from deploy.device import open_device
from deploy.server import serve
from winnow.boards import find_board


def error_of(action: Any) -> str:
    """Return what an action raises."""
    try:
        action()
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return ""


def main(binary: str, digest: str, bit: str, bundle: str) -> None:
    """Run, take the board away, and run again."""
    with open_device(Path(binary)) as device:
        bus = Bus(device, bytes.fromhex(digest))
        server = serve(find_board("PYNQ-Z2"), bus, os.environ["PYNQ_REMOTE_DEVICES"])
        board = import_module("deploy.driver.winnow_pynq.pynq_board")  # it looks for the board
        engine = board.open_overlay(bit)
        network = engine.load(bundle)
        images = network.bundle.golden()["images"]
        network.run(images)
        server.stop(0).wait()
        steps = {
            "run": lambda: network.run(images),
            "read": lambda: engine.backend.read32(0),
            "write": lambda: engine.backend.write32(16, 0),
            "from_device": lambda: network.take(network.bundle.layers),
            "allocate": lambda: engine.backend.allocate(8),
            "close": engine.close,
        }
        print(json.dumps({name: error_of(step) for name, step in steps.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
