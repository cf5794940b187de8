# SPDX-License-Identifier: Apache-2.0
"""The RTL stages of `python -m sim`: make it, check it bit for bit, count its resources.

rtl     hls/ -> rtl/: SystemVerilog through openhls, lint-clean
rtlsim  rtl/, program, weights, golden.npz -> rtlsim.json (and RTL = Brevitas, bit for bit)
synth   rtl/ -> resources by Yosys, and whether the part holds them
cocotb  the regression at the AXI pins: no stalls, random stalls, error cases
fill    rtlsim.json -> the cycle model's fitted number
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codegen.stages import Build, Golden, load_golden, read_schedule, require_golden
from openhls.project import WAIVERS, compile_design, openhls_hash
from openhls.synth import part_resources, require_fit, synth_hash, synthesise, total
from sim import rtl
from sim.fill import fill
from sim.resources import crossing_line, format_table, group_rows, share_line, timing_line
from sim.stages import HERE, cache_folder
from sim.verilator import lint
from winnow.artefact import Record
from winnow.stage import Result, run_stage, sources_hash

RTL_IMAGES = 20
STALLS = (0, 30)  # percent of cycles in which a channel is stalled


def make_rtl(build: Build) -> None:
    """Compile the C++ to SystemVerilog and lint it."""
    files = {"emit.json": build.command("codegen", "emit")}
    inputs = build.inputs(("engine", "target"), files) | {"openhls": openhls_hash()}

    def work() -> Result:
        design = compile_design(
            build.hls / "src" / "top.cpp",
            [build.hls / "include"],
            rtl.TOP,
            build.rtl,
            cache_folder(build) / "openhls",
        )
        lint(rtl.rtl_sources(build.rtl), rtl.TOP, build.rtl / WAIVERS, build.rtl / "lint.log")
        numbers = {"processes": design.rows(), "compile_seconds": design.seconds}
        summary = f"{len(design.reports)} processes, {design.instances} instances, lint-clean,"
        return Result(design.files, summary, numbers)

    run_stage(build.out, "rtl", inputs, work)


def check_rtl(build: Build) -> None:
    """Run test images on the RTL in the C++ harness; every layer must equal the Brevitas model."""
    inputs = _rtl_inputs(build)

    def work() -> Result:
        plan, golden = read_schedule(build), load_golden(build)
        started = time.monotonic()
        harness = rtl.build(build.rtl, build.config.engine, cache_folder(build) / "rtl")
        build_seconds = time.monotonic() - started
        images = golden.images[:RTL_IMAGES]
        subset = Golden(
            images,
            golden.labels[:RTL_IMAGES],
            {name: maps[:RTL_IMAGES] for name, maps in golden.layers.items()},
        )
        values, numbers = 0, dict[str, Any]()
        for stall in STALLS:
            started = time.monotonic()
            run = rtl.run(harness, plan, images, stall=stall, seed=build.config.seed)
            seconds = time.monotonic() - started
            values += require_golden(run.maps, subset)
            numbers[f"stall_{stall}"] = {
                "cycles": run.cycles,
                "layer_cycles": dict(
                    zip([p.name for p in plan.layers], run.layer_cycles[0], strict=True)
                ),
                "cycles_per_second": round(sum(run.cycles) / seconds),
            }
        numbers |= {"values": values, "images": len(images), "build_seconds": build_seconds}
        cycles = numbers["stall_0"]["cycles"][0]
        summary = f"RTL = Brevitas on {values} values, {cycles} cycles per image,"
        return Result([], summary, numbers)

    run_stage(build.out, "rtlsim", inputs, work)


def _rtl_inputs(build: Build) -> dict[str, str]:
    files = {
        "graph.npz": build.command("codegen", "lower"),
        "golden.npz": build.command("quant", "golden"),
        "schedule.json": build.command("codegen", "schedule"),
        "rtl.json": build.command("sim", "rtl"),
    }
    return build.inputs(("seed", "engine", "target"), files) | {"sim": sources_hash(HERE, "*.?pp")}


def synthesise_rtl(build: Build, *, brief: bool = False) -> None:
    """Estimate resources and longest paths of the RTL; fail when the part does not hold it."""
    target = build.config.target
    part = part_resources(target.part)
    inputs = build.inputs(("target",), {"rtl.json": build.command("sim", "rtl")})
    inputs["synth"] = synth_hash()

    def work() -> Result:
        log = build.rtl / "yosys.log"
        found = synthesise(rtl.rtl_sources(build.rtl), rtl.TOP, log, cache_folder(build) / "synth")
        whole = total(found.rows)
        require_fit(whole, part, target.part)
        numbers = {
            "modules": group_rows(found.rows),
            "crossing": found.crossing._asdict(),
            "total": asdict(whole),
            "part": asdict(part),
            "part_name": target.part,
            "clock_mhz": target.clock_mhz,
        }
        return Result([], share_line(asdict(whole), asdict(part)) + ",", numbers)

    run_stage(build.out, "synth", inputs, work)
    if not brief:
        record = Record.load(build.out / "synth.json", build.command("sim", "synth"))
        print("\n".join(format_table(record.numbers)))
        print(timing_line(record.numbers["modules"], target.clock_mhz))
        print(crossing_line(record.numbers["crossing"], target.clock_mhz))


def regress(build: Build, source: Path | None = None, *, waves: bool = False) -> None:
    """Run the cocotb regression on the build's RTL, or on RTL from another folder."""
    for stall in STALLS:
        job = rtl.CocotbJob(
            build.hls / "data",
            build.out / "golden.npz",
            RTL_IMAGES,
            stall,
            build.config.seed,
            waves=waves,
        )
        work = build.out / "cocotb" / f"stall{stall}"
        result = rtl.run_cocotb(source or build.rtl, job, cache_folder(build) / "rtl", work)
        cycles = round(sum(result.cycles) / len(result.cycles))
        print(
            f"cocotb: {len(result.passed)} tests passed with {stall}% stalls, "
            f"{cycles} cycles per image, {result.cycles_per_second} cycles/s"
        )
        if result.waves is not None:
            print(f"cocotb: waveforms in '{result.waves}', {result.waves.stat().st_size >> 20} MiB")


STAGES = {
    "rtl": make_rtl,
    "rtlsim": check_rtl,
    "synth": synthesise_rtl,
    "cocotb": regress,
    "fill": fill,
}
