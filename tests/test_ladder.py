# SPDX-License-Identifier: Apache-2.0
"""The ladder's case list really holds what it promises."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from codegen.bounds import worst_case_sums
from codegen.check import check_graph
from codegen.graph_text import format_graph
from codegen.interpret import interpret
from codegen.ir import INPUT, Add, Dense, Direct, Graph, MaxPool, Multiply, Winograd
from tests.ladder import (
    ACCUMULATOR_LIMIT,
    SUM_LIMIT,
    change_node,
    multiplies,
    random_chain_graph,
    random_images,
    random_layer_graph,
    random_residual_graph,
)
from winnow.fixed_point import int_range
from winnow.winograd import winograd

SEEDS = range(300)


@pytest.fixture(scope="module", params=[2, 4])
def graphs(request: pytest.FixtureRequest) -> list[Graph]:
    return [random_layer_graph(seed, request.param) for seed in SEEDS]


@dataclass(frozen=True)
class Case:
    graph: Graph
    layer: Multiply


def of(graphs: list[Graph], op: type[Multiply]) -> list[Case]:
    cases = [Case(graph, multiplies(graph)[0]) for graph in graphs]
    return [case for case in cases if isinstance(case.layer, op)]


def tile(layer: Multiply) -> int | None:
    return layer.m if isinstance(layer, Winograd) else None


def test_a_case_follows_from_its_seed() -> None:
    for make in (random_layer_graph, random_chain_graph):
        assert format_graph(make(7, 2)) == format_graph(make(7, 2))
        assert len({format_graph(make(seed, m)) for seed in range(50) for m in (2, 4)}) == 100
    graph = random_layer_graph(0, 2)
    assert np.array_equal(random_images(graph, 1, 3), random_images(graph, 1, 3))
    assert not np.array_equal(random_images(graph, 1, 3), random_images(graph, 2, 3))


@pytest.mark.parametrize("m", [2, 4])
def test_every_graph_keeps_the_rules_and_limits(m: int) -> None:
    for make in (random_layer_graph, random_chain_graph, random_residual_graph):
        for seed in SEEDS:
            graph = make(seed, m)
            check_graph(graph)
            for layer in multiplies(graph):
                total, accumulator = worst_case_sums(layer)
                assert total < SUM_LIMIT
                assert accumulator < ACCUMULATOR_LIMIT


def test_ops_are_mixed(graphs: list[Graph]) -> None:
    assert len(of(graphs, Winograd)) > 180
    assert {tile(case.layer) for case in of(graphs, Winograd)} <= {2, 4}
    assert 30 <= len(of(graphs, Direct)) <= 60
    dense = of(graphs, Dense)
    assert 30 <= len(dense) <= 60
    assert 10 <= sum(case.layer.output.is_raw for case in dense) <= 40
    assert {case.graph.input.height for case in dense} == set(range(1, 7))


def test_every_width_and_keep_occurs(graphs: list[Graph]) -> None:
    layers = [multiplies(graph)[0] for graph in graphs]
    assert {layer.keep for layer in layers} == set(range(1, 9))
    assert {layer.weight_bits for layer in layers} == set(range(2, 9))
    assert {layer.v_bits for layer in layers} == set(range(2, 9))
    kinds = {(graph.input.bits, graph.input.signed) for graph in graphs}
    assert kinds == {(bits, signed) for bits in range(2, 9) for signed in (False, True)}
    types = [layer.output for layer in layers if not layer.output.is_raw]
    assert {(output.bits, output.signed) for output in types} == kinds
    assert {len(graph.nodes) for graph in graphs} == {1, 2}
    assert all(isinstance(node, MaxPool) for graph in graphs for node in graph.nodes[1:])


def test_shapes_vary(graphs: list[Graph]) -> None:
    cases = of(graphs, Winograd)
    sizes = {(case.graph.input.height, case.graph.input.width) for case in cases}
    assert any(min(size) == 1 for size in sizes)
    assert 34 in {edge for size in sizes for edge in size}
    m = tile(cases[0].layer)
    assert m is not None
    assert {edge % m for size in sizes for edge in size} == set(range(m))
    pooled = [case.graph.input for case in cases if len(case.graph.nodes) == 2]
    assert any(kind.height % 2 and kind.width % 2 for kind in pooled)
    channels = {graph.input.channels for graph in graphs}
    assert {1, 40} <= channels
    assert {value % 8 for value in channels} == set(range(8))
    assert {graph.nodes[0].output.channels % 8 for graph in graphs} == set(range(8))


def test_exponents_spread_over_the_taps(graphs: list[Graph]) -> None:
    cases = of(graphs, Winograd)
    assert {int(np.ptp(case.layer.weight_exponent)) for case in cases} >= {0, 1, 2, 3, 4, 5}
    assert {int(np.ptp(case.layer.v_exponent)) for case in cases} >= {0, 1, 2}
    shifts = {case.layer.output.exponent - case.layer.acc_exponent for case in cases}
    assert 0 in {x.output.exponent - x.acc_exponent for graph in graphs for x in multiplies(graph)}
    assert max(shifts) >= 15
    slack = {
        int((case.layer.v_exponent + case.layer.weight_exponent).min()) - case.layer.acc_exponent
        for case in cases
    }
    assert slack >= {0, 1, 2}


def test_bias_takes_both_signs(graphs: list[Graph]) -> None:
    assert sum(bool((multiplies(graph)[0].bias < 0).any()) for graph in graphs) > 200
    assert sum(bool((multiplies(graph)[0].bias > 0).any()) for graph in graphs) > 200


def test_outputs_use_their_range_and_sometimes_saturate(graphs: list[Graph]) -> None:
    num_used = num_saturated = num_free = 0
    for seed, graph in enumerate(graphs):
        layer = graph.nodes[-1]
        if layer.output.is_raw:
            continue
        out = interpret(graph, random_images(graph, seed, 2))[layer.name]
        low, high = layer.output.bounds
        saturated = float(((out == low) | (out == high)).mean())
        num_saturated += saturated > 0
        num_free += saturated < 0.5
        num_used += np.ptp(out) > (high - low) / 2
    assert num_used > 200
    assert num_saturated > 150
    assert num_free > 120


def test_operands_meet_ties_and_saturate(graphs: list[Graph]) -> None:
    num_ties = num_saturated = 0
    for seed, case in enumerate(of(graphs, Direct)):
        shift = int(case.layer.v_exponent[0]) - case.graph.input.exponent
        images = random_images(case.graph, seed, 1)
        num_ties += shift > 0 and bool((images % (1 << shift) == 1 << shift >> 1).any())
        _, vmax = int_range(case.layer.v_bits, signed=True, narrow=True)
        num_saturated += bool((np.abs(images) >> shift > vmax).any())
    assert num_ties > 5
    assert num_saturated > 3


def test_outputs_meet_ties(graphs: list[Graph]) -> None:
    num_ties = 0
    for seed, case in enumerate(of(graphs, Dense)):
        layer, e = case.layer, case.layer.acc_exponent
        shift = 0 if layer.output.is_raw else layer.output.exponent - e
        accumulator = replace(layer.output, bits=32, signed=True, exponent=e)
        shown = change_node(case.graph, 0, output=accumulator)
        y = interpret(shown, random_images(shown, seed, 4))[layer.name]
        num_ties += shift > 0 and bool((y % (1 << shift) == 1 << shift >> 1).any())
    assert num_ties > 3


def test_images_cover_the_input(graphs: list[Graph]) -> None:
    graph = next(graph for graph in graphs if graph.input.shape > (4, 4, 4))
    images = random_images(graph, 0, 60)
    low, high = graph.input.bounds
    assert images.shape == (60, *graph.input.shape)
    assert (images.min(), images.max()) == (low, high)
    assert any(image.min() == image.max() for image in images)
    assert any(set(np.unique(image)) == {low, high} for image in images)


@pytest.mark.parametrize("m", [2, 4])
def test_chains_mix_ops_pools_and_sources(m: int) -> None:
    chains = [random_chain_graph(seed, m) for seed in range(100)]
    assert {len(multiplies(graph)) for graph in chains} == {2, 3, 4}
    for graph in chains:
        assert isinstance(graph.nodes[1], MaxPool)
        assert graph.nodes[1].inputs == (graph.nodes[0].name,)
        assert graph.nodes[-1].output.is_raw
        assert all(tile(layer) in (None, m) for layer in multiplies(graph))
    ops = [tuple(type(layer) for layer in multiplies(graph)) for graph in chains]
    assert (Winograd, Direct, Winograd, Dense) in ops
    assert (Winograd, Winograd, Direct, Dense) in ops
    assert winograd(m).m == m
    assert any(node.inputs == ("input",) for graph in chains for node in graph.nodes[1:])


@pytest.mark.parametrize("m", [2, 4])
def test_sums_round_saturate_and_come_in_every_form(m: int) -> None:
    graphs = [random_residual_graph(seed, m) for seed in range(150)]
    saturated, ties, forms, signs = 0, 0, set(), set()
    for seed, graph in enumerate(graphs):
        images = random_images(graph, seed, 2)
        maps = {INPUT: images, **interpret(graph, images)}
        makers = {node.name: type(node) for node in graph.nodes}
        for node in (node for node in graph.nodes if isinstance(node, Add)):
            a, b = (graph.type_of(name) for name in node.inputs)
            e = min(a.exponent, b.exponent)
            aligned = (maps[node.inputs[0]] << a.exponent - e) + (
                maps[node.inputs[1]] << b.exponent - e
            )
            shift = node.output.exponent - e
            ties += shift > 0 and bool((aligned % (1 << shift) == 1 << shift >> 1).any())
            out, bounds = maps[node.name], node.output.bounds
            saturated += bool(np.isin(out, bounds).mean() > 0.02)
            forms.add(tuple(makers.get(name) for name in node.inputs))
            signs.add(node.output.signed)
    assert ties > 40
    assert saturated > 40
    shortcuts, convolutions = (None, Add), (Winograd, Direct)
    pairs = {(a, b) for a in shortcuts for b in convolutions}
    assert forms == pairs | {(b, a) for a, b in pairs}
    assert signs == {False, True}
    assert {len(multiplies(graph)) for graph in graphs} >= {1, 2, 3, 4, 5}
