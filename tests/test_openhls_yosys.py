# SPDX-License-Identifier: Apache-2.0
"""Modules mapped one by one: their texts, keys and cache, and that the sum equals the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from openhls import synth, yosys
from openhls.errors import HlsError
from openhls.synth import ModuleUse, synthesise, total
from openhls.yosys import Elaborated, batch_text, elaborate, split, text_key

LEAF = """\
module leaf #(parameter int WIDTH = 4) (
    input wire clk, input wire [WIDTH-1:0] a, output reg [WIDTH-1:0] q);
  always @(posedge clk) q <= a + {operand};
endmodule
"""
OTHER = """\
module other(input wire clk, input wire [7:0] a, b, output reg [7:0] q);
  always @(posedge clk) q <= {body};
endmodule
"""
TOP = """\
module top(input wire clk, input wire [7:0] a, output wire [7:0] q);
  wire [7:0] x;
  leaf #(.WIDTH(8)) wide(clk, a, x);
  leaf narrow(clk, x[3:0], );
  other o(clk, x, a, q);
endmodule
"""
COUNT_CELLS = """
from pyosys import libyosys
design = libyosys.Design()
for path in {paths}:
    design.run_pass("read_verilog -sv " + path)
design.run_pass("synth_xilinx -family xc7 -noiopad -noclkbuf -top {top}")
design.run_pass("tee -q -o {out} stat -json")
"""


def write(folder: Path, *, operand: str = "3", body: str = "a ^ b") -> list[Path]:
    """Write the sources of the design above, one file per module."""
    folder.mkdir(exist_ok=True)
    texts = {
        "leaf": LEAF.replace("{operand}", operand),
        "other": OTHER.replace("{body}", body),
        "top": TOP,
    }
    for name, text in texts.items():
        (folder / f"{name}.sv").write_text(text)
    return [folder / f"{name}.sv" for name in texts]


def design(folder: Path, **texts: str) -> dict[str, Elaborated]:
    """Return the elaborated modules by their label."""
    found = elaborate(write(folder, **texts), "top", folder, folder / "yosys.log")
    return {module.label: module for module in found.values()}


def keys(folder: Path, **texts: str) -> dict[str, str]:
    modules = {module.name: module for module in design(folder, **texts).values()}
    return {module.label: text_key(module, modules) for module in modules.values()}


def test_every_set_of_parameters_is_a_module(tmp_path: Path) -> None:
    found = design(tmp_path)
    assert set(found) == {"top", "leaf WIDTH=4", "leaf WIDTH=8", "other"}
    assert sorted(found["top"].children.values()) == sorted(
        module.name for label, module in found.items() if label != "top"
    )


def test_stub_has_the_ports_and_nothing_else(tmp_path: Path) -> None:
    stub = design(tmp_path)["other"].stub
    wires = [line.split()[-1] for line in stub.splitlines() if line.startswith("  wire")]
    assert wires == ["\\clk", "\\a", "\\b", "\\q"]
    assert "cell" not in stub
    assert stub.startswith("attribute \\blackbox 1\nmodule \\other\n")


def test_batch_holds_a_used_module_once(tmp_path: Path) -> None:
    found = {module.name: module for module in design(tmp_path).values()}
    top, leaf = found["\\top"], next(m for m in found.values() if m.label == "leaf WIDTH=8")
    assert batch_text([top], found).count("\nmodule ") == 4
    assert batch_text([top, leaf], found).count("attribute \\blackbox 1") == 2
    assert set(split(batch_text([top, leaf], found))) == set(found)


def test_key_is_that_of_the_content(tmp_path: Path) -> None:
    """Neither folder nor comments nor a change elsewhere give a module another key."""
    before = keys(tmp_path / "one")
    assert keys(tmp_path / "two") == before
    assert keys(tmp_path / "three", operand="3 /* the same */") == before
    changed = keys(tmp_path / "four", operand="(a | 4'd5)")
    assert {label for label in before if changed[label] != before[label]} == {
        "leaf WIDTH=4",
        "leaf WIDTH=8",
    }
    changed = keys(tmp_path / "five", body="a & b")
    assert {label for label in before if changed[label] != before[label]} == {"other"}


def rows(folder: Path, **texts: str) -> dict[str, ModuleUse]:
    folder.mkdir(exist_ok=True)
    cache = folder.parent / "cache"
    found = synthesise(write(folder, **texts), "top", folder / "yosys.log", cache).rows
    return {row.name: row for row in found}


def runs(folder: Path) -> int:
    """Return how often Yosys mapped something."""
    return len(list(folder.glob("yosys.*.log")))


def test_unchanged_modules_come_from_the_cache(tmp_path: Path) -> None:
    first = rows(tmp_path / "one")
    assert runs(tmp_path / "one") == 1  # all are small: one run for all
    assert rows(tmp_path / "two") == first
    assert runs(tmp_path / "two") == 0
    changed = rows(tmp_path / "three", body="a * b")
    assert runs(tmp_path / "three") == 1
    assert changed["other"].own.lut > first["other"].own.lut
    assert changed["leaf WIDTH=8"] == first["leaf WIDTH=8"]
    assert not list((tmp_path / "cache").glob("batch*"))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"cells": {}}', "\0", "flip", "cut", "swap"])
def test_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    first = rows(tmp_path / "one")
    places = sorted((tmp_path / "cache").glob("*.json"))
    assert len(places) == len(first)
    good = places[0].read_text()
    flipped = good.replace('"levels": ', '"levels": 1', 1)
    bad = {"flip": flipped, "cut": good[:-9], "swap": places[1].read_text()}.get(damage, damage)
    assert bad != good
    places[0].write_text(bad)
    assert rows(tmp_path / "two") == first
    assert runs(tmp_path / "two") == 1
    assert places[0].read_text() == good


def test_other_tools_have_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(tmp_path / "one")
    monkeypatch.setattr(synth, "version", lambda _: "0.0")
    rows(tmp_path / "two")
    assert runs(tmp_path / "two") == 1


def test_combinational_loop_names_the_module(tmp_path: Path) -> None:
    source = tmp_path / "loop.sv"
    source.write_text(
        "module loop(input wire a, b, output wire q);\n"
        "  wire x = a & !y, y = b | x;\n  assign q = x;\nendmodule\n"
    )
    with pytest.raises(HlsError, match="module 'loop' has a combinational loop through '"):
        synthesise([source], "loop", tmp_path / "yosys.log", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.json"))


def test_batches_are_longest_first_and_small_ones_together() -> None:
    def module(name: str, size: int) -> Elaborated:
        return Elaborated(name, (), "x" * size, "", {})

    limit = synth.BATCH_BYTES
    sizes = {"a": 10, "b": 3 * limit, "c": limit // 2, "d": 2 * limit, "e": 10}
    found = synth._batches([module(name, size) for name, size in sizes.items()])
    assert [[m.name for m in batch] for batch in found] == [["b"], ["d"], ["c", "a", "e"]]


def cells_of_whole(sources: list[Path], top: str, folder: Path) -> dict[str, int]:
    """Map a design in one run of Yosys, and return the cells of the whole hierarchy by type."""
    out = folder / "stat.json"
    script = COUNT_CELLS.format(paths=[str(path) for path in sources], top=top, out=out)
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    found: dict[str, int] = json.loads(out.read_text())["design"]["num_cells_by_type"]
    return found


@pytest.mark.slow
def test_sum_of_modules_is_the_whole_library(root: Path, tmp_path: Path) -> None:
    """An AXI reader and writer, with the FIFOs and splitters inside, and the register file.

    LUTs within 4 %: `openhls_control` alone has 392 to 422, by the names that Yosys gave its nets;
    over the whole engine such ties even out. All else is equal.
    """
    library = sorted((root / "openhls" / "rtl").glob("*.sv"))
    luts = [0.0, 0.0]
    for top in ("openhls_axi_reader", "openhls_axi_writer", "openhls_control"):
        whole = synth._resources(cells_of_whole(library, top, tmp_path))
        parts = total(synthesise(library, top, tmp_path / "yosys.log").rows)
        luts = [luts[0] + whole.lut, luts[1] + parts.lut]
        assert (parts.ff, parts.dsp, parts.bram) == (whole.ff, whole.dsp, whole.bram)
    assert luts[0] > 1000
    assert luts[1] == pytest.approx(luts[0], rel=0.04)


def test_command_that_fails_is_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(yosys.ToolError) as caught:
        yosys.run_child(["map", str(tmp_path / "none.il"), "out"], tmp_path / "logs" / "map.log")
    assert caught.value.exit_code == 1
    assert "none.il" in str(caught.value.command)
    assert "none.il" in (tmp_path / "logs" / "map.log").read_text()
