# SPDX-License-Identifier: Apache-2.0
"""Handshakes that never wait, taken out of the SystemVerilog of XLS.

XLS treats every port alike: it raises `vld` before its stage can move, waits for `rdy`, and keeps
in a register that a token has left already. Banks and RAMs accept every request, and answer a read
in the next cycle, which is the next stage (`openhls/order.py`). So a request leaves exactly when
its stage moves, and an answer is there when the stage behind it is occupied. The same holds for a
word that has a credit (`openhls/credit.py`). A stage that is followed by none that waits moves on
in every cycle; its registers then need no enable.

    assign x_rd_req_vld = active & ~__x_rd_req_already_done_reg;  moves = ... & (x_rd_req_rdy | ...)
 -> assign x_rd_req_vld = moves;                                  moves = ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def free_requests(verilog: str, ports: Sequence[str]) -> str:
    """Let requests on `ports` leave as their stage moves, without waiting."""
    for port in ports:
        verilog = _free_request(verilog, port)
    return verilog


LEAST_JOINED = 4
LEAST_JOINED_READ = 8  # halves that are read; joining them costs two cycles per half


def join_requests(verilog: str, ports: Sequence[str]) -> str:
    """Let words for FIFOs of one word that are written together leave together, after one wait.

    A register says that all those FIFOs are free. They stay so until they are written.

        moves = ... & (a_rdy | a_done | ~sends) & (b_rdy | b_done | ~sends) & ...
     -> moves = ... & (joint_rdy | ~sends);  joint_rdy <= a_rdy & b_rdy & ... & ~a_vld
    """
    groups: dict[str, list[str]] = {}
    for port in ports:
        moves = _moves(verilog, port)
        if moves is not None:
            groups.setdefault(moves, []).append(port)
    for number, group in enumerate(groups.values()):
        if len(group) >= LEAST_JOINED:
            verilog = _join(verilog, f"__joint_{number}_rdy", group)
    return verilog


def join_acquires(verilog: str, ports: Sequence[str]) -> str:
    """Let halves of banks that a process takes together be taken together, after one wait.

    A register says that all of them are there. They stay so until they are taken.

        ok = (a_vld | ~takes) & (b_vld | ~takes) & ...
     -> ok = (joint_vld | ~takes) & ...;  joint_vld <= a_vld & b_vld & ... & ~a_rdy

    A simulator that asks who waits for whom sees the halves themselves. A reader of such banks
    gives its halves back a cycle later, from a register, as their release would be the latest of
    all. It reads nothing of the next half before it has taken that, two cycles later than it
    could: so only many halves are worth it. (A writer may have taken it already, so its release
    stays, and nothing is lost.)
    """
    groups: dict[str, list[str]] = {}
    for port in ports:
        pending = re.search(rf"^ *__s_pending_{port} <= (\w+ \? \w+) : ", verilog, re.M)
        if pending is not None:
            groups.setdefault(pending.group(1), []).append(port)
    for number, group in enumerate(groups.values()):
        reads = f" {group[0].removesuffix('_acquire')}_rd_req_vld" in verilog
        if len(group) >= (LEAST_JOINED_READ if reads else LEAST_JOINED):
            joint = f"__halves_{number}_vld"
            for port in group:
                verilog = _set(verilog, f"{port}_vld", joint)
            head, end, body = verilog.partition("\n);\n")
            verilog = head + end + _halves(joint, group) + body
            for port in group:
                verilog = _release_late(verilog, port.removesuffix("_acquire"))
    return verilog


def _release_late(verilog: str, bank: str) -> str:
    head, end, body = verilog.partition("\n);\n")
    source = re.search(rf"^  assign {bank}_release_vld = (\w+);\n", body, re.M)
    if f" {bank}_rd_req_vld" not in head or source is None:
        return verilog
    register = f"__{bank}_release_vld"
    late = (
        f"  reg {register};\n"
        "  always @ (posedge clk) begin\n"
        f"    {register} <= {source.group(1)} & ~rst;\n"
        "  end\n"
        f"  assign {bank}_release_vld = {register};\n"
    )
    return head + end + body.replace(source.group(), late)


def _halves(joint: str, ports: Sequence[str]) -> str:
    there = " & ".join(f"{port}_vld" for port in ports)
    return (
        "`ifdef OPENHLS_WAIT_FOR\n"
        f"  wire {joint} = {there};\n"
        "`else\n"
        f"  reg {joint};\n"
        "  always @ (posedge clk) begin\n"
        f"    {joint} <= {there} & ~{ports[0]}_rdy & ~rst;\n"
        "  end\n"
        "`endif\n"
    )


def _join(verilog: str, joint: str, ports: Sequence[str]) -> str:
    for port in ports:
        verilog = _free_request(verilog, port, joint)
    free = " & ".join(f"{port}_rdy" for port in ports)
    text = (
        f"  reg {joint};\n"
        "  always @ (posedge clk) begin\n"
        f"    {joint} <= {free} & ~{ports[0]}_vld & ~rst;\n"
        "  end\n"
    )
    head, end, body = verilog.partition("\n);\n")
    return head + end + text + body


def _moves(verilog: str, port: str) -> str | None:
    """Return the condition under which the stage of a request moves; None if nothing else waits."""
    done = f"__{port}_already_done_reg"
    update = re.search(rf"^ *{done} <= (\w+) \? \w+ : {done};\n", verilog, re.M)
    if update is None:
        return None
    # set when the token leaves early, cleared when the stage moves: `early | moves`
    enable = re.search(rf"^  assign {update.group(1)} = \w+ \| (\w+);\n", verilog, re.M)
    if enable is None:
        raise AssertionError(f"port {port}: no condition under which its stage moves")
    return enable.group(1)


def _free_request(verilog: str, port: str, ready: str = "1'h1") -> str:
    done = f"__{port}_already_done_reg"
    moves = _moves(verilog, port)
    if moves is not None:
        verilog = re.sub(rf"^ *{done} <= .*\n", "", verilog, flags=re.M)
        verilog = verilog.replace(f"  reg {done};\n", f"  wire {done} = 1'h0;\n")
        verilog, count = re.subn(
            rf"^  assign {port}_vld = \w+;\n",
            f"  assign {port}_vld = {moves};\n",
            verilog,
            flags=re.M,
        )
        if count != 1:
            raise AssertionError(f"port {port}: {count} assignments of its valid signal")
    return _set(verilog, f"{port}_rdy", ready)


def free_answers(verilog: str, ports: Sequence[str]) -> str:
    """Take answers on `ports` as there when they are due."""
    for port in ports:
        verilog = _set(verilog, f"{port}_vld")
    return verilog


def _set(verilog: str, pin: str, value: str = "1'h1") -> str:
    """Let the module read an input pin as 1, or as something else."""
    head, end, body = verilog.partition("\n);\n")
    return head + end + re.sub(rf"\b{pin}\b", value, body)


ASSIGN = re.compile(r"^ *assign (\w+) = (.*);$", re.M)
_READY = re.compile(r"stage_outputs_ready_(\d+)")
_PIN = re.compile(r"^  input wire (?:\[\d+:0\] )?(\w+),?$", re.M)
_JOINT = re.compile(r"^  reg (__(?:joint|halves)_\d+_(?:rdy|vld));$", re.M)  # waits as well


def free_stages(verilog: str) -> str:
    """Let stages move on in every cycle unless one behind them waits for a pin.

       assign stage_outputs_ready_1 = ~p2_inputs_valid | ...;  p1_x <= p1_stage_done ? x : p1_x;
    -> assign stage_outputs_ready_1 = 1'h1;                    p1_x <= x;
    """
    sources = {
        name: set(re.findall(r"\b[a-z_]\w*", text)) for name, text in ASSIGN.findall(verilog)
    }
    pins = {*_PIN.findall(verilog), *_JOINT.findall(verilog)}
    for name in sources:
        found = _READY.fullmatch(name)
        if found and not _reaches(name, sources, pins):
            stage = found.group(1)
            verilog = re.sub(rf"^( *assign {name} =) .*;$", r"\1 1'h1;", verilog, flags=re.M)
            verilog = re.sub(
                rf"^( *(p{stage}_(?!inputs_valid\b)\w+) <=) \w+ \? (.*) : \2;$",
                r"\1 \3;",
                verilog,
                flags=re.M,
            )
    return verilog


_LOAD = re.compile(r"^( *assign (\w+) =) (\w+) \| rst;$", re.M)


def free_loads(verilog: str) -> str:
    """Let registers without a reset not load during it: nobody reads an empty stage.

       assign loads = moves | rst;  p1_x <= loads ? x : p1_x;
    -> assign loads = moves;        p1_x <= loads ? x : p1_x;
    """
    for head, name, moves in _LOAD.findall(verilog):
        uses = len(re.findall(rf"\b{name}\b", verilog)) - len(
            re.findall(rf"^ *(?:wire {name};|assign {name} =)", verilog, re.M)
        )
        loads = re.findall(rf"^ *(p\d+_\w+) <= {name} \? .* : \1;$", verilog, re.M)
        if uses == len(loads):
            verilog = verilog.replace(f"{head} {moves} | rst;\n", f"{head} {moves};\n")
    return verilog


def _reaches(name: str, sources: Mapping[str, set[str]], pins: set[str]) -> bool:
    """Tell whether a wire depends on a pin in the same cycle."""
    stack, seen = [name], {name}
    while stack:
        fresh = sources.get(stack.pop(), set()) - seen
        if fresh & pins:
            return True
        seen |= fresh
        stack += fresh
    return False
