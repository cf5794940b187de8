# SPDX-License-Identifier: Apache-2.0
"""What a build achieved, from the records of its stages. Only formats; measures nothing.

Every number says where it comes from: *measured* (by the stage that names it), *modelled*
(winnow/cycles.py) or *estimated* (openhls/synth.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from codegen.schedule import LayerPlan, Schedule
from codegen.stages.schedule import read_schedule
from sim.resources import format_table, inter_module_line, share_line, timing_line
from winnow.artefact import Record
from winnow.blocking import Op
from winnow.flow import STAGES, Build, require_current
from winnow.score import ACCURACY, score_in
from winnow.winograd import KERNEL

STALL_NOTE = ", with 0% and 30% stalls"
BOARD_NOTE = ", on a virtual board"
MODEL_PERCENT = 5.0  # by which the cycle model may miss the RTL of a layer
ACCURACIES = (
    ("fp32", "train", "fp32"),
    ("narrowed", "prune_channels", "narrowed"),
    ("pruned", "prune", "pruned"),
    ("quantized", "qat", "quantized"),
    ("HLS C++", "csim", ""),
)

Records = Mapping[str, Record]


def read_records(build: Build) -> dict[str, Record]:
    """Read the record of every stage; ArtefactError names the first one that is not current.

    So what is printed was checked on the files that are there now.
    """
    names = [stage.name for stage in STAGES if not stage.optional]
    require_current(names, build, verb="run")
    return {name: build.record(name) for name in names}


def direct_macs(layer: LayerPlan) -> int:
    """Return the multiply-accumulates of direct convolution: what a dense engine would do."""
    shape = layer.shape
    if shape.maximum:
        return 0
    height, width = shape.output_size
    taps = {
        Op.WINOGRAD: KERNEL**2,
        Op.DIRECT: shape.window.positions,
        Op.DENSE: shape.height * shape.width,
    }
    read = shape.in_channels // shape.groups
    return read * shape.out_channels * height * width * taps[shape.op]


def _accuracies(records: Records) -> list[str]:
    lines, kind = [], ACCURACY
    for name, stage, key in ACCURACIES:
        if records[stage].numbers.get("share") == 1 and stage == "prune_channels":
            continue  # nothing was removed
        kind, number = score_in(records[stage].numbers, key)
        text = f"{number:>8.2f} %" if kind == ACCURACY else f"{number:>12.5g}"
        lines.append(f"  {name:<12}{text}   ({stage})")
    what = "test accuracy" if kind == ACCURACY else "mean squared error of the test images"
    return [f"{what}, measured", *lines]


def _deviation(modelled: int, measured: int) -> float:
    """Return by how many percent the model misses the RTL."""
    return 100 * (modelled - measured) / measured


def _name_width(plan: Schedule) -> int:
    """Return the width of the column of names: users' layers may have long ones."""
    return 1 + max(11, *(len(layer.name) for layer in plan.layers))


def _layers(records: Records, plan: Schedule) -> list[str]:
    rtl = records["rtlsim"].numbers["stall_0"]
    lines = [
        "layers: cycles modelled (ideal memory) and measured in RTL simulation; use, measured, =",
        "products / (RTL cycles x multipliers)",
        f"  {'layer':<{_name_width(plan)}}{'op':<10}{'input':>10}{'out ch':>7}{'keep':>5}"
        f"{'bits':>5}"
        f"{'model':>8}{'RTL':>8}{'dev %':>7}{'use %':>7}{'bound by':>10}",
    ]
    for layer in plan.layers:
        shape, cycles = layer.shape, layer.cycles
        measured = rtl["layer_cycles"][layer.name]
        size = f"{shape.in_channels}x{shape.height}x{shape.width}"
        lines.append(
            f"  {layer.name:<{_name_width(plan)}}{layer.op_name:<10}{size:>10}"
            f"{shape.out_channels:>7}{shape.keep:>5}{shape.weight_bits:>5}{cycles.total:>8}{measured:>8}"
            f"{_deviation(cycles.total, measured):>7.1f}"
            f"{100 * cycles.utilisation * cycles.total / measured:>7.1f}{cycles.bound:>10}"
        )
    return [*lines, *_network(records, plan)]


def _network(records: Records, plan: Schedule) -> list[str]:
    rtl = records["rtlsim"].numbers["stall_0"]
    macs = sum(direct_macs(layer) for layer in plan.layers)
    measured = rtl["cycles"][0]
    rate = macs / measured
    worst = max(
        plan.layers,
        key=lambda x: abs(_deviation(x.cycles.total, rtl["layer_cycles"][x.name])),
    )
    missed = abs(_deviation(worst.cycles.total, rtl["layer_cycles"][worst.name]))
    note = "" if missed <= MODEL_PERCENT else "warning: "
    return [
        f"  {'network':<{_name_width(plan) + 37}}{plan.total_cycles:>8}{measured:>8}"
        f"{_deviation(plan.total_cycles, measured):>7.1f}",
        f"  {note}the model misses {worst.name} most, by {missed:.1f} % (limit "
        f"{MODEL_PERCENT:g} %)",
        f"  {plan.engine.num_dsp} multipliers; {rate:.1f} direct-convolution MACs/cycle in RTL, "
        f"{rate / plan.engine.num_dsp:.2f} per multiplier, load and store included",
    ]


def _resources(records: Records) -> list[str]:
    numbers = records["synth"].numbers
    return [
        "resources and longest path of each module alone, estimated by Yosys after mapping",
        *format_table(numbers),
        f"  {share_line(numbers['total'], numbers['part'])}",
        f"  {timing_line(numbers['modules'], numbers['clock_mhz'])}",
        f"  {inter_module_line(numbers['inter_module_path'], numbers['clock_mhz'])}",
    ]


def _checks(records: Records) -> list[str]:
    rungs = (
        ("interpreter", "lower", ""),
        ("HLS C++", "csim", ""),
        ("RTL", "rtlsim", STALL_NOTE),
        ("driver", "bundle", BOARD_NOTE),
    )
    lines = ["verification ladder, exact equality"]
    for name, stage, note in rungs:
        numbers = records[stage].numbers
        counts = f"{numbers['values']} integers, {numbers['images']} images{note}"
        lines.append(f"  Brevitas (float64) = {name:<14}{counts}")
    return lines


def format_report(records: Records, plan: Schedule) -> str:
    """Return the summary table of a build."""
    return "\n".join(
        [
            *_accuracies(records),
            "",
            *_layers(records, plan),
            "",
            *_resources(records),
            "",
            *_checks(records),
        ]
    )


def report(build: Build) -> None:
    """Print the summary of a build."""
    print(format_report(read_records(build), read_schedule(build)))
