# SPDX-License-Identifier: Apache-2.0
"""Who waits for whom: on hand-made wires, and on a design in Verilator that really hangs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from openhls.deadlock import FILE, MOST_LINKS, AxiMaster, End, Snapshot, WaitForGraph, explain
from openhls.project import compile_design
from sim.verilator import build_harness, run
from winnow.cache import lock

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "build" / ".cache" / "tests"
HARNESS = ROOT / "sim" / "harness"
MAIN = tuple(sorted([ROOT / "tests" / "kernels" / "shallow_main.cpp", *HARNESS.glob("*.hpp")]))


# --- a design that hangs ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the RTL of tests/kernels/shallow.cpp and its Verilated program."""
    rtl = tmp_path_factory.mktemp("shallow")
    source = ROOT / "tests" / "kernels" / "shallow.cpp"
    with lock(CACHE):
        compile_design(source, [], "shallow", rtl, CACHE / "openhls")
    sources = [HARNESS / "deadlock.vlt", *sorted(rtl.glob("*.sv"))]
    options = ["+define+OPENHLS_WAIT_FOR"]
    return rtl, build_harness(sources, MAIN, "shallow", [], CACHE, options=options)


def outcome(design: tuple[Path, Path], log: Path, count: int, latency: int = 4) -> str:
    """Run the design; return its words, or why it hangs."""
    rtl, binary = design
    run([str(binary), str(count), str(latency)], log, "shallow")
    output = log.read_text().split("\n", 1)[1]
    if output.startswith("done"):
        return " ".join(output.split()[2:])
    return explain(WaitForGraph.load(rtl / FILE), Snapshot.parse(output))


def test_design_ends_while_its_fifo_is_deep_enough(
    design: tuple[Path, Path], tmp_path: Path
) -> None:
    assert outcome(design, tmp_path / "log", 6) == "0 1 2 3 4 5"


@pytest.mark.parametrize("count", [7, 200])
def test_shallow_fifo_is_a_cyclic_wait(
    design: tuple[Path, Path], tmp_path: Path, count: int
) -> None:
    assert outcome(design, tmp_path / "log", count) == (
        "cyclic wait: 'split' waits for space in stream 'first' (full); "
        "'join' waits for data on stream 'second' (empty)"
    )


def test_memory_that_never_answers_is_the_root(design: tuple[Path, Path], tmp_path: Path) -> None:
    assert outcome(design, tmp_path / "log", 4, 10**9) == (
        "m_axi_gmem0 returns no read data (RVALID is low); "
        "'split' waits for read data of m_axi_gmem0; "
        "'join' waits for data on stream 'counts' (empty); "
        "'control' waits for data on stream 'join_done' (empty)"
    )


def test_design_without_a_start_is_idle(design: tuple[Path, Path], tmp_path: Path) -> None:
    assert outcome(design, tmp_path / "log", 0) == "the design is idle; 'control' waits for a start"


def test_wires_are_not_in_the_design_that_is_synthesised(design: tuple[Path, Path]) -> None:
    """All of it lies between `ifdef OPENHLS_WAIT_FOR and `else; the macros then do nothing."""
    text = (design[0] / "shallow.sv").read_text()
    (guarded,) = re.findall(r"`ifdef OPENHLS_WAIT_FOR\n(.*?)`else\n(.*?)`endif\n", text, re.DOTALL)
    rest = text.replace(guarded[0], "")
    assert "openhls_valid" in guarded[0]
    assert not re.search(r"openhls_(valid|ready|ports|probe)", rest)
    assert guarded[1].split("\n")[:2] == [
        "  `define OPENHLS_VLD(net, number) net",
        "  `define OPENHLS_RDY(net) net",
    ]


# --- hand-made wires --------------------------------------------------------------------------


def receives(process: str, peer: str, stream: str = "s") -> End:
    return End(process, False, peer, f"waits for data on stream '{stream}'")


def sends(process: str, peer: str, stream: str = "s") -> End:
    return End(process, True, peer, f"waits for space in stream '{stream}'")


def snapshot(ends: Snapshot | None = None, **words: int) -> Snapshot:
    nothing = Snapshot(valid=0, ready=0, one=0, all=0, ports=0)
    return replace(ends or nothing, **words)


def test_wait_for_space_is_older_than_a_wait_for_data() -> None:
    """A pipeline whose last stage cannot send may have an empty first one."""
    ends = (receives("control", "a"), sends("a", "memory"), receives("a", "control"))
    graph = WaitForGraph(ends, ())
    text = explain(graph, snapshot(valid=0b010, one=0b101, all=0b101))
    assert text == (
        "'memory' neither waits nor moves data; 'a' waits for space in stream 's'; "
        "'control' waits for data on stream 's'"
    )


def test_inputs_that_are_needed_together_show_when_all_are_there() -> None:
    graph = WaitForGraph((receives("control", "a", "x"), receives("control", "b", "y")), ())
    assert explain(graph, snapshot(all=0b11)) == (
        "'a' neither waits nor moves data; 'control' waits for data on stream 'x'"
    )
    assert explain(graph, snapshot(all=0b11, one=0b10)) == (
        "'b' neither waits nor moves data; 'control' waits for data on stream 'y'"
    )


def test_processes_that_wait_alike_are_one_entry() -> None:
    lanes = [receives(f"lane_{i}", "load", f"words_{i}") for i in range(16)]
    graph = WaitForGraph((receives("control", "lane_3"), *lanes), ())
    every = (1 << 17) - 1
    assert explain(graph, snapshot(one=every)) == (
        "'load' neither waits nor moves data; 'lane' x16 waits for data on stream 'words'; "
        "'control' waits for data on stream 's'"
    )


def test_long_chain_keeps_its_ends() -> None:
    names = ["control", *(chr(ord("a") + i) for i in range(20))]
    ends = [receives(name, peer) for name, peer in zip(names, [*names[1:], "end"], strict=True)]
    text = explain(WaitForGraph(tuple(ends), ()), snapshot(one=(1 << 21) - 1))
    assert text.count(";") == MOST_LINKS + 1
    assert text.startswith("'end' neither waits nor moves data; 't' waits")
    assert f"; {21 - MOST_LINKS} more; " in text
    assert text.endswith("'control' waits for data on stream 's'")


def test_control_that_does_not_wait_is_named() -> None:
    graph = WaitForGraph((receives("control", "a"),), ())
    assert explain(graph, snapshot()) == "'control' neither waits nor moves data"


@pytest.mark.parametrize(
    ("writes", "ports", "text"),
    [
        (False, 0b001, "takes no address (ARREADY is low)"),
        (False, 0b000, "returns no read data (RVALID is low)"),
        (False, 0b100, "has nothing to do: no request is open"),
        (True, 0b001, "takes no address (AWREADY is low)"),
        (True, 0b010, "takes no data (WREADY is low)"),
        (True, 0b000, "sends no response (BVALID is low)"),
        (True, 0b100, "has nothing to do: no request is open"),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_master_says_what_its_bus_lacks(writes: bool, ports: int, text: str, number: int) -> None:
    masters = [AxiMaster("m_axi_x", False), AxiMaster("m_axi_y", False)]
    masters[number] = replace(masters[number], writes=writes)
    end = End("control", False, masters[number].name, "waits for it")
    graph = WaitForGraph((end,), tuple(masters))
    assert explain(graph, snapshot(one=1, ports=ports << 3 * number)) == (
        f"{masters[number].name} {text}; 'control' waits for it"
    )
