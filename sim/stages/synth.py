# SPDX-License-Identifier: Apache-2.0
"""Estimate resources and longest paths of the RTL by Yosys; fail when the part does not hold it.

rtl/ -> synth.json
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from openhls.synth import require_fit, synthesise, total
from sim import rtl
from sim.resources import group_rows, share_line
from winnow.flow import Build, Result
from winnow.parts import find_part


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Map every module, add up, compare with the part."""
    target = build.config.target
    part = find_part(target.part).device.resources
    log = build.rtl / "yosys.log"
    found = synthesise(rtl.rtl_sources(build.rtl), rtl.TOP, log, build.cache / "synth")
    whole = total(found.rows)
    require_fit(whole, part, target.part)
    numbers = {
        "modules": group_rows(found.rows),
        "inter_module_path": found.inter_module_path._asdict(),
        "total": asdict(whole),
        "part": asdict(part),
        "part_name": target.part,
        "clock_mhz": target.clock_mhz,
    }
    return Result([], share_line(asdict(whole), asdict(part)) + ",", numbers)
