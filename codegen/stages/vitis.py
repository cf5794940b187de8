# SPDX-License-Identifier: Apache-2.0
"""Synthesise the project with Vitis HLS, where the tool is installed: hls/ -> hls/vitis.log, .txt.

Prints every pipelined loop, clock, resources and what the log says of lost II and of stalls; fails
when a loop takes more than a cycle per iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from codegen.vitis_report import read_synthesis, require_pipelined, table
from winnow import process
from winnow.artefact import write_text
from winnow.errors import ToolError
from winnow.flow import Build, Result
from winnow.host import find_vitis
from winnow.progress import waiting


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Run the project's script and read its report; ToolError when tool or II is missing."""
    tool = find_vitis()
    script = "csynth.tcl"
    options = ["-f", script] if tool.name == "vitis_hls" else ["--mode", "hls", "--tcl", script]
    command = [str(tool), *options]
    log, text = build.hls / "vitis.log", build.hls / "vitis.txt"
    with waiting(tool.name):
        code = process.run(command, cwd=build.hls, log=log).code
    if code != 0:
        message = f"{tool.name} failed with exit code {code}; see '{log}'"
        raise ToolError(message, " ".join(command), code, log)
    found = read_synthesis(build.hls)
    report = table(found)
    write_text(text, report)
    print(report, end="")
    require_pipelined(found, text)
    summary = f"{tool.name}: {len(found.loops)} loops of II 1, {found.clock_ns:g} ns,"
    return Result([log, text], summary, asdict(found))
