# SPDX-License-Identifier: Apache-2.0
"""The RTL against the interpreter, at its AXI pins, and against what can be damaged.

The ladder's rung "interpreter = RTL" climbs here: random layers and chains with 0% and 30% stalls
on engines that openhls compiles and Verilator runs. Both builds are cached by content under
build/.cache/tests.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from codegen import abi
from codegen.abi import STATUS_TEXT, Status
from codegen.emit import emit_data, emit_engine
from codegen.ir import INPUT, Direct, Graph, TensorType, Winograd
from codegen.schedule import LayerPlan, Schedule, schedule
from openhls.project import WAIVERS, compile_design
from sim import rtl, verilator
from sim.contract import axi_error_ports
from tests.engines import (
    CACHE,
    chain_case,
    deep_cases,
    direct_cases,
    expected_maps,
    fitting,
    strip_cases,
)
from tests.ladder import random_chain_graph, random_images, random_layer_graph
from winnow.blocking import Op, bias_beats
from winnow.cache import lock
from winnow.code_hash import code_hash, files_hash
from winnow.compare import require_equal
from winnow.config import TargetConfig
from winnow.engine import EngineConfig
from winnow.errors import MismatchError
from winnow.srbs import srbs_mask

OPENHLS = code_hash(["openhls.project"]) + files_hash(["openhls/include", "openhls/rtl"])

ENGINES = {
    "default": EngineConfig(),
    # One channel, one tile, and strips of few tiles.
    "small": EngineConfig(po=1, pt=1, v_words=64, w_words=64, out_tiles=32, line_pixels=32),
    "large_tile": EngineConfig(m=4),
    # Two tiles, of which deep layers have one.
    "deep": EngineConfig(
        po=2, v_words=16, w_words=16, out_tiles=16, line_pixels=16, plane_pixels=64
    ),
}
VARIANTS = ["default", "small", pytest.param("large_tile", marks=pytest.mark.slow)]
STALLS = (0, 30)
SEEDS, LEAST_LAYERS = 64, 60
CHAINS = 4
DIRECT = 12
DEEP = 24
FIRST_WAY, HAND_OVER = 12, 4  # cycles that the model leaves out: into the plane buffer, per plane
UNCOUNTED = 15  # cycles: both, for one plane
LONG = 1000  # cycles from which on 5 % of a layer are more than SLACK
SLACK = 50  # cycles


@cache
def rtl_folder(name: str) -> Path:
    """Return the SystemVerilog of a variant."""
    with tempfile.TemporaryDirectory() as work:
        project = Path(work)
        files = emit_engine(project, ENGINES[name], TargetConfig())
        tools = [version("ziglang"), version("xls-python")]
        templates = sorted((rtl.HERE.parent / "openhls" / "templates").iterdir())
        key = verilator.content_hash([*files, *templates], OPENHLS, *tools)
        folder = CACHE / f"rtl-{key}"
        with lock(folder):
            if not (folder / "report.json").is_file():  # written last
                top, include = project / "src" / "top.cpp", project / "include"
                compile_design(top, [include], rtl.TOP, folder, CACHE / "openhls")
    return folder


@cache
def harness(name: str) -> rtl.Harness:
    """Return the Verilated engine of a variant."""
    return rtl.build(rtl_folder(name), ENGINES[name], CACHE)


def equal_run(
    name: str, graph: Graph, plan: Schedule, *, stall: int, seed: int, count: int = 1
) -> rtl.Run:
    """Run `count` random images on the RTL of a variant; every map must equal the interpreter's."""
    images = random_images(graph, seed, count)
    run = rtl.run(harness(name), plan, images, stall=stall, seed=seed)
    require_equal(expected_maps(graph, images), run.maps)
    return run


@dataclass(frozen=True, eq=False)
class Climb:
    """A layer that ran on the RTL and equals the interpreter."""

    seed: int
    plan: LayerPlan
    cycles: int
    layer_cycles: int


@cache
def climb_layers(name: str, stall: int, seeds: range = range(SEEDS)) -> tuple[Climb, ...]:
    """Run the random layers that fit a variant; each must equal the interpreter."""
    climbed = []
    for seed in seeds:
        graph = random_layer_graph(seed, ENGINES[name].m)
        plan = fitting(graph, ENGINES[name])
        if plan is None:
            continue
        run = equal_run(name, graph, plan, stall=stall, seed=seed)
        ((cycles,),) = run.layer_cycles
        climbed.append(Climb(seed, plan.layers[0], run.cycles[0], cycles))
    return tuple(climbed)


# --- interpreter = RTL ------------------------------------------------------------------------


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("name", VARIANTS)
def test_random_layers_equal_the_interpreter(
    name: str, stall: int, request: pytest.FixtureRequest
) -> None:
    climbed = climb_layers(name, stall)
    climb_layers(name, stall, range(SEEDS, request.config.getoption("--fuzz-layers")))
    assert len(climbed) >= LEAST_LAYERS
    assert {climb.plan.shape.op for climb in climbed} == set(Op)


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("name", VARIANTS)
def test_random_chains_equal_the_interpreter(name: str, stall: int) -> None:
    """Two images, one run after the other without a reset."""
    climbed, seed = 0, 0
    while climbed < CHAINS:
        graph = random_chain_graph(seed, ENGINES[name].m)
        plan = fitting(graph, ENGINES[name])
        if plan is not None:
            run = equal_run(name, graph, plan, stall=stall, seed=seed, count=2)
            assert [len(cycles) for cycles in run.layer_cycles] == [len(plan.layers)] * 2
            assert all(sum(run.layer_cycles[i]) <= run.cycles[i] for i in range(2))
            climbed += 1
        seed += 1


@pytest.mark.parametrize("stall", STALLS)
def test_maps_in_strips_of_every_place_equal_the_interpreter(stall: int) -> None:
    for seed, (graph, plan) in enumerate(strip_cases(ENGINES["small"])):
        equal_run("small", graph, plan, stall=stall, seed=seed)


def test_cycles_repeat_and_stalls_cost_cycles() -> None:
    graph = chain_case(7, 4)
    plan, images = schedule(graph, ENGINES["small"]), random_images(graph, 5, 1)

    def cycles(stall: int, seed: int) -> int:
        return rtl.run(harness("small"), plan, images, stall=stall, seed=seed).cycles[0]

    free = cycles(0, 1)
    assert cycles(0, 2) == free
    stalled = cycles(30, 1)
    assert stalled > free
    assert cycles(30, 1) == stalled
    assert cycles(30, 2) != stalled


# --- cycle model ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_rtl_takes_the_modelled_cycles(name: str) -> None:
    """Within 5 % of the model; a layer too short for that within SLACK cycles."""
    misses, long = [], 0
    for climb in climb_layers(name, 0):
        modelled, measured = climb.plan.cycles.total, climb.layer_cycles
        long += measured > LONG
        if abs(measured - modelled) > max(0.05 * modelled, SLACK):
            text = f"seed {climb.seed}, {climb.plan.shape.op}: {modelled} modelled, {measured}"
            misses.append(f"{text} measured, ratio {measured / modelled:.3f}")
    assert misses == []
    assert long >= 20


@pytest.mark.parametrize("name", VARIANTS)
def test_fill_cycles_fit_the_rtl(name: str) -> None:
    """When this fails refit FILL_CYCLES: python -m sim fill."""
    above = [climb.layer_cycles - climb.plan.cycles.total for climb in climb_layers(name, 0)]
    assert abs(median(above)) <= 8


def layer_a(keep: int) -> Graph:
    """Return the layer of the README's comparison: 3x3, 64 -> 64 channels, 32x32, 8 bits."""
    rng = np.random.default_rng(keep)
    shape = (64, 64, 16)
    weight = np.where(srbs_mask(rng.random(shape), keep), rng.integers(-127, 128, size=shape), 0)
    layer = Winograd(
        name="layer_a",
        inputs=(INPUT,),
        m=2,
        weight=weight,
        bias=rng.integers(-1000, 1000, size=64),
        v_exponent=np.full(16, 2),
        weight_exponent=np.zeros(16, dtype=np.int64),
        v_bits=8,
        weight_bits=8,
        keep=keep,
        acc_exponent=2,
        output=TensorType(64, 32, 32, 8, True, 12),
    )
    return Graph(TensorType(64, 32, 32, 8, False, 0), (layer,))


@pytest.mark.parametrize("name", VARIANTS)
def test_direct_layers_equal_the_interpreter_and_run_as_modelled(name: str) -> None:
    cuts = set()
    for seed, (graph, plan) in enumerate(direct_cases(ENGINES[name], DIRECT)):
        images = random_images(graph, seed, 1)
        expected = expected_maps(graph, images)
        values = plan.layers[0].values
        for stall in STALLS:
            run = rtl.run(harness(name), plan, images, stall=stall, seed=seed)
            require_equal(expected, run.maps)
            if stall == 0:
                ((measured,),) = run.layer_cycles
                # see docs/engine.md, the cycle model's limits
                modelled = plan.layers[0].cycles.total
                planes = len(list(plan.layers[0].blocking.strips())) * values["planes"]
                slack = SLACK + FIRST_WAY + HAND_OVER * planes
                assert modelled == pytest.approx(measured, rel=0.05, abs=slack)
        cuts.add(values["strips_down"] * values["strips_across"] > 1)
    assert cuts == {False, True}


def test_deep_layers_equal_the_interpreter_and_run_as_modelled() -> None:
    """Tile groups of one tile, of every op, without and with stalls."""
    kinds = set()
    for seed, (graph, plan) in enumerate(deep_cases(ENGINES["deep"], DEEP)):
        images = random_images(graph, seed, 1)
        expected, layer = expected_maps(graph, images), plan.layers[0]
        assert layer.values["one_tile"] == 1
        for stall in STALLS:
            run = rtl.run(harness("deep"), plan, images, stall=stall, seed=seed)
            require_equal(expected, run.maps)
            if stall == 0:
                ((measured,),) = run.layer_cycles
                assert layer.cycles.total == pytest.approx(measured, rel=0.05)
        kinds.add((layer.shape.op, layer.shape.gathers, layer.blocking.sub_rows % 2))
    ops = [(Op.WINOGRAD, False), (Op.DIRECT, False), (Op.DIRECT, True), (Op.DENSE, False)]
    assert kinds == {(*op, odd) for op in ops for odd in (0, 1)}


@pytest.mark.parametrize("size", [16, 32])
def test_a_strided_pointwise_layer_runs_as_modelled(size: int) -> None:
    """Two strips or more, whose planes take longer to store than to gather: within 2 %."""
    rng = np.random.default_rng(size)
    weight = np.where(srbs_mask(rng.random((32, 16, 1)), 2), rng.integers(-127, 128), 0)
    layer = Direct(
        name="layer",
        inputs=(INPUT,),
        weight=weight.reshape(32, 16, 1, 1),
        bias=rng.integers(-1000, 1000, size=32),
        v_exponent=np.full(1, 2),
        weight_exponent=np.zeros(1, dtype=np.int64),
        v_bits=8,
        weight_bits=8,
        keep=2,
        acc_exponent=2,
        output=TensorType(32, size // 2, size // 2, 8, True, 8),
        stride_rows=2,
        stride_columns=2,
    )
    graph = Graph(TensorType(16, size, size, 8, False, 0), (layer,))
    plan, images = schedule(graph, ENGINES["default"]), random_images(graph, 1, 1)
    assert len(list(plan.layers[0].blocking.strips())) >= 2
    run = rtl.run(harness("default"), plan, images)
    require_equal(expected_maps(graph, images), run.maps)
    ((measured,),) = run.layer_cycles
    assert measured == pytest.approx(plan.layers[0].cycles.total, rel=0.02)


@pytest.mark.parametrize("keep", [2, 8])
def test_large_layer_runs_as_modelled(keep: int) -> None:
    """The cycles that the README claims, within 1 %, and every value."""
    graph = layer_a(keep)
    plan, images = schedule(graph, ENGINES["default"]), random_images(graph, 1, 1)
    run = rtl.run(harness("default"), plan, images)
    expected = expected_maps(graph, images)
    require_equal(expected, run.maps)
    assert len(np.unique(expected["layer_a"])) > 100
    ((measured,),) = run.layer_cycles
    assert measured == pytest.approx(plan.layers[0].cycles.total, rel=0.01)


# --- what the RTL is --------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_rtl_is_lint_clean(name: str, tmp_path: Path) -> None:
    folder = rtl_folder(name)
    verilator.lint(rtl.rtl_sources(folder), rtl.TOP, folder / WAIVERS, tmp_path / "lint.log")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_loop_of_the_engine_starts_an_iteration_per_cycle(name: str) -> None:
    """Only `control`, which runs once per layer, may take longer."""
    report = json.loads((rtl_folder(name) / "report.json").read_text())
    slow = {process: row["interval"] for process, row in report.items() if row["interval"] != 1}
    slow.pop("control", None)
    assert slow == {}
    assert len(report) >= 15


def test_rtl_is_the_same_every_time(tmp_path: Path) -> None:
    """From another folder, and with the schedules of XLS from the cache."""
    emit_engine(tmp_path / "hls", ENGINES["small"], TargetConfig())
    top, include = tmp_path / "hls" / "src" / "top.cpp", tmp_path / "hls" / "include"
    first = rtl_folder("small")
    design = compile_design(top, [include], rtl.TOP, tmp_path / "rtl", CACHE / "openhls")
    for path in design.files:
        assert path.read_bytes() == (first / path.name).read_bytes(), path.name


def test_stale_rtl_is_removed(tmp_path: Path) -> None:
    emit_engine(tmp_path / "hls", ENGINES["small"], TargetConfig())
    (tmp_path / "rtl").mkdir()
    (tmp_path / "rtl" / "stale.sv").write_text("module stale; endmodule\n")
    top, include = tmp_path / "hls" / "src" / "top.cpp", tmp_path / "hls" / "include"
    compile_design(top, [include], rtl.TOP, tmp_path / "rtl", CACHE / "openhls")
    assert not (tmp_path / "rtl" / "stale.sv").exists()
    assert (tmp_path / "rtl" / f"{rtl.TOP}.sv").is_file()


# --- damage -----------------------------------------------------------------------------------

Damage = Callable[[str, int, int], None]


@pytest.fixture
def network() -> tuple[Graph, Schedule]:
    graph = chain_case(7, 4)
    return graph, schedule(graph, ENGINES["small"])


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> Damage:
    """Let the next runs see a byte of a data file changed: its name, the offset and a mask."""

    def change(file: str, offset: int, mask: int) -> None:
        def emit(folder: Path, plan: Schedule, images: int = 1) -> list[Path]:
            files = emit_data(folder, plan, images)
            content = bytearray((folder / file).read_bytes())
            content[offset] ^= mask
            (folder / file).write_bytes(content)
            return files

        monkeypatch.setattr(rtl, "emit_data", emit)

    return change


def with_layer(plan: Schedule, layer: int, **changes: object) -> Schedule:
    """Return a schedule with other fields in one layer."""
    layers = list(plan.layers)
    layers[layer] = replace(layers[layer], **changes)  # type: ignore[arg-type]
    return replace(plan, layers=tuple(layers))


@pytest.mark.parametrize("layer", range(4))
def test_corrupted_weights_are_seen_in_their_layer(
    network: tuple[Graph, Schedule], layer: int
) -> None:
    graph, plan = network
    images = random_images(graph, 5, 2)
    name, damaged = plan.layers[layer].name, plan.layers[layer].packed.copy()
    damaged[:, bias_beats(plan.engine) :] ^= 0x55
    with pytest.raises(
        MismatchError, match=rf"stopped at layer '{name}' with status 9: the weights"
    ):
        rtl.run(harness("small"), with_layer(plan, layer, packed=damaged), images)
    values = plan.layers[layer].values | {"weight_checksum": zlib.crc32(damaged.tobytes())}
    run = rtl.run(harness("small"), with_layer(plan, layer, packed=damaged, values=values), images)
    with pytest.raises(MismatchError, match=f"layer '{name}': image 0, "):
        require_equal(expected_maps(graph, images), run.maps)


def test_flipped_bias_is_reported(network: tuple[Graph, Schedule], damage: Damage) -> None:
    graph, plan = network
    last = plan.layers[-1]
    damage("weights.bin", last.weight_base * plan.engine.axi_bits // 8, 1)  # bit 0 of bias 0
    with pytest.raises(MismatchError, match=rf"stopped at layer '{last.name}' with status 9: "):
        rtl.run(harness("small"), plan, random_images(graph, 5, 1))


LAYER_2 = 8 * (abi.HEADER_WORDS + 2 * abi.LAYER_WORDS)


@pytest.mark.parametrize(
    ("offset", "mask", "layer", "status"),
    [
        (0, 1, 0, Status.BAD_MAGIC),
        (4, 2, 0, Status.BAD_VERSION),
        (7, 0x80, 0, Status.BAD_HEADER),
        (LAYER_2 + 25, 4, 2, Status.BAD_DESCRIPTOR),
    ],
)
def test_corrupted_program_stops_with_its_status(
    network: tuple[Graph, Schedule],
    damage: Damage,
    offset: int,
    mask: int,
    layer: int,
    status: Status,
) -> None:
    graph, plan = network
    damage("program.bin", offset, mask)
    text = (
        f"the RTL stopped at layer '{plan.layers[layer].name}' with status {int(status)}: "
        f"{STATUS_TEXT[status]}"
    )
    with pytest.raises(MismatchError, match=f"^{re.escape(text)}$"):
        rtl.run(harness("small"), plan, random_images(graph, 0, 1))


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("op", len(Op), Status.BAD_OPCODE),
        ("keep", 0, Status.BAD_SIZE),
        ("blocks", 60, Status.BAD_SIZE),
        ("part_steps", ENGINES["small"].w_words + 1, Status.BAD_SIZE),
        ("strip_beats", 1, Status.BAD_SIZE),
        ("weight_base", 2**31, Status.BAD_ADDRESS),
        ("result_base", 2**31, Status.BAD_ADDRESS),
        ("feature_base", 2**32 - 1, Status.BAD_ADDRESS),
    ],
)
@pytest.mark.parametrize("layer", [0, 3])
def test_illegal_descriptor_stops_at_its_layer(
    network: tuple[Graph, Schedule], field: str, value: int, status: Status, layer: int
) -> None:
    graph, plan = network
    layers = list(plan.layers)
    layers[layer] = replace(layers[layer], values=layers[layer].values | {field: value})
    broken = replace(plan, layers=tuple(layers))
    match = f"stopped at layer '{layers[layer].name}' with status {int(status)}: "
    with pytest.raises(MismatchError, match=match):
        rtl.run(harness("small"), broken, random_images(graph, 0, 1), stall=30)


def test_program_of_another_engine_is_refused(network: tuple[Graph, Schedule]) -> None:
    graph, _ = network
    other = schedule(graph, ENGINES["default"])
    with pytest.raises(MismatchError, match=r"stopped at layer '\w+_0' with status 3: the program"):
        rtl.run(harness("small"), other, random_images(graph, 0, 1))


def edited(plan: Schedule, layer: int, **values: int) -> Schedule:
    """Return a schedule with other numbers in one layer's descriptor."""
    layers = list(plan.layers)
    layers[layer] = replace(layers[layer], values=layers[layer].values | values)
    return replace(plan, layers=tuple(layers))


def test_weights_outside_of_memory_are_refused(network: tuple[Graph, Schedule]) -> None:
    graph, plan = network
    broken = edited(plan, 1, weight_base=1 << 24)
    with pytest.raises(MismatchError, match=r"^the RTL stopped at layer '\w+' with status 10: "):
        rtl.run(harness("small"), broken, random_images(graph, 0, 1))


def test_axi_error_names_every_master() -> None:
    assert axi_error_ports(0b1101) == "m_axi_gmem0, m_axi_gmem2, m_axi_gmem3"


def losing_a_beat(folder: Path, broken: Path) -> Path:
    """Return a copy of an engine's RTL whose FIFO of weights loses the first one it is given."""
    shutil.copytree(folder, broken)
    top = broken / "winnow_engine.sv"
    text = top.read_text()
    place = text.rindex("  openhls_fifo ", 0, text.index(" beats_fifo ("))
    fault = (
        "  logic lost_q;\n  always_ff @(posedge ap_clk)\n"
        "    lost_q <= !run_rst && (lost_q || (beats_in_vld && beats_in_rdy));\n"
    )
    changed = text[place:].replace(".in_vld(beats_in_vld)", ".in_vld(beats_in_vld && lost_q)", 1)
    assert changed != text[place:]
    top.write_text(text[:place] + fault + changed)
    return broken


@pytest.mark.slow
def test_hang_names_who_waits_for_whom(network: tuple[Graph, Schedule], tmp_path: Path) -> None:
    """No program can make the engine hang, so a beat gets lost on its way: weights of 8 lanes."""
    graph, plan = network
    broken = rtl.build(losing_a_beat(rtl_folder("small"), tmp_path / "rtl"), plan.engine, CACHE)
    with pytest.raises(MismatchError) as caught:
        rtl.run(broken, plan, random_images(graph, 0, 1))
    assert re.fullmatch(
        r"the RTL hangs \(no AXI beat for 50000 cycles\): cyclic wait: "
        r"'configure' waits for data on stream 'descriptor' \(empty\); "
        r"'read_weights' waits for data on stream 'read_weights_config' \(empty\); "
        r"'unpack_weights' waits for data on stream 'beats' \(empty\); .*"
        r"'multiply_lane' x8 waits for a full half of bank 'w_banks'; .*"
        r"'control' waits for data on stream 'write_bursts_done' \(empty\)",
        str(caught.value),
    )


@pytest.mark.slow
def test_memory_that_answers_nothing_is_named(network: tuple[Graph, Schedule]) -> None:
    graph, plan = network
    with pytest.raises(MismatchError) as caught:
        rtl.run(harness("small"), plan, random_images(graph, 0, 1), stall=100)
    assert str(caught.value) == (
        "the RTL hangs (no AXI beat for 50000 cycles): m_axi_gmem0 takes no address "
        "(ARREADY is low); 'control' waits for read data of m_axi_gmem0"
    )
