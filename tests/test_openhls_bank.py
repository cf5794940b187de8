# SPDX-License-Identifier: Apache-2.0
"""Proof that a bank never reads the half that is written, so that tools need not care what then.

Yosys proves it by induction for processes that access only halves they have taken, from what
openhls_bank.sv has under `OPENHLS_PROOF`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_openhls_rtl import LIBRARY

(BANK,) = (path for path in LIBRARY if path.stem == "openhls_bank")
PROVE = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for command in (
    f"read_verilog -formal -sv -D OPENHLS_PROOF {sys.argv[1]}",
    f"hierarchy -check -top openhls_bank -chparam WIDTH 2 -chparam DEPTH {sys.argv[2]}",
    "proc",
    "memory_map",
    "async2sync",
    "dffunmap",
    "opt",
    "sat -tempinduct -set-assumes -prove-asserts -set-at 1 rst 1 -seq 1 -maxsteps 4 -verify",
):
    design.run_pass(command)
"""


def proves(source: Path, depth: int) -> bool:
    """Return whether the assertions of a bank hold in every state that it can reach from reset."""
    command = [sys.executable, "-c", PROVE, str(source), str(depth)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    proved = "Induction step proven: SUCCESS!" in result.stdout
    assert proved or "proof did fail" in result.stdout + result.stderr
    return proved and result.returncode == 0


@pytest.mark.parametrize("depth", [1, 4, 5])
def test_no_request_reads_the_half_that_is_written(depth: int) -> None:
    assert proves(BANK, depth)


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("assume (promised)", "assume (1'b1)"),  # a side accesses what it has not taken
        ("w_half_q ^ w_release", "w_half_q ^ w_acquire"),
        ("!taken_d[1]", "1'b1"),  # the writer takes a third half
        ("!r_held_d && full_d != '0", "!r_held_d && taken_d != '0"),  # a half that is not full
    ],
)
def test_proof_fails_for_another_bank(text: str, change: str, tmp_path: Path) -> None:
    source = BANK.read_text()
    assert text in source
    (tmp_path / BANK.name).write_text(source.replace(text, change))
    assert not proves(tmp_path / BANK.name, 4)
