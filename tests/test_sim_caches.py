# SPDX-License-Identifier: Apache-2.0
"""Compiled engines and simulators in the cache: the ones that were compiled, or compiled again."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim import csim, verilator
from winnow import process
from winnow.errors import ToolError


def project(folder: Path, main: str) -> Path:
    """Return a project whose test bench is `main` and whose top is empty."""
    for name, text in {"src/top.cpp": "", "host/csim_main.cpp": main}.items():
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "gone", "unsealed", "swap"])
def test_binary_that_is_not_what_was_compiled_is_compiled_again(
    tmp_path: Path, damage: str
) -> None:
    source, cache = project(tmp_path / "p", "int main() { return 5; }\n"), tmp_path / "cache"
    binary = csim.build(source, cache).binary
    seal = binary.with_name("csim.sha256")
    good = binary.read_bytes()
    if damage == "gone":
        binary.unlink()
    elif damage == "unsealed":
        seal.unlink()
    elif damage == "swap":  # with a whole entry of other sources
        other = csim.build(project(tmp_path / "q", "int main() {}\n"), cache).binary
        binary.write_bytes(other.read_bytes())
        seal.write_bytes(other.with_name("csim.sha256").read_bytes())
    else:
        at = good.index(b"GCC: ")
        flipped = good[:at] + b"g" + good[at + 1 :]
        binary.write_bytes({"cut": good[:-100], "empty": b"", "flip": flipped}[damage])
    assert csim.build(source, cache).binary == binary
    assert process.run([binary]).code == 5
    assert binary.read_bytes() == good or damage == "unsealed"


def test_missing_compiler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=r"^g\+\+ is missing; install it with: apt-get install g"):
        csim.build(project(tmp_path / "p", "int main() {}\n"), tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "flip", "unsealed"])
def test_harness_that_is_not_what_was_built_is_built_again(tmp_path: Path, damage: str) -> None:
    source, main = tmp_path / "t.sv", tmp_path / "main.cpp"
    source.write_text("module t(input wire a, output wire b);\n  assign b = !a;\nendmodule\n")
    main.write_text('#include "Vt.h"\nint main() { Vt t; t.a = 0; t.eval(); return t.b ? 7 : 1; }')
    binary = verilator.build_harness([source], [main], "t", [], tmp_path / "cache")
    good = binary.read_bytes()
    if damage == "unsealed":
        binary.with_name("rtlsim.sha256").unlink()
    else:
        at = good.index(b"GCC: ")
        binary.write_bytes(good[:99] if damage == "cut" else good[:at] + b"g" + good[at + 1 :])
    (binary.parent / "obj").mkdir()
    (binary.parent / "obj" / "Vt.h").write_text("#error of an interrupted build\n")
    assert verilator.build_harness([source], [main], "t", [], tmp_path / "cache") == binary
    assert process.run([binary]).code == 7
    assert not (binary.parent / "obj").exists()
