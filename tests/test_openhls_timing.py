# SPDX-License-Identifier: Apache-2.0
"""Longest paths: of hand-written netlists, cell by cell, and of small Verilog through Yosys."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from openhls import timing
from openhls.errors import HlsError
from openhls.synth import ModuleUse, synthesise
from openhls.timing import STATE, module_paths, net_delay
from tests.conftest import ROOT

Cell = dict[str, Any]

ONE = net_delay(1)
FF, SETUP = 0.456, 0.08
OUTPUTS = {"O", "Q", "CO", "P", "DO", "DOA", "DOB", "DOADO", "y"}


def cell(kind: str, parameters: dict[str, str] | None = None, **pins: object) -> Cell:
    """Return a cell of a Yosys netlist; a pin is a bit or a list of bits."""
    connections = {name: bits if isinstance(bits, list) else [bits] for name, bits in pins.items()}
    directions = {name: "output" if name in OUTPUTS else "input" for name in pins}
    return {
        "type": kind,
        "parameters": parameters or {},
        "port_directions": directions,
        "connections": connections,
    }


def paths_of(
    *cells: Cell, inputs: tuple[int, ...] = (), outputs: tuple[int, ...] = ()
) -> timing.ModulePaths:
    """Return the paths of a module; its ports are called i<bit> and o<bit>."""
    ports = {f"i{bit}": {"direction": "input", "bits": [bit]} for bit in inputs}
    ports |= {f"o{bit}": {"direction": "output", "bits": [bit]} for bit in outputs}
    named = {f"c{index}": about for index, about in enumerate(cells)}
    return module_paths("m", {"ports": ports, "cells": named, "netnames": {}})


def arcs_of(*cells: Cell, **ports: tuple[int, ...]) -> timing.Arcs:
    return paths_of(*cells, **ports).arcs


def only(arcs: timing.Arcs, start: str = STATE, end: str = STATE) -> tuple[float, int, int]:
    path = arcs[start, end]
    return round(path.ns, 6), path.levels, path.chains


def carry(number: int, **pins: object) -> Cell:
    """Return the carry cell whose outputs are 100 * number + 0..3 (O) and + 4..7 (CO)."""
    base = 100 * number
    wires: dict[str, object] = {"CI": "0", "CYINIT": "0", "S": ["0"] * 4, "DI": ["0"] * 4}
    return cell(
        "CARRY4",
        **(wires | pins),
        O=[base + i for i in range(4)],
        CO=[base + 4 + i for i in range(4)],
    )


def ff(d: object, q: object, **pins: object) -> Cell:
    return cell("FDRE", C=1, D=d, Q=q, **pins)


def test_lut_between_flip_flops_is_one_level_and_one_routed_net() -> None:
    """The second net stays in the slice: a LUT has a flip-flop behind it."""
    arcs = arcs_of(ff("0", 10), cell("LUT2", I0=10, I1="1", O=11), ff(11, 12))
    assert only(arcs) == (round(FF + ONE + 0.124 + SETUP, 6), 1, 0)


def test_direct_net_between_flip_flops_is_routed() -> None:
    assert only(arcs_of(ff("0", 10), ff(10, 11))) == (round(FF + ONE + SETUP, 6), 0, 0)


def test_net_grows_with_its_fan_out_more_for_many_sinks() -> None:
    delays = [net_delay(n) for n in (1, 8, 64, 128, 512)]
    assert delays == pytest.approx([0.85, 1.15, 1.45, 1.65, 2.05])
    sinks = [ff(10, 20 + index) for index in range(8)]
    assert only(arcs_of(ff("0", 10), *sinks))[0] == round(FF + net_delay(8) + SETUP, 6)


def test_net_is_that_of_the_documents() -> None:
    net = f"| {timing.NET}; {timing.NET_DOUBLING}; {2 * timing.NET_DOUBLING} |"
    head = f"| net: fan-out 1; every doubling of it; every doubling over {timing.MANY} {net}"
    assert head in (ROOT / "docs" / "flow.md").read_text()


def test_lut_that_drives_two_flip_flops_is_routed_to_them() -> None:
    cells = [ff("0", 10), cell("LUT1", I0=10, O=11), ff(11, 12), ff(11, 13)]
    assert only(arcs_of(*cells))[0] == round(FF + ONE + 0.124 + net_delay(2) + SETUP, 6)


def test_slowest_input_decides() -> None:
    chain = [cell("LUT1", I0=10, O=11), cell("INV", I=11, O=12)]
    arcs = arcs_of(ff("0", 10), *chain, cell("LUT2", I0=10, I1=12, O=13), ff(13, 14))
    first, second, third = net_delay(2), ONE, ONE
    assert only(arcs) == (round(FF + first + second + third + 3 * 0.124 + SETUP, 6), 3, 0)


def test_wide_mux_is_in_the_slice_but_for_its_select() -> None:
    luts = [cell("LUT1", I0=10, O=11), cell("LUT1", I0=10, O=12)]
    wide = cell("MUXF7", I0=11, I1=12, S="0", O=13)
    arcs = arcs_of(ff("0", 10), *luts, wide, ff(13, 14))
    assert only(arcs) == (round(FF + net_delay(2) + 0.124 + 0.22 + SETUP, 6), 2, 0)
    late = cell("MUXF7", I0="0", I1="1", S=11, O=13)
    arcs = arcs_of(ff("0", 10), luts[0], late, ff(13, 14))
    assert only(arcs) == (round(FF + 2 * ONE + 0.124 + 0.3 + SETUP, 6), 2, 0)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_linked_carry_cells_are_one_chain(length: int) -> None:
    cells = [ff("0", 10), cell("LUT1", I0=10, O=11), carry(1, S=[11, "0", "0", "0"])]
    cells += [carry(n, CI=100 * (n - 1) + 7) for n in range(2, length + 1)]
    arcs = arcs_of(*cells, ff(100 * length + 3, 9))
    way = 0.62 if length == 1 else 0.53 + (length - 2) * 0.117 + 0.33
    assert only(arcs) == (round(FF + ONE + 0.124 + way + SETUP, 6), 1, 1)


def test_two_chains_in_a_row_are_two() -> None:
    link = cell("LUT1", I0=103, O=11)
    cells = [ff("0", 10), carry(1, S=[10, "0", "0", "0"]), link, carry(2, S=[11, "0", "0", "0"])]
    assert only(arcs_of(*cells, ff(203, 9)))[1:] == (1, 2)


@pytest.mark.parametrize(("output", "way"), [(103, 0.66), (107, 0.6)])
def test_carry_from_cyinit_takes_longest(output: int, way: float) -> None:
    arcs = arcs_of(ff("0", 10), carry(1, CYINIT=10), ff(output, 9))
    assert only(arcs) == (round(FF + ONE + way + SETUP, 6), 0, 1)


def test_carry_chain_entered_at_ci_counts() -> None:
    assert only(arcs_of(ff("0", 10), carry(1, CI=10), ff(103, 9)))[1:] == (0, 1)


def test_carry_does_not_run_down() -> None:
    """O[0] depends on S[0] only; O[2] on DI[1], not on DI[2]."""

    def late(output: int, **pins: object) -> bool:
        arcs = arcs_of(ff("0", 10), carry(1, **pins), ff(100 + output, 9))
        return (STATE, STATE) in arcs

    def at(place: int) -> list[object]:
        return [10 if index == place else "0" for index in range(4)]

    assert [late(0, S=at(place)) for place in range(4)] == [True, False, False, False]
    assert [late(2, S=at(place)) for place in range(4)] == [True, True, True, False]
    assert [late(2, DI=at(place)) for place in range(4)] == [True, True, False, False]
    assert [late(6, DI=at(place)) for place in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(("pin", "setup"), [("CE", 0.2), ("R", 0.43), ("D", 0.08)])
def test_control_inputs_of_a_flip_flop_have_their_setup(pin: str, setup: float) -> None:
    arcs = arcs_of(ff("0", 10), cell("FDRE", C=1, Q=11, **{pin: 10}))
    assert only(arcs)[0] == round(FF + ONE + setup, 6)


@pytest.mark.parametrize(
    ("start", "clock_to_q"),
    [
        (cell("SRL16E", CLK=1, D="0", Q=10), 1.63),
        (cell("RAM32M", WCLK=1, DIA="0", DOA=10), 1.31),
        (cell("RAMB36E1", CLKARDCLK=1, DOADO=10), 2.46),
        (cell("RAMB18E1", {"DOA_REG": "1"}, CLKARDCLK=1, DOADO=10), 0.88),
        (cell("DSP48E1", {"PREG": "1"}, CLK=1, A="0", P=10), 0.44),
        (cell("DSP48E1", {"PREG": "0", "MREG": "1"}, CLK=1, A="0", P=10), 1.96),
        (cell("DSP48E1", {"PREG": "0", "MREG": "0", "AREG": "1"}, CLK=1, A="0", P=10), 5.4),
    ],
)
def test_state_starts_a_path(start: Cell, clock_to_q: float) -> None:
    assert only(arcs_of(start, ff(10, 11)))[0] == round(clock_to_q + ONE + SETUP, 6)


@pytest.mark.parametrize(
    ("end", "setup"),
    [
        (cell("SRL16E", CLK=1, D=10, Q=11), 0.17),
        (cell("RAM32M", WCLK=1, DIA=10, DOA=11), 0.3),
        (cell("RAMB36E1", CLKARDCLK=1, ADDRARDADDR=10, DOADO=11), 0.6),
        (cell("RAMB36E1", CLKARDCLK=1, DIADI=10, DOADO=11), 0.74),
        (cell("DSP48E1", {"AREG": "1"}, CLK=1, A=10, P=11), 0.4),
        (cell("DSP48E1", {"AREG": "0", "MREG": "1"}, CLK=1, A=10, P=11), 3.3),
        (cell("DSP48E1", {"AREG": "0", "MREG": "0", "PREG": "1"}, CLK=1, A=10, P=11), 5.4),
        (cell("DSP48E1", {"CREG": "0"}, CLK=1, C=10, P=11), 1.8),
    ],
)
def test_state_ends_a_path(end: Cell, setup: float) -> None:
    assert only(arcs_of(ff("0", 10), end))[0] == round(FF + ONE + setup, 6)


@pytest.mark.parametrize(
    "read",
    [
        cell("RAM32M", WCLK=1, ADDRA=10, DOA=11),
        cell("RAM64X1D", WCLK=1, DPRA0=10, O=11)
        | {
            "port_directions": {"DPRA0": "input", "DPO": "output"},
            "connections": {"DPRA0": [10], "DPO": [11]},
        },
        cell("SRL16E", CLK=1, A0=10, Q=11),
    ],
)
def test_asynchronous_read_is_a_level(read: Cell) -> None:
    paths = arcs_of(read, ff(11, 12), inputs=(10,))
    assert paths["i10", STATE].levels == 1


def test_address_of_another_port_does_not_reach_the_output() -> None:
    arcs = arcs_of(cell("RAM32M", WCLK=1, ADDRB=10, DOA=11), inputs=(10,), outputs=(11,))
    assert ("i10", "o11") not in arcs


def test_dsp_without_registers_is_combinational() -> None:
    none = {f"{letter}REG": "0" for letter in "ABCMP"}
    arcs = arcs_of(cell("DSP48E1", none, CLK=1, A=10, P=11), inputs=(10,), outputs=(11,))
    assert only(arcs, "i10", "o11")[0] == round(ONE + 5.4, 6)


def test_instances_and_ports_are_boundary_pins() -> None:
    """Neither clock nor setup is in a path to or from them; its net belongs to the sink."""
    child = cell("child", a=11, y=12)
    arcs = arcs_of(cell("LUT1", I0=10, O=11), child, ff(12, 13), inputs=(10,), outputs=(13,))
    assert only(arcs, "i10", "c1.a") == (round(ONE + 0.124, 6), 1, 0)
    assert only(arcs, "c1.y", STATE) == (round(ONE + SETUP, 6), 0, 0)
    assert only(arcs, STATE, "o13") == (FF, 0, 0)
    assert ("i10", STATE) not in arcs
    whole = timing.longest({("i10", "c1.a"): arcs["i10", "c1.a"]})
    assert whole.ns == pytest.approx(FF + ONE + 0.124 + ONE + SETUP)


def test_constants_and_clocks_are_no_paths() -> None:
    assert arcs_of(cell("FDRE", C=1, D="0", Q=10), inputs=(1,)) == {}


def test_most_levels_need_not_be_on_the_slowest_path() -> None:
    luts = [cell("LUT1", I0=10, O=11), cell("LUT1", I0=11, O=12)]
    memory = cell("RAMB36E1", CLKARDCLK=1, DOADO=20)
    slow = [memory, cell("LUT1", I0=20, O=21), ff(21, 22)]
    paths = paths_of(ff("0", 10), *luts, ff(12, 13), *slow)
    assert paths.levels == 2
    assert paths.arcs[STATE, STATE].levels == 1


def test_path_names_its_cells_by_the_nets_they_drive() -> None:
    cells = {"a": ff("0", 10), "b": cell("LUT1", I0=10, O=11), "c": ff(11, 12)}
    nets = {"count": {"bits": [10, 12]}, "$auto$1": {"hide_name": 1, "bits": [11]}}
    arcs = module_paths("m", {"ports": {}, "cells": cells, "netnames": nets}).arcs
    assert arcs[STATE, STATE].through() == ("FDRE count[0]", "LUT1", "FDRE count[1]")


def test_combinational_loop_is_an_error() -> None:
    with pytest.raises(HlsError) as caught:
        arcs_of(cell("LUT1", I0=11, O=10), cell("LUT1", I0=10, O=11), ff(11, 12))
    assert str(caught.value).startswith("module 'm' has a combinational loop through 'c")


VERILOG = """\
module add(input wire clk, input wire [31:0] a, b, output reg [31:0] q);
  reg [31:0] x, y;
  always @(posedge clk) begin x <= a; y <= b; q <= x + y; end
endmodule

module parity(input wire clk, input wire [11:0] a, output reg q);
  reg [11:0] x;
  always @(posedge clk) begin x <= a; q <= ^x; end
endmodule

module multiply(input wire clk, input wire signed [7:0] a, b, output reg signed [15:0] q);
  reg signed [7:0] x, y;
  always @(posedge clk) begin x <= a; y <= b; q <= x * y; end
endmodule

module memory(input wire clk, input wire we, input wire [9:0] a, input wire [35:0] d,
              output reg [35:0] q);
  reg [35:0] words[0:1023];
  reg [35:0] word;
  always @(posedge clk) begin
    if (we) words[a] <= d;
    word <= words[a];
    q <= ~word;
  end
endmodule

module wires(input wire clk, input wire [35:0] a, output wire q, output wire [35:0] m,
             output wire [31:0] s, output wire [15:0] p);
  add u_add(clk, a[31:0], a[35:4], s);
  parity u_parity(clk, a[11:0], q);
  multiply u_multiply(clk, a[7:0], a[15:8], p);
  memory u_memory(clk, a[0], a[9:0], a, m);
endmodule
"""


@cache
def mapped() -> dict[str, ModuleUse]:
    """Return the rows of the design above by name."""
    with TemporaryDirectory() as work:
        source = Path(work) / "wires.sv"
        source.write_text(VERILOG)
        rows = synthesise([source], "wires", Path(work) / "yosys.log").rows
        return {row.name: row for row in rows}


def test_adder_is_a_lut_and_one_chain() -> None:
    """32 bits: from S[0] through eight CARRY4 to O[3] of the last."""
    path = mapped()["add"].path
    assert (path.levels, path.chains) == (1, 1)
    assert path.ns == pytest.approx(FF + net_delay(2) + 0.124 + 0.53 + 6 * 0.117 + 0.33 + SETUP,
                                    abs=0.001)  # fmt: skip
    assert [name.split()[0] for name in path.through()][2:-1] == ["CARRY4"] * 8


def test_parity_of_12_bits_is_two_levels() -> None:
    path = mapped()["parity"].path
    assert (path.levels, path.chains) == (2, 0)
    assert path.ns == pytest.approx(FF + 2 * ONE + 2 * 0.124 + SETUP)
    assert path.through()[0].startswith("FDRE x[")
    assert path.through()[-1] == "FDRE q"


def test_multiplier_has_its_registers_in_the_dsp() -> None:
    """Yosys takes A, B and M; the product then leaves through the adder."""
    row = mapped()["multiply"]
    assert (row.own.dsp, row.own.ff) == (1, 0)
    assert (row.path.levels, row.path.chains) == (0, 0)
    assert row.path.ns == pytest.approx(1.96 + ONE + SETUP)


def test_block_ram_starts_a_path() -> None:
    row = mapped()["memory"]
    assert row.own.bram == 1
    assert row.path.levels == 1
    assert row.path.ns == pytest.approx(2.46 + ONE + 0.124 + SETUP)


def test_module_of_wires_has_no_level() -> None:
    assert mapped()["wires"].path.levels == 0
