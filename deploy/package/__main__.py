# SPDX-License-Identifier: Apache-2.0
"""Check a board: `python3 -m PACKAGE [FILE.bit]` runs the golden images and tells the times."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from . import BIT, DATA


def check(engine: Any) -> None:
    """Run self-test, profile and throughput on an engine, and print what they find."""
    measure = import_module(".winnow_pynq.measure", __package__)
    networks = engine.load_profiles(DATA)
    for name, network in networks.items():
        if len(networks) > 1:
            print(f"profile {name}:")
        print(f"selftest: {measure.selftest(network)} integers equal the model's")
        images = network.bundle.golden()["images"]
        for layer in measure.profile(network, images[0]):
            cycles = "not counted" if layer.cycles is None else f"{layer.cycles} cycles"
            print(f"  {layer.name:<12}{cycles}, modelled {layer.modelled_cycles}")
        found = measure.throughput(network, images)
        print(
            f"throughput: {found.images_per_second:.1f} images/s; {found.images} images, "
            f"{network.batch} per start, {found.transfer_seconds:.4f} s of transfers, "
            f"{found.engine_seconds:.4f} s of engine"
        )


def main() -> None:
    """Open the overlay and check it; an error is one line."""
    bit = sys.argv[1] if len(sys.argv) > 1 else BIT
    if bit is None:
        sys.exit(f"error: this wheel has no bitstream; give one: python3 -m {__package__} FILE.bit")
    errors = import_module(".winnow_pynq.errors", __package__)
    try:
        board = import_module(".winnow_pynq.pynq_board", __package__)  # imports pynq
    except ImportError as error:
        sys.exit(f"error: {error}; on a board: sudo -i, then source /etc/profile.d/pynq_venv.sh")
    try:
        with board.open_overlay(bit) as engine:
            check(engine)
    except errors.DriverError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
