# SPDX-License-Identifier: Apache-2.0
"""`python -m deploy bench`: how fast driver and virtual boards are, and how large a wheel is.

bundle/, rtl/ -> a table; floors are those of digits, and a missed one gets a note.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.driver.winnow_pynq import Engine, Network
from deploy.handoff import write_overlay
from deploy.pynq_venv import FOLDER, pynq_python
from deploy.stages.bundle import SIMULATED_SECONDS
from deploy.virtual_board import rtl_digest, virtual_board
from deploy.wheel import write_wheel
from sim import rtl
from sim.bench import Line
from winnow import process
from winnow.boards import BOARDS
from winnow.errors import ToolError
from winnow.fixed_point import IntArray
from winnow.flow import Build, require_current
from winnow.place import child_environment

HOST = "127.0.0.11"  # of the board on the network, while it is measured
BATCH = 64
CLIENT_SECONDS = 600.0


@dataclass(frozen=True)
class BoardSpeeds:
    """Seconds on this machine, simulated cycles, bytes; those of pynq are None without it."""

    seconds_per_image: float
    seconds_per_batched_image: float
    batched_cycles: float
    wheel_kilobytes: float
    pynq_open_seconds: float | None
    pynq_seconds_per_image: float | None


LINES = (
    Line("driver, an image per start", "seconds_per_image", "s/image", "", 0.3, more=False),
    Line("driver, images in a batch", "seconds_per_batched_image", "s/image", ""),
    Line("cycles, batched to single", "batched_cycles", "", "", 1.05, more=False),
    Line("wheel, no bitstream", "wheel_kilobytes", "kB", "", 1000, more=False),
    Line("pynq over gRPC, Overlay()", "pynq_open_seconds", "s", "", 2, more=False),
    Line("pynq over gRPC", "pynq_seconds_per_image", "s/image", "", 1, more=False),
)


def measure(build: Build) -> BoardSpeeds:
    """Run the bundle's golden images on virtual boards, in this process and through pynq."""
    harness = rtl.build(build.rtl, build.config.engine, build.cache / "rtl")
    bundle = build.out / "bundle"
    with virtual_board(harness, build.rtl) as board, Engine(board) as engine:
        with engine.load(bundle, timeout_s=SIMULATED_SECONDS, batch=1) as network:
            images = network.bundle.golden()["images"]
            single, cycles = _run(network, images)
        many = np.resize(images, (BATCH, *images.shape[1:]))
        with engine.load(bundle, timeout_s=SIMULATED_SECONDS, batch=BATCH) as network:
            batched, together = _run(network, many)
    with tempfile.TemporaryDirectory() as work:
        wheel = write_wheel(Path(work), bundle, build.out.name)
        kilobytes = wheel.stat().st_size / 1000
        through = _through_pynq(build, harness, Path(work)) if FOLDER.is_dir() else (None, None)
    return BoardSpeeds(single, batched, together / cycles, kilobytes, *through)


def _run(network: Network, images: IntArray) -> tuple[float, float]:
    """Return seconds and cycles per image."""
    started, cycles = time.monotonic(), 0
    for _, chunk in network.chunks(images):
        network.put(chunk)
        cycles += network.start() or 0
        network.take(network.bundle.layers[-1:])
    return (time.monotonic() - started) / len(images), cycles / len(images)


def _through_pynq(build: Build, harness: rtl.Harness, work: Path) -> tuple[float, float]:
    """Return seconds of `Overlay()` and per image, an image per start, by pynq's own client."""
    digest = rtl_digest(build.rtl)
    bit = write_overlay(work / "board", BOARDS["PYNQ-Z2"], digest)
    command: list[str | Path] = [pynq_python(), "-W", "ignore", "-m", "deploy.bench_client"]
    command += [harness.binary, digest.hex(), bit, build.out / "bundle"]
    variables = {**child_environment(), "PYNQ_REMOTE_DEVICES": HOST}
    ran = process.run(command, env=variables, timeout=CLIENT_SECONDS)
    if ran.code:
        raise ToolError(f"pynq's client failed: {ran.last_line}")
    opened, seconds = json.loads(ran.stdout.splitlines()[-1])
    return float(opened), float(seconds)


def format_bench(speeds: BoardSpeeds) -> str:
    """Return the table; what was not measured says how it would be."""
    rows = []
    for line in LINES:
        found = getattr(speeds, line.key) is not None
        rows.append(line.text(speeds) if found else f"  {line.name:<28}needs: make setup-pynq")
    return "\n".join(
        ["boards, virtual, measured on this machine; floors are those of digits:", *rows]
    )


def bench(build: Build) -> None:
    """Measure and print."""
    require_current(["bundle"], build, verb="run")
    print(format_bench(measure(build)))
