# SPDX-License-Identifier: Apache-2.0
"""Place and route of single modules on an ECP5: what is placed, read of it and said."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from openhls import place as placing
from openhls.place import (
    PACKAGE,
    REQUIREMENTS,
    Placed,
    PlacedRow,
    harness,
    place,
    place_rows,
    rank_correlation,
    read_report,
    require_nextpnr,
    variable,
)
from openhls.yosys import Elaborated, elaborate
from sim import placement
from sim.placement import choose_modules, format_row, summary
from winnow.errors import ConfigError, ToolError

# Two adders in a row and, in `quick`, none: what is between registers decides.
SUMS = """module sums #(parameter W = 16) (
  input logic clk, input logic rst, input logic [W-1:0] x, output logic [W-1:0] y
);
  logic [W-1:0] a_q, b_q, total_q;
  assign y = total_q;
  always_ff @(posedge clk) begin
    a_q <= rst ? '0 : x;
    b_q <= a_q;
    total_q <= (a_q * b_q) ^ (total_q + a_q);
  end
endmodule
module quick (input logic clk, input logic x, output logic y);
  always_ff @(posedge clk) y <= x;
endmodule
module winnow_engine (input logic clk, input logic [15:0] x, output logic [15:0] y,
                      output logic [3:0] z, output logic q);
  sums #(.W(16)) wide (.clk, .rst(1'b0), .x, .y);
  sums #(.W(4)) narrow (.clk, .rst(1'b0), .x(x[3:0]), .y(z));
  quick one (.clk, .x(x[0]), .y(q));
endmodule
"""
needs_nextpnr = pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"needs {REQUIREMENTS.name}")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sums") / "sums.sv"
    path.write_text(SUMS)
    return path


@pytest.fixture(scope="module")
def chosen(source: Path) -> dict[str, tuple[Elaborated, float]]:
    folder = source.parent
    found = choose_modules([source], folder / "log", folder / "cache")
    return {module.label.split()[0]: (module, ns) for module, ns in found}


def test_slowest_of_every_kind_without_the_top(chosen: dict[str, tuple[Elaborated, float]]) -> None:
    assert list(chosen) == ["sums", "quick"]  # the slowest estimate first
    assert chosen["sums"][0].label == "sums W=16"
    assert chosen["sums"][1] > 2 * chosen["quick"][1]


def test_module_that_is_none_is_refused(source: Path) -> None:
    known = "--module must be one of sums, quick, winnow_engine; got 'sum'"
    with pytest.raises(ConfigError, match=known):
        choose_modules([source], source.parent / "log", source.parent / "cache", ["sum"])
    (only,) = choose_modules([source], source.parent / "log", source.parent / "cache", ["quick"])
    assert only[0].label == "quick"


def test_whole_engine_is_placed_when_it_is_named(source: Path) -> None:
    folder = source.parent
    (found,) = choose_modules([source], folder / "log", folder / "cache", ["winnow_engine"])
    engine, ns = found
    assert engine.text.count("\nmodule ") == 4  # the top, sums twice, quick
    assert not engine.children
    assert ns > 3


def test_every_port_of_a_harness_ends_at_a_register(
    chosen: dict[str, tuple[Elaborated, float]], tmp_path: Path
) -> None:
    module, _ = chosen["sums"]
    ports = placing._ports(module)
    assert ports == [("input", "clk", 1), ("input", "rst", 1), ("input", "x", 16)] + [
        ("output", "y", 16)
    ]
    assert ".clk(clk)" in harness(ports)
    assert ".ap_clk(clk)" in harness([("input", "ap_clk", 1), ("output", "q", 1)])
    text = harness(ports)
    (tmp_path / "harness.sv").write_text(
        text + "module placed(input clk, input rst, input [15:0] x, output reg [15:0] y);\n"
        "  always @(posedge clk) y <= rst ? 16'd0 : x;\nendmodule\n"
    )
    design = elaborate([tmp_path / "harness.sv"], "harness", tmp_path, tmp_path / "log")
    assert design["\\harness"].children == {"\\m": "\\placed"}
    assert "reg [16:0] given;" in text
    assert "reg [15:0] taken;" in text


def step(start: str, end: str, delay: float) -> dict[str, Any]:
    return {"from": {"cell": start}, "to": {"cell": end}, "delay": delay}


def test_report_says_clock_and_ends_of_the_slowest_path() -> None:
    fast = [step("m.quick_TRELLIS_FF_Q_1", "m.x_TRELLIS_FF_Q", 1.0)]
    slow = [
        step("m.words.0.0_DP16KD_DOA", "m.n1_LUT4_Z", 2.0),
        step("m.n1_LUT4_Z", "taken_TRELLIS_FF_Q_3", 4.5),
    ]
    pins = [step("io$in", "given_TRELLIS_FF_Q", 99.0)]
    report = {
        "fmax": {"$glbnet$clk": {"achieved": 140.5, "constraint": 150}},
        "critical_paths": [
            {"from": "posedge $glbnet$clk", "to": "posedge $glbnet$clk", "path": fast},
            {"from": "<async>", "to": "posedge $glbnet$clk", "path": pins},
            {"from": "posedge $glbnet$clk", "to": "posedge $glbnet$clk", "path": slow},
        ],
        "utilization": {"TRELLIS_FF": {"used": 7, "available": 9}, "DCUA": {"used": 0}},
    }
    assert read_report(report) == Placed(140.5, ("words", "out"), {"TRELLIS_FF": 7})


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("m.words.0.0", "words"),
        ("m.words.0.1_DP16KD_DOA", "words"),
        ("m.gen_memory.read_q_TRELLIS_FF_Q_12", "read_q"),
        ("m.__s_state_TRELLIS_FF_Q", "__s_state"),
        ("p0_n136__1_TRELLIS_FF_Q_3$CCU2_COMB0", "p0_n136__1"),
        ("given_TRELLIS_FF_Q_7", "in"),
    ],
)
def test_cells_have_the_names_of_the_source(cell: str, name: str) -> None:
    assert placing._state(cell) == name


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], 0.8),
        ([1, 2, 2, 4], [1, 3, 2, 4], 0.9486833),  # equal values share a rank
    ],
)
def test_rank_correlation(a: list[float], b: list[float], want: float) -> None:
    assert rank_correlation(a, b) == pytest.approx(want)


def test_missing_tool_is_one_line_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "find_spec", lambda _: None)
    with pytest.raises(ToolError, match=r"^nextpnr-ecp5, .* is missing; .* install -r .*$"):
        require_nextpnr()


def test_what_is_installed_is_pinned() -> None:
    lines = REQUIREMENTS.read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    assert PACKAGE.replace("_", "-") in [name for name, _ in pins]


@pytest.mark.parametrize("seeds", [0, 10])
def test_number_of_seeds_is_checked_before_the_tool(seeds: int) -> None:
    with pytest.raises(ConfigError, match=rf"--seeds must be 1 to 9, got {seeds}"):
        placement.place(None, [], seeds)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"--minutes must be at least 1, got 0"):
        placement.place(None, [], 1, 0)  # type: ignore[arg-type]


def test_table_shows_median_and_span_and_agreement() -> None:
    def row(name: str, ns: float, *mhz: float) -> PlacedRow:
        return PlacedRow(name, ns, tuple(Placed(x, (f"a{x:.0f}", "b"), {}) for x in mhz))

    rows = [row("finish", 6.5, 120.2, 99.6, 110.4), row("load_w", 4.0, 200), row("lane", 5.0, 90)]
    found = format_row(rows[0]).split()
    assert found == ["finish", "6.50", "154", "110", "100-120", "a100", "->", "b"]
    assert format_row(rows[1]).split()[:4] == ["load_w", "4.00", "250", "200"]
    text = summary(rows)
    assert "clock: 0.50, 3 modules; the slowest placed is lane with 90 MHz" in text
    assert "below the target of 135 MHz: lane 90, finish 110\n" in text
    assert "An ECP5, not a Zynq" in text
    assert "rank correlation" not in summary(rows[:2])


@pytest.mark.parametrize(
    ("register", "name"),
    [
        ("p4_s_channel_sroa_0_1", "channel"),
        ("__s_sub_rows_sroa_0_0", "sub_rows"),
        ("__s_ends_layer_0", "ends_layer"),
        ("__s_layers_i_sroa_0_0570", "layers"),
        ("__s_state", "state"),
        ("p1_n105", "p1_n105"),  # a value that has no name in the C++
        ("count_q", "count_q"),
    ],
)
def test_registers_are_called_as_in_the_source(register: str, name: str) -> None:
    assert variable(register) == name


def test_module_that_takes_too_long_is_left_and_said(
    chosen: dict[str, tuple[Elaborated, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(*_: object) -> list[str]:
        return [sys.executable, "-c", "import time; time.sleep(600)"]

    run = placing.run
    monkeypatch.setattr(placing, "run", lambda _, **options: run(sleep(), **options))
    heard: list[PlacedRow] = []
    cache = tmp_path / "cache"
    modules = list(chosen.values())
    rows = place_rows(modules, (1, 2), tmp_path / "log", cache, heard.append, 0.2)
    assert [row.placed for row in rows] == [(), ()]
    assert heard == rows
    assert format_row(rows[0]).split() == ["sums", *format_row(rows[0]).split()[1:3], "-"] + (
        ["not", "placed", "in", "time"]
    )
    assert summary(rows).startswith("  not placed in time: sums, quick\n")
    assert not list(cache.glob("*"))


@needs_nextpnr
def test_a_longer_path_has_a_lower_clock(
    chosen: dict[str, tuple[Elaborated, float]], tmp_path: Path
) -> None:
    log, cache = tmp_path / "place.log", tmp_path / "cache"
    sums, quick = (place(chosen[name][0], 1, log, cache) for name in ("sums", "quick"))
    assert 40 < sums.mhz < quick.mhz
    assert sums.cells["MULT18X18D"] == 1
    assert sums.cells["TRELLIS_FF"] >= 17 + 2 * 16
    assert set(sums.ends) <= {"in", "out", "a_q", "b_q", "total_q", "y"}  # y is total_q
    assert place(chosen["sums"][0], 1, tmp_path / "no" / "log", cache) == sums  # kept


@needs_nextpnr
def test_engine_has_all_that_is_in_it(source: Path, tmp_path: Path) -> None:
    log = tmp_path / "place.log"
    ((engine, _),) = choose_modules([source], log, source.parent / "cache", ["winnow_engine"])
    cells = place(engine, 1, log).cells
    assert cells["MULT18X18D"] >= 1
    assert cells["TRELLIS_FF"] >= 3 * 16 + 3 * 4 + 1  # registers of all three, those at ports aside


@needs_nextpnr
def test_what_nextpnr_refuses_names_the_log(
    chosen: dict[str, tuple[Elaborated, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placing, "_PART", ("--85k", "--package", "NONE"))
    with pytest.raises(ToolError, match=r"nextpnr-ecp5 failed with exit code \d+; see '.*log'"):
        place(chosen["quick"][0], 1, tmp_path / "log")
