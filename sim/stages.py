# SPDX-License-Identifier: Apache-2.0
"""The stages of `python -m sim`: csim checks the generated C++, report prints numbers.

csim    hls/, program, weights, golden.npz -> csim.json (and C++ = Brevitas, bit for bit)
report  the records of all stages -> a table
"""

from __future__ import annotations

import time
from pathlib import Path

from codegen.schedule import Schedule
from codegen.stages import Build, Golden, load_golden, read_schedule, require_golden
from sim import csim
from sim.report import format_report, read_records
from winnow.stage import Result, run_stage, sources_hash

HERE = Path(__file__).resolve().parent


def cache_folder(build: Build) -> Path:
    """Return the folder of compiled things, shared by all builds beside this one."""
    return build.out.parent / ".cache"


def compile_engine(build: Build) -> csim.Engine:
    """Compile the build's C++, or take it from the cache beside the build's folder."""
    return csim.build(build.hls, cache_folder(build) / "csim")


def check_csim(build: Build) -> None:
    """Run the whole test set on the compiled C++; every layer must equal the Brevitas model."""
    files = {
        "graph.txt": build.command("codegen", "lower"),
        "graph.npz": build.command("codegen", "lower"),
        "golden.npz": build.command("quant", "golden"),
        "schedule.json": build.command("codegen", "schedule"),
        "emit.json": build.command("codegen", "emit"),
    }
    inputs = build.inputs(("engine", "target"), files) | {"sim": sources_hash(HERE)}

    def work() -> Result:
        plan, golden = read_schedule(build), load_golden(build)
        started = time.monotonic()
        engine = compile_engine(build)
        compile_seconds = time.monotonic() - started
        values, seconds = run_csim(engine, plan, golden)
        rate = len(golden.images) / seconds
        right = golden.layers[plan.layers[-1].name].reshape(len(golden.labels), -1).argmax(1)
        numbers = {
            "images": len(golden.images),
            "values": values,
            "images_per_second": round(rate, 1),
            "compile_seconds": round(compile_seconds, 1),
            "accuracy": 100 * float((right == golden.labels).mean()),
        }
        summary = (
            f"C++ = Brevitas on {values} values of {len(golden.images)} images, "
            f"{rate:.0f} images/s,"
        )
        return Result([], summary, numbers)

    run_stage(build.out, "csim", inputs, work)


def run_csim(engine: csim.Engine, plan: Schedule, golden: Golden) -> tuple[int, float]:
    """Return the values compared and the seconds the engine ran."""
    started = time.monotonic()
    maps = csim.run(engine, plan, golden.images)
    seconds = time.monotonic() - started
    return require_golden(maps, golden), seconds


def report(build: Build) -> None:
    """Print the summary of a build."""
    print(format_report(read_records(build), read_schedule(build)))


STAGES = {"csim": check_csim, "report": report}
