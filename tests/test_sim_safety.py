# SPDX-License-Identifier: Apache-2.0
"""Whatever a program says: every run ends, nothing beyond the allowed memory is accessed.

The two experiments of docs/verification.md: every bit of every descriptor, and random sets of
fields, both with fresh checksums, on the compiled C++; a sample of the second on the RTL. The
memories end where the registers say, so that any access beyond them is seen. Further, flips
without fresh checksums.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from codegen import abi
from codegen.abi import Status
from codegen.descriptor import layer_fields
from codegen.emit import emit_data
from codegen.fuse import LayerMaps
from codegen.ir import Graph
from codegen.layout import pack_features
from codegen.program import layer_words, program_words
from codegen.schedule import Schedule, schedule
from sim import csim
from tests.engines import ENGINES, chain_case, compiled, deep_cases, expected_maps
from tests.ladder import random_images
from tests.test_sim_rtl import ENGINES as RTL_ENGINES
from tests.test_sim_rtl import harness
from winnow.compare import require_equal
from winnow.engine import EngineConfig
from winnow.errors import MismatchError

RANDOM_SETS = 400
RTL_SETS = 60
DEEP_LAYERS, DEEP_SETS = 8, 60
SECONDS = 120
WATCHDOG = 20_000  # cycles
BAD_ENDS = {"no end", "outside", "hang", "crash"}
SAME, WRONG = "same", "wrong"


@dataclass(frozen=True, eq=False)
class Network:
    """A scheduled chain of four layers, its files in `folder`, and what every layer must give."""

    plan: Schedule
    folder: Path
    expected: LayerMaps

    @property
    def words(self) -> list[int]:
        return [int(word) for word in program_words(self.plan)]

    def command(self, binary: Path, words: list[int]) -> list[str]:
        """Write a program; return the command line that runs it."""
        (self.folder / "program.bin").write_bytes(np.array(words, dtype="<u8").tobytes())
        names = ("program.bin", "weights.bin", "images.bin", "output.bin")
        sizes = (self.plan.feature_words, self.plan.input.base, self.plan.input.words)
        return [str(binary), *(str(self.folder / name) for name in names), *map(str, sizes)]

    def verdict(self, command: list[str]) -> str:
        """Run a command; return how it ended: the name of a status, or one of the words above."""
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            return "no end"
        text = result.stdout + result.stderr
        if "leftover" in text or "while empty" in text:  # tokens that nobody takes or sends
            return "hang"
        if result.returncode in (3, 4):
            return "outside" if result.returncode == 3 else "no end"
        if result.returncode not in (0, 2):
            return "crash"
        reports = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
        if reports.get("axi_error", "0") != "0":
            return "outside"
        status = Status(int(reports["status"].split()[0]))
        return status.name if status else self._compared()

    def with_flip(self, layer: int, bit: int) -> str:
        """Flip a bit of a layer's descriptor, checksum renewed; return how the run ended."""
        words = self.words
        descriptor = words[place(layer)]
        descriptor[bit // 64] ^= 1 << bit % 64
        descriptor[-1] = abi.checksum(descriptor[:-1])
        words[place(layer)] = descriptor
        return self.verdict(self.command(compiled("default").binary, words))

    def _compared(self) -> str:
        memory = np.frombuffer((self.folder / "output.bin").read_bytes(), dtype=np.uint8)
        try:
            require_equal(self.expected, csim.layer_maps(self.plan, memory.reshape(1, -1)))
        except MismatchError:
            return WRONG
        return SAME


def make_network(engine: EngineConfig, folder: Path, graph: Graph | None = None) -> Network:
    graph = graph or chain_case(7, 4)
    plan = schedule(graph, engine)
    images = random_images(graph, 5, 1)
    emit_data(folder, plan)
    content = pack_features(plan.input.tensor, images).tobytes()
    (folder / "images.bin").write_bytes(content)
    return Network(plan, folder, expected_maps(graph, images))


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with tempfile.TemporaryDirectory() as folder:
        yield make_network(ENGINES["default"], Path(folder))


def place(layer: int) -> slice:
    start = abi.HEADER_WORDS + layer * abi.LAYER_WORDS
    return slice(start, start + abi.LAYER_WORDS)


def field_bits(engine: EngineConfig) -> Iterator[int]:
    """Yield the bits of a descriptor that a field takes."""
    for field in layer_fields(engine):
        first = field.word * 64 + field.low
        yield from range(first, first + field.bits * field.count)


def random_fields(plan: Schedule, seed: int) -> tuple[int, list[int]]:
    """Return a layer and its descriptor with 1 to 5 other fields: any, near the right, small."""
    rng = np.random.default_rng([seed, 7])
    layer = int(rng.integers(len(plan.layers)))
    values = dict(plan.layers[layer].values)
    scalars = [field for field in layer_fields(plan.engine) if not field.is_array]
    for number in rng.choice(len(scalars), size=int(rng.integers(1, 6)), replace=False):
        field, right = scalars[number], values[scalars[number].name]
        assert isinstance(right, int)
        low, high = field.bounds
        choices = (
            int(rng.integers(low, high + 1)),
            right + int(rng.integers(-3, 4)),
            int(rng.integers(64)),
        )
        values[field.name] = min(max(choices[int(rng.integers(3))], low), high)
    return layer, layer_words(plan.engine, values)


def report(what: str, ends: Counter[str]) -> None:
    total = sum(ends.values())
    print(f"\n{what}: {total} programs, {dict(ends.most_common())}")
    print(f"  {100 * ends[WRONG] / total:.1f} % end with OK and a wrong map")


def test_clean_program_is_right(network: Network) -> None:
    assert network.verdict(network.command(compiled("default").binary, network.words)) == SAME


@pytest.mark.slow
@pytest.mark.parametrize("layer", range(4))
def test_every_bit_of_a_descriptor_ends_within_its_memory(network: Network, layer: int) -> None:
    ends = Counter[str]()
    for bit in field_bits(network.plan.engine):
        end = network.with_flip(layer, bit)
        assert end not in BAD_ENDS, f"bit {bit % 64} of word {bit // 64}: {end}"
        ends[end] += 1
    report(f"layer {layer}, every bit", ends)
    assert ends[Status.BAD_SIZE.name] > ends[WRONG]


@pytest.mark.slow
def test_bits_of_no_field_change_nothing(network: Network) -> None:
    fields = set(field_bits(network.plan.engine))
    for bit in sorted(set(range((abi.LAYER_WORDS - 1) * 64)) - fields):
        assert network.with_flip(1, bit) == SAME, f"bit {bit % 64} of word {bit // 64}"


@pytest.mark.slow
def test_random_fields_end_within_their_memory(network: Network) -> None:
    binary, ends = compiled("default").binary, Counter[str]()
    for seed in range(RANDOM_SETS):
        words = network.words
        layer, words[place(layer)] = random_fields(network.plan, seed)
        end = network.verdict(network.command(binary, words))
        assert end not in BAD_ENDS, f"seed {seed}: {end}"
        ends[end] += 1
    report("random fields", ends)


@pytest.mark.slow
def test_random_fields_of_deep_layers_end_within_their_memory(tmp_path: Path) -> None:
    """Of every op, with tile groups of one tile."""
    engine, ends = ENGINES["least"], Counter[str]()
    for graph, plan in deep_cases(engine, DEEP_LAYERS):
        deep = make_network(engine, tmp_path, graph)
        for seed in range(DEEP_SETS):
            words = deep.words
            layer, words[place(layer)] = random_fields(deep.plan, seed)
            end = deep.verdict(deep.command(compiled("least").binary, words))
            assert end not in BAD_ENDS, f"{plan.layers[0].shape}, seed {seed}: {end}"
            ends[end] += 1
    report("random fields of deep layers", ends)


@pytest.mark.slow
def test_random_fields_of_deep_layers_end_within_their_memory_on_the_rtl(tmp_path: Path) -> None:
    engine, ends = RTL_ENGINES["deep"], Counter[str]()
    for graph, plan in deep_cases(engine, DEEP_LAYERS):
        deep = make_network(engine, tmp_path, graph)
        for seed in range(DEEP_SETS // 4):
            words = deep.words
            layer, words[place(layer)] = random_fields(deep.plan, seed)
            limits = map(str, (30, seed, 10 * WATCHDOG, WATCHDOG))
            end = deep.verdict([*deep.command(harness("deep").binary, words), *limits])
            assert end not in BAD_ENDS | {Status.HUNG.name}, (
                f"{plan.layers[0].shape}, {seed}: {end}"
            )
            ends[end] += 1
    report("random fields of deep layers on the RTL", ends)


@pytest.mark.slow
def test_random_fields_end_within_their_memory_on_the_rtl(tmp_path: Path) -> None:
    """And never by the watchdog: the checks leave nothing that hangs."""
    network = make_network(RTL_ENGINES["small"], tmp_path)
    binary, ends = harness("small").binary, Counter[str]()
    for seed in range(RTL_SETS):
        words = network.words
        layer, words[place(layer)] = random_fields(network.plan, seed)
        command = [*network.command(binary, words), *map(str, (30, seed, 10 * WATCHDOG, WATCHDOG))]
        end = network.verdict(command)
        assert end not in BAD_ENDS | {Status.HUNG.name}, f"seed {seed}: {end}"
        ends[end] += 1
    report("random fields on the RTL", ends)


@pytest.mark.slow
def test_flips_without_fresh_checksums_are_all_reported(network: Network) -> None:
    """One and two bits of the program and of the weights, anywhere."""
    rng, binary = np.random.default_rng(4), compiled("default").binary
    weights = (network.folder / "weights.bin").read_bytes()
    program = program_words(network.plan).tobytes()
    for name, clean in (("program.bin", program), ("weights.bin", weights)):
        for flips in [1] * 100 + [2] * 100:
            command = network.command(binary, network.words)
            damaged = bytearray(clean)
            for bit in rng.choice(len(clean) * 8, size=flips, replace=False):
                damaged[bit // 8] ^= 1 << bit % 8
            (network.folder / name).write_bytes(damaged)
            end = network.verdict(command)
            assert end not in BAD_ENDS | {SAME, WRONG}
        (network.folder / name).write_bytes(clean)
