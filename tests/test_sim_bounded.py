# SPDX-License-Identifier: Apache-2.0
"""The C++ with channels exactly as deep as declared: no FIFO of the engine is too shallow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from codegen.emit import emit_engine
from codegen.ir import Graph
from codegen.schedule import Schedule
from sim import bounded, csim
from tests.engines import (
    CACHE,
    ENGINES,
    average_cases,
    concat_cases,
    deep_cases,
    direct_cases,
    expected_maps,
    fitting,
    grouped_cases,
    layer_cases,
    pool_cases,
    projection_cases,
    residual_cases,
    residual_strip_cases,
    strip_cases,
    unrolled_cases,
)
from tests.ladder import random_chain_graph, random_images
from winnow.compare import require_equal
from winnow.config import Config, TargetConfig
from winnow.errors import ArtefactError, MismatchError
from winnow.flow import Build

Case = tuple[Graph, Schedule]
SMALL = "least"  # the most strips, blocks and bursts for the words that go through


@cache
def engine(name: str) -> bounded.BoundedEngine:
    """Return the compiled engine of a variant."""
    with tempfile.TemporaryDirectory() as folder:
        emit_engine(Path(folder), ENGINES[name], TargetConfig())
        return bounded.compile_bounded(Path(folder), CACHE)


def chains(name: str, count: int) -> Iterator[Case]:
    """Yield random networks of several layers that fit an engine."""
    for seed in range(200):
        graph = random_chain_graph(seed, ENGINES[name].m)
        plan = fitting(graph, ENGINES[name])
        if plan is not None:
            yield graph, plan
            count -= 1
        if count == 0:
            return


def require_end(name: str, case: Case, seed: int, given: dict[str, str]) -> None:
    """Run a case to its end, equal to the interpreter."""
    graph, plan = case
    images = random_images(graph, seed, 1)
    require_equal(expected_maps(graph, images), csim.run(engine(name).engine, plan, images, given))


# --- rewriting the top ------------------------------------------------------------------------

TOP = """static void region(Stream<A>& config, Port<B> memory) {
#pragma HLS dataflow
  Stream<A> a, b[2];
#pragma HLS stream variable = b depth = 7
  Bank<Block> bank[3];

  first(config, a);
  first(a,
        b);
  lane(b[0], bank[0]);
  lane(b[1], bank[1]);
}
static void other() { region(x); }
"""


def test_a_top_gets_a_coroutine_per_process() -> None:
    assert bounded.bounded_top(TOP).splitlines()[1:] == [
        "static void region(Stream<A>& config, Port<B> memory) {",
        "  Stream<A> a, b[2];",
        '  bounded::set(a, "a", 2);',
        '  bounded::set(b, "b", 2);',
        '  bounded::set(b, "b", 7);',
        "  Bank<Block> bank[3];",
        '  bounded::set(bank, "bank", 2);',
        "",
        '  bounded::spawn("first(config)", {"config", "a"}, [&] { first(config, a); });',
        '  bounded::spawn("first(a)", {"a", "b"}, [&] { first(a,',
        "        b); });",
        '  bounded::spawn("lane[0]", {"b[0]", "bank[0]"}, [&] { lane(b[0], bank[0]); });',
        '  bounded::spawn("lane[1]", {"b[1]", "bank[1]"}, [&] { lane(b[1], bank[1]); });',
        "  bounded::run();",
        "}",
        "static void other() { region(x); }",
    ]
    assert bounded.declared_depths(TOP) == {"a": 2, "b": 7}


def test_depths_of_a_build_that_is_not_there_name_what_makes_it(tmp_path: Path) -> None:
    build = Build(Config(), tmp_path, config_path="configs/digits.toml")
    with pytest.raises(ArtefactError, match=r"stage 'train' must run first: .*winnow run "):
        bounded.depths(build)


def test_depths_are_printed() -> None:
    text = bounded.format_depths({"pixels": 16, "limits": 1}, {"pixels": 3, "limits": 1})
    assert text.splitlines()[1:] == [
        "  stream                declared   least",
        "  pixels                      16       3",
        "  1 more hold one word",
    ]


# --- the engine -------------------------------------------------------------------------------


@pytest.mark.parametrize("hold", bounded.HOLDS)
def test_small_cases_end_with_the_declared_depths(hold: int) -> None:
    """Maps over 8 rows high, 1 to 3 words wide among them, sums, averages, gathered pixels."""
    small = ENGINES[SMALL]
    cases = [*strip_cases(small), *layer_cases(SMALL, 12), *direct_cases(small, 6)]
    cases += [*residual_cases(small, 2), *average_cases(small, 2), *unrolled_cases(small, 6)]
    cases += grouped_cases(small, 4)
    results = [plan.layers[-1].result.tensor for _, plan in cases]
    assert any(x.height > 8 and x.width <= 3 for x in results)
    for seed, case in enumerate(cases):
        require_end(SMALL, case, seed, bounded.settings(hold))


@pytest.mark.parametrize("hold", bounded.HOLDS)
def test_deep_layers_end_with_the_declared_depths(hold: int) -> None:
    """One tile per group, so that few sums wait between the lanes and `finish` for many biases."""
    for seed, case in enumerate(deep_cases(ENGINES[SMALL], 10)):
        require_end(SMALL, case, seed, bounded.settings(hold))


@pytest.mark.slow
@pytest.mark.parametrize("hold", [*bounded.HOLDS, 2, 4, 16, 32])
@pytest.mark.parametrize("name", ENGINES)
def test_all_cases_end_with_the_declared_depths(name: str, hold: int) -> None:
    variant = ENGINES[name]
    cases = [*layer_cases(name, 80), *direct_cases(variant, 40), *chains(name, 6)]
    if name in ("least", "strips", "large_tile_strips"):
        cases += [*strip_cases(variant), *residual_strip_cases(variant)]
    if name in ("default", "strips"):
        cases += [*residual_cases(variant, 12), *projection_cases(variant, 6)]
        cases += [*average_cases(variant, 12), *concat_cases(variant, 6), *pool_cases(variant, 12)]
        cases += [*unrolled_cases(variant, 12), *grouped_cases(variant, 12)]
    for seed, case in enumerate(cases):
        require_end(name, case, seed, bounded.settings(hold))


def test_a_stream_without_room_names_who_waits_for_whom() -> None:
    (case,) = layer_cases(SMALL, 1)
    with pytest.raises(MismatchError) as caught:
        require_end(SMALL, case, 0, bounded.settings(0, "header", 7))
    assert str(caught.value) == (
        "csim stopped with code 4: deadlock: 'control' waits for space in stream 'header'"
    )


def test_a_stream_that_is_too_shallow_is_named_with_its_ring() -> None:
    """Rows wait while bursts are requested ahead of them."""
    case = strip_cases(ENGINES[SMALL])[-4]
    with pytest.raises(MismatchError) as caught:
        require_end(SMALL, case, 0, bounded.settings(0, "read_rows", 2))
    assert str(caught.value) == (
        "csim stopped with code 4: deadlock: 'plan_rows(plan_reads_config)' waits for space in "
        "stream 'read_rows'; 'read_features' waits for data on stream 'reads'"
    )


@pytest.mark.slow
def test_no_stream_is_declared_shallower_than_it_must_be() -> None:
    case = next(chains(SMALL, 1))
    depths = engine(SMALL).depths
    least = bounded.least_depths(depths, lambda given: require_end(SMALL, case, 0, given))
    assert least.keys() == depths.keys()
    assert all(1 <= least[name] <= depths[name] for name in depths)
    assert (least["header"], least["descriptor"]) == (8, 32)  # written whole before they are read
    assert least["read_rows"] > 1
