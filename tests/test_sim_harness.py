# SPDX-License-Identifier: Apache-2.0
"""The memory models of the C++ harness: every rule of AXI that they watch, broken once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sim.rtl import HERE
from sim.verilator import verilator_bin

MAIN = Path(__file__).parent / "harness" / "axi_memory.cpp"
LEGAL = ("legal", "held")
BROKEN = {
    "size": "reads AR: size is not the width of the data",
    "burst": "writes AW: burst does not increment",
    "aligned": "reads AR: address not aligned to the data width",
    "page": "writes AW: burst crosses a 4 KiB boundary",
    "withdrawn": "reads AR: VALID withdrawn before READY",
    "other address": "reads AR: changed before READY",
    "other length": "reads AR: changed before READY",
    "early last": "writes: WLAST on the wrong beat",
    "late last": "writes: WLAST on the wrong beat",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("harness") / "axi_memory"
    verilated = verilator_bin().parent / "include"
    includes = [f"-I{HERE / 'harness'}", "-isystem", str(verilated)]
    includes += ["-isystem", str(verilated / "vltstd")]
    command = ["g++", "-std=c++17", "-O0", "-Wall", "-Werror", *includes]
    subprocess.run([*command, str(MAIN), "-o", str(binary)], check=True)
    return binary


@pytest.mark.parametrize("case", LEGAL)
def test_legal_accesses_pass(program: Path, case: str) -> None:
    result = subprocess.run([str(program), case], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("case", BROKEN)
def test_broken_rule_ends_the_simulation(program: Path, case: str) -> None:
    result = subprocess.run([str(program), case], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (3, f"error: AXI port {BROKEN[case]}\n")
