# SPDX-License-Identifier: Apache-2.0
"""The compiled C++ against the interpreter, and against everything that can be damaged.

The ladder's rung "interpreter = C++" climbs here: random layers and chains on every engine variant.
"""

from __future__ import annotations

import contextlib
import re
import signal
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from codegen import abi
from codegen.abi import Status
from codegen.emit import emit_data
from codegen.fuse import LayerMaps, fuse
from codegen.ir import INPUT, Direct, Graph, TensorType
from codegen.layout import pack_features
from codegen.pack import Bytes
from codegen.program import layer_words, parse_layer, program_words
from codegen.schedule import Schedule, schedule
from sim import csim
from tests.engines import (
    ENGINES,
    chain_case,
    compiled,
    deep_cases,
    direct_cases,
    expected_maps,
    fitting,
    layer_cases,
    strip_cases,
)
from tests.ladder import random_chain_graph, random_images
from winnow.blocking import Op, bias_beats
from winnow.compare import require_equal
from winnow.errors import GraphError, MismatchError
from winnow.fixed_point import IntArray

LAYERS_PER_ENGINE = 80
DIRECT_PER_ENGINE = 40
CHAINS_PER_ENGINE = 6
DEEP_PER_ENGINE = 40
DEEP_ENGINES = ["least", "strips", "large_tile_strips"]
PATTERN = 0xA5C3965A3CF00F69  # what memory holds before a run


def climb(name: str, graph: Graph, plan: Schedule, images: IntArray) -> None:
    require_equal(expected_maps(graph, images), csim.run(compiled(name), plan, images))


# --- interpreter = C++ ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_random_layers_equal_the_interpreter(name: str) -> None:
    for seed, (graph, plan) in enumerate(layer_cases(name, LAYERS_PER_ENGINE)):
        climb(name, graph, plan, random_images(graph, seed, 2))


@pytest.mark.parametrize("name", ["least", "strips", "large_tile_strips"])
def test_maps_in_strips_of_every_place_equal_the_interpreter(name: str) -> None:
    """First, middle, last and only rows and columns of strips, some empty after the pool."""
    for seed, (graph, plan) in enumerate(strip_cases(ENGINES[name])):
        climb(name, graph, plan, random_images(graph, seed, 2))


@pytest.mark.parametrize("name", ENGINES)
def test_random_direct_layers_equal_the_interpreter(name: str) -> None:
    for seed, (graph, plan) in enumerate(direct_cases(ENGINES[name], DIRECT_PER_ENGINE)):
        climb(name, graph, plan, random_images(graph, seed, 2))


@pytest.mark.parametrize("name", DEEP_ENGINES)
def test_random_deep_layers_equal_the_interpreter(name: str) -> None:
    for seed, (graph, plan) in enumerate(deep_cases(ENGINES[name], DEEP_PER_ENGINE)):
        climb(name, graph, plan, random_images(graph, seed, 2))


def test_deep_layers_are_of_every_kind() -> None:
    """Every op, gathered or not, an odd last sub-row or not, blocks in parts or not."""
    cases = [case for name in DEEP_ENGINES for case in deep_cases(ENGINES[name], DEEP_PER_ENGINE)]
    layers = [plan.layers[0] for _, plan in cases]
    assert all(x.values["one_tile"] for x in layers)
    for op, gathers in ((Op.WINOGRAD, False), (Op.DIRECT, False), (Op.DIRECT, True)):
        alike = [x for x in layers if (x.shape.op, x.shape.gathers) == (op, gathers)]
        kinds = {(x.blocking.sub_rows % 2, len(x.blocking.parts) > 1) for x in alike}
        assert kinds == set(product((0, 1), (False, True)))
    assert {x.blocking.sub_rows % 2 for x in layers if x.shape.op is Op.DENSE} == {0, 1}


def test_direct_layers_take_every_kernel_stride_and_place_of_strips() -> None:
    """The seeds follow from the variant alone, so this sees the cases of the test above."""
    plans = [
        plan.layers[0]
        for engine in ENGINES.values()
        for _, plan in direct_cases(engine, DIRECT_PER_ENGINE)
    ]
    windows = [plan.shape.window for plan in plans]
    axes = [axis for window in windows for axis in (window.rows, window.columns)]
    assert {axis.kernel for axis in axes} == set(range(1, 8))
    assert {(axis.stride, axis.before > 0, axis.after > 0) for axis in axes} == set(
        product((1, 2), (False, True), (False, True))
    )
    assert {w.rows == w.columns for w in windows} == {False, True}
    cuts = {
        tuple(min(3, int(plan.values[key])) for key in ("strips_down", "strips_across"))
        for plan in plans
    }
    assert cuts == set(product((1, 2, 3), (1, 2, 3)))
    assert {len(plan.blocking.parts) for plan in plans} >= {1, 2, 3}


@pytest.mark.parametrize("name", ENGINES)
def test_random_chains_equal_the_interpreter(name: str) -> None:
    climbed = 0
    for seed in range(400):
        graph = random_chain_graph(seed, ENGINES[name].m)
        plan = fitting(graph, ENGINES[name])
        if plan is not None:
            climb(name, graph, plan, random_images(graph, seed, 3))
            climbed += 1
        if climbed == CHAINS_PER_ENGINE:
            return
    assert name == "least", "only the least engine may reject most chains"
    assert climbed > 0


def test_random_layers_cover_what_the_engine_can_do() -> None:
    """The seeds follow from the variant alone, so this sees the cases of the tests above."""
    cases = [(name, *case) for name in ENGINES for case in layer_cases(name, LAYERS_PER_ENGINE)]
    assert len(cases) >= 500
    cuts = set()
    for _, _, plan in cases:
        blocking = plan.layers[0].blocking
        cuts.add((blocking.strip_rows < blocking.rows, blocking.strip_groups < blocking.groups))
    assert cuts == {(False, False), (True, False), (False, True), (True, True)}
    layers = [fuse(graph)[0] for _, graph, _ in cases]
    shapes = [plan.layers[0].shape for _, _, plan in cases]
    for name in ENGINES:
        assert {shape.op for n, _, p in cases if n == name for shape in [p.layers[0].shape]} == {
            *Op
        }
    assert {shape.keep for shape in shapes} == set(range(1, 9))
    assert {(shape.op, shape.wide_weights) for shape in shapes} == {
        (op, wide) for op in Op for wide in (False, True)
    }
    assert {(x.op, x.pool is not None, x.output.is_raw) for x in layers} == {
        (Op.WINOGRAD, False, False),
        (Op.WINOGRAD, True, False),
        (Op.DIRECT, False, False),
        (Op.DENSE, False, False),
        (Op.DENSE, False, True),
    }


def pointwise(kind: TensorType, weight: IntArray, **changes: object) -> Graph:
    """Return a graph of one pointwise layer on the finest grids; `changes` are its fields."""
    output = TensorType(len(weight), kind.height, kind.width, 8, True, kind.exponent)
    layer = Direct(
        name="layer",
        inputs=(INPUT,),
        weight=weight.astype(np.int64)[:, :, None, None],
        bias=np.zeros(len(weight), dtype=np.int64),
        v_exponent=np.array([kind.exponent]),
        weight_exponent=np.array([0]),
        v_bits=8,
        weight_bits=8,
        keep=8,
        acc_exponent=kind.exponent,
        output=output,
    )
    return Graph(kind, (replace(layer, **changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["default", "large_tile_single"])
@pytest.mark.parametrize("y_shift", [0, 1, 30, 39, 40, 41, 48, 62])
def test_output_shifts_beyond_the_accumulator_equal_the_interpreter(
    name: str, y_shift: int
) -> None:
    """Sums of up to 38 bits; a shift of more than y_bits gives zero, half to even."""
    kind = TensorType(3, 5, 5, 8, True, 0)
    weight = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 1]])
    output = TensorType(3, 5, 5, 8, True, y_shift - 31)
    bias = np.array([0, 2**31 - 1, -(2**31)])
    graph = pointwise(kind, weight, acc_exponent=-31, output=output, bias=bias)
    climb(name, graph, schedule(graph, ENGINES[name]), random_images(graph, y_shift, 4))


@pytest.mark.parametrize("name", ["default", "large_tile"])
@pytest.mark.parametrize("v_shift", [0, 1, 8, 9, 15])
def test_operand_shifts_beyond_the_feature_equal_the_interpreter(name: str, v_shift: int) -> None:
    kind = TensorType(8, 4, 4, 8, True, 0)
    graph = pointwise(kind, 99 * np.eye(8), v_exponent=np.array([v_shift]))
    climb(name, graph, schedule(graph, ENGINES[name]), random_images(graph, v_shift, 4))


@pytest.mark.parametrize("name", ["default", "least"])
def test_largest_packed_sums_do_not_disturb_their_neighbour(name: str) -> None:
    """Two products of +-127 * 127 fill acc_bits = 16; both tiles of a pair take every sign."""
    kind = TensorType(2, 12, 12, 8, True, 0)
    weight = np.array([[127, 127], [-127, -127], [127, -127], [1, 0]])
    graph = pointwise(kind, weight, output=TensorType(4, 12, 12, 8, True, 8))
    images = np.random.default_rng(0).choice([-128, -127, -1, 0, 127], size=(4, *kind.shape))
    climb(name, graph, schedule(graph, ENGINES[name]), images)


def test_images_run_alone_and_together_alike() -> None:
    graph = chain_case(40, 4)
    plan = schedule(graph, ENGINES["default"])
    images = random_images(graph, 1, 5)
    together = csim.run(compiled("default"), plan, images)
    for number in range(5):
        alone = csim.run(compiled("default"), plan, images[number : number + 1])
        require_equal({name: maps[number : number + 1] for name, maps in together.items()}, alone)


def test_images_of_another_shape_or_range_are_rejected() -> None:
    graph = chain_case(40, 4)
    plan = schedule(graph, ENGINES["default"])
    images = random_images(graph, 1, 2)
    with pytest.raises(GraphError, match=r"feature maps must be .* each, got an array of 2x"):
        csim.run(compiled("default"), plan, images[:, :, 1:])
    with pytest.raises(GraphError, match=r"feature maps must be in .*\.\.300"):
        csim.run(compiled("default"), plan, np.where(images == images.max(), 300, images))


# --- damage -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """A scheduled chain, its data files in `folder`, and what every layer must give."""

    plan: Schedule
    folder: Path
    images: IntArray
    expected: LayerMaps

    @property
    def words(self) -> list[int]:
        return [int(word) for word in program_words(self.plan)]

    def execute(self, words: list[int]) -> csim.Outcome:
        """Run another program on the same data; TimeoutError when it does not end."""
        (self.folder / "program.bin").write_bytes(np.array(words, dtype="<u8").tobytes())
        region = self.plan.input
        sizes = (self.plan.feature_words, region.base, region.words)
        content = pack_features(region.tensor, self.images).tobytes()
        engine = compiled("default")  # before the limit: it may have to be built
        with time_limit(20):
            return csim.execute(engine, self.folder, content, sizes)

    def require_stopped(self, outcome: csim.Outcome, layers_run: int) -> None:
        """Layers before the failure are right; the memory of the others is as it was."""
        assert outcome.layers_run == layers_run
        done = [plan.name for plan in self.plan.layers][:layers_run]
        maps = csim.layer_maps(self.plan, outcome.memory)
        if done:
            require_equal({n: self.expected[n] for n in done}, {n: maps[n] for n in done})
        first = self.plan.layers[layers_run].result.base
        untouched = np.ascontiguousarray(outcome.memory).view("<u8")[:, first:]
        assert untouched.size
        assert (untouched == PATTERN).all()


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"the engine did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    graph = chain_case(7, 4)
    plan = schedule(graph, ENGINES["default"])
    emit_data(tmp_path, plan)
    images = random_images(graph, 5, 2)
    return Network(plan, tmp_path, images, expected_maps(graph, images))


def seal(words: list[int], start: int, length: int) -> None:
    """Write the checksum of the header or descriptor at `start`."""
    words[start + length - 1] = abi.checksum(words[start : start + length - 1])


def descriptor(layer: int) -> slice:
    start = abi.HEADER_WORDS + layer * abi.LAYER_WORDS
    return slice(start, start + abi.LAYER_WORDS)


def test_intact_program_runs(network: Network) -> None:
    outcome = network.execute(network.words)
    assert (outcome.status, outcome.layers_run) == (Status.OK, 4)
    require_equal(network.expected, csim.layer_maps(network.plan, outcome.memory))


BAD_HEADERS = [
    (0, 1, True, Status.BAD_MAGIC),
    (0, 1, False, Status.BAD_MAGIC),
    (0, 1 << 32, True, Status.BAD_VERSION),
    (0, 1 << 33, False, Status.BAD_VERSION),
    (0, 1 << 50, False, Status.BAD_HEADER),
    (1, 1 << 5, False, Status.BAD_HEADER),
    (1, 1 << 5, True, Status.WRONG_ENGINE),
    (1, 1 << 63, True, Status.WRONG_ENGINE),
    (0, 4 << 48, True, Status.BAD_LAYER_COUNT),  # 4 layers become 0
    (0, (4 ^ 257) << 48, True, Status.BAD_LAYER_COUNT),
    (0, (4 ^ 0xFFFF) << 48, True, Status.BAD_LAYER_COUNT),
    (6, 1, True, Status.BAD_IMAGE_COUNT),  # 1 image becomes 0
    (6, 1, False, Status.BAD_HEADER),
    (7, 1, False, Status.BAD_HEADER),
]


@pytest.mark.parametrize(("word", "bits", "sealed", "status"), BAD_HEADERS)
def test_damaged_header_stops_before_the_first_layer(
    network: Network, word: int, bits: int, sealed: bool, status: Status
) -> None:
    words = network.words
    words[word] ^= bits
    if sealed:
        seal(words, 0, abi.HEADER_WORDS)
    outcome = network.execute(words)
    assert outcome.status is status
    network.require_stopped(outcome, 0)


@pytest.mark.parametrize("layer", range(4))
def test_flipped_bit_in_a_descriptor_keeps_earlier_layers(network: Network, layer: int) -> None:
    words = network.words
    words[descriptor(layer).start + 3] ^= 1 << 17
    outcome = network.execute(words)
    assert outcome.status is Status.BAD_DESCRIPTOR
    network.require_stopped(outcome, layer)


ENGINE = ENGINES["default"]
BAD_SIZES = [
    ("keep", 0),
    ("keep", 9),
    ("keep", -4),
    ("sub_rows", 0),
    ("part_steps", 0),
    ("part_steps", 1),  # which would cut a block of several tile groups
    ("part_steps", ENGINE.w_words + 1),
    ("sub_rows", ENGINE.v_words + 1),
    ("blocks", 0),
    ("blocks", 40),  # not those of its groups of channels
    ("channel_groups", -7),
    ("channel_groups", 40),
    ("strips_down", 0),
    ("strips_down", 2**16 + 1),
    ("strips_across", 0),
    ("strips_across", 2**16 + 1),
    ("groups_full", 0),
    ("groups_full", 40),  # not those of its rows and columns
    ("groups_full", ENGINE.out_tiles + 1),
    ("groups_last_column", 60),
    ("groups_last_row", 60),
    ("groups_last_both", 60),
    ("rows_full", 2),
    ("rows_full", 5),  # not whole tiles
    ("rows_full", 2**16 + 1),
    ("rows_last", 5),
    ("rows_last", 100),
    ("columns_full", ENGINE.line_pixels + 1),
    ("columns_full", 8),
    ("columns_last", 2),
    ("columns_last", 60),
    ("read_rows_first", 60),
    ("read_rows_middle", 60),
    ("read_rows_last", 60),
    ("read_words_first", 60),
    ("read_words_middle", 60),
    ("read_words_last", 60),
    ("write_rows_full", 0),
    ("write_rows_last", -1),
    ("write_words_full", -1000),
    ("write_words_last", 0),
    ("planes", 60),  # not those of its sub-rows
    ("strip_beats", 0),
    ("strip_beats", 21),
    ("wide_weights", 2),  # the other one
    ("one_tile", 1),  # of several tile groups
    ("v_limit", 128),
]
BAD_FIELDS = {
    ("op", len(Op)): Status.BAD_OPCODE,
    ("op", 255): Status.BAD_OPCODE,
    **dict.fromkeys(BAD_SIZES, Status.BAD_SIZE),
}


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_illegal_descriptor_stops_at_its_layer(network: Network, field: str, value: int) -> None:
    words = network.words
    place = descriptor(1)
    assert network.plan.layers[1].shape.op is Op.WINOGRAD
    values = parse_layer(ENGINE, np.array(words[place], dtype=np.uint64))
    if field == "wide_weights":
        value = 1 - int(values[field])  # type: ignore[arg-type]
    words[place] = layer_words(ENGINE, values | {field: value})
    outcome = network.execute(words)
    assert outcome.status is BAD_FIELDS.get((field, value), Status.BAD_SIZE)
    network.require_stopped(outcome, 1)


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, ENGINE.plane_pixels + 1), (ENGINE.plane_pixels + 1, 1), (24, 22)]
)
def test_strip_beyond_the_plane_buffer_is_illegal(tmp_path: Path, rows: int, columns: int) -> None:
    """Of direct convolution: 24 x 22 pixels are more than 512, if neither side is."""
    graph, plan = direct_cases(ENGINE, 1)[0]
    emit_data(tmp_path, plan)
    images = random_images(graph, 0, 1)
    network = Network(plan, tmp_path, images, expected_maps(graph, images))
    words, place = network.words, descriptor(0)
    values = parse_layer(ENGINE, np.array(words[place], dtype=np.uint64))
    least = {"read_rows_first": 1, "read_rows_middle": 1, "read_rows_last": 1, "pad_top": 0}
    least |= {"read_words_first": 1, "read_words_middle": 1, "read_words_last": 1, "pad_left": 0}
    size = {"rows_full": rows, "rows_last": rows, "columns_full": columns, "columns_last": columns}
    words[place] = layer_words(ENGINE, values | least | size)
    outcome = network.execute(words)
    assert outcome.status is Status.BAD_SIZE
    network.require_stopped(outcome, 0)


def test_every_status_is_provoked() -> None:
    provoked = {status for *_, status in BAD_HEADERS} | set(BAD_FIELDS.values())
    provoked |= {
        Status.BAD_DESCRIPTOR,
        Status.BAD_WEIGHTS,
        Status.BAD_ADDRESS,
    }  # in tests of their own
    provoked |= {Status.HUNG}  # of the RTL only
    assert provoked == set(Status) - {Status.OK}


def test_every_single_bit_flip_of_a_program_is_reported(network: Network) -> None:
    rng = np.random.default_rng(1)
    clean = network.words
    for _ in range(200):
        words = list(clean)
        word, bit = int(rng.integers(len(words))), int(rng.integers(64))
        words[word] ^= 1 << bit
        outcome = network.execute(words)
        assert outcome.status is not Status.OK, (word, bit)
        layer = (word - abi.HEADER_WORDS) // abi.LAYER_WORDS
        network.require_stopped(outcome, max(0, layer))


def test_random_words_are_no_program(network: Network) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        words = [int(w) for w in rng.integers(0, 2**64, size=len(network.words), dtype=np.uint64)]
        outcome = network.execute(words)
        assert outcome.status is Status.BAD_MAGIC
        network.require_stopped(outcome, 0)


def with_weights(network: Network, layer: int, packed: Bytes) -> list[int]:
    """Change the weights of a layer in memory; return a program with their checksum."""
    path, plan = network.folder / "weights.bin", network.plan.layers[layer]
    start, content = plan.weight_base * ENGINE.axi_bits // 8, path.read_bytes()
    path.write_bytes(content[:start] + packed.tobytes() + content[start + packed.size :])
    values = plan.values | {"weight_checksum": zlib.crc32(packed.tobytes())}
    words = network.words
    words[descriptor(layer)] = layer_words(ENGINE, values)
    return words


def test_flipped_bias_is_seen_at_its_channel(network: Network) -> None:
    plan = network.plan.layers[-1]
    assert plan.values["raw"] == 1
    damaged = plan.packed.copy()
    damaged[0, 0, 4] ^= 1  # lowest bit of bias 1
    words = with_weights(network, 3, damaged)
    outcome = network.execute(network.words)
    assert (outcome.status, outcome.layers_run) == (Status.BAD_WEIGHTS, 3)
    outcome = network.execute(words)
    assert outcome.status is Status.OK
    want = int(network.expected[plan.name][0, 1, 0, 0])
    with pytest.raises(MismatchError) as caught:
        require_equal(network.expected, csim.layer_maps(network.plan, outcome.memory))
    size = network.expected[plan.name].size
    assert str(caught.value) == (
        f"layer '{plan.name}': image 0, channel 1, y 0, x 0 must be {want}, got {want ^ 1}; "
        f"2 of {size} values differ"
    )


@pytest.mark.parametrize("layer", range(4))
def test_flipped_weight_is_seen_in_its_layer(network: Network, layer: int) -> None:
    """Every low nibble and every index of the layer changes; the biases do not."""
    plan = network.plan.layers[layer]
    damaged = plan.packed.copy()
    damaged[:, bias_beats(ENGINE) :] ^= 0x55
    words = with_weights(network, layer, damaged)
    outcome = network.execute(network.words)
    assert (outcome.status, outcome.layers_run) == (Status.BAD_WEIGHTS, layer)
    outcome = network.execute(words)
    assert outcome.status is Status.OK
    with pytest.raises(MismatchError, match=f"layer '{plan.name}': image 0, "):
        require_equal(network.expected, csim.layer_maps(network.plan, outcome.memory))


def test_every_flip_of_one_or_two_bits_of_the_weights_is_reported(network: Network) -> None:
    rng = np.random.default_rng(3)
    path = network.folder / "weights.bin"
    clean = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for flips in [1] * 30 + [2] * 30:
        damaged = clean.copy()
        for place in rng.choice(clean.size * 8, size=flips, replace=False):
            damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged.tobytes())
        outcome = network.execute(network.words)
        assert outcome.status is Status.BAD_WEIGHTS


def test_changed_golden_value_is_named(network: Network) -> None:
    name = network.plan.layers[1].name
    golden = {n: maps.copy() for n, maps in network.expected.items()}
    golden[name][1, 0, 0, 0] += 1
    outcome = network.execute(network.words)
    want = int(golden[name][1, 0, 0, 0])
    message = f"layer '{name}': image 1, channel 0, y 0, x 0 must be {want}, got {want - 1}; 1 of"
    with pytest.raises(MismatchError, match=re.escape(message)):
        require_equal(golden, csim.layer_maps(network.plan, outcome.memory))


def test_nothing_beyond_the_weights_is_read(network: Network) -> None:
    path = network.folder / "weights.bin"
    path.write_bytes(path.read_bytes()[:-8])
    outcome = network.execute(network.words)
    assert outcome.status is Status.BAD_ADDRESS
    network.require_stopped(outcome, 3)


@pytest.mark.parametrize(
    ("length", "layers_run"), [(0, 0), (abi.HEADER_WORDS - 1, 0), (abi.HEADER_WORDS, 0), (-1, 0)]
)
def test_nothing_beyond_the_program_is_read(network: Network, length: int, layers_run: int) -> None:
    outcome = network.execute(network.words[:length])
    assert outcome.status is Status.BAD_ADDRESS
    network.require_stopped(outcome, layers_run)


def test_nothing_beyond_the_maps_is_written(network: Network) -> None:
    (network.folder / "program.bin").write_bytes(program_words(network.plan).tobytes())
    content = pack_features(network.plan.input.tensor, network.images).tobytes()
    sizes = (network.plan.feature_words - 1, 0, network.plan.input.words)
    outcome = csim.execute(compiled("default"), network.folder, content, sizes)
    assert (outcome.status, outcome.layers_run) == (Status.BAD_ADDRESS, 3)


@pytest.mark.parametrize("field", ["feature_base", "result_base", "weight_base", "plane_words"])
@pytest.mark.parametrize("value", [2**31, 2**32 - 1])
def test_address_beyond_the_memory_is_reported(network: Network, field: str, value: int) -> None:
    """And the simulation, whose memory ends there, sees no such access."""
    words = network.words
    place = descriptor(1)
    values = parse_layer(ENGINE, np.array(words[place], dtype=np.uint64))
    words[place] = layer_words(ENGINE, values | {field: value})
    if field == "plane_words" and values["sub_rows"] == 1:
        pytest.skip("a single plane")
    outcome = network.execute(words)
    assert (outcome.status, outcome.layers_run) == (Status.BAD_ADDRESS, 1)


def test_run_names_the_layer_that_failed() -> None:
    """A schedule for another engine never reaches a layer; a bad field does."""
    graph = chain_case(7, 4)
    images = random_images(graph, 0, 1)
    other = schedule(graph, replace(ENGINE, w_words=300))
    match = r"stopped at layer '\w+_0' with status 3: the program was scheduled for an engine with"
    with pytest.raises(MismatchError, match=match):
        csim.run(compiled("default"), other, images)
    plan = schedule(graph, ENGINE)
    last = replace(plan.layers[-1], values=plan.layers[-1].values | {"keep": 0})
    broken = replace(plan, layers=(*plan.layers[:-1], last))
    match = rf"the engine stopped at layer '{last.name}' with status 7: a layer exceeds"
    with pytest.raises(MismatchError, match=match):
        csim.run(compiled("default"), broken, images)
