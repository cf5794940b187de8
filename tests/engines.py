# SPDX-License-Identifier: Apache-2.0
"""The engine variants that the ladder climbs, and their compiled C++.

Together they hold both tile sizes, every po, both pt, both port widths, and buffers so small that
maps fall into strips of several rows and columns. Compiled engines are cached by content under
build/.cache/tests.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from codegen.emit import emit_engine
from codegen.fuse import LayerMaps, fuse, written_maps
from codegen.interpret import interpret
from codegen.ir import Graph
from codegen.schedule import Schedule, schedule
from sim import csim
from tests.ladder import (
    multiplies,
    random_average_graph,
    random_chain_graph,
    random_concat_graph,
    random_deep_graph,
    random_direct_graph,
    random_layer_graph,
    random_map_graph,
    random_pool_graph,
    random_projection_graph,
    random_residual_graph,
    random_unrolled_graph,
)
from tests.ladder_grouped import random_grouped_graph
from winnow.config import TargetConfig
from winnow.engine import EngineConfig
from winnow.errors import ScheduleError
from winnow.fixed_point import IntArray

ENGINES = {
    "default": EngineConfig(),
    "large_tile": EngineConfig(m=4),
    "strips": EngineConfig(po=8, v_words=64, out_tiles=32, line_pixels=24, plane_pixels=100),
    "single": EngineConfig(po=1, pt=1),
    "wide_port": EngineConfig(po=2, pt=1, axi_bits=128, out_tiles=16),
    "large_tile_strips": EngineConfig(m=4, axi_bits=128, v_words=40, line_pixels=32),
    "large_tile_single": EngineConfig(m=4, po=8, pt=1, acc_bits=32, y_bits=48),
    "least": EngineConfig(
        v_words=16,
        w_words=16,
        out_tiles=16,
        line_pixels=16,
        plane_pixels=64,
        acc_bits=16,
        y_bits=32,
    ),
}
# Maps (height, width) that the engine "least" cuts into 1, 2 and 3 strips either way; after a pool
# nothing is left of the last strips of some, below, at the right and both.
STRIP_SIZES = ((2, 13), (2, 49), (3, 8), (4, 17), (4, 25), (3, 25), (13, 8), (13, 13), (5, 33))
CACHE = Path(__file__).parent.parent / "build" / ".cache" / "tests"


def shell_engine(script: str, folder: Path) -> Path:
    """Return a shell script in the place of an engine's binary; it may write its output to "$4"."""
    path = folder / "script"
    path.write_text(f'#!/bin/sh\n: > "$4"\n{script}\n')
    path.chmod(0o755)
    return path


@cache
def compiled(name: str) -> csim.Engine:
    """Return the compiled engine of a variant."""
    with tempfile.TemporaryDirectory() as folder:
        emit_engine(Path(folder), ENGINES[name], TargetConfig())
        return csim.build(Path(folder), CACHE)


def expected_maps(graph: Graph, images: IntArray) -> LayerMaps:
    """Return the interpreter's maps that an engine writes, by layer."""
    return written_maps(fuse(graph), interpret(graph, images))


def fitting(graph: Graph, engine: EngineConfig) -> Schedule | None:
    """Return the schedule of a graph; None when it is too large for the engine."""
    try:
        return schedule(graph, engine)
    except ScheduleError:
        return None


def layer_cases(name: str, count: int, first: int = 0) -> list[tuple[Graph, Schedule]]:
    """Return `count` random one-layer graphs that fit a variant, and their schedules."""
    engine = ENGINES[name]
    cases: list[tuple[Graph, Schedule]] = []
    seed = first + 10_000 * list(ENGINES).index(name)
    while len(cases) < count:
        graph = random_layer_graph(seed, engine.m)
        plan = fitting(graph, engine)
        if plan is not None:
            cases.append((graph, plan))
        seed += 1
    return cases


def direct_cases(engine: EngineConfig, count: int, first: int = 0) -> list[tuple[Graph, Schedule]]:
    """Return `count` random direct layers that fit an engine and gather their pixels."""
    cases: list[tuple[Graph, Schedule]] = []
    seed = first
    while len(cases) < count:
        graph = random_direct_graph(seed, engine.m)
        plan = fitting(graph, engine)
        if plan is not None and plan.layers[0].shape.gathers:
            cases.append((graph, plan))
        seed += 1
    return cases


def deep_cases(engine: EngineConfig, count: int) -> list[tuple[Graph, Schedule]]:
    """Return `count` random layers with tile groups of one tile that fit an engine of `pt` 2."""
    return _fitting_cases(lambda seed, m: random_deep_graph(seed, m, engine.v_words), engine, count)


def strip_cases(engine: EngineConfig) -> list[tuple[Graph, Schedule]]:
    """Return graphs of one layer for all STRIP_SIZES, without and with a pool."""
    cases = []
    for size in STRIP_SIZES:
        for pool in (False, True):
            graphs = (random_map_graph(seed, engine.m, size, pool=pool) for seed in range(100))
            plans = ((graph, fitting(graph, engine)) for graph in graphs)
            cases.append(next((graph, plan) for graph, plan in plans if plan is not None))
    return cases


def residual_cases(engine: EngineConfig, count: int) -> list[tuple[Graph, Schedule]]:
    """Return `count` graphs of residual blocks that fit an engine, and their schedules."""
    return _fitting_cases(random_residual_graph, engine, count)


def projection_cases(engine: EngineConfig, count: int) -> list[tuple[Graph, Schedule]]:
    """Return `count` graphs of a sum of two direct layers that fit an engine, and schedules."""
    return _fitting_cases(random_projection_graph, engine, count)


def average_cases(engine: EngineConfig, count: int) -> list[tuple[Graph, Schedule]]:
    """Return `count` graphs with an average at the end that fit an engine, and their schedules."""
    return _fitting_cases(random_average_graph, engine, count)


def pool_cases(engine: EngineConfig, count: int) -> list[tuple[Graph, Schedule]]:
    """Return `count` graphs of max pools standing alone that fit an engine, and their schedules."""
    cases = _fitting_cases(random_pool_graph, engine, 2 * count)
    alone = [case for case in cases if any(x.shape.maximum for x in case[1].layers)]
    return alone[:count]


def concat_cases(engine: EngineConfig, count: int) -> list[tuple[Graph, Schedule]]:
    """Return `count` graphs in which maps are joined that fit an engine, and their schedules."""
    return _fitting_cases(random_concat_graph, engine, count)


def unrolled_cases(engine: EngineConfig, count: int) -> list[tuple[Graph, Schedule]]:
    """Return `count` graphs of an unrolled first layer that fit an engine, and their schedules."""
    return _fitting_cases(random_unrolled_graph, engine, count)


def grouped_cases(engine: EngineConfig, count: int) -> list[tuple[Graph, Schedule]]:
    """Return `count` graphs of a convolution in groups that fit an engine, and their schedules."""
    return _fitting_cases(random_grouped_graph, engine, count)


def _fitting_cases(
    make: Callable[[int, int], Graph], engine: EngineConfig, count: int
) -> list[tuple[Graph, Schedule]]:
    cases: list[tuple[Graph, Schedule]] = []
    for seed in range(1000):
        graph = make(seed, engine.m)
        plan = fitting(graph, engine)
        if plan is not None:
            cases.append((graph, plan))
        if len(cases) == count:
            return cases
    raise AssertionError(f"only {len(cases)} of 1000 graphs of {make.__name__} fit {engine}")


def residual_strip_cases(engine: EngineConfig) -> list[tuple[Graph, Schedule]]:
    """Return graphs of residual blocks for all STRIP_SIZES."""
    cases = []
    for size in STRIP_SIZES:
        graphs = (random_residual_graph(seed, engine.m, size) for seed in range(200))
        plans = ((graph, fitting(graph, engine)) for graph in graphs)
        cases.append(next((graph, plan) for graph, plan in plans if plan is not None))
    return cases


def chain_case(seed: int, num_layers: int) -> Graph:
    """Return the first random chain for F(2,3) from `seed` on that has `num_layers` layers."""
    graph = random_chain_graph(seed, 2)
    while len(multiplies(graph)) != num_layers:
        seed += 1
        graph = random_chain_graph(seed, 2)
    return graph
