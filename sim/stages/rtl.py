# SPDX-License-Identifier: Apache-2.0
"""Compile the C++ to SystemVerilog through openhls and lint it: hls/ -> rtl/."""

from __future__ import annotations

from collections.abc import Mapping

from openhls.project import WAIVERS, compile_design
from sim import rtl
from sim.verilator import lint
from winnow.flow import Build, Result


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Write lint-clean RTL of the emitted engine."""
    design = compile_design(
        build.hls / "src" / "top.cpp",
        [build.hls / "include"],
        rtl.TOP,
        build.rtl,
        build.cache / "openhls",
    )
    lint(rtl.rtl_sources(build.rtl), rtl.TOP, build.rtl / WAIVERS, build.rtl / "lint.log")
    numbers = {"processes": design.rows(), "compile_seconds": design.seconds}
    summary = f"{len(design.reports)} processes, {design.instances} instances, lint-clean,"
    return Result(design.files, summary, numbers)
