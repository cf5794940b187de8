# SPDX-License-Identifier: Apache-2.0
"""Write the HLS C++ project: headers, generated configuration and top, tool scripts, data.

Schedule -> folder. Emission is deterministic: the same graph and engine give the same bytes. Jinja
only substitutes; all numbers are computed here or upstream.

    hls/include/config.hpp      all constants of the build
    hls/include/winnow/*.hpp    the engine, copied as it is
    hls/src/top.cpp             the dataflow region and the top function
    hls/host/                   stand-ins and test bench for host simulation
    hls/csynth.tcl              Vitis HLS
    hls/data/program.bin, weights.bin, memory.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from codegen import abi
from codegen.program import program_words
from codegen.schedule import Region, Schedule
from winnow.artefact import write_bytes, write_text
from winnow.config import TargetConfig
from winnow.engine import EngineConfig

TEMPLATES = Path(__file__).resolve().parent.parent / "hls_templates"
MEMORY_FORMAT = 1


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["camel"] = lambda name: "".join(p.capitalize() for p in name.split("_"))
    return environment


def _context(engine: EngineConfig, target: TargetConfig) -> dict[str, Any]:
    return {
        "engine": engine,
        "target": target,
        "magic": abi.MAGIC,
        "version": abi.VERSION,
        "signature": abi.engine_signature(engine),
        "header_words": abi.HEADER_WORDS,
        "layer_words": abi.LAYER_WORDS,
        "max_layers": abi.MAX_LAYERS,
        "opcodes": list(abi.OpCode),
        "statuses": list(abi.Status),
        "fields": abi.layer_fields(engine),
        "arguments": abi.ARGUMENTS,
    }


def emit_engine(folder: Path, engine: EngineConfig, target: TargetConfig) -> list[Path]:
    """Write the C++ project of an engine into `folder`; return the files written.

    The engine does not depend on the network: one project serves every program scheduled for it.
    """
    environment = _environment()
    context = _context(engine, target)
    generated = {
        folder / "include" / "config.hpp": "config.hpp.j2",
        folder / "src" / "top.cpp": "top.cpp.j2",
        folder / "csynth.tcl": "csynth.tcl.j2",
    }
    for path, template in generated.items():
        write_text(path, environment.get_template(template).render(context))
    copied = {
        folder / path.relative_to(TEMPLATES): path
        for part in ("include", "host")
        for path in sorted((TEMPLATES / part).rglob("*"))
        if path.is_file()
    }
    for path, source in copied.items():
        write_bytes(path, source.read_bytes())
    return [*generated, *copied]


def _region(region: Region) -> dict[str, Any]:
    tensor = region.tensor
    return {
        "base": region.base,
        "words": region.words,
        "shape": list(tensor.shape),
        "bits": tensor.bits,
        "signed": tensor.signed,
        "exponent": tensor.exponent,
    }


def memory_map(schedule: Schedule) -> dict[str, Any]:
    """Return what a driver needs: sizes, the input's and every layer's place, the arguments."""
    return {
        "format": MEMORY_FORMAT,
        "program_words": len(program_words(schedule)),
        "weight_bytes": schedule.weight_beats * schedule.engine.axi_bits // 8,
        "feature_words": schedule.feature_words,
        "input": _region(schedule.input),
        "layers": {plan.name: _region(plan.result) for plan in schedule.layers},
        "registers": {a.name: a.offset for a in (*abi.ARGUMENTS, abi.AXI_ERROR)},
        "status": {status.name.lower(): status.value for status in abi.Status},
    }


def emit_data(folder: Path, schedule: Schedule) -> list[Path]:
    """Write program, weights and memory map of a scheduled network; return the files."""
    weights = b"".join(plan.packed.tobytes() for plan in schedule.layers)
    files = {
        folder / "program.bin": program_words(schedule).tobytes(),
        folder / "weights.bin": weights,
        folder / "memory.json": (json.dumps(memory_map(schedule), indent=2) + "\n").encode(),
    }
    for path, content in files.items():
        write_bytes(path, content)
    return list(files)
