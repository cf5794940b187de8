# SPDX-License-Identifier: Apache-2.0
"""Synthesise the project with Vitis HLS, where the tool is installed: hls/ -> hls/vitis.log."""

from __future__ import annotations

from collections.abc import Mapping

from winnow import process
from winnow.errors import ToolError
from winnow.flow import Build, Result
from winnow.host import find_vitis


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Run the project's script; ToolError when the tool is missing or fails."""
    tool = find_vitis()
    script = "csynth.tcl"
    options = ["-f", script] if tool.name == "vitis_hls" else ["--mode", "hls", "--tcl", script]
    command = [str(tool), *options]
    log = build.hls / "vitis.log"
    code = process.run(command, cwd=build.hls, log=log).code
    if code != 0:
        text = f"{tool.name} failed with exit code {code}; see '{log}'"
        raise ToolError(text, " ".join(command), code, log)
    return Result([log], f"synthesised with {tool.name}")
