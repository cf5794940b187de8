# SPDX-License-Identifier: Apache-2.0
"""Memory ports wait for nothing: what is taken out of the SystemVerilog of XLS."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openhls.channels import Role
from openhls.compile import REQUESTS, CompiledProcess, compile_processes, compile_project
from openhls.handshake import (
    free_answers,
    free_loads,
    free_requests,
    free_stages,
    join_acquires,
    join_requests,
)

REPLAY = """#include <ap_int.h>
#include <hls_stream.h>
#include <hls_streamofblocks.h>
typedef ap_uint<8> Block[16];
void replay(hls::stream<ap_uint<5> >& steps, hls::stream_of_blocks<Block>& bank,
            hls::stream<ap_uint<8> >& out) {
  hls::read_lock<Block> block(bank);
  ap_uint<5> step;
  do {
#pragma HLS pipeline II = 1
    step = steps.read();
    out.write(block[step & 15]);
  } while (step < 16);
}
"""


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> CompiledProcess:
    source = tmp_path_factory.mktemp("replay") / "kernel.cpp"
    source.write_text(REPLAY)
    return compile_processes(source, [], ["replay"])["replay"]


def body(process: CompiledProcess) -> str:
    return process.verilog.split("\n);\n", 1)[1]


def test_no_stage_waits_for_a_memory(replay: CompiledProcess) -> None:
    requests = [c.name for c in replay.channels if c.role in REQUESTS]
    assert sorted(requests) == ["bank_rd_req", "bank_release"]
    for name in requests:
        assert not re.search(rf"\b{name}_rdy\b", body(replay))
    assert not re.search(r"\bbank_rd_resp_vld\b", body(replay))
    assert re.search(r"\bsteps_vld\b", body(replay))
    assert re.search(r"\bout_rdy\b", body(replay))


def test_a_request_leaves_as_its_stage_moves(replay: CompiledProcess) -> None:
    assert [c.name for c in replay.channels if c.role is Role.RESPONSE] == ["bank_rd_resp"]
    valid = re.search(r"assign bank_rd_req_vld = (\w+);", replay.verilog)
    taken = re.search(r"assign steps_rdy = (\w+);", replay.verilog)
    assert valid is not None
    assert taken is not None
    assert valid.group(1) == taken.group(1)


EARLY = """module m(
  input wire x_rd_req_rdy,
  output wire x_rd_req_vld
);
  reg __x_rd_req_already_done_reg;
  assign or_1 = x_rd_req_rdy | __x_rd_req_already_done_reg;
  assign and_2 = active & not_done;
  assign or_4 = and_3 | moves;
  always_ff @ (posedge clk) begin
    if (rst) begin
      __x_rd_req_already_done_reg <= 1'h0;
    end else begin
      __x_rd_req_already_done_reg <= or_4 ? and_5 : __x_rd_req_already_done_reg;
    end
  end
  assign x_rd_req_vld = and_2;
endmodule
"""


def test_early_request_waits_for_its_stage() -> None:
    freed = free_requests(EARLY, ["x_rd_req"])
    assert "  assign x_rd_req_vld = moves;\n" in freed
    assert "  assign or_1 = 1'h1 | __x_rd_req_already_done_reg;\n" in freed
    assert "  wire __x_rd_req_already_done_reg = 1'h0;\n" in freed
    assert "already_done_reg <=" not in freed
    assert "  input wire x_rd_req_rdy,\n" in freed


def test_answers_are_there_and_their_ports_stay() -> None:
    text = (
        "module m(\n  input wire y_vld,\n  output wire z\n);\n  assign z = p & y_vld;\nendmodule\n"
    )
    freed = free_answers(text, ["y"])
    assert "  input wire y_vld,\n" in freed
    assert "  assign z = p & 1'h1;\n" in freed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("or_4 = and_3 | moves", "or_4 = and_3 & moves"), "no condition under which"),
        (("assign x_rd_req_vld = and_2", "assign x_rd_req_vld = a & b"), "0 assignments of its"),
    ],
)
def test_text_of_another_xls_is_noticed(damage: tuple[str, str], message: str) -> None:
    assert damage[0] in EARLY
    with pytest.raises(AssertionError, match=message):
        free_requests(EARLY.replace(*damage), ["x_rd_req"])


LOADS = """module m(
  input wire rst
);
  wire or_1;
  wire or_2;
  assign or_1 = moves | rst;
  assign or_2 = p1_done | rst;
  always_ff @ (posedge clk) begin
    p0_a <= or_1 ? n1 : p0_a;
    p0_b <= or_1 ? n2 : p0_b;
    p1_a <= or_2 ? p0_a : p1_a;
  end
  always_ff @ (posedge clk) begin
    if (rst) begin
      p1_inputs_valid <= 1'h0;
    end else begin
      p1_inputs_valid <= {other} ? n3 : p1_inputs_valid;
    end
  end
endmodule
"""


def test_registers_without_a_reset_do_not_load_during_it() -> None:
    freed = free_loads(LOADS.replace("{other}", "n4"))
    assert "  assign or_1 = moves;\n" in freed
    assert "  assign or_2 = p1_done;\n" in freed
    assert freed.count("rst") == 2


def test_a_load_that_something_else_reads_keeps_the_reset() -> None:
    text = LOADS.replace("{other}", "n4").replace("or_1 ? n2", "n5 ? or_1")
    freed = free_loads(text)
    assert "  assign or_1 = moves | rst;\n" in freed
    assert "  assign or_2 = p1_done;\n" in freed


def together(streams: int) -> str:
    """Return a design of which a process writes FIFOs of one word, all at once."""
    names = [f"s{number}" for number in range(streams)]
    parameters = ", ".join(f"Words& {name}" for name in names)
    return f"""#include <ap_int.h>
#include <hls_stream.h>
typedef hls::stream<ap_uint<8> > Words;
void deal({parameters}) {{
  {" ".join(f"{name}.write({number});" for number, name in enumerate(names))}
}}
void gather({parameters}, ap_uint<8>* total) {{
  *total = {" + ".join(f"{name}.read()" for name in names)};
}}
extern "C" void top(ap_uint<8>* total) {{
#pragma HLS dataflow
  Words {", ".join(names)};
{"".join(f"#pragma HLS stream variable = {name} depth = 1{chr(10)}" for name in names)}
  deal({", ".join(names)});
  gather({", ".join(names)}, total);
}}
"""


@pytest.mark.parametrize("streams", [3, 4])
def test_fifos_of_one_word_that_are_written_together_have_one_wait(
    streams: int, tmp_path: Path
) -> None:
    source = tmp_path / "top.cpp"
    source.write_text(together(streams))
    text = compile_project(source, [], "top").processes["deal"].verilog
    text = text.split("\n);\n", 1)[1]
    uses = [len(re.findall(rf"\bs{number}_rdy\b", text)) for number in range(streams)]
    if streams == 4:
        free = "s0_rdy & s1_rdy & s2_rdy & s3_rdy & ~s0_vld & ~rst"
        assert f"    __joint_0_rdy <= {free};\n" in text
        assert uses == [1] * 4
        assert "already_done_reg <=" not in text
    else:
        assert "__joint_" not in text
        assert "already_done_reg <=" in text


def test_words_of_other_stages_are_not_joined() -> None:
    ports = ["x_rd_req", *(f"y{number}" for number in range(4))]
    assert join_requests(EARLY, ports) == EARLY


def halves(banks: int) -> str:
    """Return a design of which a process fills banks together, another one reads them together."""
    numbers = range(banks)
    names = [f"b{number}" for number in numbers]
    parameters = ", ".join(f"Bank& {name}" for name in names)
    locks = "\n".join(f"  hls::{{0}}_lock<Block> l{n}(b{n});" for n in numbers)
    return f"""#include <ap_int.h>
#include <hls_stream.h>
#include <hls_streamofblocks.h>
typedef ap_uint<8> Block[16];
typedef hls::stream_of_blocks<Block> Bank;
void fill({parameters}) {{
{locks.format("write")}
  ap_uint<5> i = 0;
  do {{
#pragma HLS pipeline II = 1
    {" ".join(f"l{n}[i & 15] = i + {n};" for n in numbers)}
    i++;
  }} while (i < 16);
}}
void drain({parameters}, hls::stream<ap_uint<8> >& sums) {{
{locks.format("read")}
  ap_uint<5> i = 0;
  ap_uint<8> sum = 0;
  do {{
#pragma HLS pipeline II = 1
    sum |= {" | ".join(f"l{n}[i & 15]" for n in numbers)};
    i++;
  }} while (i < 16);
  sums.write(sum);
}}
extern "C" void top(ap_uint<8>* total) {{
#pragma HLS dataflow
  Bank {", ".join(names)};
  hls::stream<ap_uint<8> > sums;
  fill({", ".join(names)});
  drain({", ".join(names)}, sums);
  *total = sums.read();
}}
"""


@pytest.mark.parametrize("banks", [3, 4, 8])
def test_halves_that_are_taken_together_have_one_wait(banks: int, tmp_path: Path) -> None:
    source = tmp_path / "top.cpp"
    source.write_text(halves(banks))
    processes = compile_project(source, [], "top").processes
    for name in ("fill", "drain"):
        text = processes[name].verilog.split("\n);\n", 1)[1]
        there = " & ".join(f"b{number}_acquire_vld" for number in range(banks))
        if banks >= (4 if name == "fill" else 8):
            assert f"    __halves_0_vld <= {there} & ~b0_acquire_rdy & ~rst;\n" in text
            assert f"`ifdef OPENHLS_WAIT_FOR\n  wire __halves_0_vld = {there};\n" in text
            assert text.count("b3_acquire_vld") == 2  # there, and nowhere else
            late = "  assign b3_release_vld = __b3_release_vld;\n"  # only after a read, see there
            assert (late in text) == (name == "drain")
        else:
            assert "__halves_" not in text


def test_halves_under_another_condition_are_not_joined() -> None:
    text = "module m(\n  input wire a_acquire_vld\n);\n"
    for number in range(4):
        text += f"      __s_pending_a{number}_acquire <= go_{number % 2} ? n1 : x;\n"
    ports = [f"a{number}_acquire" for number in range(4)]
    assert join_acquires(text, ports) == text


STAGES = """module m(
  input wire in_vld
);
  reg {wait};
  assign or_1 = {wait} | n1;
  assign stage_outputs_ready_0 = ~p0_inputs_valid | or_1;
    p0_x <= p0_stage_done ? n2 : p0_x;
endmodule
"""


@pytest.mark.parametrize("wait", ["__joint_0_rdy", "__halves_3_vld", "__s_state"])
def test_a_stage_before_one_that_waits_for_a_joint_keeps_its_enable(wait: str) -> None:
    text = STAGES.replace("{wait}", wait)
    assert (free_stages(text) == text) == (wait != "__s_state")
