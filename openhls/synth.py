# SPDX-License-Identifier: Apache-2.0
"""Resources of an RTL design on a 7-series part, estimated with Yosys (pyosys wheel).

The hierarchy is kept, so that every process has its own row and is mapped once however many
instances it has. Yosys maps but does not place: LUT counts are an estimate, DSP and BRAM counts are
what the netlist uses.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openhls.errors import HlsError
from winnow.errors import ToolError

RUN_SECONDS = 3600
LOGIC_CELLS = "t:LUT* t:MUXF* t:CARRY4 t:INV %u %u %u"  # a selection: the combinational cells


@dataclass(frozen=True)
class Resources:
    """LUTs, flip-flops, DSP blocks, block RAMs of 36 Kbit (an 18 Kbit one counts half)."""

    lut: float = 0
    ff: float = 0
    dsp: float = 0
    bram: float = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.lut + other.lut, self.ff + other.ff, self.dsp + other.dsp, self.bram + other.bram
        )

    def times(self, count: int) -> Resources:
        """Return the resources of `count` instances."""
        return Resources(self.lut * count, self.ff * count, self.dsp * count, self.bram * count)


# Zynq-7000 data sheet DS190, Zynq UltraScale+ data sheet DS891.
PARTS = {
    "xc7z010": Resources(17600, 35200, 80, 60),
    "xc7z020": Resources(53200, 106400, 220, 140),
    "xc7z030": Resources(78600, 157200, 400, 265),
    "xc7z045": Resources(218600, 437200, 900, 545),
    "xczu3eg": Resources(70560, 141120, 360, 216),
    "xczu7ev": Resources(230400, 460800, 1728, 312),
}


def part_resources(part: str) -> Resources:
    """Return what a part has; HlsError lists the known ones."""
    for name, resources in PARTS.items():
        if part.lower().startswith(name):
            return resources
    raise HlsError(f"target.part: '{part}' must start with one of {', '.join(PARTS)}")


@dataclass(frozen=True)
class ModuleUse:
    """One module: resources of one instance without its children, instances, logic levels.

    `levels` is the longest path through LUTs, muxes and carry cells (`ltp`), 0 when it has none.
    """

    name: str
    instances: int
    own: Resources
    levels: int


def _resources(cells: Mapping[str, int]) -> Resources:
    lut = ff = dsp = bram = 0.0
    for cell, count in cells.items():
        if re.fullmatch(r"LUT[1-6]", cell) or cell.startswith("SRL"):
            lut += count
        elif re.match(r"RAM(32|64|128|256)", cell):
            lut += count * {"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2}.get(cell, 4)
        elif re.match(r"FD[RSCP]E", cell):
            ff += count
        elif cell.startswith("DSP48"):
            dsp += count
        elif cell.startswith("RAMB36"):
            bram += count
        elif cell.startswith("RAMB18"):
            bram += count / 2
    return Resources(lut, ff, dsp, bram)


def _instances(children: Mapping[str, Mapping[str, int]], top: str) -> Counter[str]:
    """Count the instances of every module below `top`."""
    total: Counter[str] = Counter()
    stack = [(top, 1)]
    while stack:
        module, count = stack.pop()
        total[module] += count
        stack += [(child, count * n) for child, n in children[module].items()]
    return total


def synthesise(sources: Sequence[Path], top: str, log: Path) -> tuple[ModuleUse, ...]:
    """Map a design for 7-series; one row per module, the largest share of LUTs first.

    Raises ToolError that names the log when Yosys fails.
    """
    with tempfile.TemporaryDirectory() as work:
        statistics, paths = Path(work) / "stat.json", Path(work) / "ltp.txt"
        script = [
            *(f"read_verilog -sv {path.resolve()}" for path in sources),
            f"synth_xilinx -family xc7 -noiopad -noclkbuf -top {top}",
            f"tee -q -o {statistics} stat -json",
            # A path ends at state and at instances; `ltp -noff` knows only unmapped flip-flops.
            f"delete t:* {LOGIC_CELLS} %d",
            f"tee -q -o {paths} ltp",
        ]
        command = [sys.executable, "-m", "openhls.synth", *script]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            code = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, check=False, timeout=RUN_SECONDS
            ).returncode
        if code != 0 or not statistics.is_file():
            raise ToolError(f"Yosys failed with exit code {code}; see '{log}'", log=log)
        modules = json.loads(statistics.read_text())["modules"]
        levels = _levels(paths.read_text())
    cells = {
        _plain(name): {_plain(c): n for c, n in module["num_cells_by_type"].items()}
        for name, module in modules.items()
    }
    children = {n: {c: k for c, k in uses.items() if c in cells} for n, uses in cells.items()}
    count = _instances(children, top)
    rows = [
        ModuleUse(name, count[name], _resources(uses), levels.get(name, 0))
        for name, uses in cells.items()
        if count[name]
    ]
    return tuple(sorted(rows, key=lambda row: -row.own.lut * row.instances))


def _plain(name: str) -> str:
    """Return a module's name without Yosys' escapes; of a parametrised one, its parameters too."""
    return name.removeprefix("\\").replace("$paramod", "").lstrip("\\")


def _levels(text: str) -> dict[str, int]:
    found = re.findall(r"Longest topological path in (\S+) \(length=(\d+)\)", text)
    return {_plain(name): int(length) for name, length in found}


def total(rows: Sequence[ModuleUse]) -> Resources:
    """Return the resources of the whole design."""
    whole = Resources()
    for row in rows:
        whole = whole + row.own.times(row.instances)
    return whole


def require_fit(used: Resources, part: Resources, name: str) -> None:
    """Raise HlsError that names the scarcest resource unless `part` holds `used`."""
    shares = {f: (getattr(used, f), getattr(part, f)) for f in ("lut", "ff", "dsp", "bram")}
    kind = max(shares, key=lambda f: shares[f][0] / shares[f][1])
    need, have = shares[kind]
    if need > have:
        raise HlsError(
            f"target.part: {name} has {have:g} {kind.upper()}, the design needs {need:g}; choose "
            f"a larger part or a smaller engine"
        )


def _run_script(commands: Sequence[str]) -> None:
    """Run Yosys commands in this process; a child process of `synthesise`."""
    # Deferred: loading Yosys takes a second and only the child needs it.
    from pyosys import libyosys

    design = libyosys.Design()
    for command in commands:
        design.run_pass(command)


if __name__ == "__main__":
    _run_script(sys.argv[1:])
