# SPDX-License-Identifier: Apache-2.0
"""Run test images on the RTL in the C++ harness; every layer must equal the Brevitas model.

rtl/, program, weights, golden.npz -> rtlsim.json
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from codegen.golden import load_golden, require_golden
from codegen.stages.schedule import read_schedule
from sim import rtl
from winnow.flow import Build, Result

IMAGES = 20
STALLS = (0, 30)  # percent of cycles in which a channel is stalled


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Simulate without and with stalls, compare all integers, count cycles."""
    plan, golden = read_schedule(build), load_golden(build).first(IMAGES)
    started = time.monotonic()
    harness = rtl.build(build.rtl, build.config.engine, build.cache / "rtl")
    build_seconds = time.monotonic() - started
    values, numbers = 0, dict[str, Any]()
    for stall in STALLS:
        started = time.monotonic()
        found = rtl.run(harness, plan, golden.images, stall=stall, seed=build.config.seed)
        seconds = time.monotonic() - started
        values += require_golden(found.maps, golden)
        numbers[f"stall_{stall}"] = {
            "cycles": found.cycles,
            "layer_cycles": dict(
                zip([p.name for p in plan.layers], found.layer_cycles[0], strict=True)
            ),
            "cycles_per_second": round(sum(found.cycles) / seconds),
        }
    numbers |= {"values": values, "images": len(golden.images), "build_seconds": build_seconds}
    cycles = numbers["stall_0"]["cycles"][0]
    return Result([], f"RTL = Brevitas on {values} values, {cycles} cycles per image,", numbers)
