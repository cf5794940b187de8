# SPDX-License-Identifier: Apache-2.0
"""Early exits on the engine: parts of a program, started one after another, are exact everywhere.

Every part reads the map that the one before it left in memory, and the maps of parts that did not
run stay untouched.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from codegen.exit_programs import ExitPrograms, exit_programs, with_exits
from codegen.ir import Graph
from codegen.lower import lower_exits
from codegen.schedule import schedule
from quant.build import Build, new_network
from quant.integer_exits import with_integer_heads
from quant.rehearsal import rehearse
from sim import csim, early_exit
from tests.engines import compiled, expected_maps
from tests.test_sim_rtl import harness
from winnow.compare import require_equal
from winnow.confidence import confidence
from winnow.config import Config, ModelConfig
from winnow.errors import MismatchError, ScheduleError
from winnow.fixed_point import IntArray

NEVER = 2.0  # a threshold that no confidence reaches
MODELS = {
    "pool": ModelConfig(channels=(8, 8, 16), pool_after=(2,), exit_after=(1, 2)),
    "average": ModelConfig(
        channels=(8, 8, 16), pool_after=(2,), exit_after=(1, 2), exit_head="average"
    ),
    "residual": ModelConfig(name="resnet8", width=0.5, exit_after=(1, 2)),
}


@cache
def lowered(name: str) -> tuple[Graph, dict[str, Graph]]:
    """The integer graphs of an untrained network, and of its exits."""
    build = Build(Config(model=MODELS[name]), Path("none"), torch.device("cpu"))
    torch.manual_seed(0)
    trained = new_network(build).eval()
    net = with_integer_heads(build, trained, rehearse(build).double().eval())
    return lower_exits(net)


@cache
def programs(name: str) -> ExitPrograms:
    return exit_programs(*lowered(name), Config().engine)


def images_of(seed: int, count: int = 2) -> IntArray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 16, 16))


def require_parts(name: str, start: early_exit.Start, images: IntArray) -> None:
    """Run images to the end; whatever the parts left must be what the interpreter computes."""
    made, graph = programs(name), with_exits(*lowered(name))
    expected = expected_maps(graph, images)
    left = early_exit.run(start, made, images, NEVER)
    assert left.parts.tolist() == [len(made.parts)] * len(images)
    require_equal(expected, csim.layer_maps(made.whole, left.memory))
    last = expected[made.whole.layers[-1].name]
    np.testing.assert_array_equal(left.results, last.reshape(len(images), -1))


@pytest.mark.parametrize("name", MODELS)
def test_parts_in_a_row_are_the_whole_network(name: str) -> None:
    require_parts(name, early_exit.on_csim(compiled("default")), images_of(0))


def test_parts_in_a_row_are_the_whole_network_on_the_rtl() -> None:
    require_parts("pool", early_exit.on_rtl(harness("default"), stall=30), images_of(0))


def test_images_that_leave_have_run_no_more_than_their_part() -> None:
    made, images = programs("pool"), images_of(3)
    expected = expected_maps(with_exits(*lowered("pool")), images)
    left = early_exit.run(early_exit.on_csim(compiled("default")), made, images, 0.0)
    assert left.parts.tolist() == [1, 1]
    maps = csim.layer_maps(made.whole, left.memory)
    ran = [plan.name for plan in made.parts[0].layers]
    require_equal({n: expected[n] for n in ran}, {n: maps[n] for n in ran})
    np.testing.assert_array_equal(left.results, expected[ran[-1]].reshape(2, -1))
    for plan in (plan for part in made.parts[1:] for plan in part.layers):
        first = plan.result.base * 8
        assert (left.memory[:, first : first + plan.result.words * 8] == csim.GAP).all()


def test_the_first_sure_exit_is_where_an_image_leaves() -> None:
    made, images = programs("pool"), images_of(4, 6)
    start = early_exit.on_csim(compiled("default"))
    memory = early_exit.run(start, made, images, NEVER).memory
    sure = np.array(
        [
            confidence(early_exit.results_of(p, memory), p.result.tensor.exponent)
            for p in made.parts[:-1]
        ]
    )
    threshold = float(np.median(sure[0]))
    want = np.where(sure[0] >= threshold, 1, np.where(sure[1] >= threshold, 2, 3))
    assert len(set(want)) > 1
    left = early_exit.run(start, made, images, threshold)
    np.testing.assert_array_equal(left.parts, want)
    for number, part in enumerate(made.parts, start=1):
        here = left.parts == number
        results = early_exit.results_of(part, memory)
        np.testing.assert_array_equal(left.results[here], results[here])


@pytest.mark.parametrize("name", MODELS)
def test_parts_hold_every_layer_once_and_cost_what_their_layers_do(name: str) -> None:
    made = programs(name)
    assert [part.name for part in made.parts[:-1]] == list(lowered(name)[1])
    names = [plan.name for part in made.parts for plan in part.layers]
    assert names == [plan.name for plan in made.whole.layers]
    assert sum(part.cycles for part in made.parts) == made.whole.total_cycles
    alone = schedule(lowered(name)[0], Config().engine)
    assert {plan.name for plan in alone.layers} < set(names)


def test_a_part_that_fails_names_its_layer() -> None:
    made = programs("pool")
    part = made.parts[1]
    words = part.program.copy()
    words[-1] ^= np.uint64(1)  # the checksum of the last descriptor
    broken = replace(made, parts=(made.parts[0], replace(part, program=words)))
    start = early_exit.on_csim(compiled("default"))
    with pytest.raises(MismatchError, match="the engine stopped at layer 'exits_conv2_fc'"):
        early_exit.run(start, broken, images_of(0), NEVER)


@pytest.mark.parametrize("member", ["weight", "bias", "v_exponent", "acc_exponent", "weight_bits"])
def test_exits_of_another_network_are_refused(member: str) -> None:
    network, exits = lowered("pool")
    first = network.nodes[0]
    other = replace(first, **{member: getattr(first, member) + 1})
    graphs = {name: Graph(g.input, (other, *g.nodes[1:])) for name, g in exits.items()}
    with pytest.raises(ScheduleError, match=r"^node 'conv1': the network and its exits must have"):
        exit_programs(network, graphs, Config().engine)
