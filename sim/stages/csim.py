# SPDX-License-Identifier: Apache-2.0
"""Run the whole test set on the compiled C++; every layer must equal the Brevitas model.

hls/, program, weights, golden.npz -> csim.json
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from codegen.golden import Golden, load_golden, require_golden
from codegen.schedule import Schedule
from codegen.stages.schedule import read_schedule
from sim import csim
from winnow.flow import Build, Result
from winnow.score import score_of


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Compile, run, compare all integers."""
    plan, golden = read_schedule(build), load_golden(build)
    started = time.monotonic()
    engine = csim.build(build.hls, build.cache / "csim")
    compile_seconds = time.monotonic() - started
    values, seconds = compare(engine, plan, golden)
    rate = len(golden.images) / seconds
    last = plan.layers[-1]
    outputs = golden.layers[last.name].reshape(len(golden.labels), -1)
    score = score_of(outputs, golden.labels, 2.0**last.result.tensor.exponent)
    numbers = {
        "images": len(golden.images),
        "values": values,
        "images_per_second": round(rate, 1),
        "compile_seconds": round(compile_seconds, 1),
        **score,
    }
    summary = (
        f"C++ = Brevitas on {values} values of {len(golden.images)} images, {rate:.0f} images/s,"
    )
    return Result([], summary, numbers)


def compare(engine: csim.Engine, plan: Schedule, golden: Golden) -> tuple[int, float]:
    """Return the values compared and the seconds the engine ran; MismatchError if they differ."""
    started = time.monotonic()
    maps = csim.run(engine, plan, golden.images)
    seconds = time.monotonic() - started
    return require_golden(maps, golden), seconds
