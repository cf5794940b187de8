# SPDX-License-Identifier: Apache-2.0
"""What tests/test_deploy_pynq.py runs under pynq: an unmodified client of a virtual board.

    PYNQ_REMOTE_DEVICES=127.0.0.N python pynq_client.py DRIVER OVERLAY.bit BUNDLE

Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pynq

sys.path.insert(0, sys.argv[1])
from winnow_pynq import errors, profile, runner, selftest, throughput
from winnow_pynq.pynq_board import find_engine, open_overlay


def error_of(action: Any) -> str:
    """Return what an action raises."""
    try:
        action()
    except errors.DriverError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def interrupted_seconds(network: Any, images: Any) -> float:
    """Return how long runs take that nothing but an interrupt ends."""
    runner.FIRST_PAUSE = runner.LONGEST_WAIT = 600.0
    started = time.monotonic()
    for image in images:
        network.run(image[None])
    return time.monotonic() - started


def main() -> None:
    """Open, run everything, make mistakes."""
    bit, bundle = Path(sys.argv[2]), Path(sys.argv[3])
    found: dict[str, Any] = {"numpy": np.__version__, "pynq": pynq.__version__}
    started = time.monotonic()
    with open_overlay(bit) as engine:
        found["open_seconds"] = time.monotonic() - started
        found["clock_mhz"] = engine.backend.clock_mhz()
        found["added"] = engine.backend.has_added_registers
        with engine.load(bundle) as network:
            started = time.monotonic()
            found["compared"] = selftest(network)
            images = network.bundle.golden()["images"]
            found["seconds_per_image"] = (time.monotonic() - started) / len(images)
            found["cycles"] = [layer.cycles for layer in profile(network, images[0])]
            found["images_per_second"] = throughput(network, images).images_per_second
            network.timeout_s = 0.0
            found["timeout"] = error_of(lambda: network.run(images[:1]))
            network.timeout_s = 60.0
            found["after"] = network.run(images).tolist()
            if engine.backend.has_interrupts:
                found["interrupted_seconds"] = interrupted_seconds(network, images)
        found["memory"] = error_of(lambda: engine.backend.allocate(256 << 20))
        for _ in range(3):  # nothing is left behind
            engine.backend.free(engine.backend.allocate(100 << 20))
    (bit.parent / "lonely.bit").write_bytes(bit.read_bytes())
    found["lonely"] = error_of(lambda: open_overlay(bit.parent / "lonely.bit"))
    bits, design = bit.read_bytes(), bit.with_suffix(".hwh").read_bytes()
    for name, content, handoff in (
        ("cut", bits[:-8] + bytes(range(8)), design[: len(design) // 2]),  # pynq keeps by the .bit
        ("foreign", bits[:-8] + bytes(8), design),
    ):
        other = bit.parent / f"{name}.bit"
        other.write_bytes(content)
        other.with_suffix(".hwh").write_bytes(handoff)
        found[name] = error_of(lambda other=other: open_overlay(other))

    class Other:
        ip_dict = {"axi_dma_0": {"type": "xilinx.com:ip:axi_dma:7.1"}}  # noqa: RUF012

    found["other"] = error_of(lambda: find_engine(Other()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
