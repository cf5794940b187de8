# SPDX-License-Identifier: Apache-2.0
"""`python -m sim place`: route the modules of a build's RTL on an ECP5, beside their estimates.

rtl/ -> place.json, a table. Takes 15 s to some minutes per module and seed on an idle core, once.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from openhls.place import (
    DEVICE,
    PlacedRow,
    place_rows,
    rank_correlation,
    require_nextpnr,
    variable,
    whole,
)
from openhls.synth import synthesise
from openhls.yosys import Elaborated, elaborate
from sim import rtl
from sim.resources import NAME_WIDTH
from winnow.artefact import write_text
from winnow.errors import ConfigError, shown
from winnow.flow import Build, require_current

MOST_SEEDS = 9
MINUTES = 60  # a module may take with a seed
TARGET_MHZ = 135  # of every module
NOTE = (
    f"  placed: after place and route on {DEVICE}, each module alone between registers, median of\n"
    "  the seeds. An ECP5, not a Zynq: it tells how modules compare, not the clock of a board"
)


def place(build: Build, names: Sequence[str], seeds: int, minutes: int = MINUTES) -> None:
    """Print the table for modules of a build; without `names` all, not the whole engine.

    A module that takes more than `minutes` with a seed is left, and said. Raises ToolError if
    nextpnr is missing, ConfigError for another module, too many seeds or no minute,
    ArtefactError that names the command that makes it if there is no current RTL.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise ConfigError(f"--seeds must be 1 to {MOST_SEEDS}, got {seeds}")
    if minutes < 1:
        raise ConfigError(f"--minutes must be at least 1, got {minutes}")
    require_nextpnr()
    require_current(["rtl"], build, verb="run")
    sources, log = rtl.rtl_sources(build.rtl), build.rtl / "place.log"
    modules = choose_modules(sources, log, build.cache / "synth", names)
    print(heading(), flush=True)
    rows = place_rows(
        modules,
        range(1, seeds + 1),
        log,
        build.cache / "place",
        lambda row: print(format_row(row), flush=True),
        60.0 * minutes,
    )
    print(summary(rows))
    record = {"device": DEVICE, "minutes": minutes, "modules": [asdict(row) for row in rows]}
    write_text(build.out / "place.json", json.dumps(record, indent=1) + "\n")


def choose_modules(
    sources: Sequence[Path], log: Path, cache: Path, names: Sequence[str] = ()
) -> list[tuple[Elaborated, float]]:
    """Return modules without others inside, and their estimated ns, the slowest first.

    Of a module with several parameters it is the slowest. The whole engine, which takes longer than
    all of them, is there if `names` has it. ConfigError for a name that is none.
    """
    found = synthesise(sources, rtl.TOP, log, cache)
    estimates = {row.name: row.path.ns for row in found.rows}
    with tempfile.TemporaryDirectory() as work:
        design = elaborate(sources, rtl.TOP, Path(work), log)
    leaves = [(m, estimates[m.label]) for m in design.values() if m.label in estimates]
    leaves = [(module, ns) for module, ns in leaves if not module.children]
    if rtl.TOP in names:
        leaves.append((whole(design, rtl.TOP), found.inter_module_path.ns))
    slowest: dict[str, tuple[Elaborated, float]] = {}
    for module, ns in sorted(leaves, key=lambda leaf: -leaf[1]):
        slowest.setdefault(module.label.split()[0].removesuffix("_process"), (module, ns))
    for name in names:
        if name not in slowest:
            known = ", ".join(dict.fromkeys([*slowest, rtl.TOP]))
            raise ConfigError(f"--module must be one of {known}; got {shown(name)}")
    return [leaf for name, leaf in slowest.items() if not names or name in names]


def heading() -> str:
    """Return the head of the table."""
    return (
        f"  {'module':<{NAME_WIDTH}}{'estimate':>10}{'':>7}{'placed':>9}{'':>8}  slowest path\n"
        f"  {'':<{NAME_WIDTH}}{'ns':>10}{'MHz':>7}{'MHz':>9}{'seeds':>8}"
    )


def format_row(row: PlacedRow) -> str:
    """Return a module's line: estimate, median and span of the placed clocks, the path's ends."""
    head = f"  {row.name:<{NAME_WIDTH}}{row.estimate_ns:>10.2f}{1000 / row.estimate_ns:>7.0f}"
    if not row.placed:
        return f"{head}{'-':>9}{'':>8}  not placed in time"
    low, high = (round(f(p.mhz for p in row.placed)) for f in (min, max))
    span = "" if len(row.placed) == 1 else f"{low}-{high}"
    worst = min(row.placed, key=lambda p: p.mhz)
    return f"{head}{row.mhz:>9.0f}{span:>8}  {' -> '.join(map(variable, worst.ends))}"


def summary(rows: Sequence[PlacedRow]) -> str:
    """Return who misses the target, how estimate and placed clock agree, what the numbers are."""
    late = [row.name for row in rows if not row.placed]
    lines = [f"  not placed in time: {', '.join(late)}"] if late else []
    rows = sorted((row for row in rows if row.placed), key=lambda row: row.mhz)
    slow = [f"{row.name} {row.mhz:.0f}" for row in rows if row.mhz < TARGET_MHZ]
    if slow:
        lines.append(f"  below the target of {TARGET_MHZ} MHz: {', '.join(slow)}")
    if len(rows) > 2:
        found = rank_correlation([row.estimate_ns for row in rows], [-row.mhz for row in rows])
        slowest = rows[0]
        lines.append(
            f"  rank correlation (Spearman) of estimate and placed clock: {found:.2f}, "
            f"{len(rows)} modules; the slowest placed is {slowest.name} with {slowest.mhz:.0f} MHz"
        )
    return "\n".join([*lines, NOTE])
