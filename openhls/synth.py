# SPDX-License-Identifier: Apache-2.0
"""Resources and longest paths of an RTL design on a 7-series part, estimated with Yosys.

Every module is mapped on its own (openhls/yosys.py), so that every process has its own row and is
mapped once however many instances it has, and again only when it changes: results are cached by
content. Yosys maps but does not place: LUT counts are an estimate, DSP and BRAM counts are what the
netlist uses, paths are estimated as openhls/timing.py says.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from openhls.errors import HlsError
from openhls.inter_module import InterModulePath, longest_inter_module_path
from openhls.timing import Arcs, TimingPath, longest
from openhls.yosys import Elaborated, batch_text, elaborate, run_child, text_key
from winnow.artefact import sha256_file, sha256_value, write_text
from winnow.cache import read_entry, write_entry
from winnow.parts import Resources
from winnow.process import map_commands
from winnow.progress import waiting

HERE = Path(__file__).resolve().parent
WORKERS = 2
BATCH_BYTES = 60_000  # of RTLIL: about as long a run as its start


@dataclass(frozen=True)
class ModuleUse:
    """One module: resources of one instance without its children, instances, longest path.

    `path` is that of the module alone: its ports and its instances' count as flip-flops. `levels`
    are the most of any path, which need not be the slowest one.
    """

    name: str
    instances: int
    own: Resources
    path: TimingPath
    levels: int

    @property
    def group(self) -> str:
        """Return the name without parameters."""
        return self.name.split()[0]


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


@dataclass(frozen=True)
class _Mapped:
    """What Yosys made of a module."""

    cells: Mapping[str, int]
    arcs: Arcs
    levels: int

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> _Mapped:
        """Read what `openhls.yosys map` wrote; HlsError for what is wrong with the module."""
        if "error" in found:
            raise HlsError(found["error"])
        arcs = {}
        for start, end, ns, levels, chains, cells in found["arcs"]:
            arcs[start, end] = TimingPath.over(ns, levels, chains, cells)
        return cls(found["cells"], arcs, found["levels"])


def synth_hash() -> str:
    """Return the hash of the code and tools that decide the result."""
    files = (HERE / name for name in ("inter_module.py", "synth.py", "timing.py", "yosys.py"))
    return sha256_value([version("pyosys"), *map(sha256_file, files)])


def _cached(cache: Path, key: str) -> _Mapped | None:
    """Return a module's result from the cache; None when it is missing or not to be trusted."""
    try:
        return _Mapped.parse(read_entry(cache, key) or {})
    except (ValueError, TypeError, LookupError):
        return None


def _batches(modules: Sequence[Elaborated]) -> list[list[Elaborated]]:
    """Share out modules to runs of Yosys, longest first; small ones share the cost of a start."""
    batches: list[list[Elaborated]] = []
    room = 0
    for module in sorted(modules, key=lambda m: -len(m.text)):
        if len(module.text) > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(module)
        room -= len(module.text)
    return batches


def _map_all(design: Mapping[str, Elaborated], log: Path, cache: Path) -> dict[str, _Mapped]:
    """Map the modules that the cache lacks, two at a time; return all."""
    tools = synth_hash()
    keys = {
        name: sha256_value([tools, text_key(module, design)])[:24]
        for name, module in design.items()
    }
    done = {name: found for name, key in keys.items() if (found := _cached(cache, key))}
    batches = _batches([module for name, module in design.items() if name not in done])

    def run(number: int) -> None:
        with tempfile.TemporaryDirectory() as work:
            source, out = Path(work) / "batch.il", Path(work) / "batch.json"
            write_text(source, batch_text(batches[number], design))
            place = log.with_suffix(f".{number}{log.suffix}")
            run_child(["map", str(source), str(out)], place)
            for name, found in json.loads(out.read_text()).items():
                done[name] = _Mapped.parse(found)
                write_entry(cache, keys[name], found)

    cached = len(done)
    with waiting("Yosys", len(design) - cached, lambda: len(done) - cached):
        map_commands(run, range(len(batches)), WORKERS)
    return done


class Synthesis(NamedTuple):
    """A row per module, the largest share of LUTs first, and the longest inter-module path."""

    rows: tuple[ModuleUse, ...]
    inter_module_path: InterModulePath


def synthesise(
    sources: Sequence[Path], top: str, log: Path, cache: Path | None = None
) -> Synthesis:
    """Map a design for 7-series, module by module.

    Raises ToolError that names the log when Yosys fails, HlsError for a combinational loop.
    """
    with tempfile.TemporaryDirectory() as work:
        design = elaborate(sources, top, Path(work), log)
        mapped = _map_all(design, log, cache or Path(work))
    kinds = {name: Counter(module.children.values()) for name, module in design.items()}
    count = _instances(kinds, f"\\{top}")
    rows = [
        ModuleUse(
            module.label,
            count[name],
            _resources(mapped[name].cells),
            longest(mapped[name].arcs),
            mapped[name].levels,
        )
        for name, module in design.items()
        if count[name]
    ]
    arcs = {name: found.arcs for name, found in mapped.items()}
    children = {name: module.children for name, module in design.items()}
    return Synthesis(
        tuple(sorted(rows, key=lambda row: -row.own.lut * row.instances)),
        longest_inter_module_path(arcs, children, f"\\{top}"),
    )


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
