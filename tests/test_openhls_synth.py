# SPDX-License-Identifier: Apache-2.0
"""Resources by Yosys: what a small design takes, how cells are counted, whether a part holds it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from openhls.errors import HlsError
from openhls.synth import (
    ModuleUse,
    _instances,
    _resources,
    require_fit,
    synthesise,
    total,
)
from winnow.errors import ToolError
from winnow.parts import DEVICES, Resources

DESIGN = """\
module stage #(parameter int WIDTH = 8) (
    input wire clk, input wire [WIDTH-1:0] a, output reg [WIDTH-1:0] q);
  always @(posedge clk) q <= ~a;
endmodule

module pair(input wire clk, input wire [3:0] a, output wire [3:0] q);
  wire [3:0] x;
  stage #(.WIDTH(4)) first(clk, a, x);
  stage #(.WIDTH(4)) second(clk, x, q);
endmodule

module deep(input wire clk, input wire [35:0] a, output reg q, output wire p);
  reg [35:0] x;
  always @(posedge clk) begin
    x <= a;
    q <= ^x;
  end
  assign p = q;
endmodule

module product(input wire clk, input wire [15:0] a, b, output reg [31:0] q);
  always @(posedge clk) q <= a * b;
endmodule

module store(input wire clk, input wire we, input wire [9:0] a, input wire [35:0] d,
             output reg [35:0] q);
  reg [35:0] words[0:1023];
  always @(posedge clk) begin
    if (we) words[a] <= d;
    q <= words[a];
  end
endmodule

module delay(input wire clk, input wire d, output wire q);
  reg [15:0] x;
  always @(posedge clk) x <= {x[14:0], d};
  assign q = x[15];
endmodule

module unused(input wire a, output wire q);
  assign q = !a;
endmodule

module tiny(input wire clk, input wire we, input wire [9:0] a, input wire [35:0] d,
            output wire [35:0] q, output wire [31:0] m, output wire [7:0] s, output wire [2:0] r);
  pair p0(clk, d[3:0], s[3:0]);
  pair p1(clk, d[7:4], s[7:4]);
  deep x0(clk, d, r[0], r[1]);
  product m0(clk, d[15:0], d[31:16], m);
  store s0(clk, we, a, d, q);
  delay d0(clk, we, r[2]);
endmodule
"""


@cache
def mapped() -> tuple[ModuleUse, ...]:
    """Return the rows of the design above."""
    with TemporaryDirectory() as work:
        source = Path(work) / "tiny.sv"
        source.write_text(DESIGN)
        return synthesise([source], "tiny", Path(work) / "logs" / "yosys.log").rows


def row(name: str) -> ModuleUse:
    (found,) = [use for use in mapped() if use.group == name]
    return found


def test_every_used_module_has_a_row() -> None:
    names = {use.group for use in mapped()}
    assert names == {"tiny", "pair", "stage", "deep", "product", "store", "delay"}
    assert [use.own.lut * use.instances for use in mapped()] == sorted(
        (use.own.lut * use.instances for use in mapped()), reverse=True
    )


def test_instances_are_counted_through_the_hierarchy() -> None:
    counts = {use.group: use.instances for use in mapped()}
    ones = dict.fromkeys(("tiny", "deep", "product", "store", "delay"), 1)
    assert counts == {**ones, "pair": 2, "stage": 4}


def test_resources_of_one_instance() -> None:
    assert row("stage").own.ff == 4
    assert row("pair").own == Resources()
    assert row("deep").own.ff == 37
    assert row("product").own.dsp == 1
    assert row("store").own.bram == 1
    assert row("delay").own.lut == 1  # a shift register in a LUT


def test_total_counts_every_instance() -> None:
    whole = total(mapped())
    assert (whole.dsp, whole.bram) == (1, 1)
    assert whole.ff == sum(use.own.ff * use.instances for use in mapped()) >= 4 * 4 + 37
    assert total(()) == Resources()


def test_design_that_does_not_parse_names_the_log(tmp_path: Path) -> None:
    source, log = tmp_path / "bad.sv", tmp_path / "logs" / "yosys.log"
    source.write_text("module bad(input wire a; endmodule\n")
    with pytest.raises(ToolError, match=r"^Yosys failed with exit code [1-9]\d*; see '") as caught:
        synthesise([source], "bad", log)
    assert caught.value.log == log
    assert "syntax error" in log.read_text()


@pytest.mark.parametrize(
    ("cells", "resources"),
    [
        ({"LUT1": 1, "LUT6": 2, "SRL16E": 3, "SRLC32E": 4}, Resources(lut=10)),
        ({"RAM32M": 1, "RAM64M": 1, "RAM32X1D": 1, "RAM64X1D": 1}, Resources(lut=12)),
        ({"RAM128X1D": 1, "RAM256X1S": 1}, Resources(lut=8)),
        ({"FDRE": 1, "FDSE": 2, "FDCE": 3, "FDPE": 4}, Resources(ff=10)),
        ({"DSP48E1": 2, "RAMB36E1": 3, "RAMB18E1": 1}, Resources(dsp=2, bram=3.5)),
        ({"CARRY4": 9, "MUXF7": 9, "LUT7": 9, "child": 9}, Resources()),
    ],
)
def test_cells_are_counted_as_their_resources(cells: dict[str, int], resources: Resources) -> None:
    assert _resources(cells) == resources


def test_instances_of_a_module_under_two_parents_add_up() -> None:
    children = {"top": {"a": 2, "b": 1}, "a": {"b": 3}, "b": {}, "alone": {"b": 5}}
    assert _instances(children, "top") == {"top": 1, "a": 2, "b": 7}


def test_part_that_just_holds_the_design_is_accepted() -> None:
    part = DEVICES["xc7z020"].resources
    require_fit(part, part, "xc7z020")
    require_fit(Resources(), part, "xc7z020")


@pytest.mark.parametrize(
    ("used", "message"),
    [
        (Resources(lut=53201), "has 53200 LUT, the design needs 53201"),
        (Resources(ff=106401), "has 106400 FF, the design needs 106401"),
        (Resources(lut=60000, dsp=440), "has 220 DSP, the design needs 440"),
        (Resources(bram=140.5), "has 140 BRAM, the design needs 140.5"),
    ],
)
def test_scarcest_resource_is_named(used: Resources, message: str) -> None:
    with pytest.raises(HlsError) as caught:
        require_fit(used, DEVICES["xc7z020"].resources, "xc7z020clg400-1")
    assert str(caught.value) == (
        f"target.part: xc7z020clg400-1 {message}; choose a larger part or a smaller engine"
    )
