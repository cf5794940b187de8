# SPDX-License-Identifier: Apache-2.0
"""Wiring of hand-made processes: instances, FIFOs, banks, memories, AXI ports, every refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from openhls.channels import Channel, Role
from openhls.deadlock import WaitForGraph, wait_for_graph
from openhls.errors import HlsError
from openhls.interface import ArgumentRegister, Interface
from openhls.netlist import (
    CONTROL,
    DONE,
    START,
    Actual,
    AxiPort,
    Bank,
    Call,
    Fifo,
    LocalMemory,
    Netlist,
    RtlModule,
    build_netlist,
)
from openhls.top import render_top

WIDTH, WORDS, ADDRESS_BITS = 12, 32, 5


def port(base: str, role: Role, width: int, is_output: bool, element: int = -1) -> Channel:
    """Return a port of a process; `element` -1 is an object that is no array."""
    name = base if element < 0 else f"{base}_{element}"
    depth = WORDS if role is Role.READ_REQUEST else 0
    return Channel(f"{name}{role.value}", width, is_output, role, base, max(element, 0), depth)


def recv(base: str, width: int = WIDTH, element: int = -1) -> Channel:
    return port(base, Role.STREAM, width, False, element)


def send(base: str, width: int = WIDTH, element: int = -1) -> Channel:
    return port(base, Role.STREAM, width, True, element)


def bank_writer(base: str) -> tuple[Channel, ...]:
    return (
        port(base, Role.ACQUIRE, 1, False),
        port(base, Role.WRITE_REQUEST, WIDTH + ADDRESS_BITS, True),
        port(base, Role.RELEASE, 1, True),
    )


def bank_reader(base: str) -> tuple[Channel, ...]:
    return (
        port(base, Role.ACQUIRE, 1, False),
        port(base, Role.READ_REQUEST, ADDRESS_BITS, True),
        port(base, Role.RESPONSE, WIDTH, False),
        port(base, Role.RELEASE, 1, True),
    )


def axi_reader(base: str) -> tuple[Channel, ...]:
    return (port(base, Role.READ_ADDRESS, 64, True), port(base, Role.READ_DATA, 32, False))


def axi_writer(base: str) -> tuple[Channel, ...]:
    return (
        port(base, Role.WRITE_ADDRESS, 64, True),
        port(base, Role.WRITE_DATA, 32, True),
        port(base, Role.WRITE_RESPONSE, 1, False),
    )


def process(name: str, *ports: Channel, formals: Sequence[str] = ()) -> RtlModule:
    """Return a process with these ports; its formals are their objects unless stated."""
    bases = tuple(dict.fromkeys(p.base for p in ports if p.name not in (START, DONE)))
    return RtlModule(f"{name}_process", tuple(formals) or bases, ports)


START_PORT, DONE_PORT = recv(START, 1), send(DONE, 1)
IDLE = RtlModule("control_process", (), (START_PORT, DONE_PORT))


def call(name: str, *actuals: str | tuple[str, int]) -> Call:
    pairs = [(a, 0) if isinstance(a, str) else a for a in actuals]
    return Call(name, tuple(Actual(base, element) for base, element in pairs))


def wire(
    modules: Mapping[str, RtlModule],
    *calls: Call,
    control: RtlModule = IDLE,
    arrays: Mapping[str, int] | None = None,
    depths: Mapping[str, int] | None = None,
) -> Netlist:
    return build_netlist(modules, calls, control, arrays or {}, depths or {})


def nets(netlist: Netlist, instance: str) -> Mapping[str, str]:
    (found,) = [i.nets for i in netlist.instances if i.name == instance]
    return found


PRODUCER = process("produce", send("to"))
CONSUMER = process("consume", recv("source"))
PAIR = {"produce": PRODUCER, "consume": CONSUMER}


# --- wiring -----------------------------------------------------------------------------------


def test_stream_becomes_a_fifo() -> None:
    netlist = wire(PAIR, call("produce", "x"), call("consume", "x"))
    assert netlist.fifos == (Fifo("x", WIDTH, 2),)
    assert [(i.name, i.module) for i in netlist.instances] == [
        ("produce", "produce_process"),
        ("consume", "consume_process"),
        (CONTROL, "control_process"),
    ]
    assert nets(netlist, "produce") == {"to": "x_in"}
    assert nets(netlist, "consume") == {"source": "x_out"}
    assert nets(netlist, CONTROL) == {START: "control_start", DONE: "control_done"}
    assert netlist.banks == netlist.memories == netlist.axi_ports == netlist.results == ()


def test_stated_depth_is_taken() -> None:
    netlist = wire(PAIR, call("produce", "x"), call("consume", "x"), depths={"x": 64})
    assert netlist.fifos == (Fifo("x", WIDTH, 64),)


def test_elements_of_an_array_are_fifos_of_their_own() -> None:
    """As in the module's example; a process may also take the whole array."""
    both = process("produce", send("to", element=0), send("to", element=1))
    netlist = wire(
        {"produce": both, "consume": CONSUMER},
        call("produce", "a"),
        call("consume", ("a", 0)),
        call("consume", ("a", 1)),
        arrays={"a": 2},
        depths={"a": 5},
    )
    assert netlist.fifos == (Fifo("a_0", WIDTH, 5), Fifo("a_1", WIDTH, 5))
    assert nets(netlist, "produce") == {"to_0": "a_0_in", "to_1": "a_1_in"}
    assert nets(netlist, "consume_0") == {"source": "a_0_out"}
    assert nets(netlist, "consume_1") == {"source": "a_1_out"}


def test_part_of_an_array_is_offset() -> None:
    """A process that gets `&a[2]` and uses element 1 of it uses a[3]."""
    second = process("consume", recv("source", element=1))
    netlist = wire(
        {"produce": PRODUCER, "consume": second},
        call("produce", ("a", 3)),
        call("consume", ("a", 2)),
        arrays={"a": 4},
    )
    assert netlist.fifos == (Fifo("a_3", WIDTH, 2),)


def test_coerced_arguments_are_found() -> None:
    """clang may pass a record by its only member: `%source.coerce`."""
    module = RtlModule("consume_process", ("source",), (recv("%source.coerce"),))
    netlist = wire({**PAIR, "consume": module}, call("produce", "x"), call("consume", "x"))
    assert netlist.fifos == (Fifo("x", WIDTH, 2),)


def test_locked_buffer_becomes_a_bank() -> None:
    modules = {"fill": process("fill", *bank_writer("w")), "use": process("use", *bank_reader("r"))}
    netlist = wire(modules, call("fill", "b"), call("use", "b"))
    assert netlist.banks == (Bank("b", WIDTH, WORDS, ADDRESS_BITS),)
    assert nets(netlist, "fill") == {
        "w_acquire": "b_w_acquire",
        "w_wr_req": "b_wr_req",
        "w_release": "b_w_release",
    }
    assert nets(netlist, "use") == {
        "r_acquire": "b_r_acquire",
        "r_rd_req": "b_rd_req",
        "r_rd_resp": "b_rd_resp",
        "r_release": "b_r_release",
    }
    assert netlist.fifos == ()


RAM_PORTS = (
    port("line", Role.READ_REQUEST, ADDRESS_BITS, True),
    port("line", Role.RESPONSE, WIDTH, False),
    port("line", Role.WRITE_REQUEST, WIDTH + ADDRESS_BITS, True),
)


def test_local_ram_becomes_a_memory_per_instance() -> None:
    module = process("delay", recv("source"), *RAM_PORTS, formals=("source",))
    netlist = wire(
        {"produce": PRODUCER, "delay": module},
        *(call("produce", x) for x in "xy"),
        *(call("delay", x) for x in "xy"),
    )
    assert netlist.memories == tuple(
        LocalMemory(f"delay_{i}_line", WIDTH, WORDS, ADDRESS_BITS) for i in range(2)
    )
    assert nets(netlist, "delay_1") == {
        "source": "y_out",
        "line_rd_req": "delay_1_line_rd_req",
        "line_rd_resp": "delay_1_line_rd_resp",
        "line_wr_req": "delay_1_line_wr_req",
    }


def test_axi_ports_and_done_tokens() -> None:
    modules = {
        "load": process("load", *axi_reader("m"), send("to")),
        "store": process("store", *axi_writer("m"), recv("source"), DONE_PORT),
    }
    control = RtlModule("control_process", (), (START_PORT, DONE_PORT, recv("store_done", 1)))
    netlist = wire(modules, call("load", "in", "x"), call("store", "out", "x"), control=control)
    assert netlist.axi_ports == (AxiPort("in", 32, False), AxiPort("out", 32, True))
    assert netlist.fifos == (Fifo("store_done", 1, 2), Fifo("x", WIDTH, 2))
    assert nets(netlist, "load") == {"m_ar": "in_ar", "m_r": "in_r", "to": "x_in"}
    assert nets(netlist, "store") == {
        "m_aw": "out_aw",
        "m_w": "out_w",
        "m_b": "out_b",
        "source": "x_out",
        DONE: "store_done_in",
    }
    assert nets(netlist, CONTROL)["store_done"] == "store_done_out"


def test_control_uses_channels_and_gives_results() -> None:
    status = send("status", 32)
    control = RtlModule("control_process", ("status",), (START_PORT, DONE_PORT, send("x"), status))
    netlist = wire({"consume": CONSUMER}, call("consume", "x"), control=control)
    assert netlist.results == (status,)
    assert netlist.fifos == (Fifo("x", WIDTH, 2),)
    assert nets(netlist, CONTROL) == {
        START: "control_start",
        DONE: "control_done",
        "x": "x_in",
        "status": "status_result",
    }


# --- refusals -----------------------------------------------------------------------------------


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(HlsError) as caught:
        wire(*arguments, **options)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ([("produce", "x")], "channel 'x' must have exactly one reader, got none"),
        ([("consume", "x")], "channel 'x' must have exactly one writer, got none"),
        (
            [("produce", "x"), ("produce", "x"), ("consume", "x")],
            "channel 'x' must have exactly one writer, got produce_0, produce_1",
        ),
        (
            [("produce", "x"), ("consume", "x"), ("consume", "x")],
            "channel 'x' must have exactly one reader, got consume_0, consume_1",
        ),
    ],
)
def test_stream_without_two_ends_is_refused(calls: list[tuple[str, str]], message: str) -> None:
    assert refusal(PAIR, *(call(*c) for c in calls)) == message


def test_element_without_a_reader_is_named() -> None:
    calls = call("produce", ("a", 0)), call("produce", ("a", 1)), call("consume", ("a", 0))
    message = "channel 'a_1' must have exactly one reader, got none"
    assert refusal(PAIR, *calls, arrays={"a": 2}) == message


def test_ends_of_two_widths_are_refused() -> None:
    modules = {"produce": PRODUCER, "consume": process("consume", recv("source", 9))}
    assert refusal(modules, call("produce", "x"), call("consume", "x")) == (
        "channel 'x': the writer sends 12 bits, the reader takes 9"
    )


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (["fill"], "channel 'b' must have exactly one reader, got none"),
        (["use"], "channel 'b' must have exactly one writer, got none"),
        (["fill", "fill", "use"], "channel 'b' must have exactly one writer, got fill_0, fill_1"),
        (["fill", "use", "use"], "channel 'b' must have exactly one reader, got use_0, use_1"),
    ],
)
def test_bank_without_two_ends_is_refused(users: list[str], message: str) -> None:
    modules = {"fill": process("fill", *bank_writer("w")), "use": process("use", *bank_reader("r"))}
    assert refusal(modules, *(call(user, "b") for user in users)) == message


@pytest.mark.parametrize("kept", [RAM_PORTS[:2], RAM_PORTS[2:]])
def test_ram_of_one_direction_is_refused(kept: tuple[Channel, ...]) -> None:
    module = process("delay", *kept, recv("source"), formals=("source",))
    modules = {"produce": PRODUCER, "delay": module}
    assert refusal(modules, call("produce", "x"), call("delay", "x")) == (
        "RAM 'delay_line' must be both read and written by its process"
    )


def test_axi_port_of_two_processes_is_refused() -> None:
    modules = {"load": process("load", *axi_reader("m"))}
    assert refusal(modules, call("load", "in"), call("load", "in")) == (
        "channel 'in' must have exactly one user, got load_0, load_1"
    )


def test_axi_port_split_between_processes_is_refused() -> None:
    address, data = axi_reader("m")
    modules = {"ask": process("ask", address), "take": process("take", data)}
    assert refusal(modules, call("ask", "in"), call("take", "in")) == (
        "AXI port 'in' must be used by one process, got ['ask', 'take']"
    )


def test_axi_port_without_data_is_refused() -> None:
    modules = {"ask": process("ask", axi_reader("m")[0])}
    assert refusal(modules, call("ask", "in")) == (
        "channel 'in' must have exactly one user, got none"
    )


# --- the top module -----------------------------------------------------------------------------

LOADER = {"load": process("load", *axi_reader("m"), send("to")), "consume": CONSUMER}


def loading() -> Netlist:
    return wire(LOADER, call("load", "in", "x"), call("consume", "x"))


def test_top_connects_every_instance_and_net() -> None:
    interface = Interface({"in": "gmem0"}, (ArgumentRegister("in", 0x10, 64),))
    text = render_top("top", loading(), interface)
    assert text.startswith("// ")
    assert "module top" in text
    for module in ("load_process", "consume_process", "control_process", "openhls_axi_reader"):
        assert module in text
    assert text.count("x_in_vld") >= 3  # declared, driven, taken
    assert "m_axi_gmem0_ARADDR" in text
    assert "m_axi_gmem0_AWADDR" not in text


def test_port_without_a_user_is_refused() -> None:
    registers = (ArgumentRegister("in", 0x10, 64), ArgumentRegister("spare", 0x1C, 64))
    interface = Interface({"in": "gmem0", "spare": "gmem1"}, registers)
    with pytest.raises(HlsError, match=r"^port 'spare' is used by no process$"):
        render_top("top", loading(), interface)


def test_result_without_a_register_is_refused() -> None:
    control = RtlModule("control_process", ("status",), (START_PORT, DONE_PORT, send("status", 32)))
    netlist = wire(LOADER, call("load", "in", "x"), call("consume", "x"), control=control)
    interface = Interface({"in": "gmem0"}, (ArgumentRegister("in", 0x10, 64),))
    with pytest.raises(HlsError, match=r"^result 'status' must have an s_axilite register$"):
        render_top("top", netlist, interface)


def test_port_without_a_pragma_is_refused() -> None:
    interface = Interface({}, (ArgumentRegister("status", 0x10, 32),))
    with pytest.raises(HlsError, match=r"^port 'in' must have an m_axi interface pragma$"):
        render_top("top", loading(), interface)


# --- who waits for whom -------------------------------------------------------------------------


def ends(netlist: Netlist, masters: Mapping[str, str], *nets: str) -> list[tuple[object, ...]]:
    found = wait_for_graph(netlist, Interface(masters, ()), nets)
    return [(end.process, end.sends, end.peer, end.text) for end in found.ends]


def test_waits_at_a_stream_and_at_a_port() -> None:
    assert ends(loading(), {"in": "gmem5"}, "x_out", "x_in", "in_ar", "in_r", "control_start") == [
        ("consume", False, "load", "waits for data on stream 'x' (empty)"),
        ("load", True, "consume", "waits for space in stream 'x' (full)"),
        ("load", True, "m_axi_gmem5", "waits to request a read on m_axi_gmem5"),
        ("load", False, "m_axi_gmem5", "waits for read data of m_axi_gmem5"),
        (CONTROL, False, "host", "waits for a start"),
    ]
    (master,) = wait_for_graph(loading(), Interface({"in": "gmem5"}, ()), []).masters
    assert (master.name, master.writes) == ("m_axi_gmem5", False)


def test_waits_at_a_writer() -> None:
    modules = {"store": process("store", *axi_writer("m"))}
    netlist = wire(modules, call("store", "out"))
    texts = [end[3] for end in ends(netlist, {"out": "gmem0"}, "out_aw", "out_w", "out_b")]
    assert texts == [
        "waits to request a write on m_axi_gmem0",
        "waits to send write data to m_axi_gmem0",
        "waits for a write response of m_axi_gmem0",
    ]


def test_waits_at_a_bank_are_for_the_other_side_only() -> None:
    modules = {"fill": process("fill", *bank_writer("w")), "use": process("use", *bank_reader("r"))}
    netlist = wire(modules, call("fill", "b"), call("use", "b"))
    nets = ("b_w_acquire", "b_r_acquire", "b_wr_req", "b_rd_resp")
    assert ends(netlist, {}, *nets) == [
        ("fill", False, "use", "waits for a free half of bank 'b'"),
        ("use", False, "fill", "waits for a full half of bank 'b'"),
        ("fill", True, "", ""),
        ("use", False, "", ""),
    ]


def test_waits_survive_their_file(tmp_path: Path) -> None:
    graph = wait_for_graph(loading(), Interface({"in": "gmem5"}, ()), ["x_out", "in_r"])
    (tmp_path / "wait_for_graph.json").write_text(graph.text())
    assert WaitForGraph.load(tmp_path / "wait_for_graph.json") == graph
