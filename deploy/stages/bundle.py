# SPDX-License-Identifier: Apache-2.0
"""Write what a board gets, and run the driver on it against the RTL: it must equal Brevitas.

rtl/, hls/data, golden.npz -> bundle/ (and driver on a virtual board = golden, bit for bit)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from codegen.fuse import LayerMaps
from codegen.golden import load_golden, require_golden
from deploy.bundle import IMAGES, write_bundle
from deploy.driver.winnow_pynq import Engine
from deploy.virtual_board import virtual_board
from sim import rtl
from winnow.fixed_point import IntArray
from winnow.flow import Build, Result
from winnow.progress import waiting

SIMULATED_SECONDS = 3600.0  # for an image: the simulator's speed says nothing about the engine's


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Load the bundle into a virtual board and compare every layer of its golden images."""
    golden = load_golden(build).first(IMAGES)
    folder = build.out / "bundle"
    # `data.mean` gives images a last channel of one value; the driver adds it to a user's.
    constant = int(golden.images[0, -1, 0, 0]) if build.config.data.has_constant else None
    data, name = build.hls / "data", build.out.name
    files = write_bundle(folder, data, golden, name=name, constant=constant)
    harness = rtl.build(build.rtl, build.config.engine, build.cache / "rtl")
    maps, seconds = drive(harness, build.rtl, folder, golden.images)
    values = require_golden(maps, golden)
    numbers = {
        "values": values,
        "images": len(golden.images),
        "seconds_per_image": round(seconds / len(golden.images), 3),
        "bytes": sum(path.stat().st_size for path in files),
    }
    return Result(files, f"driver on a virtual board = Brevitas on {values} values", numbers)


def drive(
    harness: rtl.Harness, folder: Path, bundle: Path, images: IntArray
) -> tuple[LayerMaps, float]:
    """Return all maps of images by the driver on a board of an RTL folder, and the seconds."""
    with (
        virtual_board(harness, folder) as board,
        Engine(board) as engine,
        engine.load(bundle, timeout_s=SIMULATED_SECONDS) as network,
    ):
        started = time.monotonic()
        with waiting("driver on a virtual board"):
            maps = network.maps(images)
        seconds = time.monotonic() - started
    return {name: found.astype(np.int64) for name, found in maps.items()}, seconds
