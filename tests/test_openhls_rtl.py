# SPDX-License-Identifier: Apache-2.0
"""The hand-written RTL library: lint, behaviour under random stalls, elaboration checks, mapping.

`tests/rtl/` holds the bench: every module in several sizes, driven by C++ through Verilator. A run
checks data against a model, the ready/valid and AXI rules, and combinational paths.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from openhls.synth import ModuleUse, synthesise
from sim import verilator
from winnow.cache import lock
from winnow.errors import ToolError

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "openhls" / "rtl").glob("*.sv"))
BENCH = ROOT / "tests" / "rtl"
CACHE = ROOT / "build" / ".cache" / "tests"
MODULES = ("fifo", "credit", "ram", "bank", "reader", "writer", "control")
STALLS = (0.0, 0.3, 0.8)
NUM_SEEDS = 6

Parameters = Mapping[str, int | str]

SIZES: dict[str, tuple[Parameters, ...]] = {
    "openhls_fifo": tuple(
        {"WIDTH": width, "DEPTH": depth}
        for width, depth in ((1, 1), (64, 1), (1, 2), (512, 2), (7, 3), (32, 16), (64, 513))
    ),
    "openhls_credit": tuple({"CREDITS": count} for count in (1, 2, 9, 32)),
    "openhls_ram": tuple({"WIDTH": 9, "DEPTH": depth} for depth in (1, 2, 7, 64, 1000)),
    "openhls_bank": tuple({"WIDTH": 9, "DEPTH": depth} for depth in (1, 5, 8, 1000)),
    "openhls_axi_split": ({}, {"DATA_BITS": 8}, {"DATA_BITS": 1024}, {"ADDR_BITS": 32}),
    "openhls_axi_reader": (
        {},
        {"DATA_BITS": 32, "MAX_BURST": 1, "OUTSTANDING": 1, "FIFO_DEPTH": 1, "REQUESTS": 1},
        {"DATA_BITS": 128, "MAX_BURST": 256, "FIFO_DEPTH": 512, "ADDR_BITS": 40},
        {"DATA_BITS": 512, "MAX_BURST": 256, "FIFO_DEPTH": 64},  # 64 beats are 4 KiB
    ),
    "openhls_control": (
        {},
        {"WORDS": 1, "ADDR_BITS": 5},
        {"WORDS": 3, "ADDR_BITS": 8, "WRITABLE": "3'b101"},
        {"WORDS": 2, "WRITABLE": "2'b00"},
    ),
}
SIZES["openhls_guard"] = ({},)
SIZES["openhls_axi_writer"] = SIZES["openhls_axi_reader"]

ILLEGAL = (
    ("openhls_fifo", {"DEPTH": 0}, "DEPTH must be at least 1"),
    ("openhls_axi_split", {"DATA_BITS": 48}, "DATA_BITS must be a power of two"),
    ("openhls_axi_split", {"MAX_BURST": 12}, "MAX_BURST must be a power of two"),
    ("openhls_axi_reader", {"FIFO_DEPTH": 15}, "FIFO_DEPTH must hold a burst"),
    ("openhls_axi_writer", {"MAX_BURST": 64}, "FIFO_DEPTH must hold a burst"),
    ("openhls_control", {"WORDS": 29}, "ADDR_BITS cannot address WORDS words"),
)


def lint(module: str, parameters: Parameters, log: Path) -> None:
    command = ["verilator", "--lint-only", "-Wall", "--top-module", module]
    command += [f"-G{name}={value}" for name, value in parameters.items()]
    verilator.run([*command, *map(str, LIBRARY)], log, f"lint of {module}")


@cache
def bench() -> Path:
    """Return the compiled bench; memories start with random words."""
    sources = [BENCH / "openhls_bench.sv", *LIBRARY, *sorted(BENCH.glob("*.cpp"))]
    options = ["--cc", "--exe", "--build", "-j", "2", "-O3", "--x-initial", "unique"]
    options += ["--top-module", "openhls_bench", "-CFLAGS", "-std=c++17 -O1", "-Wno-fatal"]
    folder = CACHE / verilator.content_hash([*sources, *BENCH.glob("*.hpp")], *options)
    binary = folder / "bench"
    with lock(folder):
        if not binary.is_file():
            work = folder / "obj"
            command = ["verilator", *options, "-Mdir", str(work), "-o", "bench"]
            verilator.run([*command, *map(str, sources)], folder / "build.log", "the bench")
            shutil.move(work / "bench", binary)
            shutil.rmtree(work)
    return binary


def run_bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(bench()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("module", SIZES)
def test_module_is_lint_clean_in_every_size(module: str, tmp_path: Path) -> None:
    for parameters in SIZES[module]:
        lint(module, parameters, tmp_path / "lint.log")


def test_every_module_is_linted() -> None:
    assert {path.stem for path in LIBRARY} == set(SIZES)


@pytest.mark.parametrize(("module", "parameters", "message"), ILLEGAL)
def test_illegal_size_is_refused(
    module: str, parameters: Parameters, message: str, tmp_path: Path
) -> None:
    log = tmp_path / "lint.log"
    with pytest.raises(ToolError):
        lint(module, parameters, log)
    assert message in log.read_text()


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("module", MODULES)
def test_module_equals_its_model(module: str, stall: float) -> None:
    for seed in range(NUM_SEEDS):
        result = run_bench(module, stall, seed)
        assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("flip", [0, 40])
@pytest.mark.parametrize("module", MODULES)
def test_bench_sees_one_wrong_bit(module: str, flip: int) -> None:
    result = run_bench(module, 0.3, 0, flip)
    assert result.returncode == 1
    assert f"{module} stall 0.3 seed 0: cycle " in result.stdout
    assert ", expected 0x" in result.stdout


# A memory that becomes registers is some thousand LUTs more: the limits tell the two apart.
MAPPED = """
module top (input logic clk, input logic rst);
  (* keep *) openhls_bank #(.WIDTH(128), .DEPTH(512)) bank (.clk, .rst);
  (* keep *) openhls_ram #(.WIDTH(8), .DEPTH(16)) small_ram (.clk, .rst);
  (* keep *) openhls_fifo #(.WIDTH(64), .DEPTH(1)) single (.clk, .rst);
  (* keep *) openhls_fifo #(.WIDTH(64), .DEPTH(32)) shallow (.clk, .rst);
  (* keep *) openhls_fifo #(.WIDTH(64), .DEPTH(512)) deep (.clk, .rst);
  (* keep *) openhls_credit #(.CREDITS(15)) credits (.clk, .rst);
  (* keep *) openhls_axi_reader reader (.clk, .rst);
  (* keep *) openhls_axi_writer writer (.clk, .rst);
  (* keep *) openhls_control registers (.clk, .rst);
endmodule
"""


def mapped_rows(folder: Path) -> dict[str, list[ModuleUse]]:
    """Return the rows of the modules of MAPPED, by plain name."""
    top = folder / "top.sv"
    top.write_text(MAPPED)
    rows: dict[str, list[ModuleUse]] = {path.stem: [] for path in LIBRARY}
    for row in synthesise([*LIBRARY, top], "top", folder / "yosys.log").rows:
        for name in rows:
            if name in row.name:
                rows[name].append(row)
    return rows


def test_memories_map_to_memories(tmp_path: Path) -> None:
    rows = mapped_rows(tmp_path)
    (bank,) = rows["openhls_bank"]
    assert bank.own.bram == 4  # 1024 words of 128 bits: four of 1024 x 36
    assert bank.own.lut <= 20
    (ram,) = rows["openhls_ram"]
    assert (ram.own.bram, ram.own.ff) == (0, 9)
    assert ram.own.lut <= 20
    block = [row for row in rows["openhls_fifo"] if row.own.bram]
    assert [row.own.bram for row in block] == [1]
    assert all(row.own.lut <= 130 for row in rows["openhls_fifo"])
    assert all(row.own.ff <= 64 + 40 for row in rows["openhls_fifo"])
    (credit,) = rows["openhls_credit"]
    assert credit.own.lut <= 8
    assert credit.own.ff == 6
    (control,) = rows["openhls_control"]
    assert control.own.ff <= 13 * 64 + 80
    assert rows["openhls_axi_reader"][0].own.ff <= 30
    assert rows["openhls_axi_writer"][0].own.ff <= 130
