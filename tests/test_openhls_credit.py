# SPDX-License-Identifier: Apache-2.0
"""Credits: which streams get them, and that nothing waits to send on those."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openhls.accesses import ProcessOptions
from openhls.channels import Role
from openhls.compile import CompiledProject, compile_project, make_plan
from openhls.frontend import compile_unit, preprocess
from openhls.netlist import Netlist
from openhls.project import netlist_of
from openhls.xls_ir import constraint

DESIGN = """#include <ap_int.h>
#include <hls_stream.h>
typedef hls::stream<ap_uint<20> > Words;
void source(Words& a, Words& b, Words& single, Words& deep) {
  for (int i = 0; i < 9; i++) {
#pragma HLS pipeline II = 1
    a.write(i);
    if (i & 1) b.write(i);
    single.write(i);
    deep.write(i);
  }
}
void square(Words& a, Words& b, Words& single, Words& deep, hls::stream<ap_uint<40> >& squares) {
  ap_uint<20> x;
  bool odd = false;
  do {
#pragma HLS pipeline II = 1
    x = a.read();
    if (odd) b.read();
    odd = !odd;
    ap_uint<20> y = deep.read();
    squares.write(x * y + single.read());
  } while (x != 8);
}
void sink(hls::stream<ap_uint<40> >& squares, ap_uint<32>* total) {
  ap_uint<32> sum = 0;
  for (int i = 0; i < 9; i++) {
#pragma HLS pipeline II = 1
    sum += squares.read();
  }
  *total = sum;
}
extern "C" void top(ap_uint<32>* total) {
#pragma HLS dataflow
  Words a, b, single, deep;
#pragma HLS stream variable = single depth = 1
#pragma HLS stream variable = deep depth = 17
  hls::stream<ap_uint<40> > squares;
  source(a, b, single, deep);
  square(a, b, single, deep, squares);
  sink(squares, total);
}
"""


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> CompiledProject:
    source = tmp_path_factory.mktemp("credit") / "design.cpp"
    source.write_text(DESIGN)
    return compile_project(source, [], "top")


@pytest.fixture(scope="module")
def netlist(design: CompiledProject) -> Netlist:
    return netlist_of(design)


def body(design: CompiledProject, name: str) -> str:
    return design.processes[name].verilog.split("\n);\n", 1)[1]


def test_streams_of_2_to_16_words_have_credits(design: CompiledProject) -> None:
    found = {
        name: [c.name for c in process.channels if c.role is Role.CREDIT]
        for name, process in design.processes.items()
    }
    assert found == {
        "source": ["a_credit", "b_credit"],
        "square": ["squares_credit"],
    }


def test_fifo_with_credits_holds_the_stages_of_its_writer(
    design: CompiledProject, netlist: Netlist
) -> None:
    stages = {name: process.report.stages for name, process in design.processes.items()}
    assert {fifo.name: (fifo.depth, fifo.stages) for fifo in netlist.fifos} == {
        "a": (2 + stages["source"], stages["source"]),
        "b": (2 + stages["source"], stages["source"]),
        "single": (1, 0),
        "deep": (17, 0),
        "squares": (2 + stages["square"], stages["square"]),
    }
    assert stages["square"] == 4


def test_credit_waits_beside_what_is_received(design: CompiledProject) -> None:
    text = body(design, "square")
    assert re.search(r"\bsquares_credit_vld\b", text)
    assert not re.search(r"\bsquares_rdy\b", text)
    taken = {re.search(rf"assign {x}_rdy = (\w+);", text) for x in ("squares_credit", "a", "deep")}
    assert len({found.group(1) for found in taken if found}) == 1


def test_stages_behind_the_last_wait_need_no_enable(design: CompiledProject) -> None:
    text = body(design, "square")
    assert "assign stage_outputs_ready_0 = 1'h1;" in text
    registers = re.findall(r"^ *(p[0-9]_\w+) <= (.*);$", text, re.M)
    moved = [value for name, value in registers if not name.endswith("inputs_valid")]
    assert moved
    assert not any("?" in value for value in moved)


FILL = """#include <ap_int.h>
#include <hls_stream.h>
#include <hls_streamofblocks.h>
typedef ap_uint<40> Block[16];
void fill(hls::stream<ap_uint<20> >& in, hls::stream_of_blocks<Block>& bank) {
  hls::write_lock<Block> block(bank);
  for (int i = 0; i < 16; i++) {
#pragma HLS pipeline II = 1
    ap_uint<40> x = in.read();
    block[i] = x * x;
  }
}
"""


def test_half_to_fill_is_taken_before_its_words_are_made(tmp_path: Path) -> None:
    source = tmp_path / "fill.cpp"
    source.write_text(FILL)
    unit = compile_unit(preprocess(source, []), "fill")
    plan, _ = make_plan(unit.module, unit.module.functions[unit.top], ProcessOptions())
    assert {constraint(order, plan) for order in plan.orders} >= {
        "bank_acquire:recv:bank_wr_req:send:0:none",
        "bank_acquire:recv:bank_release:send:0:none",
        "bank_wr_req:send:bank_release:send:0:0",
        "bank_acquire:recv:in:recv:0:0",
    }


def test_stream_without_credits_keeps_its_handshake(design: CompiledProject) -> None:
    text = body(design, "source")
    assert re.search(r"\bsingle_rdy\b", text)
    assert re.search(r"\bdeep_rdy\b", text)
    assert not re.search(r"\ba_rdy\b", text)


def test_credit_is_taken_only_for_a_word_that_is_sent(design: CompiledProject) -> None:
    text = body(design, "source")
    rdy = {x: re.search(rf"assign {x}_credit_rdy = (\w+);", text) for x in "ab"}
    found = {x: match.group(1) for x, match in rdy.items() if match}
    assert found["a"] != found["b"]


def test_a_fifo_that_one_call_makes_a_register_has_no_credits(tmp_path: Path) -> None:
    """The process is one module for all its calls."""
    source = tmp_path / "design.cpp"
    source.write_text(
        DESIGN.replace(
            "  sink(squares, total);",
            "  source(c, d, e, f);\n  drain(c, d, e, f);\n  sink(squares, total);",
        )
        .replace(
            "  hls::stream<ap_uint<40> > squares;",
            "  Words c, d, e, f;\n"
            "#pragma HLS stream variable = c depth = 1\n"
            "  hls::stream<ap_uint<40> > squares;",
        )
        .replace(
            'extern "C"',
            """void drain(Words& c, Words& d, Words& e, Words& f) {
  for (int i = 0; i < 9; i++) {
#pragma HLS pipeline II = 1
    ap_uint<20> x = c.read();
    if (x & 1) d.read();
    e.read();
    f.read();
  }
}
extern "C\"""",
        )
    )
    processes = compile_project(source, [], "top").processes
    found = [c.name for c in processes["source"].channels if c.role is Role.CREDIT]
    assert found == ["b_credit"]
