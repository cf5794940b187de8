# SPDX-License-Identifier: Apache-2.0
"""Convolutions in groups, depthwise ones among them: layers, rules, parts, C++, RTL and hosts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from codegen.abi import MAX_LAYERS
from codegen.check import check_graph
from codegen.emit import emit_data
from codegen.fuse import fuse
from codegen.golden import Golden
from codegen.interpret import interpret
from codegen.ir import INPUT, Add, Concat, Direct, Graph, TensorType, Unrolled, Winograd
from codegen.schedule import Schedule, schedule
from codegen.split import join_maps, layer_of, part_maps, split
from deploy.bundle import write_bundle
from quant.allocate.bits import multiplications
from quant.allocate.sizes import layer_keeps, measured_keeps, sparse_layers
from quant.layers.bit_widths import BitWidths
from quant.layers.quant_layer import QuantDirectConv2d, QuantTapLayer, QuantWinogradConv2d
from quant.layers.winograd_layer import DirectConv2d, TapLayer, WinogradConv2d
from quant.layers.winograd_layer import Window as LayerWindow
from quant.network.calibrate import calibrate_layer
from quant.network.network import Network
from quant.network.rewrite import to_winograd
from quant.prune.methods import new_pruner
from sim import csim, rtl
from sim.report import direct_macs
from tests.engines import CACHE, ENGINES, compiled, expected_maps, grouped_cases
from tests.ladder import random_images
from tests.ladder_grouped import random_grouped_graph
from tests.test_deploy_virtual_board import HOSTS
from tests.test_sim_cocotb import make_job, rtl_folder
from tests.test_sim_rtl import ENGINES as RTL_ENGINES
from tests.test_sim_rtl import SLACK, STALLS, UNCOUNTED, VARIANTS, equal_run
from winnow.blocking import LayerShape, Op, groups_of_parts
from winnow.compare import require_equal
from winnow.config import Config, PruneConfig
from winnow.cycles import layer_cycles
from winnow.engine import EngineConfig
from winnow.errors import GraphError, MismatchError
from winnow.fixed_point import IntArray
from winnow.srbs import max_keep, without_groups
from winnow.window import Axis, Window

CASES, RTL_CASES = 24, 6
ENTRY = TensorType(48, 5, 6, 8, False, 0)


def depthwise(**changes: Any) -> Direct:
    """A 3x3 kernel over each of 48 channels."""
    rng = np.random.default_rng(0)
    node = Direct(
        name="across",
        inputs=(INPUT,),
        output=TensorType(48, 5, 6, 8, False, 4),
        v_bits=8,
        weight_bits=8,
        keep=1,
        acc_exponent=0,
        weight=rng.integers(-9, 10, (48, 1, 3, 3)),
        bias=np.arange(48),
        v_exponent=np.array([0]),
        weight_exponent=np.array([0]),
        groups=48,
        top=1,
        left=1,
        bottom=1,
        right=1,
    )
    return replace(node, **changes)


def pointwise(source: str = "across", channels: int = 48) -> Direct:
    """A 1x1 convolution of 48 channels, 2 of 8 weights non-zero."""
    weight = np.zeros((channels, 48, 1, 1), dtype=np.int64)
    weight[:, ::4] = np.random.default_rng(1).integers(-9, 10, (channels, 12, 1, 1))
    kind = TensorType(channels, 5, 6, 8, False, 4)
    return depthwise(
        name="mix",
        inputs=(source,),
        output=kind,
        weight=weight,
        keep=2,
        bias=np.zeros(channels, np.int64),
        groups=1,
        acc_exponent=4,
        v_exponent=np.array([4]),
        top=0,
        left=0,
        bottom=0,
        right=0,
    )


def separable() -> Graph:
    """A depthwise convolution and a pointwise one."""
    graph = Graph(ENTRY, (depthwise(), pointwise()))
    check_graph(graph)
    return graph


# --- the float layers ---------------------------------------------------------------------------


@pytest.mark.parametrize(("read", "written", "groups"), [(6, 6, 6), (6, 12, 6), (6, 4, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_layer_computes_what_torch_does(read: int, written: int, groups: int, stride: int) -> None:
    torch.manual_seed(0)
    kernel, x = torch.randn(written, read // groups, 3, 3), torch.randn(2, read, 7, 5)
    window = LayerWindow((3, 3), (stride, stride), (1, 1))
    layers: list[TapLayer] = [DirectConv2d(read, written, window, groups)]
    if stride == 1:
        layers += [WinogradConv2d(read, written, m, groups) for m in (2, 4)]
    for layer in layers:
        layer.double().load_spatial(kernel.double())
        want = F.conv2d(x.double(), kernel.double(), stride=stride, padding=1, groups=groups)
        assert torch.allclose(layer(x.double()), want, rtol=0, atol=1e-5)
        assert layer.weight.shape[0] * layer.row_length == written * read // groups


@pytest.mark.parametrize("groups", [2, 8])
@pytest.mark.parametrize("m", [0, 2])
def test_quantized_layer_trains_with_what_it_computes(groups: int, m: int) -> None:
    """In float64, bit for bit: training takes another way than evaluation."""
    torch.manual_seed(0)
    widths, window = BitWidths(4, 6, 8), LayerWindow((3, 3), (2, 2), (1, 1))
    layer: QuantTapLayer = QuantDirectConv2d(8, 16, window, widths, groups)
    if m:
        layer = QuantWinogradConv2d(8, 16, m, widths, groups)
    torch.nn.init.normal_(layer.weight, std=0.3)
    x = torch.randint(0, 256, (2, 8, 7, 6), dtype=torch.float64) / 256
    calibrate_layer(layer.double().eval(), x)
    evaluated = layer(x)
    assert torch.equal(layer.train()(x), evaluated)
    assert len(evaluated.unique()) > 20
    evaluated.sum().backward()
    assert layer.weight.grad is not None
    assert bool(layer.weight.grad.any())


def test_pruning_leaves_layers_in_groups_as_they_are() -> None:
    """Others reach `keep`; what a sub-row of these holds is known without pruning."""
    torch.manual_seed(0)
    names = ("0", "2", "4", "6", "8")
    make = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16)]
    make += [nn.ReLU(), nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1, groups=8)]
    make += [nn.ReLU(), nn.Conv2d(32, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 4)]
    x = torch.rand(8, 3, 8, 8)
    for method in ("obs", "kernels"):
        config = Config(prune=PruneConfig(method=method, keep=2, epochs=1))
        net = to_winograd(Network.of(nn.Sequential(*make), (3, 8, 8)), 2)
        sparse = sparse_layers(net, 1)
        assert list(sparse) == ["4", "8", "10"]
        assert layer_keeps(config, net) == {"0": 3, "2": 1, "4": 2, "6": 4, "8": 2, "10": 2}
        before = {name: net.get_submodule(name).u.clone() for name in names}
        pruner = new_pruner(config.prune, net, sparse, x)
        pruner.begin_epoch(0)
        pruner.release()
        assert measured_keeps(net) == {"0": 3, "2": 1, "4": 2, "6": 4, "8": 2, "10": 2}
        for name in names:
            after = net.get_submodule(name).u
            kept = torch.allclose(after, before[name], atol=1e-5)
            assert kept == (name not in sparse), (method, name)


def test_products_of_groups_are_counted() -> None:
    """16 taps of 16 tiles for each of 8 channels; with 4 channels to a group four times as many."""
    for groups, products in ((8, 8), (2, 32)):
        conv = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        net = to_winograd(Network.of(nn.Sequential(conv, nn.ReLU()), (8, 8, 8)), 2)
        keeps = layer_keeps(Config(), net)
        assert multiplications(net, keeps) == [products * 16 * 16]


def test_weights_without_groups() -> None:
    weight = np.array([[1, 2], [3, 4], [5, 6], [7, 8]])
    want = [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]]
    assert without_groups(weight, 2).tolist() == want
    assert without_groups(weight, 1) is weight


# --- rules --------------------------------------------------------------------------------------


def test_keep_counts_the_channels_of_all_groups() -> None:
    check_graph(Graph(ENTRY, (depthwise(),)))
    pairs = depthwise(groups=24, weight=np.ones((48, 2, 3, 3), dtype=np.int64))
    with pytest.raises(GraphError, match="at most keep = 1 non-zeros, got 2"):
        check_graph(Graph(ENTRY, (pairs,)))


@pytest.mark.parametrize("groups", [0, -1, 5, 96, True])
def test_groups_that_do_not_divide_the_channels_are_refused(groups: int) -> None:
    with pytest.raises(GraphError, match=r"node 'across': groups must (divide its 48 input|be a)"):
        check_graph(Graph(ENTRY, (depthwise(groups=groups),)))


def test_an_unrolled_convolution_has_no_groups() -> None:
    fields = {key: getattr(depthwise(), key) for key in depthwise().__dataclass_fields__}
    with pytest.raises(GraphError, match="an unrolled convolution must have 1 group, got 48"):
        check_graph(Graph(ENTRY, (Unrolled(**fields),)))


def test_a_depthwise_convolution_by_hand() -> None:
    """Channel c is 2 c times the pixel to the left of it."""
    weight = np.zeros((48, 1, 3, 3), dtype=np.int64)
    weight[:, 0, 1, 0] = 2 * np.arange(48)
    node = depthwise(weight=weight, bias=np.zeros(48, np.int64))
    kind = replace(node.output, bits=8, exponent=0)
    images = np.arange(48 * 30).reshape(1, 48, 5, 6) % 3
    found = interpret(Graph(ENTRY, (replace(node, output=kind),)), images)["across"]
    want = np.zeros_like(images)
    want[..., 1:] = 2 * np.arange(48)[:, None, None] * images[..., :-1]
    assert np.array_equal(found, np.clip(want, 0, 255))


# --- parts --------------------------------------------------------------------------------------


def test_parts_read_and_write_their_own_channels() -> None:
    plan = schedule(separable(), EngineConfig())
    assert [layer.name for layer in plan.layers] == ["across.0", "across.1", "mix"]
    first, second, mix = plan.layers
    assert [x.shape.in_channels for x in plan.layers] == [32, 16, 48]
    assert [x.shape.keep for x in plan.layers] == [1, 1, 2]
    assert second.source.base == first.source.base + 32 // 8 * 30
    assert second.result.base == first.result.base + 32 // 8 * 30
    assert (mix.source.base, mix.source.tensor.channels) == (first.result.base, 48)
    assert sum(map(direct_macs, plan.layers)) == 30 * (48 * 9 + 48 * 48)


def test_a_result_is_written_by_one_layer() -> None:
    graph = Graph(ENTRY, (depthwise(),))
    assert [layer.name for layer in schedule(graph, EngineConfig()).layers] == ["across"]


@pytest.mark.parametrize(
    ("sizes", "each"),
    [((96, 1, 1), 32), ((20, 1, 1), 20), ((96, 1, 2), 16), ((9, 3, 8), 8), ((4, 24, 40), 1),
     ((6, 12, 12), 2), ((30, 5, 7), 8)],
)  # fmt: skip
def test_parts_are_whole_words_of_channels(sizes: tuple[int, int, int], each: int) -> None:
    groups, reads, writes = sizes
    assert groups_of_parts(*sizes) == each
    assert each == groups or (each * reads % 8, each * writes % 8) == (0, 0)


def test_parts_are_larger_where_a_program_could_not_hold_them() -> None:
    channels = 32 * (MAX_LAYERS + 10)
    kind = replace(ENTRY, channels=channels, height=1, width=1)
    wide = depthwise(
        groups=channels,
        output=replace(kind, exponent=4),
        weight=np.ones((channels, 1, 3, 3), dtype=np.int64),
        bias=np.zeros(channels, int),
    )
    behind = replace(pointwise(), weight=np.ones((1, channels, 1, 1), np.int64), keep=8)
    behind = replace(behind, bias=np.zeros(1, np.int64), output=replace(kind, channels=1))
    graph = Graph(kind, (wide, behind))
    layers = split(fuse(graph), graph)
    assert len(layers) == (MAX_LAYERS + 10) // 2 + 1
    assert {x.input.channels for x in layers[:-1]} == {64}


def test_maps_of_parts_and_back() -> None:
    whole = {"a": np.arange(12).reshape(1, 6, 2, 1), "b": np.ones((1, 2, 1, 1))}
    parts = part_maps(whole, {"a.0": 4, "a.1": 2, "b": 2})
    assert parts["a.1"].flatten().tolist() == [8, 9, 10, 11]
    require_equal(whole, join_maps(parts))


def test_modelled_cycles_are_those_of_the_parts() -> None:
    engine = EngineConfig()
    shape = LayerShape(Op.WINOGRAD, 80, 80, 9, 9, keep=1, weight_bits=8, groups=80)
    parts = [replace(shape, in_channels=n, out_channels=n, groups=n) for n in (32, 32, 16)]
    found = layer_cycles(engine, shape)
    assert found.total == sum(layer_cycles(engine, part).total for part in parts)
    one = layer_cycles(engine, replace(shape, groups=1))
    assert found.total < one.total
    assert 0 < found.utilisation < 1


# Depthwise 3x3 convolutions on the default engine, 8-bit weights: modelled cycles as one layer and
# in parts; as direct convolution, then in the Winograd domain. They are in docs/engine.md.
@pytest.mark.parametrize(
    ("channels", "edge", "stride", "direct", "winograd"),
    [
        (144, 56, 2, (174_131, 148_249), None),
        (192, 28, 1, (304_430, 189_300), (118_894, 43_380)),
        (576, 14, 1, (1_647_431, 155_826), (877_064, 44_244)),
    ],
)
def test_cycles_in_the_docs(
    channels: int,
    edge: int,
    stride: int,
    direct: tuple[int, int],
    winograd: tuple[int, int] | None,
) -> None:
    engine, axis = EngineConfig(), Axis(3, stride, 1, 1)
    shape = LayerShape(
        Op.DIRECT, channels, channels, edge, edge, 1, 8, window=Window(axis, axis), groups=channels
    )
    for wanted, found in (
        (direct, shape),
        (winograd, replace(shape, op=Op.WINOGRAD, window=Window())),
    ):
        if wanted is not None:
            whole = layer_cycles(engine, replace(found, groups=1)).total
            assert (whole, layer_cycles(engine, found).total) == wanted


@pytest.mark.parametrize("edge", [3, 1])
def test_no_images_give_empty_maps(edge: int) -> None:
    """In the Winograd domain and without it, in PyTorch and in the interpreter."""
    conv = nn.Conv2d(12, 24, edge, padding=edge // 2, groups=3)
    net = to_winograd(Network.of(nn.Sequential(conv), (12, 5, 6)), 2)
    assert net(torch.zeros(0, 12, 5, 6)).shape == (0, 24, 5, 6)
    for seed in range(4):
        graph = random_grouped_graph(seed, 2)
        maps = interpret(graph, random_images(graph, seed, 0))
        assert {name: values.shape for name, values in maps.items()} == {
            node.name: (0, *node.output.shape) for node in graph.nodes
        }


# --- interpreter = C++ = RTL --------------------------------------------------------------------


def test_cases_are_of_every_kind() -> None:
    """The cases of the default engine have all kinds of layers, and a third of them has parts."""
    cases = grouped_cases(ENGINES["default"], CASES)
    kinds: Counter[object] = Counter()
    for graph, plan in cases:
        (node,) = [x for x in graph.nodes if x.name == "grouped"]
        assert isinstance(node, Winograd | Direct)
        (layer,) = [x for x in fuse(graph) if x.name == "grouped"]
        parts = [x for x in plan.layers if x.name.startswith("grouped.")]
        kinds.update(
            [type(node), ("parts", len(parts) > 1), ("depthwise", node.weight.shape[1] == 1)]
        )
        kinds.update([("pool", layer.pool is not None), ("add", layer.add is not None)])
        if len(parts) > 1:
            kinds.update(["pooled parts"] * (layer.pool is not None))
            kinds.update(["added parts"] * (layer.add is not None))
        assert node.keep == max_keep(
            without_groups(node.weight.reshape(*node.weight.shape[:2], -1), node.groups)
        )
    wanted = [Winograd, Direct, ("depthwise", True), ("depthwise", False), ("pool", True)]
    wanted += [("add", True), "pooled parts", "added parts"]
    assert [kind for kind in wanted if not kinds[kind]] == []
    assert kinds["parts", True] > CASES // 4


@pytest.mark.parametrize("name", ["default", "least", "large_tile"])
def test_random_layers_equal_the_interpreter(name: str) -> None:
    for seed, (graph, plan) in enumerate(grouped_cases(ENGINES[name], CASES)):
        images = random_images(graph, seed, 2)
        found = csim.run(compiled(name), plan, images, per_start=1 + seed % 2)
        require_equal(expected_maps(graph, images), found)


def test_a_wrong_weight_is_found() -> None:
    """The interpreter, which knows groups, and the engine, which does not, differ by it."""
    graph, images = separable(), random_images(separable(), 0, 1)
    weight = depthwise().weight.copy()
    weight[40, 0, 1, 1] += 50
    other = replace(graph, nodes=(depthwise(weight=weight), pointwise()))
    found = csim.run(compiled("default"), schedule(other, EngineConfig()), images)
    with pytest.raises(MismatchError, match="across"):
        require_equal(expected_maps(graph, images), found)


def test_parts_of_joined_maps_lie_where_those_are() -> None:
    """Parts write what is joined with another map, and read it; one adds it, too."""
    graph = separable()
    across, mix = graph.nodes
    whole = replace(across.output, channels=96)
    both = Concat(name="both", inputs=("across", "mix"), output=whole)
    wide = depthwise(
        name="wide",
        inputs=("both",),
        output=replace(whole, exponent=8),
        weight=np.random.default_rng(2).integers(-9, 10, (96, 1, 3, 3)),
        bias=np.zeros(96, np.int64),
        acc_exponent=4,
        v_exponent=np.array([4]),
        groups=96,
    )
    total = Add(name="sum", inputs=("both", "wide"), output=replace(whole, exponent=8))
    last = depthwise(
        name="last",
        inputs=("sum",),
        output=TensorType(32, 5, 6, 8, True, 12),
        weight=np.random.default_rng(3).integers(-9, 10, (32, 3, 3, 3)),
        bias=np.zeros(32, np.int64),
        acc_exponent=8,
        v_exponent=np.array([8]),
        groups=32,
        keep=3,
    )
    graph = replace(graph, nodes=(across, mix, both, wide, total, last))
    check_graph(graph)
    plan, images = schedule(graph, EngineConfig()), random_images(graph, 0, 2)
    names = [layer.name for layer in plan.layers]
    assert names == ["across.0", "across.1", "mix", "wide.0", "wide.1", "wide.2", "last"]
    found = csim.run(compiled("default"), plan, images)
    assert all(len(np.unique(maps)) > 50 for maps in found.values())
    require_equal(expected_maps(graph, images), found)


@pytest.mark.parametrize("name", VARIANTS)
def test_random_layers_equal_the_interpreter_on_the_rtl(name: str) -> None:
    """And they take the modelled cycles."""
    for seed, (graph, plan) in enumerate(grouped_cases(RTL_ENGINES[name], RTL_CASES)):
        for stall in STALLS:
            run = equal_run(name, graph, plan, stall=stall, seed=seed)
            for layer, cycles in zip(plan.layers, run.layer_cycles[0], strict=True):
                planes = len(list(layer.blocking.strips())) * layer.values["planes"]
                slack = SLACK + UNCOUNTED + 4 * planes
                assert stall or abs(cycles - layer.cycles.total) <= max(0.05 * cycles, slack)


# --- hosts --------------------------------------------------------------------------------------


def bundled(folder: Path) -> tuple[Schedule, IntArray, Graph]:
    """Write a bundle of a network with parts; return its schedule, two images, its graph."""
    graph = separable()
    plan, images = schedule(graph, EngineConfig()), random_images(graph, 0, 2)
    emit_data(folder / "data", plan)
    golden = Golden(images, np.zeros(2, np.int64), expected_maps(graph, images))
    write_bundle(folder / "bundle", folder / "data", golden, name="separable")
    return plan, images, graph


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_gives_the_interpreters_maps(host: str, tmp_path: Path) -> None:
    plan, images, graph = bundled(tmp_path)
    found = HOSTS[host](plan, tmp_path / "bundle", images)
    assert set(map(layer_of, found)) == {"across", "mix"}
    require_equal(expected_maps(graph, images), join_maps(found))


@pytest.mark.slow
def test_cocotb_bench_equals_the_interpreter(tmp_path: Path) -> None:
    tests = ("network_equals_the_model", "one_start_runs_several_images")
    job = replace(make_job(tmp_path, 30, separable()), tests=tests)
    assert rtl.run_cocotb(rtl_folder(), job, CACHE, tmp_path).passed == tests


def test_random_cases_are_reproducible() -> None:
    first, second = (random_grouped_graph(5, 2) for _ in range(2))
    assert np.array_equal(first.nodes[0].weight, second.nodes[0].weight)  # type: ignore[attr-defined]
