# SPDX-License-Identifier: Apache-2.0
"""The table of resources and longest paths, from the record of the stage `synth`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from openhls.synth import ModuleUse, total
from winnow.parts import Resources, timing_note

KINDS = (("lut", "LUT"), ("ff", "FF"), ("dsp", "DSP"), ("bram", "BRAM36"))
NAME_WIDTH = 24


def group_rows(rows: Sequence[ModuleUse]) -> list[dict[str, Any]]:
    """Join the rows of one module with different parameters; the largest share of LUTs first.

    A joined row has the resources of all instances, and the longest path and most levels of any.
    """
    groups: dict[str, list[ModuleUse]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    found = []
    for name, members in groups.items():
        path = max((row.path for row in members), key=lambda path: path.ns)
        found.append(
            {
                "name": name,
                "instances": sum(row.instances for row in members),
                **asdict(total(members)),
                "levels": max(row.levels for row in members),
                "chains": path.chains,
                "ns": round(path.ns, 2),
                "path": list(path.through()),
            }
        )
    return sorted(found, key=lambda row: -float(row["lut"]))


def _count(value: float) -> str:
    """Return a number of LUTs, flip-flops, DSPs or block RAMs; of these there are halves."""
    return f"{value:g}" if value < 1000 else f"{value:.0f}"


def share_line(used: Mapping[str, float], part: Mapping[str, float]) -> str:
    """Return how much of the part is used, in one line."""
    return ", ".join(
        f"{_count(used[key])} of {_count(part[key])} {name} ({100 * used[key] / part[key]:.0f} %)"
        for key, name in KINDS
    )


def timing_line(rows: Sequence[Mapping[str, Any]], clock_mhz: float) -> str:
    """Return whether every module alone meets the clock, by the estimate."""
    period = 1000 / clock_mhz
    late = [row for row in rows if row["ns"] > period]
    if not late:
        return (
            f"the longest path of every module is within {period:.2f} ns, {clock_mhz:g} MHz "
            "(estimated)"
        )
    worst = max(late, key=lambda row: float(row["ns"]))
    count = "1 module misses" if len(late) == 1 else f"{len(late)} modules miss"
    name = worst["name"].removesuffix("_process")
    return (
        f"warning: {count} {period:.2f} ns, {clock_mhz:g} MHz (estimated); the slowest is {name} "
        f"with {worst['ns']:.2f} ns"
    )


def inter_module_line(path: Mapping[str, Any], clock_mhz: float) -> str:
    """Return how long the longest inter-module path is, and where it ends."""
    period = 1000 / clock_mhz
    note = "warning: " if path["ns"] > period else ""
    pins = path["pins"]
    return (
        f"{note}the longest inter-module path takes {path['ns']:.2f} ns (estimated), "
        f"from {pins[0]} to {pins[-1]}"
    )


def format_table(numbers: Mapping[str, Any]) -> list[str]:
    """Return the lines of the table: resources of all instances, most levels, longest path."""
    lines = [
        f"  {'module':<{NAME_WIDTH}}{'inst':>5}{'LUT':>8}{'FF':>8}{'DSP':>5}{'BRAM':>7}"
        f"{'levels':>8}{'carry':>7}{'ns':>7}"
    ]
    lines += [
        f"  {row['name'].removesuffix('_process'):<{NAME_WIDTH}}{row['instances']:>5}"
        f"{row['lut']:>8.0f}{row['ff']:>8.0f}{row['dsp']:>5.0f}{row['bram']:>7g}"
        f"{row['levels']:>8}{row['chains']:>7}{row['ns']:>7.2f}"
        for row in numbers["modules"]
    ]
    whole, part = Resources(**numbers["total"]), Resources(**numbers["part"])
    lines.append(
        f"  {'total':<{NAME_WIDTH}}{'':>5}{whole.lut:>8.0f}{whole.ff:>8.0f}{whole.dsp:>5.0f}"
        f"{whole.bram:>7g}"
    )
    lines.append(
        f"  {numbers['part_name']:<{NAME_WIDTH}}{'':>5}{part.lut:>8.0f}{part.ff:>8.0f}"
        f"{part.dsp:>5.0f}{part.bram:>7g}"
    )
    note = timing_note(numbers["part_name"])
    return [*lines, f"  note: {note}"] if note else lines
