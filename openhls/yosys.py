# SPDX-License-Identifier: Apache-2.0
"""Yosys (pyosys wheel): RTL -> elaborated modules -> mapped 7-series modules.

Every module is mapped on its own, the modules it uses being black boxes, so that it is mapped once
however many instances it has, and its result depends on nothing but its text: the key of the cache.

    python -m openhls.yosys elaborate TOP OUT FILE...
    python -m openhls.yosys map IN OUT
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openhls.errors import HlsError
from openhls.timing import module_paths
from winnow.artefact import sha256_bytes, write_text
from winnow.errors import ToolError
from winnow.process import run

ROOT = Path(__file__).resolve().parent.parent
RUN_SECONDS = 3600
# In the order of their run. Names that Yosys makes up count up over the whole design: without
# `rename` a change in one file would give all modules another text.
ELABORATE = ("proc", "rename -enumerate -pattern $%", "write_rtlil {out}")
LIBRARIES = (
    "read_verilog -lib -specify +/xilinx/cells_sim.v",
    "read_verilog -lib +/xilinx/cells_xtra.v",
)
# synth_xilinx, whose step map_luts is written out: there ABC takes a net for 300 ps, and so saves
# area where delay is needed. Its net is not that of openhls/timing.py, so that a change of the
# estimate changes no LUT count.
MAPPER_NET_PS = 600
_SYNTH = "synth_xilinx -family xc7 -noiopad -noclkbuf -run"
MAP = (
    f"{_SYNTH} prepare:map_luts",
    "opt_expr -mux_undef -noclkinv",
    "read_verilog -icells -lib -specify +/xilinx/abc9_model.v",
    f"abc9 -W {MAPPER_NET_PS}",
    "clean",
    "xilinx_srl -fixed -minlen 3",
    "techmap -map +/xilinx/lut_map.v -map +/xilinx/cells_map.v -D LUT_WIDTH=6",
    "xilinx_dffopt",
    "opt_lut_ins -tech xilinx",
    f"{_SYNTH} finalize:check",
)
_MARK = "openhls_map"  # an attribute of the modules to map, not of libraries and black boxes
_MODULE = re.compile(r"^module (\S+)\n(.*?)^end$", re.MULTILINE | re.DOTALL)
_PARAMETER = re.compile(r"^  parameter \\(\w+) (.*)$", re.MULTILINE)
_SOURCE = re.compile(r"^ *attribute \\src .*\n", re.MULTILINE)
_PORT = re.compile(r"^  wire (?:.* )?(?:input|output|inout) \d+ .*\n", re.MULTILINE)
_CELL = re.compile(r"^  cell (\S+) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Elaborated:
    """A module with its parameters applied.

    `text` is its RTLIL, `stub` its ports as a black box, `children` the type of every instance.
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    text: str
    stub: str
    children: Mapping[str, str]

    @property
    def label(self) -> str:
        """Return the name as in the sources, with the parameters: `fifo DEPTH=2 WIDTH=8`."""
        plain = self.name.split("\\")[1]
        return " ".join([plain, *(f"{name}={value}" for name, value in sorted(self.parameters))])


def run_child(arguments: Sequence[str], log: Path) -> None:
    """Run this module in a child process; ToolError names the log when Yosys fails."""
    command = [sys.executable, "-m", "openhls.yosys", *arguments]
    code = run(command, log=log, timeout=RUN_SECONDS, cwd=ROOT).code
    if code != 0:
        raise ToolError(
            f"Yosys failed with exit code {code}; see '{log}'",
            command=" ".join(command),
            exit_code=code,
            log=log,
        )


def elaborate(sources: Sequence[Path], top: str, work: Path, log: Path) -> dict[str, Elaborated]:
    """Return the modules below `top` by Yosys' name; that of the top is a backslash and `top`."""
    out = work / "design.il"
    run_child(["elaborate", top, str(out), *(str(path.resolve()) for path in sources)], log)
    return split(out.read_text())


def split(rtlil: str) -> dict[str, Elaborated]:
    """Cut RTLIL into its modules. Attributes of whole modules are dropped: they place them."""
    bodies = {name: _SOURCE.sub("", body) for name, body in _MODULE.findall(rtlil)}
    return {
        name: Elaborated(
            name,
            tuple(_PARAMETER.findall(body)),
            f"attribute \\{_MARK} 1\nmodule {name}\n{body}end\n",
            f"attribute \\blackbox 1\nmodule {name}\n{''.join(_PORT.findall(body))}end\n",
            {cell: kind for kind, cell in _CELL.findall(body) if kind in bodies},
        )
        for name, body in bodies.items()
    }


def batch_text(modules: Sequence[Elaborated], design: Mapping[str, Elaborated]) -> str:
    """Return the RTLIL of modules, with black boxes for those that they use."""
    own = {module.name for module in modules}
    used = sorted({kind for module in modules for kind in module.children.values()} - own)
    return "".join([module.text for module in modules] + [design[kind].stub for kind in used])


def text_key(module: Elaborated, design: Mapping[str, Elaborated]) -> str:
    """Return the hash of all that decides a module's mapping but the tools."""
    return sha256_bytes(batch_text([module], design).encode())


def _run(commands: Sequence[str]) -> None:
    # Deferred: loading Yosys takes a second and only the child process needs it.
    from pyosys import libyosys

    design = libyosys.Design()
    for command in commands:
        design.run_pass(command)


def _elaborate(top: str, out: str, *files: str) -> None:
    reads = [f"read_verilog -sv {file}" for file in files]
    _run([*reads, f"hierarchy -check -top {top}", *(c.format(out=out) for c in ELABORATE)])


def _mapped(name: str, netlist: Mapping[str, Any]) -> dict[str, Any]:
    cells = Counter(cell["type"] for cell in netlist["cells"].values())
    try:
        paths = module_paths(name, netlist)
    except HlsError as error:
        return {"error": str(error)}
    rows = [[*ends, p.ns, p.levels, p.chains, p.through()] for ends, p in paths.arcs.items()]
    return {"cells": cells, "arcs": rows, "levels": paths.levels}


def _map(source: str, out: str) -> None:
    """Map the modules of a file; write cells by type and the arcs of each as JSON."""
    netlist = Path(out).with_suffix(".netlist.json")
    write = [f"select A:{_MARK}", f"write_json -selected {netlist}"]
    _run([*LIBRARIES, f"read_rtlil {source}", *MAP, *write])
    found = {}
    for name, module in json.loads(netlist.read_text())["modules"].items():
        found[name if name.startswith("$") else f"\\{name}"] = _mapped(name, module)
    write_text(Path(out), json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "elaborate":
        _elaborate(*sys.argv[2:])
    else:
        _map(*sys.argv[2:])
