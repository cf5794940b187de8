# SPDX-License-Identifier: Apache-2.0
"""The same C++ with AMD's own headers: the second witness of host simulation.

Their numbers and streams come with the hls4ml wheel. All of their headers, ports and banks
included, are public (Xilinx/hls-utilities on GitHub, Apache-2.0, `simulation_headers/include`) and
part of every Vitis installation; their folder is named by WINNOW_AMD_HEADERS.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from codegen.emit import emit_engine
from codegen.ir import Graph
from codegen.schedule import Schedule, schedule
from sim import csim
from tests.engines import (
    CACHE,
    ENGINES,
    average_cases,
    chain_case,
    compiled,
    direct_cases,
    expected_maps,
    layer_cases,
    pool_cases,
    residual_cases,
    strip_cases,
)
from tests.ladder import random_images
from winnow.compare import require_equal
from winnow.config import TargetConfig
from winnow.process import run

HEADERS = os.environ.get("WINNOW_AMD_HEADERS", "")
NAME = "default"


@cache
def witness(name: str) -> csim.Engine:
    """Return an engine variant whose numbers and streams are AMD's."""
    with tempfile.TemporaryDirectory() as folder:
        emit_engine(Path(folder), ENGINES[name], TargetConfig())
        return csim.build(Path(folder), CACHE, amd=True)


def cases(name: str) -> Iterator[tuple[Graph, Schedule]]:
    """Yield graphs of every kind that fit a variant, and their schedules."""
    engine = ENGINES[name]
    yield from layer_cases(name, 24)
    yield from direct_cases(engine, 12)
    yield from strip_cases(engine)[:6]
    yield from residual_cases(engine, 3)
    yield from pool_cases(engine, 2)
    yield from average_cases(engine, 2)


def require_witness(name: str) -> None:
    """Compare all maps of all cases: with AMD's headers, with ours, and the interpreter's."""
    for seed, (graph, plan) in enumerate(cases(name)):
        images = random_images(graph, seed, 2)
        expected = expected_maps(graph, images)
        require_equal(expected, csim.run(witness(name), plan, images))
        require_equal(expected, csim.run(compiled(name), plan, images))


def test_numbers_of_amd_give_the_same_maps() -> None:
    require_witness(NAME)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ENGINES if name != NAME])
def test_numbers_of_amd_give_the_same_maps_on_every_engine(name: str) -> None:
    require_witness(name)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> csim.Engine:
    """Return an engine of which only the project's own headers are ours."""
    if not HEADERS:
        pytest.skip("WINNOW_AMD_HEADERS names no folder of AMD's headers")
    missing = [
        name for name in ("hls_burst_maxi.h", "ap_int.h") if not (Path(HEADERS) / name).is_file()
    ]
    assert missing == [], f"WINNOW_AMD_HEADERS: '{HEADERS}' has no {', '.join(missing)}"
    folder = tmp_path_factory.mktemp("amd")
    emit_engine(folder, ENGINES[NAME], TargetConfig())
    for name in ("hls_burst_maxi.h", "hls_streamofblocks.h"):
        (folder / "host" / name).unlink()
    binary = folder / "csim"
    command = ["g++", "-std=c++14", "-O1", "-Wno-unknown-pragmas", "-Wno-unused-label"]
    command += ["-DHLS_NO_XIL_FPO_LIB"]  # floats of AMD want gmp and mpfr
    command += ["-I", str(folder / "include"), "-isystem", HEADERS, "-o", str(binary)]
    command += [str(folder / "src" / "top.cpp"), str(folder / "host" / "csim_main.cpp"), "-pthread"]
    result = run(command)
    assert result.code == 0, result.stdout + result.stderr
    return csim.Engine(binary)


def test_a_chain_equals_the_interpreter(engine: csim.Engine) -> None:
    graph = chain_case(3, 3)
    plan, images = schedule(graph, ENGINES[NAME]), random_images(graph, 1, 2)
    require_equal(expected_maps(graph, images), csim.run(engine, plan, images))


def test_residual_blocks_equal_the_interpreter(engine: csim.Engine) -> None:
    for seed, (graph, plan) in enumerate(residual_cases(ENGINES[NAME], 3)):
        images = random_images(graph, seed, 1)
        require_equal(expected_maps(graph, images), csim.run(engine, plan, images))
