# SPDX-License-Identifier: Apache-2.0
"""What the translator makes of small functions, and what it refuses, with file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openhls.channels import Role
from openhls.compile import CompiledProcess, compile_processes
from openhls.errors import HlsError
from openhls.expression_graph import ExpressionGraph

HEAD = """#include <ap_int.h>
#include <hls_ram.h>
#include <hls_stream.h>
typedef hls::stream<ap_uint<8> > Stream;
"""
FIRST_LINE = 5  # of what follows the head


def compile_text(folder: Path, text: str, name: str = "f") -> CompiledProcess:
    source = folder / "kernel.cpp"
    source.write_text(HEAD + text)
    return compile_processes(source, [], [name])[name]


REFUSED = {
    "floating point": (
        "void f(Stream& a, Stream& b) {\n  float x = a.read().to_int();\n"
        "  b.write(ap_uint<8>(int(x * 1.5f)));\n}",
        6,
        "floating point is not supported; use ap_int or a built-in integer",
    ),
    "division": (
        "void f(Stream& a, Stream& b) {\n  ap_uint<8> x = a.read(), y = a.read();\n"
        "  b.write(ap_uint<8>(x / y));\n}",
        7,
        "division and remainder are not supported; use shifts, or a counter that wraps",
    ),
    "dynamic index": (
        "void f(Stream& a, Stream& b) {\n  ap_uint<8> table[4];\n"
        "  for (int i = 0; i < 4; i++) table[i] = a.read();\n"
        "  b.write(table[unsigned(a.read()) & 3]);\n}",
        None,
        "keep arrays in hls::ram, or index them by constants of unrolled loops",
    ),
    "recursion": (
        "int g(int n) {\n  return n < 2 ? n : g(n - 1) + g(n - 2);\n}\n"
        "void f(Stream& a, Stream& b) {\n  b.write(ap_uint<8>(g(a.read().to_int())));\n}",
        9,
        "recursion, the heap, virtual functions and library functions are not supported",
    ),
    "heap": (
        "void use(int*);\n"
        "void f(Stream& a, Stream& b) {\n  int* x = new int(a.read().to_int());\n  use(x);\n"
        "  b.write(ap_uint<8>(*x));\n}",
        7,
        "the heap",
    ),
    "stream read and written": (
        "void f(Stream& a, Stream& b) {\n  a.write(b.read());\n  b.write(a.read());\n}",
        7,
        "stream 'a' is both read and written; a process may do one of them",
    ),
    "channel chosen at run time": (
        "void f(Stream& a, Stream& b, Stream& c) {\n  Stream* to = a.read() != 0 ? &b : &c;\n"
        "  to->write(ap_uint<8>(1));\n}",
        7,
        "the channel of this access depends on a condition",
    ),
    "number as an argument": (
        "void f(Stream& a, int n, Stream& b) {\n  b.write(ap_uint<8>(a.read() + n));\n}",
        6,
        "is not a channel; pass numbers through a stream",
    ),
    "C++ error": (
        "void f(Stream& a, Stream& b) {\n  b.write(a.raed());\n}",
        6,
        "no member named 'raed'",
    ),
    "signed bit": (
        "void f(Stream& a, Stream& b) {\n  ap_int<1> x = a.read();\n  b.write(ap_uint<8>(x));\n}",
        None,
        "ap_int<1> is not supported; use ap_uint<1> or ap_int<2>",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_file_and_line(name: str, tmp_path: Path) -> None:
    text, line, message = REFUSED[name]
    with pytest.raises(HlsError) as caught:
        compile_text(tmp_path, text)
    report = str(caught.value)
    assert message in report
    assert "\n" not in report
    if line is not None:
        assert f"kernel.cpp:{line}:" in report


def test_refuses_a_missing_function(tmp_path: Path) -> None:
    with pytest.raises(HlsError, match="there must be one function 'g', got 0"):
        compile_text(tmp_path, "void f(Stream& a) { a.read(); }", "g")


def test_refuses_streams_read_in_opposite_orders(tmp_path: Path) -> None:
    text = """void f(Stream& a, Stream& b, Stream& c) {
  ap_uint<1> turn = 0;
  for (;;) {
#pragma HLS pipeline
    ap_uint<8> x = 0, y = 0;
    if (turn == 0) {
      x = a.read();
      if (x != 0) y = b.read();
    } else {
      y = b.read();
      if (y != 0) x = a.read();
    }
    turn = turn + 1;
    c.write(ap_uint<8>(x + y));
  }
}"""
    with pytest.raises(HlsError, match="reads 'a' and 'b' in opposite orders"):
        compile_text(tmp_path, text)


def ports(process: CompiledProcess) -> dict[str, tuple[int, bool]]:
    return {c.name: (c.width, c.is_output) for c in process.channels}


def test_ports_are_named_after_arguments_and_elements(tmp_path: Path) -> None:
    text = """struct Token { ap_uint<3> a; bool b; int c[2]; };
void f(hls::stream<Token> (&in)[2], hls::stream<ap_int<100> >& out) {
  Token x = in[0].read(), y = in[1].read();
  out.write(x.a + x.c[1] + y.c[0] + y.b);
}"""
    expected = {"in_0": (68, False), "in_1": (68, False), "out": (100, True)}
    assert ports(compile_text(tmp_path, text)) == expected


def test_local_memory_becomes_ports(tmp_path: Path) -> None:
    text = """void f(Stream& a, Stream& b) {
  hls::ram<ap_uint<8>, 100> words;
  ap_uint<7> at = 0;
  for (;;) {
#pragma HLS pipeline
    words.write(at, a.read());
    b.write(words.read(ap_uint<7>(at - 50)));
    at++;
  }
}"""
    process = compile_text(tmp_path, text)
    memory = {c.role: (c.width, c.is_output, c.depth) for c in process.channels if c.depth}
    assert memory == {
        Role.READ_REQUEST: (7, True, 100),
        Role.RESPONSE: (8, False, 100),
        Role.WRITE_REQUEST: (15, True, 100),
    }


def test_states_are_as_narrow_as_their_values(tmp_path: Path) -> None:
    text = """void f(Stream& a, Stream& b) {
  int count = 0;
  for (;;) {
#pragma HLS pipeline
    b.write(ap_uint<8>(a.read() + count));
    count = (count + 3) & 15;
  }
}"""
    assert compile_text(tmp_path, text).report.state_bits == 4


def test_product_has_the_size_of_its_operands(tmp_path: Path) -> None:
    text = """void f(hls::stream<ap_int<25> >& a, hls::stream<ap_int<18> >& b,
       hls::stream<int>& c) {
  for (;;) {
#pragma HLS pipeline
    int x = a.read(), y = b.read();
    c.write((long long)(x) * y >> 11);
  }
}"""
    process = compile_text(tmp_path, text)
    assert process.report.multipliers == 1
    assert "smul" in process.verilog
    assert "18b_x_25b" in process.verilog or "25b_x_18b" in process.verilog


def test_second_use_of_a_port_takes_another_step(tmp_path: Path) -> None:
    once = "void f(Stream& a, Stream& b) { b.write(a.read()); }"
    twice = "void f(Stream& a, Stream& b) { b.write(a.read()); b.write(a.read()); }"
    assert compile_text(tmp_path, once).report.control_steps == 1
    assert compile_text(tmp_path, twice).report.control_steps == 2


def test_answer_to_a_request_takes_a_later_step(tmp_path: Path) -> None:
    """What is read may be the answer to what was written, and feeds the next request."""
    text = """void f(Stream& requests, Stream& answers) {
  ap_uint<8> x = 0;
  for (;;) {
#pragma HLS pipeline
    requests.write(x);
    x = answers.read();
  }
}"""
    report = compile_text(tmp_path, text).report
    assert (report.control_steps, report.interval) == (2, 2)


def test_documented_example(root: Path, tmp_path: Path) -> None:
    """docs/openhls.md: three steps, one iteration per cycle."""
    (example,) = re.findall(r"```cpp\n(.*?)```", (root / "docs" / "openhls.md").read_text(), re.S)
    source = tmp_path / "example.cpp"
    source.write_text(example)
    report = compile_processes(source, [], ["moving_sum"])["moving_sum"].report
    assert (report.control_steps, report.interval) == (3, 1)


MEMORIES = {
    "read, then write": ("  y = m.read(x & 7);\n  m.write(x & 7, y + 1);", 1, 1),
    "write, then read": ("  m.write(x & 7, x);\n  y = m.read(x >> 5);", 3, 2),
    "the next address is what was read": ("  y = m.read(y & 7);\n  m.write(x & 7, x);", 2, 2),
}


@pytest.mark.parametrize("name", MEMORIES)
def test_control_steps_of_memories(name: str, tmp_path: Path) -> None:
    statements, steps, interval = MEMORIES[name]
    text = f"""void f(Stream& a, Stream& b) {{
  hls::ram<ap_uint<8>, 8> m;
  ap_uint<8> y = 0;
  for (;;) {{
#pragma HLS pipeline
  unsigned x = a.read();
{statements}
  b.write(y);
  }}
}}"""
    report = compile_text(tmp_path, text).report
    assert (report.control_steps, report.interval) == (steps, interval)


def test_a_memory_without_dependence_forwards_nothing(tmp_path: Path) -> None:
    text = """void f(Stream& a, Stream& b) {{
  hls::ram<ap_uint<8>, 8> m;{pragma}
  for (;;) {{
#pragma HLS pipeline
  unsigned x = a.read();
  ap_uint<8> y = m.read(x & 7);
  m.write(x & 7, y + 1);
  b.write(y);
  }}
}}"""
    pragma = "\n#pragma HLS dependence variable = m type = inter false"
    assert compile_text(tmp_path, text.format(pragma="")).report.state_bits == 3 + 8
    assert compile_text(tmp_path, text.format(pragma=pragma)).report.state_bits == 0


def test_choice_drops_what_all_its_conditions_share() -> None:
    graph = ExpressionGraph()
    active, chosen = graph.state("active", 1), graph.state("chosen", 1)
    x, y = graph.state("x", 8), graph.state("y", 8)
    cases = [(graph.and_(active, chosen), x), (graph.and_(active, graph.not_(chosen)), y)]
    assert graph.choose(cases) == graph.select(chosen, x, y)
    assert graph.choose([*cases, (graph.true, y)]) != graph.select(chosen, x, y)
