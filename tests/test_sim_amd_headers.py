# SPDX-License-Identifier: Apache-2.0
"""The test bench and the engine compiled with AMD's own headers, all of them.

They are public (Xilinx/hls-utilities on GitHub, Apache-2.0, `simulation_headers/include`) and part
of every Vitis installation; their folder is named by WINNOW_AMD_HEADERS.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codegen.emit import emit_engine
from codegen.schedule import schedule
from sim import csim
from tests.engines import ENGINES, chain_case, expected_maps, residual_cases
from tests.ladder import random_images
from winnow.compare import require_equal
from winnow.config import TargetConfig
from winnow.process import run

HEADERS = os.environ.get("WINNOW_AMD_HEADERS", "")
NAME = "default"


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
