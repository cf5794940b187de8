# SPDX-License-Identifier: Apache-2.0
"""Further readers of the SystemVerilog: slang (pip install pyslang) and Icarus (package iverilog).

Verilator and Yosys read it in all other tests. Tests are skipped where a reader is not installed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from sim import rtl
from tests.test_openhls_rtl import ILLEGAL, LIBRARY, SIZES, Parameters
from tests.test_sim_rtl import VARIANTS, rtl_folder

needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs iverilog")
LEGAL = [(module, sizes) for module in SIZES for sizes in SIZES[module]]


def icarus(
    files: Sequence[Path], top: str, parameters: Parameters | None = None, out: Path | None = None
) -> str:
    """Elaborate with Icarus, into a program in `out` if there is one; return what it says."""
    command = ["iverilog", "-g2012", "-Wall", "-Wno-timescale", "-s", top]
    command += [f"-P{top}.{name}={value}" for name, value in (parameters or {}).items()]
    command += ["-t", "null"] if out is None else ["-o", str(out)]
    result = subprocess.run(
        [*command, *map(str, files)], capture_output=True, text=True, check=False, timeout=300
    )
    return result.stdout + result.stderr + ("" if result.returncode == 0 else "refused")


def slang(files: Sequence[Path], top: str) -> bool:
    """Return whether slang elaborates modules without an error."""
    driver = pytest.importorskip("pyslang.driver").Driver()
    driver.addStandardArgs()
    assert driver.parseCommandLine(" ".join(["slang", "--top", top, *map(str, files)]))
    assert driver.processOptions()
    assert driver.parseAllSources()
    driver.reportCompilation(driver.createCompilation(), True)
    return bool(driver.reportDiagnostics(True))


@needs_icarus
@pytest.mark.parametrize(("module", "parameters"), LEGAL)
def test_icarus_elaborates_the_library(module: str, parameters: Parameters) -> None:
    assert icarus(LIBRARY, module, parameters) == ""


@needs_icarus
@pytest.mark.parametrize(("module", "parameters", "message"), ILLEGAL[1:])
def test_illegal_size_is_said_by_icarus(
    module: str, parameters: Parameters, message: str, tmp_path: Path
) -> None:
    """When the simulation starts. A FIFO of no word it refuses before, in words of its own."""
    assert icarus(LIBRARY, module, parameters, tmp_path / "design") == ""
    run = ["vvp", "-n", str(tmp_path / "design")]
    result = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
    assert message in result.stdout


@needs_icarus
@pytest.mark.parametrize("name", VARIANTS)
def test_icarus_elaborates_the_engine(name: str) -> None:
    files = sorted(rtl_folder(name).glob("*.sv"))
    assert icarus(files, rtl.TOP) == ""
    missing = [path for path in files if path.stem != "openhls_bank"]
    assert "openhls_bank" in icarus(missing, rtl.TOP)


@pytest.mark.parametrize("name", VARIANTS)
def test_slang_elaborates_the_engine(name: str) -> None:
    files = sorted(rtl_folder(name).glob("*.sv"))
    assert slang(files, rtl.TOP)
    assert not slang([path for path in files if path.stem != "openhls_bank"], rtl.TOP)
