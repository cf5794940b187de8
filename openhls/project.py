# SPDX-License-Identifier: Apache-2.0
"""A C++ project -> a folder of SystemVerilog: compiled processes, generated top, library.

top.cpp + include dirs -> rtl/<process>_process.sv, rtl/<top>.sv, rtl/openhls_*.sv,
wait_for_graph.json, report.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openhls.channels import Pointers
from openhls.compile import CONTROL, CompiledProcess, CompiledProject, Report, compile_project
from openhls.deadlock import FILE, wait_for_graph
from openhls.errors import HlsError
from openhls.interface import parse_interface
from openhls.netlist import Actual, Call, Netlist, RtlModule, build_netlist
from openhls.top import LIBRARY, all_nets, render_top
from winnow.artefact import write_text

HERE = Path(__file__).resolve().parent
WAIVERS = "waivers.vlt"
_WAIVED = """\
`verilator_config
// XLS names every intermediate value and keeps some it does not use.
lint_off -rule UNUSEDSIGNAL -file "*_process.sv"
// XLS writes plain always blocks, and one declaration for several names.
lint_off -rule DECLFILENAME -file "*_process.sv"
lint_off -rule MULTITOP
// Payload of tokens that carry no information, and `idle`, which only a test looks at.
lint_off -rule UNUSEDSIGNAL -file "*{top}.sv"
"""


@dataclass(frozen=True)
class Design:
    """What was written: files, a report per process, the number of instances, seconds."""

    files: tuple[Path, ...]
    reports: Mapping[str, Report]
    netlist: Netlist
    seconds: float

    @property
    def instances(self) -> int:
        return len(self.netlist.instances)

    def rows(self) -> dict[str, Any]:
        """Return the reports as plain values, with the number of instances of each process."""
        counts: dict[str, int] = {}
        for instance in self.netlist.instances:
            counts[instance.module] = counts.get(instance.module, 0) + 1
        return {
            name: asdict(report) | {"instances": counts.get(f"{name}_process", 0)}
            for name, report in self.reports.items()
        }


def _module(process: CompiledProcess) -> RtlModule:
    return RtlModule(process.module, process.formals, process.channels, process.report.stages)


def netlist_of(compiled: CompiledProject) -> Netlist:
    """Wire the processes as the top function calls them."""
    pointers = Pointers(compiled.top_ir)
    calls = []
    for instruction in compiled.top_ir.instructions():
        if instruction.opcode != "call" or instruction.detail not in compiled.names:
            continue
        name = compiled.names[instruction.detail]
        actuals = []
        for operand in instruction.operands:
            found = pointers.find(operand.name)
            if found is None:
                raise HlsError(f"a channel that '{name}' is called with depends on a condition")
            actuals.append(Actual(pointers.base_name(found.base), found.element))
        calls.append(Call(name, tuple(actuals)))
    modules = {name: _module(process) for name, process in compiled.processes.items()}
    control = _module(compiled.control)
    return build_netlist(modules, calls, control, compiled.arrays, compiled.depths)


def compile_design(
    source: Path, include_dirs: Sequence[Path], top: str, folder: Path, cache: Path | None = None
) -> Design:
    """Compile the dataflow design `top` of `source` and write its RTL into `folder`.

    Raises HlsError, one line with file and line, for what the subset does not contain.
    """
    started = time.monotonic()
    interface = parse_interface(source.read_text(encoding="utf-8"))
    compiled = compile_project(source, include_dirs, top, cache=cache)
    netlist = netlist_of(compiled)
    texts = {f"{top}.sv": render_top(top, netlist, interface)}
    processes = {**compiled.processes, CONTROL: compiled.control}
    texts |= {f"{process.module}.sv": process.verilog for process in processes.values()}
    texts |= {path.name: path.read_text(encoding="utf-8") for path in sorted(LIBRARY.glob("*.sv"))}
    texts[WAIVERS] = _WAIVED.format(top=top)
    names = [net.name for net in all_nets(netlist)]
    texts[FILE] = wait_for_graph(netlist, interface, names).text()
    reports = {name: process.report for name, process in processes.items()}
    design = Design(
        tuple(folder / name for name in texts), reports, netlist, time.monotonic() - started
    )
    texts["report.json"] = json.dumps(design.rows(), indent=2) + "\n"
    for stale in folder.glob("*.sv"):
        if stale.name not in texts:
            stale.unlink()
    for name, text in texts.items():
        write_text(folder / name, text)
    return design
