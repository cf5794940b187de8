# SPDX-License-Identifier: Apache-2.0
"""Fit the cycle model's one fitted number, FILL_CYCLES, to the RTL of a build.

rtlsim.json, schedule.json -> the FILL_CYCLES that the layers ask for, and what is left over
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from codegen.schedule import LayerPlan
from codegen.stages.schedule import read_schedule
from winnow.cycles import FILL_CYCLES, blocking_cycles
from winnow.engine import EngineConfig
from winnow.flow import Build, require_current


@dataclass(frozen=True)
class Fit:
    """A layer: cycles modelled and measured, and the FILL_CYCLES that would make them equal."""

    name: str
    modelled: int
    measured: int

    @property
    def fill(self) -> int:
        return FILL_CYCLES + self.measured - self.modelled


def fits(engine: EngineConfig, layers: Sequence[LayerPlan], measured: dict[str, int]) -> list[Fit]:
    """Return the fit of every layer, in order; `measured` are RTL cycles by name."""
    return [
        Fit(p.name, blocking_cycles(engine, p.shape, p.blocking).total, measured[p.name])
        for p in layers
    ]


def format_fits(found: Sequence[Fit]) -> str:
    """Return a table of the layers and the value for winnow/cycles.py: their median."""
    best = median_low([fit.fill for fit in found])
    lines = ["  layer        modelled  measured  FILL_CYCLES  then"]
    for fit in found:
        error = 100 * (fit.measured / (fit.modelled - FILL_CYCLES + best) - 1)
        lines.append(
            f"  {fit.name:<12}{fit.modelled:>9}{fit.measured:>10}{fit.fill:>13}{error:>+6.1f} %"
        )
    return "\n".join(
        [*lines, f"FILL_CYCLES = {best} fits best; winnow/cycles.py has {FILL_CYCLES}"]
    )


def fill(build: Build) -> None:
    """Fit FILL_CYCLES of the cycle model to the RTL cycles of a build."""
    require_current(("rtlsim",), build)
    plan = read_schedule(build)
    measured = build.record("rtlsim").numbers["stall_0"]["layer_cycles"]
    print(format_fits(fits(plan.engine, plan.layers, measured)))
