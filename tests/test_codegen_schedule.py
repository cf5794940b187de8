# SPDX-License-Identifier: Apache-2.0
"""Schedules: memory without overlap, buffers respected, and every reason to reject a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codegen.check import check_graph
from codegen.fuse import fuse
from codegen.ir import (
    INPUT,
    Add,
    Dense,
    Direct,
    GlobalAverage,
    Graph,
    MaxPool,
    Multiply,
    Node,
    TensorType,
    Winograd,
)
from codegen.schedule import Schedule, Values, schedule
from tests.engines import ENGINES, deep_cases, direct_cases, layer_cases, strip_cases
from tests.ladder import (
    change_node,
    multiplies,
    random_chain_graph,
    random_direct_graph,
    random_layer_graph,
)
from tests.test_codegen_bounds import plain_worst_case
from winnow.blocking import Op, tiles_per_group
from winnow.cycles import layer_cycles
from winnow.engine import EngineConfig
from winnow.errors import ScheduleError

ENGINE = EngineConfig()


def plans() -> list[tuple[EngineConfig, Graph, Schedule]]:
    layers = [
        (ENGINES[name], graph, plan) for name in ENGINES for graph, plan in layer_cases(name, 25)
    ]
    chains = [
        (ENGINES[name], graph, schedule(graph, ENGINES[name]))
        for name in ("default", "large_tile")
        for graph in [random_chain_graph(seed, ENGINES[name].m) for seed in range(25)]
    ]
    least = ENGINES["least"]
    cut = [(least, *case) for case in (*strip_cases(least), *direct_cases(least, 40))]
    deep = [(least, *case) for case in deep_cases(least, 20)]
    return layers + chains + cut + deep


def tiles_of(engine: EngineConfig, v: Values) -> int:
    """Return the tiles of a tile group."""
    return 1 if v["one_tile"] else engine.pt


def words_of(tensor: TensorType) -> int:
    groups = -(-tensor.channels // 8)
    return groups * (4 if tensor.bits == 32 else tensor.height * tensor.width)


def is_pooled(graph: Graph, node: Node) -> bool:
    """Whether a node's map is pooled, so that it never is in memory."""
    return any(isinstance(x, MaxPool) and x.inputs == (node.name,) for x in graph.nodes)


def test_maps_fill_memory_without_overlap() -> None:
    for _, graph, plan in plans():
        regions = [plan.input, *(layer.result for layer in plan.layers)]
        written = [node for node in graph.nodes if not is_pooled(graph, node)]
        tensors = [graph.input, *(node.output for node in written)]
        first = 0
        for region, tensor in zip(regions, tensors, strict=True):
            assert (region.base, region.tensor, region.words) == (first, tensor, words_of(tensor))
            first += region.words
        assert plan.feature_words == first


def test_weights_follow_each_other() -> None:
    for _, _, plan in plans():
        first = 0
        for layer in plan.layers:
            assert layer.weight_base == layer.values["weight_base"] == first
            beats = layer.packed.shape[0] * layer.packed.shape[1]
            assert layer.values["strip_beats"] == beats
            assert layer.packed.shape[2] * 8 == plan.engine.axi_bits
            first += beats
        assert plan.weight_beats == first


def test_layers_read_the_map_of_their_source() -> None:
    graph = next(
        g
        for g in (random_chain_graph(seed, 2) for seed in range(100))
        if len({layer.inputs for layer in multiplies(g)}) < len(multiplies(g))
    )
    plan = schedule(graph, ENGINE)
    pools = {node.inputs[0]: node.name for node in graph.nodes if isinstance(node, MaxPool)}
    places = {pools.get(layer.name, layer.name): layer.result for layer in plan.layers}
    places["input"] = plan.input
    for layer, planned in zip(multiplies(graph), plan.layers, strict=True):
        assert planned.source == places[layer.inputs[0]]
        assert planned.values["feature_base"] == planned.source.base
        assert planned.values["result_base"] == planned.result.base


def test_descriptors_respect_the_buffers_and_agree_with_the_strips() -> None:
    for engine, _, plan in plans():
        for layer in plan.layers:
            v = layer.values
            strips = list(layer.blocking.strips())
            assert v["sub_rows"] * v["keep"] == layer.blocking.steps
            steps, num_parts = layer.blocking.steps, len(layer.blocking.parts)
            assert (num_parts - 1) * engine.w_words < steps <= num_parts * engine.w_words
            assert (num_parts - 1) * v["part_steps"] < steps <= num_parts * v["part_steps"]
            assert v["part_steps"] == layer.blocking.steps or v["groups_full"] == 1
            assert v["one_tile"] == (engine.pt == 2 and v["sub_rows"] > engine.v_words)
            held = engine.v_words * engine.pt // tiles_of(engine, v)
            assert v["groups_full"] * v["sub_rows"] <= held
            assert v["groups_full"] == 1 or not v["one_tile"]
            assert v["groups_full"] == max(s.num_groups for s in strips)
            assert v["groups_full"] * tiles_per_group(engine, layer.shape) <= engine.out_tiles
            assert v["groups_last_both"] == strips[-1].num_groups
            assert v["strips_down"] * v["strips_across"] == len(strips)
            assert strips[v["strips_across"] - 1].num_groups == v["groups_last_column"]
            assert strips[-v["strips_across"]].num_groups == v["groups_last_row"]
            assert v["channel_groups"] * 8 == v["blocks"] * engine.po
            assert layer.cycles.total == layer_cycles(engine, layer.shape).total
        assert plan.total_cycles == sum(layer.cycles.total for layer in plan.layers)


Run = tuple[int, int]  # first word and number of words


def planned_runs(v: Values, name: str, places: Places) -> list[Run]:
    """Walk over strips, planes and rows as docs/program.md says: sizes by place, running sums."""
    is_read = name == "read"
    first, runs = v["feature_base" if is_read else "result_base"], []
    planes = v["planes" if is_read else "channel_groups"]
    plane_words, row_words = (
        v[k] if is_read else v[f"out_{k}"] for k in ("plane_words", "row_words")
    )
    down, across = v["strips_down"], v["strips_across"]
    for row, column in np.ndindex(down, across):
        rows = v[f"{name}_rows_{places[0](row, down)}"]
        for plane, y in np.ndindex(planes, rows):
            tail = is_read and v["op"] == Op.DENSE and plane < planes - 1
            words = v[f"{name}_words_{'middle' if tail else places[1](column, across)}"]
            skip = not is_read and (
                (row == down - 1 and v["skip_last_row"])
                or (column == across - 1 and v["skip_last_column"])
            )
            if not skip:
                runs.append((first + plane * plane_words + y * row_words, words))
        way, at_start = ("down", row == 0) if column == across - 1 else ("right", column == 0)
        step = v[f"{name}_{way}_first" if is_read and at_start else f"{name}_{way}"]
        first = (first + step) % 2**32
    return runs


Places = tuple[Callable[[int, int], str], Callable[[int, int], str]]


def read_place(index: int, count: int) -> str:
    return "last" if index == count - 1 else "first" if index == 0 else "middle"


def write_place(index: int, count: int) -> str:
    return "last" if index == count - 1 else "full"


def clipped(first: int, count: int, limit: int) -> range:
    return range(max(first, 0), min(first + count, limit))


def test_bursts_read_every_strip_with_its_border() -> None:
    """The oracle is the geometry: which pixels a tile of 3x3 convolutions needs."""
    cuts = set()
    for engine, _, plan in plans():
        for layer in (x for x in plan.layers if x.shape.op is Op.WINOGRAD):
            v, shape, m = layer.values, layer.shape, engine.m
            width = m * tiles_of(engine, v)
            expected = [
                (layer.source.base + (plane * shape.height + y) * shape.width + xs[0], len(xs))
                for strip in layer.blocking.strips()
                for plane in range(-(-shape.in_channels // 8))
                for y in clipped(strip.row * m - 1, strip.rows * m + 2, shape.height)
                for xs in [clipped(strip.group * width - 1, strip.groups * width + 2, shape.width)]
            ]
            places = (read_place, read_place)
            assert planned_runs(v, "read", places) == expected
            cuts.add((min(3, int(v["strips_down"])), min(3, int(v["strips_across"]))))
            last = list(layer.blocking.strips())[-1]
            assert v["rows_last"] == last.rows * m + 2
            assert v["columns_last"] == last.groups * width + 2
            assert v["columns_full"] == layer.blocking.strip_groups * width + 2
            assert v["rows_full"] == layer.blocking.strip_rows * m + 2
    assert cuts == {(rows, columns) for rows in (1, 2, 3) for columns in (1, 2, 3)}


def test_bursts_write_every_pixel_that_pooling_leaves() -> None:
    skipped = set()
    for engine, graph, plan in plans():
        for layer, node in zip(plan.layers, fuse(graph), strict=True):
            if layer.shape.op is not Op.WINOGRAD:
                continue
            v, edge = layer.values, engine.m // 2 if node.pool else engine.m
            out, width = node.output, edge * tiles_of(engine, v)
            expected = [
                (layer.result.base + (group * out.height + y) * out.width + xs[0], len(xs))
                for strip in layer.blocking.strips()
                for group in range(-(-out.channels // 8))
                for y in clipped(strip.row * edge, strip.rows * edge, out.height)
                for xs in [clipped(strip.group * width, strip.groups * width, out.width)]
                if xs
            ]
            assert planned_runs(v, "write", (write_place, write_place)) == expected
            tiles = tiles_of(engine, v)
            assert v["tiles_full"] == layer.blocking.strip_groups * tiles
            assert v["tiles_last"] == list(layer.blocking.strips())[-1].groups * tiles
            skipped.add((v["skip_last_row"], v["skip_last_column"]))
    assert skipped == {(0, 0), (1, 0), (0, 1), (1, 1)}


def test_bursts_of_direct_layers_are_what_their_kernels_see() -> None:
    """The oracle is the geometry, from the node; the strips' places are those of the blocking."""
    cuts, kernels = set(), set()
    engines = ENGINES.values()
    for engine, (graph, plan) in ((x, case) for x in engines for case in direct_cases(x, 40)):
        for layer, node in zip(plan.layers, multiplies(graph), strict=True):
            if not layer.shape.gathers:
                continue
            assert isinstance(node, Direct)
            shape, v = layer.shape, layer.values
            rows, columns = node.weight.shape[2:]
            reads, writes = [], []
            for s in layer.blocking.strips():
                top = s.row * node.stride_rows - node.top
                left = s.group * node.stride_columns - node.left
                ys = clipped(top, (s.rows - 1) * node.stride_rows + rows, shape.height)
                xs = clipped(left, (s.groups - 1) * node.stride_columns + columns, shape.width)
                for plane in range(-(-shape.in_channels // 8)):
                    base = layer.source.base + plane * shape.height * shape.width + xs[0]
                    reads += [(base + y * shape.width, len(xs)) for y in ys]
                out = node.output
                for group in range(-(-out.channels // 8)):
                    base = layer.result.base + group * out.height * out.width + s.group
                    writes += [
                        (base + y * out.width, s.groups) for y in range(s.row, s.row + s.rows)
                    ]
            assert planned_runs(v, "read", (read_place, read_place)) == reads
            assert planned_runs(v, "write", (write_place, write_place)) == writes
            assert v["rows_full"] * v["pitch"] <= engine.plane_pixels
            assert v["pitch"] == v["columns_full"]
            assert v["row_step"] == v["pitch"] * node.stride_rows
            cuts.add((min(3, int(v["strips_down"])), min(3, int(v["strips_across"]))))
            kernels.add((rows, columns))
    assert cuts == {(rows, columns) for rows in (1, 2, 3) for columns in (1, 2, 3)}
    assert {edge for kernel in kernels for edge in kernel} == set(range(1, 8))


def test_bursts_of_linear_layers_are_the_map_in_order() -> None:
    seen = set()
    for engine, graph, plan in plans():
        for layer, node in zip(plan.layers, fuse(graph), strict=True):
            v, op = layer.values, layer.shape.op
            if op is Op.WINOGRAD or layer.shape.gathers:
                continue
            reads = planned_runs(v, "read", (read_place, read_place))
            writes = planned_runs(v, "write", (write_place, write_place))
            for runs, region in ((reads, layer.source), (writes, layer.result)):
                words = [first + i for first, count in runs for i in range(count)]
                assert sorted(words) == list(range(region.base, region.base + region.words))
            tiles = tiles_of(engine, v)
            size = engine.num_lanes if op is Op.DENSE else tiles * engine.linear_pixels
            assert (
                v["read_words_last"]
                <= v["read_words_middle"]
                <= v["groups_full"] * v["sub_rows"] * size
            )
            groups = list(layer.blocking.strips())[-1].groups
            assert v["columns_last"] == groups * tiles * engine.num_lanes
            seen.add((op, len(list(layer.blocking.strips())) > 1, node.output.is_raw))
    wanted = {(Op.DIRECT, True, False), (Op.DIRECT, False, False)}
    assert wanted | {(Op.DENSE, False, False), (Op.DENSE, False, True)} <= seen


def test_numbers_of_a_layer_reach_its_descriptor() -> None:
    for engine, graph, plan in plans():
        for layer, planned in zip(multiplies(graph), plan.layers, strict=True):
            v = planned.values
            source = graph.type_of(layer.inputs[0])
            taps = range(engine.num_lanes)
            pick = taps if isinstance(layer, Winograd) else [0] * engine.num_lanes
            assert v["v_shift"] == tuple(int(layer.v_exponent[t]) - source.exponent for t in pick)
            assert v["sum_shift"] == tuple(
                int(layer.v_exponent[t] + layer.weight_exponent[t]) - layer.acc_exponent
                for t in pick
            )
            assert v["v_limit"] == 2 ** (layer.v_bits - 1) - 1
            assert (v["raw"], v["pool"]) == (layer.output.is_raw, is_pooled(graph, layer))
            assert v["in_signed"] == source.signed
            if not layer.output.is_raw:
                assert (v["low"], v["high"]) == layer.output.bounds
                assert v["y_shift"] == layer.output.exponent - layer.acc_exponent


# --- rejections ---------------------------------------------------------------------------------


def layer_of(op: type[Multiply]) -> Graph:
    """Return the first random graph whose layer has this op."""
    graphs = (random_layer_graph(seed, 2) for seed in range(500))
    return next(graph for graph in graphs if isinstance(graph.nodes[0], op))


def change(graph: Graph, **fields: Any) -> Graph:
    changed = change_node(graph, 0, **fields)
    check_graph(changed)
    return changed


def rejection(graph: Graph, engine: EngineConfig) -> str:
    with pytest.raises(ScheduleError) as caught:
        schedule(graph, engine)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_another_tile_size_is_rejected() -> None:
    graph = layer_of(Winograd)
    assert rejection(graph, EngineConfig(m=4)) == (
        "layer 'layer' uses F(2,3), the engine is F(4,3); set engine.m = 2 or quantize again"
    )
    schedule(layer_of(Dense), EngineConfig(m=4))  # which has no transform


def residual(own: int, total: int) -> Graph:
    """A layer with a result of exponent `own`, to which an input of exponent 0 is added."""
    source = TensorType(8, 4, 4, 8, False, 0)
    layer = Direct(
        name="layer",
        inputs=(INPUT,),
        weight=np.eye(8, dtype=np.int64)[:, :, None, None],
        bias=np.zeros(8, dtype=np.int64),
        v_exponent=np.array([0]),
        weight_exponent=np.array([-20]),
        v_bits=8,
        weight_bits=8,
        keep=1,
        acc_exponent=-20,
        output=replace(source, exponent=own, signed=True),
    )
    output = replace(source, exponent=total, signed=True, bits=7)
    graph = Graph(source, (layer, Add(name="sum", inputs=("layer", INPUT), output=output)))
    check_graph(graph)
    return graph


@pytest.mark.parametrize(
    ("own", "total", "shifts"),
    [(-7, 0, (0, 7, 7)), (3, 1, (3, 0, 1)), (0, -7, (7, 7, 0)), (-4, 3, (0, 4, 7))],
)
def test_sum_is_on_the_finest_of_its_grids(
    own: int, total: int, shifts: tuple[int, int, int]
) -> None:
    (plan,) = schedule(residual(own, total), ENGINE).layers
    names = ("own_shift", "shortcut_shift", "add_shift", "add_low", "add_high")
    assert tuple(plan.values[name] for name in names) == (*shifts, -64, 63)
    assert (plan.values["low"], plan.values["high"]) == (-128, 127)
    assert (plan.values["no_add"], plan.values["shortcut_signed"]) == (0, 0)
    assert plan.values["shortcut_base"] == plan.source.base


@pytest.mark.parametrize(("own", "total", "apart"), [(-8, 0, 8), (0, -8, 8), (-4, 4, 8)])
def test_sum_of_grids_too_far_apart_is_rejected(own: int, total: int, apart: int) -> None:
    assert rejection(residual(own, total), ENGINE) == (
        f"node 'sum': its exponents must lie at most 7 apart, got {apart} ({own} + 0 -> {total}); "
        "calibrate the layers again"
    )


def averaged(size: int, exponent: int) -> Graph:
    """A layer whose map of `size` x `size` pixels and exponent 0 is averaged."""
    graph = residual(0, 0)
    kind = replace(graph.input, height=size, width=size)
    layer = replace(graph.nodes[0], output=replace(kind, signed=True))
    output = TensorType(8, 1, 1, 8, False, exponent)
    graph = Graph(kind, (layer, GlobalAverage(name="mean", inputs=("layer",), output=output)))
    check_graph(graph)
    return graph


def test_average_is_a_row_of_strips_and_one_word_per_group() -> None:
    _, plan = schedule(averaged(8, -2), ENGINE).layers
    values = plan.values
    assert (values["average"], values["average_signed"], values["average_shift"]) == (1, 1, 4)
    assert (values["average_low"], values["average_high"]) == (0, 255)
    assert (values["strips_down"], values["strips_across"]) == (1, 2)
    assert (values["blocks"], values["planes"], values["channel_groups"]) == (2, 1, 1)
    assert plan.result.words == 1


def test_average_over_more_than_a_strip_walks_over_a_group_after_another() -> None:
    graph = averaged(24, 0)
    output = graph.nodes[-1].output
    graph = Graph(
        replace(graph.input, channels=20),
        (replace(graph.nodes[-1], inputs=(INPUT,), output=replace(output, channels=20)),),
    )
    (plan,) = schedule(graph, ENGINE).layers
    values = plan.values
    assert plan.blocking.strip_groups == 32  # what the lanes hold
    assert (values["strips_down"], values["strips_across"]) == (3, 18)
    assert (values["read_right"], values["read_down"]) == (32, 32)
    assert (values["write_right"], values["write_down"]) == (0, 1)


def test_average_beyond_the_engines_numbers_is_rejected() -> None:
    assert rejection(averaged(8, 26), ENGINE) == (
        "node 'mean': the shift of an average must be at most 31, got 32; use a smaller map or "
        "calibrate again"
    )
    large = replace(ENGINE, v_words=4096, out_tiles=4096)
    assert rejection(averaged(129, 0), replace(large, m=4)) == (
        "node 'mean': the number of pixels of an average must be at most 16384, got 16641; use a "
        "smaller map or calibrate again"
    )


def wide_layer(channels: int) -> Graph:
    """Return a pointwise layer over `channels` channels, all weights 1."""
    kind = TensorType(channels, 2, 2, 8, False, 0)
    layer = layer_of(Direct).nodes[0]
    changed = replace(
        layer,
        weight=np.ones((1, channels, 1, 1), dtype=np.int64),
        **dict.fromkeys(("stride_rows", "stride_columns"), 1),
        **dict.fromkeys(("top", "left", "bottom", "right"), 0),
        bias=np.zeros(1, dtype=np.int64),
        v_exponent=np.array([1]),
        weight_exponent=np.array([0]),
        acc_exponent=0,
        v_bits=8,
        weight_bits=2,
        keep=8,
        output=TensorType(1, 2, 2, 8, False, 4),
    )
    graph = Graph(kind, (changed,))
    check_graph(graph)
    return graph


def test_too_many_channels_are_one_line_that_names_the_buffer() -> None:
    deep = EngineConfig(v_words=100)
    assert schedule(wide_layer(800), deep).layers[0].values["one_tile"] == 0
    assert schedule(wide_layer(801), deep).layers[0].values["one_tile"] == 1
    schedule(wide_layer(1600), deep)
    message = rejection(wide_layer(1601), deep)
    assert message.startswith(
        "layer 'layer': one tile needs 101 words of a V bank, engine.v_words is 100; raise"
    )


def bounded_graphs() -> list[Graph]:
    """Random layers whose accumulators need 36 bits or more, on a grid finer than it must be."""
    graphs = [random_layer_graph(seed, 2) for seed in range(60)]
    fine = []
    for graph in graphs:
        (layer,) = multiplies(graph)
        finer = max(0, 36 - plain_worst_case(layer)[1].bit_length() - 1)
        if not layer.output.is_raw and finer <= 16:
            fine.append(change(graph, acc_exponent=layer.acc_exponent - finer))
    return fine


@pytest.mark.parametrize(("key", "low", "high"), [("acc_bits", 16, 32), ("y_bits", 32, 48)])
def test_word_lengths_are_exactly_those_of_the_worst_case(key: str, low: int, high: int) -> None:
    """The bound in plain Python, which shares no code with the scheduler, decides both limits."""
    rejected = set()
    for graph in bounded_graphs():
        (layer,) = multiplies(graph)
        largest_sum, largest_y = plain_worst_case(layer)
        if key == "acc_bits" and isinstance(layer, Dense):
            continue  # its sum is spread over the lanes
        needed = (largest_sum if key == "acc_bits" else largest_y).bit_length() + 1
        schedule(graph, replace(ENGINE, **{key: min(high, max(low, needed))}))
        if needed > low:
            assert rejection(graph, replace(ENGINE, **{key: needed - 1})) == (
                f"layer 'layer': its largest sum needs {needed} bits, engine.{key} is "
                f"{needed - 1}; raise engine.{key}, or use fewer channels, kept weights or bits"
            )
            rejected.add(type(layer))
    assert rejected == {Winograd, Direct, Dense} - ({Dense} if key == "acc_bits" else set())


@pytest.mark.parametrize(
    ("what", "limit"), [("V shift", 15), ("sum shift", 31), ("output shift", 62)]
)
def test_shifts_beyond_the_engine_are_rejected(what: str, limit: int) -> None:
    """The output may be shifted by all that a graph may hold; the others have smaller fields."""

    def shifted(by: int) -> Graph:
        graph = wide_layer(1)
        if what == "V shift":
            return change(graph, v_exponent=np.array([by]))
        if what == "sum shift":
            return change(graph, weight_exponent=np.array([by - 1]))
        return change(graph, output=replace(graph.nodes[0].output, exponent=by))

    tall = replace(ENGINE, y_bits=48)
    schedule(shifted(limit), tall)
    if what != "output shift":
        assert rejection(shifted(limit + 1), tall) == (
            f"layer 'layer': {what} must be at most {limit}, got {limit + 1}; its exponents are "
            f"too far apart, calibrate the layer again"
        )


@pytest.mark.parametrize("tap", [0, 7, 15])
def test_one_tap_beyond_the_engine_is_enough(tap: int) -> None:
    graph = layer_of(Winograd)
    (layer,), source = multiplies(graph), graph.input
    v_exponent = np.full(16, source.exponent)
    v_exponent[tap] += 16
    weight_exponent = layer.acc_exponent - v_exponent
    far = change(graph, v_exponent=v_exponent, weight_exponent=weight_exponent)
    assert "V shift must be at most 15, got 16" in rejection(far, ENGINE)
    weight_exponent = layer.acc_exponent - v_exponent
    v_exponent[tap] -= 1
    weight_exponent[tap] += 33
    far = change(
        graph, v_exponent=v_exponent, weight_exponent=weight_exponent, weight=0 * layer.weight
    )
    assert "sum shift must be at most 31, got 32" in rejection(far, ENGINE)


def test_map_beyond_a_descriptor_field_is_rejected() -> None:
    graph = wide_layer(1)
    layer = graph.nodes[0]
    wide = Graph(
        replace(graph.input, height=1, width=65536),
        (replace(layer, output=replace(layer.output, height=1, width=65536)),),
    )
    check_graph(wide)
    assert rejection(wide, ENGINE) == (
        "layer 'layer': row_words (input words from one row to the next) must be at most 65535, "
        "got 65536; use a smaller map"
    )


def test_too_many_layers_are_rejected() -> None:
    graph = wide_layer(1)
    nodes = tuple(replace(graph.nodes[0], name=f"layer{n}") for n in range(257))
    assert rejection(replace(graph, nodes=nodes), ENGINE) == (
        "graph: a program holds at most 256 layers, got 257"
    )
    assert len(schedule(replace(graph, nodes=nodes[:256]), ENGINE).layers) == 256


def test_rejection_names_the_layer_of_a_chain() -> None:
    graph = random_chain_graph(0, 2)
    for seed in range(100):
        graph = random_chain_graph(seed, 2)
        sub_rows = [plan.blocking.sub_rows for plan in schedule(graph, ENGINE).layers]
        if sub_rows[0] <= 32 < max(sub_rows):
            break
    first = next(n for n, s in enumerate(sub_rows) if s > 32)
    message = rejection(graph, replace(ENGINE, v_words=16))
    assert message.startswith(f"layer '{multiplies(graph)[first].name}': one tile needs ")


def test_direct_layer_of_which_no_strip_fits_is_refused_by_name() -> None:
    engine = EngineConfig(po=1, pt=1, v_words=32, w_words=32, out_tiles=32, line_pixels=16)

    def refusal(seed: int) -> str:
        try:
            schedule(random_direct_graph(seed, engine.m), engine)
        except ScheduleError as error:
            return str(error)
        return ""

    said = [text for text in map(refusal, range(60)) if text]
    assert any("not even a strip of one tile group fits the engine's buffers" in s for s in said)
    assert all(text.startswith("layer '") for text in said)
