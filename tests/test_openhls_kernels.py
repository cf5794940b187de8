# SPDX-License-Identifier: Apache-2.0
"""Small kernels: RTL in Verilator = C++ with AMD's headers, with and without stalls, and II = 1.

All kernels share one Verilated model, which takes most of the time to build.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from openhls.compile import CompiledProcess, compile_processes
from tests.kernel_bench import KERNELS, Tokens, build_host, build_rtl, run_host, run_rtl

LENGTH_BITS, LAST = 4, 1


@dataclass(frozen=True)
class Case:
    """A kernel: its processes, its arguments' types, its tokens, and its cycles without stalls."""

    functions: tuple[str, ...]
    types: Mapping[str, str]
    tokens: Callable[[random.Random], Tokens]
    cycles: range
    multipliers: int = 0


def fir_tokens(rng: random.Random) -> Tokens:
    return {"samples": [*(rng.getrandbits(16) for _ in range(200)), 1 << 16 | 0x8000]}


def histogram_tokens(rng: random.Random) -> Tokens:
    """Runs of one bin, alternations and random bins: every distance between two accesses."""
    bins = [rng.choice([3, 3, 3, 5, rng.randrange(64)]) for _ in range(300)]
    return {"values": [*bins, LAST << 6 | bins[-1]]}


def matmul_tokens(rng: random.Random) -> Tokens:
    return {name: [rng.getrandbits(48) for _ in range(6)] for name in ("rows", "columns")}


def run_length_tokens(rng: random.Random) -> Tokens:
    lengths = [rng.choice([1, 1, 2, 5, 300]) for _ in range(40)]
    return {"bytes": [*(rng.randrange(3) for n in lengths for _ in range(n)), LAST << 8 | 7]}


def nest_tokens(_: random.Random) -> Tokens:
    return {"sizes": [0x345]}


def block_tokens(rng: random.Random) -> Tokens:
    words, lengths = list[int](), list[int]()
    for last in [0] * 11 + [1]:
        length = rng.randrange(1, 17)
        words += [rng.getrandbits(8) for _ in range(length)]
        words[-1] |= 1 << 8 | last << 9
        lengths.append((length - 1) | last << LENGTH_BITS)
    return {"words": words, "lengths": lengths}


def arithmetic_tokens(rng: random.Random) -> Tokens:
    """Every operation with random operands, small ones, zero and all ones."""

    def operands() -> int:
        small = rng.getrandbits(13) << 23 | rng.randrange(70)
        return rng.choice([rng.getrandbits(36), small, 0, (1 << 36) - 1])

    return {"operands": [*(op << 36 | operands() for op in range(32) for _ in range(12)), 1 << 41]}


def stream(width: int) -> str:
    return f"hls::stream<ap_uint<{width}> >"


CASES = {
    "fir": Case(
        ("fir",),
        {"samples": stream(17), "filtered": "hls::stream<ap_int<40> >"},
        fir_tokens,
        range(201, 207),
    ),
    "histogram": Case(
        ("histogram",),
        {"values": stream(7), "counts": stream(20)},
        histogram_tokens,
        range(365, 372),
    ),
    "matmul": Case(
        ("matmul",),
        {"rows": stream(48), "columns": stream(48), "products": "hls::stream<ap_int<20> >"},
        matmul_tokens,
        range(42, 48),
        multipliers=6,
    ),
    "run_length": Case(
        ("run_length",), {"bytes": stream(9), "runs": stream(17)}, run_length_tokens, range(100_000)
    ),
    "nest": Case(("nest",), {"sizes": stream(12), "steps": stream(12)}, nest_tokens, range(60, 64)),
    "blocks": Case(
        ("fill", "replay"),
        {
            "words": stream(10),
            "bank": "hls::stream_of_blocks<Block>",
            "lengths": stream(5),
            "replayed": stream(10),
        },
        block_tokens,
        range(100_000),
    ),
    "arithmetic": Case(
        ("arithmetic",),
        {"operands": stream(42), "results": stream(256)},
        arithmetic_tokens,
        range(385, 391),
        multipliers=4,
    ),
}


@pytest.fixture(scope="module")
def processes() -> dict[str, list[CompiledProcess]]:
    return {
        name: list(compile_processes(KERNELS / f"{name}.cpp", [], case.functions).values())
        for name, case in CASES.items()
    }


@pytest.fixture(scope="module")
def program(
    processes: dict[str, list[CompiledProcess]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    every = [process for found in processes.values() for process in found]
    return build_rtl(every, tmp_path_factory.mktemp("rtl"))


@pytest.mark.parametrize("name", CASES)
def test_rtl_equals_cpp(
    name: str, processes: dict[str, list[CompiledProcess]], program: Path, tmp_path: Path
) -> None:
    case, found = CASES[name], processes[name]
    host = build_host(name, found, case.types, tmp_path)
    for seed in range(2):
        tokens = case.tokens(random.Random(seed))
        expected = run_host(host, found, tokens)
        assert expected.tokens
        for stall in (0, 30, 70):
            outcome = run_rtl(program, found, tokens, stall=stall, seed=seed)
            assert outcome.tokens == expected.tokens, f"seed {seed}, {stall}% stalls"
            assert outcome.unread == 0
            assert stall or outcome.cycles in case.cycles


@pytest.mark.parametrize("name", CASES)
def test_multipliers(name: str, processes: dict[str, list[CompiledProcess]]) -> None:
    """Factors of few digits are adders; what is left is what the C++ says."""
    found = sum(process.report.multipliers for process in processes[name])
    assert found == CASES[name].multipliers


def test_replay_loses_no_cycle_between_blocks(
    processes: dict[str, list[CompiledProcess]], program: Path
) -> None:
    """A bank changes hands at once when the writer is ahead: one word a cycle."""
    lengths = [7] * 6
    words = [w | (i % 8 == 7) << 8 for i, w in enumerate(range(48))]
    words[-1] |= 1 << 9
    lengths[-1] |= 1 << LENGTH_BITS
    tokens = {"words": words, "lengths": lengths}
    outcome = run_rtl(program, processes["blocks"], tokens)
    assert len(outcome.tokens["replayed"]) == 96
    assert outcome.cycles <= 8 + 96 + 8


def test_processes_start_again_after_they_return(
    processes: dict[str, list[CompiledProcess]], program: Path
) -> None:
    tokens = {"sizes": [0x111, 0x222, 0x111]}
    outcome = run_rtl(program, processes["nest"], tokens)
    cube = [0x000, 0x100, 0x010, 0x110, 0x001, 0x101, 0x011, 0x111]
    assert outcome.tokens["steps"] == [0, *cube, 0]
