# SPDX-License-Identifier: Apache-2.0
"""The cocotb regression at the AXI pins: no stalls, random stalls, error cases."""

from __future__ import annotations

from pathlib import Path

from sim import rtl
from sim.stages.rtlsim import IMAGES, STALLS
from winnow.flow import Build, require_current


def regress(build: Build, source: Path | None = None, *, waves: bool = False) -> None:
    """Run the cocotb regression on the build's RTL, or on RTL from another folder."""
    require_current(("golden", "schedule", *(() if source else ("rtl",))), build)
    for stall in STALLS:
        job = rtl.CocotbJob(
            build.hls / "data",
            build.out / "golden.npz",
            IMAGES,
            stall,
            build.config.seed,
            waves=waves,
        )
        work = build.out / "cocotb" / f"stall{stall}"
        result = rtl.run_cocotb(source or build.rtl, job, build.cache / "rtl", work)
        cycles = round(sum(result.cycles) / len(result.cycles))
        print(
            f"cocotb: {len(result.passed)} tests passed with {stall}% stalls, "
            f"{cycles} cycles per image, {result.cycles_per_second} cycles/s"
        )
        if result.waves is not None:
            print(f"cocotb: waveforms in '{result.waves}', {result.waves.stat().st_size >> 20} MiB")
