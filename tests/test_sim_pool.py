# SPDX-License-Identifier: Apache-2.0
"""Max pools standing alone, in C++ and on the RTL, from random graphs and from PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codegen import abi
from codegen.abi import Status
from codegen.ir import INPUT, Graph, MaxPool, TensorType
from codegen.lower import lower_network
from codegen.program import layer_words
from codegen.schedule import schedule
from quant.data import Samples
from quant.golden import golden_arrays
from quant.network.layer_graph import layer_graph, lone_pools
from quant.network.network import Network
from sim import rtl
from tests.engines import ENGINES, compiled, expected_maps, pool_cases
from tests.ladder import max_pool_of, random_images
from tests.test_codegen_lower import random_net
from tests.test_sim_csim import climb
from tests.test_sim_rtl import ENGINES as RTL_ENGINES
from tests.test_sim_rtl import SLACK, STALLS, UNCOUNTED, VARIANTS, equal_run, harness
from tests.test_sim_safety import BAD_ENDS, field_bits, make_network, place, random_fields
from winnow.compare import require_equal
from winnow.config import QuantizeConfig
from winnow.errors import ScheduleError
from winnow.window import Axis, Window

POOLS_PER_ENGINE = 16
POOLS = 10  # on the RTL
RANDOM_SETS = 150
STEM = Window(Axis(3, 2, 1, 1), Axis(3, 2, 1, 1))  # of an ImageNet ResNet
ENTRY = TensorType(3, 18, 16, 8, False, -8)


class Pools(nn.Module):
    """Pools of an image, a strided stem, a pool, a sum, joined maps; one kept, one averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.stem_pool = nn.MaxPool2d(3, 2, 1)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.side = nn.Conv2d(3, 8, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        small = self.side(F.max_pool2d(x, 3, 2, ceil_mode=True)).relu()
        y = F.max_pool2d(self.stem_pool(self.stem(x).relu()), 2, 1)
        y = self.a(y).relu()
        z = F.max_pool2d((self.b(y) + F.max_pool2d(y, 3, 1, 1)).relu(), 2)
        joined = torch.cat([z, F.max_pool2d(small, 7, 2)], 1)  # of 2 x 1 pixels
        return self.fc(F.max_pool2d(joined, 2, 1, 1).mean((2, 3)))


# --- interpreter = C++ ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_random_pools_equal_the_interpreter(name: str) -> None:
    cases = pool_cases(ENGINES[name], POOLS_PER_ENGINE)
    for seed, (graph, plan) in enumerate(cases):
        climb(name, graph, plan, random_images(graph, seed, 2))


def test_pools_are_of_every_kind() -> None:
    """The seeds follow from the variant alone, so this sees the cases of the test above."""
    cases = [case for e in ENGINES.values() for case in pool_cases(e, POOLS_PER_ENGINE)]
    layers = [x for _, plan in cases for x in plan.layers if x.shape.maximum]
    assert {x.source.tensor.signed for x in layers} == {False, True}
    strips = {(x.values["strips_down"] > 1, x.values["strips_across"] > 1) for x in layers}
    assert len(strips) == 4
    usual = {(x.shape.window.rows.kernel, x.shape.window.rows.stride) for x in layers}
    assert usual >= {(2, 1), (2, 2), (3, 1), (3, 2)}
    sources = [graph.type_of(n.inputs[0]) for graph, _ in cases for n in graph.nodes if is_pool(n)]
    assert len(sources) > len(cases)
    assert any(n.inputs[0] == INPUT for graph, _ in cases for n in graph.nodes if is_pool(n))


def is_pool(node: object) -> bool:
    return isinstance(node, MaxPool)


def test_pool_of_the_least_values_is_the_least_value() -> None:
    """What lies around the map is never taken: of a map of all -128 all results are -128."""
    kind = TensorType(9, 5, 5, 8, True, 0)
    graph = Graph(kind, (max_pool_of("pool", INPUT, kind, STEM),))
    images = np.full((1, *kind.shape), -128)
    assert np.array_equal(expected_maps(graph, images)["pool"], np.full((1, 9, 3, 3), -128))
    climb("default", graph, schedule(graph, ENGINES["default"]), images)


# --- interpreter = RTL ------------------------------------------------------------------------


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("name", VARIANTS)
def test_random_pools_equal_the_interpreter_on_the_rtl(name: str, stall: int) -> None:
    for seed, (graph, plan) in enumerate(pool_cases(RTL_ENGINES[name], POOLS)):
        run = equal_run(name, graph, plan, stall=stall, seed=seed)
        for layer, cycles in zip(plan.layers, run.layer_cycles[0], strict=True):
            slack = SLACK + UNCOUNTED
            assert stall or abs(cycles - layer.cycles.total) <= max(0.05 * cycles, slack)


def test_a_stem_pool_runs_as_modelled() -> None:
    """3x3 of stride 2 over 16 channels of 32x32 pixels, within 2 %."""
    kind = TensorType(16, 32, 32, 8, False, 0)
    graph = Graph(kind, (max_pool_of("pool", INPUT, kind, STEM),))
    plan, images = schedule(graph, RTL_ENGINES["default"]), random_images(graph, 1, 1)
    run = rtl.run(harness("default"), plan, images)
    require_equal(expected_maps(graph, images), run.maps)
    ((measured,),) = run.layer_cycles
    assert measured == pytest.approx(plan.layers[0].cycles.total, rel=0.02)
    assert measured < 1.1 * 9 * 2 * 16 * 16  # a place of the kernel per cycle


@pytest.mark.parametrize("stall", STALLS)
def test_network_with_pools_from_pytorch_equals_brevitas(stall: int) -> None:
    """Every map that a layer writes, pools that stand alone among them."""
    torch.manual_seed(3)
    net = Network.of(Pools().eval(), ENTRY.shape)
    made = random_net(net, 2, QuantizeConfig(), dict.fromkeys(layer_graph(net.graph), 6), ENTRY)
    images = torch.randint(0, 256, (2, *ENTRY.shape), dtype=torch.uint8)
    golden = golden_arrays(made, Samples(images, torch.zeros(2, dtype=torch.int64)))
    graph = lower_network(made, ENTRY)
    plan = schedule(graph, RTL_ENGINES["default"])
    pools = [plan for plan in plan.layers if plan.shape.maximum and not plan.shape.average]
    assert len(pools) == len(lone_pools(net.graph)) >= 6
    run = rtl.run(harness("default"), plan, images.numpy().astype(np.int64), stall=stall)
    want = {f"layer.{name}": maps for name, maps in run.maps.items()}
    assert {name for name in golden if name.startswith("layer.")} == set(want)
    require_equal({name: golden[name].astype(np.int64) for name in want}, want)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (
            Window(Axis(1, 2), Axis(1, 2)),
            "layer 'pool': a max pool of 1x1 pixels: at least 2 pixels; leave it out, or let a "
            "convolution stride",
        ),
        (
            Window(Axis(8, 2), Axis(8, 2)),
            "layer 'pool': window 8x8: at most 7x7; use several smaller ones",
        ),
        (
            Window(Axis(3, 3), Axis(3, 3)),
            "layer 'pool': stride 3: at most 2; use a stride of 2 and another layer or a pool",
        ),
    ],
)
def test_windows_that_the_engine_has_no_counters_for_are_named(
    window: Window, message: str
) -> None:
    kind = TensorType(4, 16, 16, 8, False, 0)
    graph = Graph(kind, (max_pool_of("pool", INPUT, kind, window),))
    with pytest.raises(ScheduleError) as caught:
        schedule(graph, ENGINES["default"])
    assert str(caught.value) == message


def pool_graph() -> Graph:
    kind = TensorType(12, 30, 30, 8, True, 0)
    return Graph(kind, (max_pool_of("pool", INPUT, kind, STEM),))


def damaged_words(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield programs of a pool with one other bit, or some other fields, in the descriptor."""
    network = make_network(ENGINES["default"], folder, pool_graph())
    for bit in field_bits(network.plan.engine):
        words = network.words
        descriptor = words[place(0)]
        descriptor[bit // 64] ^= 1 << bit % 64
        descriptor[-1] = abi.checksum(descriptor[:-1])
        words[place(0)] = descriptor
        yield f"bit {bit % 64} of word {bit // 64}", words
    for seed in range(RANDOM_SETS):
        words = network.words
        _, words[place(0)] = random_fields(network.plan, seed)
        yield f"seed {seed}", words


@pytest.mark.slow
def test_damaged_pools_end_within_their_memory(tmp_path: Path) -> None:
    network = make_network(ENGINES["default"], tmp_path, pool_graph())
    binary, ends = compiled("default").binary, Counter[str]()
    for what, words in damaged_words(tmp_path):
        end = network.verdict(network.command(binary, words))
        assert end not in BAD_ENDS, f"{what}: {end}"
        ends[end] += 1
    assert ends[Status.BAD_SIZE.name] > 100


@pytest.mark.parametrize(
    "changes",
    [
        {"no_add": 1},
        {"gathers": 0},
        {"planes": 1},
        {"channel_groups": 1, "blocks": 2},
        {"kernel_rows": 1, "kernel_columns": 1},
    ],
)
def test_a_pool_that_contradicts_itself_is_refused(changes: dict[str, int], tmp_path: Path) -> None:
    network = make_network(ENGINES["default"], tmp_path, pool_graph())
    words, values = network.words, network.plan.layers[0].values
    words[place(0)] = layer_words(network.plan.engine, {**values, **changes})
    end = network.verdict(network.command(compiled("default").binary, words))
    assert end == Status.BAD_SIZE.name
