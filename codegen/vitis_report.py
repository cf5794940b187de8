# SPDX-License-Identifier: Apache-2.0
"""What Vitis HLS made of the C++: loops, clock, resources, and the messages that matter.

hls/winnow_vitis/solution/syn/report/csynth.xml, hls/vitis.log -> Synthesis

The format is that of reports which others published (docs/vitis.md); none of our own engine was
ever seen. A loop is an element below `SummaryOfLoopLatency`, of the top or of a `Module`, with
loops inside it; `PipelineII` is missing where a loop is not pipelined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from winnow.errors import ArtefactError, ToolError

REPORT = Path("winnow_vitis") / "solution" / "syn" / "report" / "csynth.xml"
RESOURCES = ("LUT", "FF", "DSP", "BRAM_18K", "URAM")
# A lost II, or a dataflow region that will not run as written (UG1448), by number or by words.
MESSAGE = re.compile(
    r"(?:WARNING|ERROR|CRITICAL WARNING): \[HLS (?P<code>\d+-\d+)\] (?P<text>[^\n]*)"
)
CODES = {"200-471", "214-108", "214-114", "214-169"}
WORDS = re.compile(r"II Violation|Unable to (?:enforce|schedule)|deadlock|stall", re.IGNORECASE)
SHOWN = 3  # lost loops in an error


@dataclass(frozen=True)
class Loop:
    """A loop that Vitis pipelined: its module, its label, cycles between iterations, stages."""

    module: str
    name: str
    ii: int
    depth: str


@dataclass(frozen=True)
class Synthesis:
    """What a report says.

    Members:
        loops: those that are pipelined; `clock_ns` the estimate, `target_ns` what was asked for.
        used, available: by the names of RESOURCES, as far as the report has them.
        messages: of the log, a line each.
    """

    version: str
    part: str
    clock_ns: float
    target_ns: float
    loops: tuple[Loop, ...]
    used: dict[str, int]
    available: dict[str, int]
    messages: tuple[str, ...]

    @property
    def lost(self) -> tuple[Loop, ...]:
        """Loops that take more than a cycle per iteration."""
        return tuple(loop for loop in self.loops if loop.ii > 1)


def read_synthesis(hls: Path) -> Synthesis:
    """Read what `csynth.tcl` left in the project; ArtefactError if there is no whole report."""
    path, log = hls / REPORT, hls / "vitis.log"
    if not path.is_file():
        raise ArtefactError(f"Vitis HLS wrote no '{path}'; see '{log}'")
    try:
        root = ET.fromstring(path.read_text(encoding="utf-8"))
        return _synthesis(root, messages(log.read_text(errors="replace")))
    except (ET.ParseError, ValueError, LookupError) as error:
        raise ArtefactError(f"'{path}' is no csynth report: {error}; see '{log}'") from error


def _synthesis(root: ET.Element, found: tuple[str, ...]) -> Synthesis:
    top = _text(root, "UserAssignments/TopModelName")
    loops = list(_loops(top, root))
    for module in root.iterfind("ModuleInformation/Module"):
        loops += _loops(_text(module, "Name"), module)
    return Synthesis(
        version=root.findtext("ReportVersion/Version", "unknown"),
        part=_text(root, "UserAssignments/Part"),
        clock_ns=float(
            _text(root, "PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")
        ),
        target_ns=float(_text(root, "UserAssignments/TargetClockPeriod")),
        loops=tuple(loops),
        used=_resources(root, "AreaEstimates/Resources"),
        available=_resources(root, "AreaEstimates/AvailableResources"),
        messages=found,
    )


def _text(element: ET.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise LookupError(f"no {path}")
    return text.strip()


def _loops(module: str, element: ET.Element) -> Iterator[Loop]:
    summary = element.find("PerformanceEstimates/SummaryOfLoopLatency")
    waiting = [] if summary is None else list(summary)
    while waiting:
        loop = waiting.pop(0)
        # A range, were there one, would be as slow as its end.
        cycles = [int(number) for number in re.findall(r"\d+", loop.findtext("PipelineII", ""))]
        if cycles:
            name = loop.findtext("Name", loop.tag).strip()
            yield Loop(module, name, max(cycles), loop.findtext("PipelineDepth", "?").strip())
        waiting[:0] = [child for child in loop if len(child) and child.tag != "InstanceList"]


def _resources(root: ET.Element, path: str) -> dict[str, int]:
    found = root.find(path)
    if found is None:
        raise LookupError(f"no {path}")
    values = {"DSP": found.findtext("DSP48E", ""), **{c.tag: c.text or "" for c in found}}
    return {name: int(values[name]) for name in RESOURCES if values.get(name, "").isdigit()}


def messages(log: str) -> tuple[str, ...]:
    """Return the lines of Vitis' log that mean a lost II or a region that stalls, each once."""
    found = (m for m in MESSAGE.finditer(log) if m["code"] in CODES or WORDS.search(m["text"]))
    return tuple(dict.fromkeys(f"[HLS {m['code']}] {m['text'].strip()}" for m in found))


def table(synthesis: Synthesis) -> str:
    """Return the report as text: loops, clock, resources, messages."""
    width = max([len(f"{loop.module} {loop.name}") for loop in synthesis.loops], default=4)
    lines = [f"Vitis HLS {synthesis.version}, {synthesis.part}", f"{'loop':<{width}}  II  depth"]
    for loop in synthesis.loops:
        mark = "  <- lost" if loop.ii > 1 else ""
        lines.append(
            f"{loop.module + ' ' + loop.name:<{width}}  {loop.ii:>2}  {loop.depth:>5}{mark}"
        )
    within = "within" if synthesis.clock_ns <= synthesis.target_ns else "above"
    lines.append(
        f"clock {synthesis.clock_ns:g} ns, {within} {synthesis.target_ns:g} ns (estimated)"
    )
    for name, used in synthesis.used.items():
        have = synthesis.available.get(name, 0)
        lines.append(f"{name} {used} of {have} ({used / have:.0%})" if have else f"{name} {used}")
    return "\n".join([*lines, *synthesis.messages]) + "\n"


def require_pipelined(synthesis: Synthesis, log: Path) -> None:
    """Raise ToolError naming loops of more than a cycle per iteration, or that there is none."""
    if not synthesis.loops:
        raise ToolError(f"Vitis HLS pipelined no loop; see '{log}'", "", 1, log)
    lost = [f"{x.name} of {x.module} has II {x.ii}" for x in synthesis.lost]
    if lost:
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        text = f"Vitis HLS lost II 1: {', '.join(lost[:SHOWN])}{more}; see '{log}'"
        raise ToolError(text, "", 1, log)
