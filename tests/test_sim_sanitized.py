# SPDX-License-Identifier: Apache-2.0
"""The engine's C++ under g++'s sanitizers: nothing undefined, no access beyond an object.

Whatever C++ leaves undefined, g++, a synthesis tool and openhls may read differently.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest

from codegen.emit import emit_engine
from sim import csim
from tests.engines import (
    CACHE,
    ENGINES,
    average_cases,
    direct_cases,
    expected_maps,
    fitting,
    layer_cases,
    pool_cases,
    residual_cases,
    strip_cases,
)
from tests.ladder import random_chain_graph, random_images
from tests.test_sim_safety import BAD_ENDS, make_network, place, random_fields
from winnow.compare import require_equal
from winnow.config import TargetConfig
from winnow.errors import MismatchError

FLAGS = ("-g1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
NAMES = ("default", "least", "large_tile_single")
RANDOM_SETS = 100


@cache
def sanitized(name: str) -> csim.Engine:
    """Return the engine of a variant, which ends at the first thing that is undefined."""
    with tempfile.TemporaryDirectory() as folder:
        emit_engine(Path(folder), ENGINES[name], TargetConfig())
        return csim.build(Path(folder), CACHE, flags=FLAGS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_random_networks_do_nothing_undefined(name: str) -> None:
    variant = ENGINES[name]
    cases = [*layer_cases(name, 40), *direct_cases(variant, 20), *pool_cases(variant, 6)]
    cases += [*residual_cases(variant, 6), *average_cases(variant, 6)]
    cases += strip_cases(variant) if name == "least" else []
    chains = [random_chain_graph(seed, variant.m) for seed in range(20)]
    cases += [(graph, plan) for graph in chains if (plan := fitting(graph, variant)) is not None]
    for seed, (graph, plan) in enumerate(cases):
        images = random_images(graph, seed, 1)
        require_equal(expected_maps(graph, images), csim.run(sanitized(name), plan, images))


@pytest.mark.slow
def test_programs_that_lie_do_nothing_undefined(tmp_path: Path) -> None:
    network, binary = make_network(ENGINES["default"], tmp_path), sanitized("default").binary
    for seed in range(RANDOM_SETS):
        words = network.words
        layer, words[place(layer)] = random_fields(network.plan, seed)
        end = network.verdict(network.command(binary, words))
        assert end not in BAD_ENDS, f"seed {seed}: {end}"


@pytest.mark.slow
def test_sanitizers_see_what_is_undefined(tmp_path: Path) -> None:
    """The test above can fail: a shift by more than a number has bits ends the run."""
    emit_engine(tmp_path, ENGINES["least"], TargetConfig())
    main = tmp_path / "host" / "csim_main.cpp"
    text = main.read_text()
    start = text.index("{", text.index("int main(")) + 1
    shifted = "volatile int places = 40; if ((1 << places) == 7) return 9;"
    main.write_text(text[:start] + shifted + text[start:])
    engine = csim.build(tmp_path, tmp_path / "cache", flags=FLAGS)
    graph, plan = layer_cases("least", 1)[0]
    with pytest.raises(MismatchError, match=r"^csim stopped with code "):
        csim.run(engine, plan, random_images(graph, 0, 1))
