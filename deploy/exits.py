# SPDX-License-Identifier: Apache-2.0
"""A network with early exits as a board gets it, checked on a virtual board.

exits/ of a build, golden images -> bundle_exits/: a bundle whose network runs in parts
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codegen.fuse import fuse, written_maps
from codegen.golden import Golden
from codegen.interpret import interpret
from codegen.split import join_maps
from deploy.bundle import write_bundle
from deploy.driver.winnow_pynq import Engine, Network
from deploy.stages.bundle import SIMULATED_SECONDS
from deploy.virtual_board import virtual_board
from sim import rtl
from sim.exits import Exits
from winnow.compare import require_equal
from winnow.errors import MismatchError
from winnow.flow import Build

FOLDER = "bundle_exits"  # in a build
IMAGES = 16  # that leave on the virtual board


def write_exits(build: Build, made: Exits) -> Path:
    """Write the bundle of a network with its exits; return its folder."""
    graph, golden = made.graph, made.golden.first(IMAGES)
    maps = written_maps(fuse(graph), interpret(graph, golden.images))
    every = Golden(golden.images, golden.labels, maps)
    folder, name = build.out / FOLDER, build.out.name
    constant = int(golden.images[0, -1, 0, 0]) if build.config.data.has_constant else None
    write_bundle(folder, build.out / "exits", every, name=name, constant=constant)
    return folder


def check_exits(build: Build, made: Exits, folder: Path) -> int:
    """Let test images leave on a virtual board; return how many integers were compared.

    All maps must be the interpreter's, and every image must leave where it leaves on the compiled
    C++, with the same results; MismatchError if not.
    """
    images = made.golden.images[:IMAGES]
    harness = rtl.build(build.rtl, build.config.engine, build.cache / "rtl")
    with (
        virtual_board(harness, build.rtl) as board,
        Engine(board) as engine,
        engine.load(folder, timeout_s=SIMULATED_SECONDS) as network,
    ):
        return compare_early(network, made, len(images))


def compare_early(network: Network, made: Exits, count: int) -> int:
    """Compare the first images on a network as `check_exits` does."""
    images, left = made.golden.images[:count], made.left
    _, scores, exits = network.classify_early(images.astype(network.bundle.input.dtype))
    wrong = np.flatnonzero(exits != left.parts[:count] - 1)
    if len(wrong):
        names, i = network.exit_names, wrong[0]
        raise MismatchError(
            f"image {i} leaves at '{names[exits[i]]}' on the board, at "
            f"'{names[left.parts[i] - 1]}' on the C++"
        )
    ends = [part.result.tensor.exponent for part in made.programs.parts]
    expected = left.results[:count] * 2.0 ** np.array(ends)[exits][:, None]
    require_equal({"results": expected[:, :, None, None]}, {"results": scores[:, :, None, None]})
    found = join_maps({n: maps.astype(np.int64) for n, maps in network.maps(images).items()})
    require_equal(written_maps(fuse(made.graph), interpret(made.graph, images)), found)
    return scores.size + sum(maps.size for maps in found.values())
