# SPDX-License-Identifier: Apache-2.0
"""A first convolution whose input the host unrolls: rules, memory, C++, RTL and driver."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.check import check_graph
from codegen.emit import emit_data, input_region, memory_map, sealed_json
from codegen.fuse import fuse
from codegen.golden import Golden
from codegen.graph_text import format_graph, load_graph, save_graph
from codegen.interpret import interpret
from codegen.ir import INPUT, Direct, Graph, Node, TensorType, Unrolled
from codegen.layout import unroll
from codegen.schedule import Schedule, schedule
from codegen.stages.schedule import format_schedule
from deploy.bundle import write_bundle
from deploy.driver.winnow_pynq import errors, layout
from deploy.driver.winnow_pynq.bundle import load_bundle
from sim import csim, rtl
from tests.engines import CACHE, ENGINES, compiled, expected_maps, unrolled_cases
from tests.ladder import random_images, random_unrolled_graph
from tests.test_deploy_virtual_board import HOSTS
from tests.test_sim_cocotb import make_job, rtl_folder
from tests.test_sim_rtl import ENGINES as RTL_ENGINES
from tests.test_sim_rtl import SLACK, STALLS, VARIANTS, equal_run
from winnow.blocking import LayerShape, Op
from winnow.compare import require_equal
from winnow.cycles import layer_cycles
from winnow.engine import EngineConfig
from winnow.errors import GraphError, ScheduleError
from winnow.window import Axis, Window

CASES, RTL_CASES = 40, 16
ENTRY = TensorType(3, 9, 8, 8, False, -8)
STEM = Window(Axis(7, 2, 3, 3), Axis(7, 2, 3, 3))


def stem(**changes: Any) -> Unrolled:
    """A 3x2 kernel of strides 2 and 1, uneven padding, keep 2 of the 18 values under it."""
    rng = np.random.default_rng(0)
    weight = np.zeros((8, 18), dtype=np.int64)
    weight[:, [0, 5, 8, 15, 16, 17]] = rng.integers(1, 99, (8, 6))
    node = Unrolled(
        name="stem",
        inputs=(INPUT,),
        output=TensorType(8, 5, 8, 8, False, 0),
        v_bits=8,
        weight_bits=8,
        keep=2,
        acc_exponent=-7,
        weight=weight.reshape(8, 3, 3, 2),
        bias=np.arange(8),
        v_exponent=np.array([-7]),
        weight_exponent=np.array([0]),
        stride_rows=2,
        stride_columns=1,
        top=1,
        bottom=1,
        left=1,
    )
    return replace(node, **changes)


def graph_of(*nodes: Node) -> Graph:
    graph = Graph(ENTRY, nodes)
    check_graph(graph)
    return graph


# --- rules and memory --------------------------------------------------------------------------


def test_cases_are_of_every_kind() -> None:
    nodes = [random_unrolled_graph(seed, 2).nodes[0] for seed in range(300)]
    assert all(isinstance(node, Unrolled) for node in nodes)
    stems = [node for node in nodes if isinstance(node, Unrolled)]
    assert {node.keep for node in stems} == set(range(1, 9))
    assert {node.weight.shape[1] for node in stems} == set(range(1, 9))
    assert {(node.stride_rows, node.stride_columns) for node in stems} >= {(1, 1), (2, 2), (2, 1)}
    assert any(node.top != node.bottom or node.left != node.right for node in stems)
    assert {len(random_unrolled_graph(seed, 2).nodes) for seed in range(9)} >= {1, 2}


def test_sub_rows_run_over_all_values_under_the_kernel() -> None:
    """keep 2 of 18 values holds where every place of the kernel has a channel of its own."""
    graph_of(stem())
    rule = r"node 'stem': a sub-row of 8 weights must hold at most keep = 1 non-zeros, got 2"
    with pytest.raises(GraphError, match=rule):
        graph_of(stem(keep=1))
    full = stem().weight.copy()
    full[0, 0] = 1  # six values in one sub-row, one at every place of the kernel
    with pytest.raises(GraphError, match="at most keep = 2 non-zeros, got 6"):
        graph_of(stem(weight=full))


def test_graph_is_read_back_as_written(tmp_path: Path) -> None:
    graph = graph_of(stem())
    assert "stem = unrolled(input) " in format_graph(graph)
    save_graph(tmp_path, graph)
    assert format_graph(load_graph(tmp_path)) == format_graph(graph)


def test_interpreter_computes_the_plain_convolution() -> None:
    graph, node = graph_of(stem()), stem()
    fields = {key: getattr(node, key) for key in node.__dataclass_fields__} | {"keep": 3}
    images = random_images(graph, 0, 2)
    want = interpret(graph_of(Direct(**fields)), images)
    require_equal(want, interpret(graph, images))


def test_unrolled_images_by_hand() -> None:
    window = Window(Axis(), Axis(2, 1, before=1))
    found = unroll(np.array([[[[1, 2, 3]], [[4, 5, 6]]]]), window)
    assert found.tolist() == [[[[0, 1, 2]], [[1, 2, 3]], [[0, 4, 5]], [[4, 5, 6]]]]


def test_layer_reads_what_the_host_writes() -> None:
    (layer,) = fuse(graph_of(stem()))
    assert (layer.op, layer.source, layer.unrolled) == (Op.DIRECT, INPUT, stem().window)
    assert layer.input == replace(ENTRY, channels=18, height=5, width=8)
    plan = schedule(graph_of(stem()), EngineConfig())
    assert (plan.input.tensor, plan.input.words) == (ENTRY, 3 * 5 * 8)
    (first,) = plan.layers
    assert (first.shape.gathers, first.blocking.sub_rows, first.blocking.steps) == (False, 3, 6)
    assert first.result.base == plan.input.words
    assert format_schedule(plan).splitlines()[1].startswith("stem        unrolled")


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        (
            (stem(), replace(stem(), name="other")),
            "node 'stem': 'other' also reads the input, which is in memory unrolled for one reader "
            "only; make it a direct node",
        ),
        (
            (
                stem(),
                stem(
                    name="second",
                    inputs=("stem",),
                    weight=np.zeros((8, 8, 1, 1), dtype=np.int64),
                    output=stem().output,
                    v_exponent=np.array([0]),
                    acc_exponent=0,
                    **dict.fromkeys(("top", "bottom", "left"), 0),
                    stride_rows=1,
                ),
            ),
            "node 'second': it reads 'stem', the host can unroll the graph's input only; make it a "
            "direct node",
        ),
    ],
)
def test_what_cannot_be_unrolled_is_refused(nodes: tuple[Node, ...], text: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        fuse(graph_of(*nodes))
    assert str(caught.value) == text


def test_kernels_and_strides_may_be_larger_than_those_the_engine_gathers() -> None:
    """11x11 of stride 4 over one channel: 121 values, 16 sub-rows."""
    node = stem(
        weight=np.ones((8, 1, 11, 11), dtype=np.int64),
        keep=8,
        stride_rows=4,
        stride_columns=4,
        output=TensorType(8, 3, 3, 8, False, 0),
        left=0,
        top=0,
        bottom=0,
    )
    graph = Graph(TensorType(1, 19, 20, 8, False, -8), (node,))
    check_graph(graph)
    plan, images = schedule(graph, ENGINES["default"]), random_images(graph, 0, 1)
    assert plan.layers[0].blocking.sub_rows == 16
    require_equal(expected_maps(graph, images), csim.run(compiled("default"), plan, images))


@pytest.mark.parametrize(
    ("keep", "as_it_is", "unrolled"),
    [(8, 925_775, 954_774), (4, 925_775, 478_102), (2, 618_447, 239_766), (1, 616_102, 239_030)],
)
def test_cycles_in_the_docs(keep: int, as_it_is: int, unrolled: int) -> None:
    """64 outputs of a 7x7 stem over 224x224, 8-bit weights (docs/engine.md)."""
    direct = LayerShape(Op.DIRECT, 3, 64, 224, 224, min(keep, 3), 8, window=STEM)
    flat = LayerShape(Op.DIRECT, 147, 64, 112, 112, keep, 8)
    found = [layer_cycles(EngineConfig(), shape).total for shape in (direct, flat)]
    assert found == [as_it_is, unrolled]


# --- interpreter = C++ = RTL --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "least", "large_tile"])
def test_random_layers_equal_the_interpreter(name: str) -> None:
    for seed, (graph, plan) in enumerate(unrolled_cases(ENGINES[name], CASES)):
        images = random_images(graph, seed, 2)
        found = csim.run(compiled(name), plan, images, per_start=1 + seed % 2)
        require_equal(expected_maps(graph, images), found)


@pytest.mark.parametrize("name", VARIANTS)
def test_random_layers_equal_the_interpreter_on_the_rtl(name: str) -> None:
    """And they take the modelled cycles."""
    for seed, (graph, plan) in enumerate(unrolled_cases(RTL_ENGINES[name], RTL_CASES)):
        for stall in STALLS:
            run = equal_run(name, graph, plan, stall=stall, seed=seed)
            if not stall:
                modelled, measured = plan.layers[0].cycles.total, run.layer_cycles[0][0]
                assert abs(modelled - measured) <= max(0.05 * measured, SLACK)


# --- hosts --------------------------------------------------------------------------------------


def stem_and_layer() -> tuple[Graph, Schedule]:
    """A 3x3 kernel over several channels, and a layer behind it."""
    for graph, plan in unrolled_cases(RTL_ENGINES["default"], CASES):
        first, *others = graph.nodes
        assert isinstance(first, Unrolled)
        if others and graph.input.channels > 2 and first.window.positions == 9:
            return graph, plan
    raise AssertionError("no such case")


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_gives_the_interpreters_maps(host: str, tmp_path: Path) -> None:
    graph, plan = stem_and_layer()
    images = random_images(graph, 0, 2)
    maps = expected_maps(graph, images)
    emit_data(tmp_path / "data", plan)
    golden = Golden(images, np.zeros(2, np.int64), maps)
    write_bundle(tmp_path / "bundle", tmp_path / "data", golden, name="stem")
    require_equal(maps, HOSTS[host](plan, tmp_path / "bundle", images))


@pytest.mark.slow
def test_cocotb_bench_equals_the_interpreter(tmp_path: Path) -> None:
    tests = ("network_equals_the_model", "one_start_runs_several_images")
    job = replace(make_job(tmp_path, 30, stem_and_layer()[0]), tests=tests)
    assert rtl.run_cocotb(rtl_folder(), job, CACHE, tmp_path).passed == tests


def written(folder: Path, plan: Schedule, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write a bundle whose record of the input is changed and sealed again."""
    emit_data(folder, plan)
    content = json.loads((folder / "memory.json").read_bytes())
    del content["seal"]
    change(content["input"])
    (folder / "memory.json").write_bytes(sealed_json(content))
    return folder


def test_driver_and_benches_lay_images_out_alike(tmp_path: Path) -> None:
    for seed, (graph, plan) in enumerate(unrolled_cases(EngineConfig(), CASES)):
        images = random_images(graph, seed, 1)
        region = load_bundle(written(tmp_path, plan, lambda _: None)).input
        want = plan.input.pack(images)[0]
        assert np.array_equal(layout.pack(images[0], region), want)
        assert input_region(json.loads(json.dumps(memory_map(plan)))["input"]) == plan.input


def test_input_of_a_graph_without_such_a_layer_has_no_record() -> None:
    fields = {key: getattr(stem(), key) for key in stem().__dataclass_fields__} | {"keep": 3}
    plan = schedule(graph_of(Direct(**fields)), EngineConfig())
    assert "unrolled" not in memory_map(plan)["input"]
    assert "unrolled" in memory_map(schedule(graph_of(stem()), EngineConfig()))["input"]


def test_images_of_another_shape_or_range_are_refused() -> None:
    region = schedule(graph_of(stem()), EngineConfig()).input
    with pytest.raises(GraphError, match=r"feature maps must be .* each, got an array of 1x18x5x8"):
        region.pack(np.zeros((1, 18, 5, 8), dtype=np.int64))
    with pytest.raises(GraphError, match=r"must be in 0\.\.255 for .*, got 0\.\.256"):
        region.pack(np.eye(9, 8, dtype=np.int64)[None, None].repeat(3, 1) * 256)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x["unrolled"].update(kernel=[3, 3]),  # other words
        lambda x: x["unrolled"].update(kernel=[3, 0]),
        lambda x: x["unrolled"].update(stride=[0, 1]),
        lambda x: x["unrolled"].update(before=[-1, 1]),
        lambda x: x["unrolled"].update(before=[1.5, 1]),
        lambda x: x["unrolled"].update(kernel=[3]),
        lambda x: x["unrolled"].update(kernel=3),
        lambda x: x["unrolled"].update(kernel=[99, 2]),  # more than the image
        lambda x: x["unrolled"].pop("after"),
        lambda x: x["unrolled"].update(dilation=[1, 1]),
        lambda x: x.update(unrolled=[]),
        lambda x: x.update(unrolled=None),
        lambda x: x.update(words=x["words"] + 1),
        lambda x: x.update(shape=[3, 9, 9]),
    ],
)
def test_damaged_record_is_refused_in_a_line(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    plan = schedule(graph_of(stem()), EngineConfig())
    folder = written(tmp_path, plan, change)
    with pytest.raises(errors.MismatchError, match="lacks something") as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
