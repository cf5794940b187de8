# SPDX-License-Identifier: Apache-2.0
"""Write the HLS C++ project: engine -> hls/."""

from __future__ import annotations

from collections.abc import Mapping

from codegen.emit import emit_engine
from winnow.flow import Build, Result


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Write the C++ of the configured engine."""
    files = emit_engine(build.hls, build.config.engine, build.config.target)
    return Result(files, f"{len(files)} files in {build.hls}", {"files": len(files)})
