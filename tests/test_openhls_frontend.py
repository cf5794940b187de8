# SPDX-License-Identifier: Apache-2.0
"""Pragmas, the reader of LLVM IR, the expression graph, and the engine's processes."""

from __future__ import annotations

import pickle
import re
from itertools import pairwise
from pathlib import Path

import pytest

from codegen.emit import emit_engine
from openhls import llvm
from openhls.compile import CompiledProject, compile_project
from openhls.expression_graph import ExpressionGraph, Range, signed_digits
from openhls.pragma import rewrite_pragmas
from openhls.xls_tool import merge_product_registers
from winnow.cache import write_entry
from winnow.config import TargetConfig
from winnow.engine import EngineConfig

KEEP, UNROLL = '_Pragma("clang loop unroll(disable)")', '_Pragma("clang loop unroll(full)")'


def test_pipelined_loops_and_those_around_them_stay() -> None:
    text = """void f() {
outer:
  for (;;) {
    while (x) {
#pragma HLS PIPELINE II=1
      for (int i = 0; i < 4; i++) { y(); }
    }
    do z(); while (i < 3);
  }
}
"""
    lines = rewrite_pragmas(text).splitlines()
    assert len(lines) == len(text.splitlines())
    assert lines[2] == f"  {KEEP} for (;;) {{"
    assert lines[3] == f"    {KEEP} while (x) {{"
    assert lines[4] == ""
    assert lines[5] == f"      {UNROLL} for (int i = 0; i < 4; i++) {{ y(); }}"
    assert lines[7] == f"    {UNROLL} do z(); while (i < 3);"


def test_pragmas_become_statements_or_nothing() -> None:
    text = """#pragma HLS dataflow
# pragma hls Stream variable = x depth=4
#pragma HLS bind_storage variable = x
#pragma openhls dependence variable = x inter false
#pragma openhls design = 0x12
char c = '"'; const char* s = "for (;;)";
"""
    assert rewrite_pragmas(text).splitlines() == [
        "__openhls_dataflow();",
        "__openhls_depth(&(x), 4);",
        "",
        "__openhls_independent(&(x));",
        "",
        """char c = '"'; const char* s = "for (;;)";""",
    ]


def test_partial_unrolling() -> None:
    text = "for (;;) {\n#pragma HLS unroll factor = 4\n}"
    assert rewrite_pragmas(text).startswith('_Pragma("clang loop unroll_count(4)") for')


IR = r"""
define void @f(ptr noundef nonnull align 1 dereferenceable(1) %a, i32 %n) #0 !dbg !7 {
entry:
  %call = tail call i64 @__openhls_recv(ptr noundef %a, i32 0, i32 8) #5, !dbg !9, !noalias !3
    #dbg_value(i32 0, !21, !DIExpression(), !27)
  %or = or disjoint i64 %call, 5
  %cmp = icmp samesign ult i64 %or, -3, !dbg !9
  br i1 %cmp, label %"quoted name", label %done, !llvm.loop !12

"quoted name":                                    ; preds = %entry
  switch i8 %x, label %done [
    i8 1, label %entry
    i8 -2, label %done
  ], !dbg !9

done:                                             ; preds = %entry
  %p = phi i1 [ true, %entry ], [ undef, %"quoted name" ]
  call void (ptr, i32, i32, ...) @__openhls_send(ptr %a, i32 0, i32 1, i64 %or, i64 8), !dbg !11
  ret void
}
!1 = !DIFile(filename: "dir/k.cpp", directory: "somewhere")
!2 = !DIFile(filename: "openhls/include/hls_stream.h", directory: "somewhere")
!7 = distinct !DISubprogram(name: "short", linkageName: "_Z5short", file: !1, line: 3)
!8 = distinct !DISubprogram(name: "read", file: !2, line: 9)
!9 = !DILocation(line: 4, column: 3, scope: !7)
!10 = distinct !DILocation(line: 5, column: 3, scope: !7)
!11 = !DILocation(line: 77, column: 3, scope: !8, inlinedAt: !10)
"""


def test_reads_llvm_ir() -> None:
    module = llvm.parse(IR)
    function = module.functions["f"]
    assert module.short_name(function) == "short"
    assert function.parameters == (llvm.Value("ptr", "%a"), llvm.Value("i32", "%n"))
    assert [b.name for b in function.blocks] == ["%entry", '%"quoted name"', "%done"]
    receive, either, compare, branch = function.blocks[0].instructions
    assert (receive.opcode, receive.type, receive.result) == ("call", "i64", "%call")
    assert receive.detail == "__openhls_recv"
    assert [x.name for x in receive.operands] == ["%a", "0", "8"]
    assert [x.name for x in either.operands] == ["%call", "5"]
    assert compare.detail == "ult"
    assert branch.labels == ('%"quoted name"', "%done")
    switch = function.blocks[1].instructions[0]
    assert switch.cases == (1, -2)
    assert switch.labels == ("%done", "%entry", "%done")
    phi, send, _ = function.blocks[2].instructions
    assert [llvm.literal(x.name) for x in phi.operands] == [1, 0]
    assert len(send.operands) == 5
    assert str(module.location(receive.debug)) == "dir/k.cpp:4"
    assert str(module.location(send.debug)) == "dir/k.cpp:5"  # not the line of the library


@pytest.mark.parametrize("constant", [0, 1, 3, 7, 31, 96, 100, 127, 128, 255])
def test_signed_digits_add_up(constant: int) -> None:
    digits = signed_digits(constant, 8)
    assert sum(sign << place for place, sign in digits) % 256 == constant
    assert all(b - a > 1 for (a, _), (b, _) in pairwise(digits))


def test_graph_shares_and_narrows() -> None:
    graph = ExpressionGraph()
    a, b = graph.received("a", 8), graph.received("b", 8)
    wide_a, wide_b = (graph.extend(x, 32, signed=True) for x in (a, b))
    total = graph.add("add", wide_a, wide_b)
    assert total == graph.add("add", wide_a, wide_b)
    assert graph.range(total) == Range(32, 9)
    product = graph.nodes[graph.multiply(wide_a, wide_b)]
    assert product.op == "sign_ext"
    assert graph.nodes[product.operands[0]].width == 16
    restored = graph.shift(
        "ashr", graph.shift("shl", wide_a, graph.literal(32, 24)), graph.literal(32, 24)
    )
    assert restored == wide_a
    c, d = graph.received("c", 1), graph.received("d", 1)
    assert graph.or_(graph.and_(d, c), graph.and_(d, graph.not_(c))) == d
    assert graph.select(c, graph.true, graph.false) == c


def test_slices_of_a_product_share_a_register() -> None:
    text = """  wire [32:0] product;
  reg [16:0] p0_low;
  reg [15:0] p0_high;
  assign product = smul33b(a, b);
  assign low = product[16:0];
  assign high = product[32:17];
      p0_low <= enable ? low : p0_low;
      p0_high <= enable ? high : p0_high;
"""
    merged = merge_product_registers(text)
    assert "reg [32:0] p0_product_m;" in merged
    assert "p0_product_m <= enable ? product : p0_product_m;" in merged
    assert "wire [16:0] p0_low = p0_product_m[16:0];" in merged
    assert "wire [15:0] p0_high = p0_product_m[32:17];" in merged
    assert merged.index("reg [32:0] p0_product_m") < merged.index("wire [16:0] p0_low")


# The engine

PROCESSES = {
    *("read_features", "form_tiles", "transform_input", "read_weights", "unpack_weights"),
    *("sequence", "load_v", "load_w", "multiply_lane", "drain_lane", "transform_output"),
    *("finish", "write_features", "plan_rows", "check_program", "configure", "read_shortcuts"),
    *("store_plane", "gather_pixels", "take_maxima", "write_bursts"),
}
CONTROL = {
    *("plan_rows", "read_features", "form_tiles", "write_features", "write_bursts"),
    *("sequence", "read_weights", "unpack_weights"),
}
COMPARED_BITS = 6


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> CompiledProject:
    folder = tmp_path_factory.mktemp("engine")
    emit_engine(folder, EngineConfig(po=4), TargetConfig())
    return compile_project(folder / "src" / "top.cpp", [folder / "include"], "winnow_engine")


def test_engine_multiplies_in_its_lanes_only(engine: CompiledProject) -> None:
    found = {name: process.report.multipliers for name, process in engine.processes.items()}
    assert found == {name: 4 if name == "multiply_lane" else 0 for name in PROCESSES}


def compared_bits(verilog: str) -> int:
    """Return the width of the widest operand of a comparison."""
    found = re.findall(r"^  (?:wire|reg|input wire) (?:\[(\d+):0\] )?(\w+)[;,]", verilog, re.M)
    widths = {name: int(high or 0) + 1 for high, name in found}
    operands = re.findall(r"^  assign .*?(\w+) (?:==|!=|<=?|>=?) (\w+);", verilog, re.M)
    return max((widths[name] for pair in operands for name in pair), default=0)


def test_control_compares_no_long_numbers(engine: CompiledProject) -> None:
    """Counters end by their sign: no loop bound meets a comparison.

    Three numbers do, out of registers: a row's end with the memory's, a checksum, and the rounded
    average of a map with its limits.
    """
    found = {name: compared_bits(engine.processes[name].verilog) for name in CONTROL}
    long = {name: bits for name, bits in found.items() if bits > COMPARED_BITS}
    assert long == {"plan_rows": 33, "read_weights": 32, "write_features": 23}
    assert found["form_tiles"] == 6, "its phases: the pattern must see them"


def test_engine_keeps_its_rate(engine: CompiledProject) -> None:
    """Every loop does an iteration per cycle; the nests of a lane are one state."""
    assert {
        name: p.report.interval for name, p in engine.processes.items() if p.report.interval > 1
    } == {}
    nests = ("multiply_lane", "load_v", "load_w", "drain_lane")
    assert [engine.processes[name].report.control_steps for name in nests] == [1] * len(nests)


def test_engine_ports(engine: CompiledProject) -> None:
    lane = engine.processes["multiply_lane"]
    assert lane.formals == ("steps", "v_bank", "w_bank", "sums")
    widths = {c.name: (c.width, c.is_output) for c in lane.channels}
    assert widths["v_bank_rd_req"] == (9, True)
    assert widths["v_bank_rd_resp"] == (128, False)
    assert widths["w_bank_release"] == (1, True)
    control = {c.name for c in engine.control.channels}
    assert {"start", "done", "status", "write_bursts_done", "program_ar"} <= control
    assert [n for n, p in engine.processes.items() if p.has_write_port] == ["write_bursts"]
    assert engine.depths["pixels"] == 16
    assert engine.arrays["v_banks"] == 16


def test_modules_have_the_ports_they_report(engine: CompiledProject) -> None:
    for process in [*engine.processes.values(), engine.control]:
        names = set(
            re.findall(r"^  (?:in|out)put wire (?:\[\d+:0\] )?(\w+)", process.verilog, re.M)
        )
        expected = {f"{c.name}_{x}" for c in process.channels for x in ("data", "vld", "rdy")}
        assert names == expected | {"clk", "rst"}


def two_processes(folder: Path) -> Path:
    """Write a design of two processes and return its file."""
    source = folder / "top.cpp"
    source.write_text(
        "#include <hls_stream.h>\n#include <ap_int.h>\n"
        "typedef hls::stream<ap_uint<8> > Stream;\n"
        "void one(Stream& a, Stream& b) { b.write(a.read()); }\n"
        'extern "C" void top(Stream& a, Stream& b) {\n#pragma HLS dataflow\n'
        "  Stream between;\n  one(a, between);\n  one(between, b);\n}\n"
    )
    return source


def test_results_are_taken_from_the_cache(tmp_path: Path) -> None:
    source = two_processes(tmp_path)
    first = compile_project(source, [], "top", cache=tmp_path / "cache")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(files) == 2
    again = compile_project(source, [], "top", cache=tmp_path / "cache")
    assert again.processes == first.processes
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}


class Harmful:
    """Makes a file when a pickle of it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "swap", "pickle"])
def test_cache_that_cannot_be_trusted_is_made_again(tmp_path: Path, damage: str) -> None:
    source, cache, harm = two_processes(tmp_path), tmp_path / "cache", tmp_path / "harm"
    first = compile_project(source, [], "top", cache=cache)
    one, other = sorted(cache.iterdir())
    good = {one: one.read_bytes(), other: other.read_bytes()}
    planted = pickle.dumps(Harmful(harm))
    bad = {
        "cut": good[one][:-20],
        "empty": b"",
        "flip": good[one].replace(b"module", b"nodule", 1),
        "swap": good[other],
        "pickle": planted,
    }[damage]
    one.write_bytes(bad)
    one.with_suffix(".pickle").write_bytes(planted)  # where caches once were
    assert compile_project(source, [], "top", cache=cache).processes == first.processes
    assert {one: one.read_bytes(), other: other.read_bytes()} == good
    assert not harm.exists()
    pickle.loads(planted)  # it does harm where it is loaded
    assert harm.exists()


def test_entry_of_another_version_is_made_again(tmp_path: Path) -> None:
    source, cache = two_processes(tmp_path), tmp_path / "cache"
    first = compile_project(source, [], "top", cache=cache)
    for path in cache.iterdir():
        write_entry(cache, path.stem, {"text": "module x; endmodule"})
    assert compile_project(source, [], "top", cache=cache).processes == first.processes
