# SPDX-License-Identifier: Apache-2.0
"""Several images per start: the same maps as one by one, in memory of their own, and no others'.

Programs whose number or distance of images lies end within the memory that the host allows.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from codegen import abi
from codegen.abi import Status
from codegen.emit import emit_data
from codegen.ir import Graph
from codegen.program import program_words
from codegen.schedule import Schedule, schedule
from sim import csim, rtl
from tests.engines import chain_case, compiled, expected_maps, fitting
from tests.ladder import random_chain_graph, random_images
from tests.test_sim_rtl import ENGINES, harness
from winnow.compare import require_equal

COUNT = abi.HEADER_WORDS - 2  # the word of number and distance of images
ENGINE = ENGINES["default"]
LEAST_CHAINS, LIES, RTL_LIES = 6, 200, 20
WATCHDOG = 20_000  # cycles


def fitting_chains(name: str, count: int) -> list[tuple[int, Graph, Schedule]]:
    found, seed = [], 0
    while len(found) < count:
        graph = random_chain_graph(seed, ENGINES[name].m)
        plan = fitting(graph, ENGINES[name])
        if plan is not None:
            found.append((seed, graph, plan))
        seed += 1
    return found


# --- equal to one by one ------------------------------------------------------------------------


@pytest.mark.parametrize("per_start", [1, 2, 6])
def test_cpp_gives_every_image_its_maps(per_start: int) -> None:
    for seed, graph, plan in fitting_chains("default", LEAST_CHAINS):
        images = random_images(graph, seed, 6)
        found = csim.run(compiled("default"), plan, images, per_start=per_start)
        require_equal(expected_maps(graph, images), found)


@pytest.mark.parametrize("stall", [0, 30])
@pytest.mark.parametrize("name", ["default", "small"])
def test_rtl_gives_every_image_its_maps(name: str, stall: int) -> None:
    for seed, graph, plan in fitting_chains(name, 2):
        images = random_images(graph, seed, 6)
        run = rtl.run(harness(name), plan, images, stall=stall, seed=seed, per_start=3)
        require_equal(expected_maps(graph, images), run.maps)
        assert [len(cycles) for cycles in run.layer_cycles] == [3 * len(plan.layers)] * 2
        assert len(run.counted) == 2


def test_64_images_take_64_times_the_cycles_of_one() -> None:
    graph = chain_case(0, 4)
    plan = schedule(graph, ENGINE)
    images = random_images(graph, 0, 64)
    one = rtl.run(harness("default"), plan, images[:1]).counted[0]
    run = rtl.run(harness("default"), plan, images, per_start=64)
    require_equal(expected_maps(graph, images), run.maps)
    assert run.counted[0] <= 1.05 * 64 * one
    assert run.counted[0] >= 0.95 * 64 * one


def test_most_images_that_a_start_can_run() -> None:
    graph = chain_case(0, 4)
    plan = schedule(graph, ENGINE)
    images = random_images(graph, 0, abi.MAX_IMAGES)
    found = csim.run(compiled("default"), plan, images, per_start=abi.MAX_IMAGES)
    require_equal(expected_maps(graph, images), found)


# --- what goes wrong ----------------------------------------------------------------------------


class Chain:
    """A chain of four layers, three images of it, and its files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.graph, self.folder = chain_case(7, 4), folder
        self.plan = schedule(self.graph, ENGINE)
        self.images = random_images(self.graph, 5, 3)
        self.inputs = csim.starts(self.plan, self.images, 3)
        emit_data(folder, self.plan, 3)

    def execute(self, words: int, word: int | None = None) -> csim.Outcome:
        """Run in a memory of some words, with another word of number and distance of images."""
        program = [int(w) for w in program_words(self.plan, 3)]
        program[COUNT] = program[COUNT] if word is None else word
        program[COUNT + 1] = abi.checksum(program[: COUNT + 1])
        (self.folder / "program.bin").write_bytes(np.array(program, "<u8").tobytes())
        sizes = (words, *self.inputs.sizes[1:])
        return csim.execute(compiled("default"), self.folder, self.inputs.content, sizes)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_status_counts_layers_and_images(chain: Chain) -> None:
    outcome = chain.execute(chain.inputs.sizes[0])
    assert (outcome.status, outcome.layers_run, outcome.images_run) == (Status.OK, 4, 3)


def test_an_image_beyond_the_memory_is_reported_and_those_before_are_whole(chain: Chain) -> None:
    outcome = chain.execute(chain.inputs.sizes[0] - 1)
    found = (outcome.status, outcome.layers_run, outcome.images_run)
    assert found == (Status.BAD_ADDRESS, 3, 2)
    slots = outcome.memory.reshape(-1)[: 2 * chain.plan.feature_words * 8].reshape(2, -1)
    expected = expected_maps(chain.graph, chain.images[:2])
    require_equal(expected, csim.layer_maps(chain.plan, slots))


@pytest.mark.parametrize("distance", [1 << 31, (1 << 32) - 1])
def test_a_distance_beyond_the_memory_is_reported_with_the_image(
    chain: Chain, distance: int
) -> None:
    outcome = chain.execute(chain.inputs.sizes[0], 3 | distance << 32)
    found = (outcome.status, outcome.layers_run, outcome.images_run)
    assert found == (Status.BAD_ADDRESS, 0, 1)


def lies(seed: int, words: int) -> int:
    """Return a random word of number and distance of images: any, small, or near `words`."""
    rng = np.random.default_rng([seed, 3])
    images = int(rng.choice([rng.integers(256), rng.integers(8)]))
    near = words + int(rng.integers(-64, 65))
    distance = int(rng.choice([rng.integers(1 << 32), rng.integers(2 * words), max(near, 0)]))
    return images | distance << 32


def test_any_number_and_distance_of_images_end_within_the_memory(chain: Chain) -> None:
    """The memory of the simulation ends where the register says; it stops an access beyond."""
    ends: Counter[Status] = Counter()
    for seed in range(LIES):
        word = lies(seed, chain.plan.feature_words)
        ends[chain.execute(chain.inputs.sizes[0], word).status] += 1
    assert set(ends) == {Status.OK, Status.BAD_ADDRESS, Status.BAD_IMAGE_COUNT}


def test_the_rtl_ends_as_the_cpp_does_and_never_by_its_watchdog(chain: Chain) -> None:
    """Its memory ends where the register says, too: an access beyond would be an `axi_error`."""
    binary = harness("default").binary
    (chain.folder / "images.bin").write_bytes(chain.inputs.content)
    for seed in range(RTL_LIES):
        word = lies(seed, chain.plan.feature_words)
        word = word & ~0xFF | word % 5
        outcome = chain.execute(chain.inputs.sizes[0], word)  # writes program.bin, too
        names = ("program.bin", "weights.bin", "images.bin", "output.bin")
        command = [binary, *(chain.folder / name for name in names), *chain.inputs.sizes]
        command += [30, seed, 10 * WATCHDOG, WATCHDOG]
        ran = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False
        )
        assert ran.returncode == (0 if outcome.status is Status.OK else 2), ran.stderr
        lines = ran.stdout.splitlines()
        assert lines[0] == f"status {outcome.status} {outcome.layers_run} {outcome.images_run}"
        assert lines[1:3] == ["axi_error 0", "ended_by 0"]
