# SPDX-License-Identifier: Apache-2.0
"""Fit the graph to the engine and write program, weights and memory map.

graph -> hls/data/, schedule.txt
"""

from __future__ import annotations

from collections.abc import Mapping

from codegen.emit import emit_data
from codegen.graph_text import load_graph
from codegen.schedule import Schedule, schedule
from winnow.artefact import write_text
from winnow.flow import Build, Result


def read_schedule(build: Build) -> Schedule:
    """Schedule the build's graph on its engine; ArtefactError when the graph is damaged."""
    return schedule(load_graph(build.out), build.config.engine)


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Write what the engine reads, and a table of the layers."""
    plan = read_schedule(build)
    table = build.out / "schedule.txt"
    write_text(table, format_schedule(plan))
    return Result(
        [table, *emit_data(build.hls / "data", plan)],
        f"{plan.total_cycles} modelled cycles, {plan.engine.num_dsp} multipliers",
        {
            "cycles": {layer.name: layer.cycles.total for layer in plan.layers},
            "total_cycles": plan.total_cycles,
            "weight_bytes": plan.weight_beats * plan.engine.axi_bits // 8,
        },
    )


def format_schedule(plan: Schedule) -> str:
    """Return the schedule as a table: strips, blocks, memory and modelled cycles per layer."""
    head = (
        f"{'layer':<12}{'op':<10}{'keep':>5}{'bits':>5}{'strips':>7}{'groups':>7}{'blocks':>7}"
        f"{'steps':>6}{'in':>8}{'out':>8}{'weights':>9}{'cycles':>9}{'use %':>7}  bound by"
    )
    lines = [head]
    for layer in plan.layers:
        blocking, cycles = layer.blocking, layer.cycles
        strips = list(blocking.strips())
        lines.append(
            f"{layer.name:<12}{layer.op_name:<10}{blocking.keep:>5}"
            f"{layer.shape.weight_bits:>5}{len(strips):>7}{strips[0].num_groups:>7}"
            f"{blocking.blocks:>7}{blocking.steps:>6}{layer.source.base:>8}"
            f"{layer.result.base:>8}{layer.weight_base:>9}{cycles.total:>9}"
            f"{100 * cycles.utilisation:>7.1f}  {cycles.bound}"
        )
    lines.append(f"total: {plan.total_cycles} modelled cycles")
    return "\n".join(lines) + "\n"
