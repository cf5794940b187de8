# SPDX-License-Identifier: Apache-2.0
"""What a build achieved, from the records of its stages. Only formats; measures nothing.

Every number says where it comes from: *measured* (by the stage that names it) or *modelled*
(winnow/cycles.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from codegen.schedule import LayerPlan, Schedule
from codegen.stages import Build
from winnow.artefact import Record
from winnow.blocking import WINOGRAD
from winnow.winograd import KERNEL

MAKERS = {
    "train": "quant",
    "prune": "quant",
    "bits": "quant",
    "qat": "quant",
    "golden": "quant",
    "lower": "codegen",
    "schedule": "codegen",
    "emit": "codegen",
    "csim": "sim",
    "rtl": "sim",
    "rtlsim": "sim",
}
STALL_NOTE = ", with 0% and 30% stalls"
OPTIONAL = ("synth",)  # slow stages that `make hls` does not run
ACCURACIES = (
    ("fp32", "train", "fp32_accuracy"),
    ("pruned", "prune", "pruned_accuracy"),
    ("quantized", "qat", "quantized_accuracy"),
    ("HLS C++", "csim", "accuracy"),
)

Records = Mapping[str, Record]


def read_records(build: Build) -> dict[str, Record]:
    """Read every stage's record; ArtefactError names the first stage that has not run."""
    records = {
        stage: Record.load(build.out / f"{stage}.json", build.command(folder, stage))
        for stage, folder in MAKERS.items()
    }
    for stage in OPTIONAL:
        path = build.out / f"{stage}.json"
        if path.is_file():
            records[stage] = Record.load(path, build.command("sim", stage))
    return records


def direct_macs(layer: LayerPlan) -> int:
    """Return the multiply-accumulates of direct convolution: what a dense engine would do."""
    shape = layer.shape
    pixels = shape.height * shape.width
    if shape.op == WINOGRAD:
        return shape.in_channels * shape.out_channels * pixels * KERNEL**2
    return shape.in_channels * shape.out_channels * pixels


def _accuracies(records: Records) -> list[str]:
    lines = ["test accuracy, measured"]
    for name, stage, key in ACCURACIES:
        lines.append(f"  {name:<12}{records[stage].numbers[key]:>8.2f} %   ({stage})")
    return lines


def _layers(records: Records, plan: Schedule) -> list[str]:
    rtl = records["rtlsim"].numbers["stall_0"]
    lines = [
        "layers: cycles modelled (ideal memory) and measured in RTL; use = products / (modelled x",
        "multipliers)",
        f"  {'layer':<12}{'op':<10}{'input':>10}{'out ch':>7}{'keep':>5}{'bits':>5}"
        f"{'model':>8}{'RTL':>8}{'use %':>7}{'bound by':>10}",
    ]
    for layer in plan.layers:
        shape, cycles = layer.shape, layer.cycles
        size = f"{shape.in_channels}x{shape.height}x{shape.width}"
        lines.append(
            f"  {layer.name:<12}{shape.op:<10}{size:>10}{shape.out_channels:>7}"
            f"{shape.keep:>5}{shape.weight_bits:>5}{cycles.total:>8}"
            f"{rtl['layer_cycles'][layer.name]:>8}"
            f"{100 * cycles.utilisation:>7.1f}{cycles.bound:>10}"
        )
    macs = sum(direct_macs(layer) for layer in plan.layers)
    cycles_measured = rtl["cycles"][0]
    rate = macs / cycles_measured
    lines += [
        f"  {'network':<49}{plan.total_cycles:>8}{cycles_measured:>8}",
        f"  {plan.engine.num_dsp} multipliers; {rate:.1f} direct-convolution MACs/cycle in RTL, "
        f"{rate / plan.engine.num_dsp:.2f} per multiplier, load and store included",
    ]
    return lines


def _resources(records: Records) -> list[str]:
    if "synth" not in records:
        return ["resources: not counted yet; run: make synth"]
    whole, part = records["synth"].numbers["total"], records["synth"].numbers["part"]
    used = ", ".join(
        f"{whole[key]:g} of {part[key]:g} {name}"
        for key, name in (("lut", "LUT"), ("ff", "FF"), ("dsp", "DSP"), ("bram", "BRAM36"))
    )
    return [f"resources, estimated by Yosys after mapping: {used}"]


def _checks(records: Records) -> list[str]:
    rungs = (("interpreter", "lower", ""), ("HLS C++", "csim", ""), ("RTL", "rtlsim", STALL_NOTE))
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


def format_bench(records: Records, plan: Schedule, images_per_second: float) -> str:
    """Return the summary with speeds: `images_per_second` of the C++, seconds of every stage."""
    seconds = ", ".join(
        f"{stage} {record.numbers.get('seconds', 0):.0f}" for stage, record in records.items()
    )
    total = sum(record.numbers.get("seconds", 0) for record in records.values())
    return "\n".join(
        [
            format_report(records, plan),
            "",
            "speed, measured on this machine",
            f"  csim         {images_per_second:.0f} images/s",
            f"  g++          {records['csim'].numbers['compile_seconds']:.1f} s to compile",
            f"  openhls      {records['rtl'].numbers['compile_seconds']:.1f} s from C++ to RTL "
            "(less where cached)",
            f"  Verilator    {records['rtlsim'].numbers['build_seconds']:.1f} s to build, "
            f"{records['rtlsim'].numbers['stall_0']['cycles_per_second']} RTL cycles/s",
            f"  stages       {seconds}; {total:.0f} s in all",
        ]
    )
