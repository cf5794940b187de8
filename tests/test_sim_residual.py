# SPDX-License-Identifier: Apache-2.0
"""Sums, averages and joined maps in C++ and on the RTL, from random graphs and from PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch

from codegen.fuse import ADDING
from codegen.ir import INPUT, Add, Direct, GlobalAverage, Graph, MaxPool, TensorType, Winograd
from codegen.lower import lower_network
from codegen.schedule import Schedule, schedule
from quant.data import Samples
from quant.golden import golden_arrays
from quant.network.layer_graph import layer_graph
from sim import rtl
from tests.engines import (
    ENGINES,
    average_cases,
    concat_cases,
    projection_cases,
    residual_cases,
    residual_strip_cases,
)
from tests.ladder import random_images
from tests.test_codegen_lower import random_net, residual_net
from tests.test_sim_csim import climb
from tests.test_sim_rtl import ENGINES as RTL_ENGINES
from tests.test_sim_rtl import SLACK, STALLS, UNCOUNTED, VARIANTS, equal_run, harness
from winnow.blocking import Op
from winnow.compare import require_equal
from winnow.config import QuantizeConfig
from winnow.engine import EngineConfig

RESIDUALS_PER_ENGINE = 12
PROJECTIONS_PER_ENGINE = 8
AVERAGES_PER_ENGINE = 20
CONCATS_PER_ENGINE = 6
RESIDUALS, PROJECTIONS, AVERAGES, CONCATS = 8, 6, 8, 4  # on the RTL


# --- interpreter = C++ ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_random_residual_blocks_equal_the_interpreter(name: str) -> None:
    cases = residual_cases(ENGINES[name], RESIDUALS_PER_ENGINE)
    for seed, (graph, plan) in enumerate(cases):
        climb(name, graph, plan, random_images(graph, seed, 2))
    layers = [layer for _, plan in cases for layer in plan.layers]
    assert {layer.shape.op for layer in layers if not layer.values["no_add"]} == set(ADDING)
    assert any(layer.values["no_add"] for layer in layers)


@pytest.mark.parametrize("name", ENGINES)
def test_random_sums_of_direct_layers_equal_the_interpreter(name: str) -> None:
    cases = projection_cases(ENGINES[name], PROJECTIONS_PER_ENGINE)
    for seed, (graph, plan) in enumerate(cases):
        climb(name, graph, plan, random_images(graph, seed, 2))
    assert {plan.layers[-1].shape.gathers for _, plan in cases} == {True, False}


@pytest.mark.parametrize("name", ENGINES)
def test_random_averages_equal_the_interpreter(name: str) -> None:
    cases = average_cases(ENGINES[name], AVERAGES_PER_ENGINE)
    for seed, (graph, plan) in enumerate(cases):
        climb(name, graph, plan, random_images(graph, seed, 2))


@pytest.mark.parametrize("name", ENGINES)
def test_random_joined_maps_equal_the_interpreter(name: str) -> None:
    for seed, (graph, plan) in enumerate(concat_cases(ENGINES[name], CONCATS_PER_ENGINE)):
        climb(name, graph, plan, random_images(graph, seed, 2))


def test_averages_are_of_every_kind_of_map() -> None:
    """The seeds follow from the variant alone, so this sees the cases of the test above."""
    cases = [case for e in ENGINES.values() for case in average_cases(e, AVERAGES_PER_ENGINE)]
    sources = [
        (graph.nodes[-2:-1] or (INPUT,))[0] if node.name == "average" else node
        for graph, _ in cases
        for node in graph.nodes[-1:]
    ]
    assert {type(source) for source in sources} == {
        *(Winograd, Direct, MaxPool, Add, GlobalAverage, str)
    }
    plans = [plan.layers[-1] for _, plan in cases]
    assert {plan.source.tensor.signed for plan in plans} == {False, True}
    cuts = {
        tuple(min(3, int(plan.values[key])) for key in ("strips_down", "strips_across"))
        for plan in plans
    }
    assert cuts == set(product((1, 2, 3), (1, 2, 3)))
    assert 1 in {plan.shape.height * plan.shape.width for plan in plans}


@pytest.mark.parametrize("name", ["least", "strips", "large_tile_strips"])
def test_sums_in_strips_of_every_place_equal_the_interpreter(name: str) -> None:
    for seed, (graph, plan) in enumerate(residual_strip_cases(ENGINES[name])):
        climb(name, graph, plan, random_images(graph, seed, 2))


# --- interpreter = RTL ------------------------------------------------------------------------


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    ("cases", "count"),
    [
        (residual_cases, RESIDUALS),
        (projection_cases, PROJECTIONS),
        (average_cases, AVERAGES),
        (concat_cases, CONCATS),
    ],
)
def test_random_graphs_equal_the_interpreter_on_the_rtl(
    cases: Callable[[EngineConfig, int], list[tuple[Graph, Schedule]]],
    count: int,
    name: str,
    stall: int,
) -> None:
    """And what adds a map, or averages one, takes the modelled cycles."""
    for seed, (graph, plan) in enumerate(cases(RTL_ENGINES[name], count)):
        run = equal_run(name, graph, plan, stall=stall, seed=seed)
        for layer, cycles in zip(plan.layers, run.layer_cycles[0], strict=True):
            slack = SLACK + UNCOUNTED * (layer.shape.op is Op.DIRECT)
            assert stall or abs(cycles - layer.cycles.total) <= max(0.05 * cycles, slack)


@pytest.mark.parametrize("stall", STALLS)
def test_sums_in_strips_of_every_place_equal_the_interpreter_on_the_rtl(stall: int) -> None:
    for seed, (graph, plan) in enumerate(residual_strip_cases(RTL_ENGINES["small"])):
        equal_run("small", graph, plan, stall=stall, seed=seed)


@pytest.mark.parametrize("stall", STALLS)
def test_residual_network_from_pytorch_equals_brevitas(stall: int) -> None:
    """Three blocks, a global average and a classifier: every map that a layer writes."""
    entry = TensorType(1, 8, 8, 8, False, -8)
    net = residual_net(average=True)
    layers = layer_graph(net.graph)
    made = random_net(net, 2, QuantizeConfig(), dict.fromkeys(layers, 6), entry)
    images = torch.randint(0, 256, (2, *entry.shape), dtype=torch.uint8)
    golden = golden_arrays(made, Samples(images, torch.zeros(2, dtype=torch.int64)))
    graph = lower_network(made, entry)
    plan = schedule(graph, RTL_ENGINES["default"])
    run = rtl.run(harness("default"), plan, images.numpy().astype(np.int64), stall=stall)
    assert len(run.maps) == len(layers) + 1 == 10  # the average
    want = {f"layer.{name}": maps for name, maps in run.maps.items()}
    require_equal({name: golden[name].astype(np.int64) for name in want}, want)
