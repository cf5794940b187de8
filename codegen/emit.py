# SPDX-License-Identifier: Apache-2.0
"""Write the HLS C++ project: headers, generated configuration and top, tool scripts, data.

Schedule -> folder. Emission is deterministic: the same graph and engine give the same bytes. Jinja
only substitutes; all numbers are computed here or upstream.

    hls/include/abi.hpp         what host and engine agree on: program, registers, status, ports
    hls/include/config.hpp      the engine's parameters
    hls/include/program.hpp     header and descriptor, and what each process is sent of it
    hls/include/winnow/*.hpp    the engine, copied as it is
    hls/src/top.cpp             the dataflow region and the top function
    hls/host/                   stand-ins and test bench for host simulation
    hls/c/winnow_engine.h       the same for a host in C
    hls/csynth.tcl              Vitis HLS
    hls/data/program.bin, weights.bin, memory.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from codegen import abi, ports
from codegen.configs import config_structs, process_configs
from codegen.descriptor import GIVEN, layer_fields
from codegen.ir import TensorType
from codegen.program import program_words
from codegen.schedule import InputRegion, Region, Schedule
from winnow.artefact import sha256_bytes, sha256_value, write_bytes, write_text
from winnow.blocking import Op
from winnow.config import TargetConfig
from winnow.engine import EngineConfig
from winnow.window import Axis, Window

TEMPLATES = Path(__file__).resolve().parent.parent / "hls_templates"
MEMORY_FORMAT = 3
C_HEADER = "winnow_engine.h"


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
        "abi": abi,
        "ops": list(Op),
        "signature": abi.engine_signature(engine),
        "header": abi.HEADER,
        "fields": layer_fields(engine),
        "given": GIVEN,
        "structs": config_structs(engine),
        "configs": process_configs(engine),
        "ports": ports.PORTS,
        "depths": ports.MEMORY_DEPTHS,
        "outputs": ports.OUTPUTS,
        "inputs": ports.INPUTS,
        "arguments": ports.ARGUMENTS,
        "registers": ports.ALL_REGISTERS,
        "offsets": ports.OFFSETS,
        "control_bits": list(ports.Control),
        "control_bundle": ports.CONTROL_BUNDLE,
        "top": ports.TOP,
    }


def _render(template: Template, block: str, context: dict[str, Any]) -> str:
    """Return a template's text, or that of one block of it."""
    if not block:
        return template.render(context)
    return "".join(template.blocks[block](template.new_context(context)))


def abi_header(engine: EngineConfig) -> str:
    """Return abi.hpp, which a C++ host needs to run the engine."""
    template = _environment().get_template("config.hpp.j2")
    return _render(template, "abi", _context(engine, TargetConfig()))


def emit_engine(folder: Path, engine: EngineConfig, target: TargetConfig) -> list[Path]:
    """Write the C++ project of an engine into `folder`; return the files written.

    The engine does not depend on the network: one project serves every program scheduled for it.
    """
    environment = _environment()
    context = _context(engine, target)
    include = folder / "include"
    generated = {
        include / "abi.hpp": ("config.hpp.j2", "abi"),
        folder / "c" / C_HEADER: ("config.hpp.j2", "c"),
        include / "config.hpp": ("config.hpp.j2", "config"),
        include / "program.hpp": ("config.hpp.j2", "program"),
        folder / "src" / "top.cpp": ("top.cpp.j2", ""),
        folder / "csynth.tcl": ("csynth.tcl.j2", ""),
    }
    for path, (name, block) in generated.items():
        write_text(path, _render(environment.get_template(name), block, context))
    copied = {
        folder / path.relative_to(TEMPLATES): path
        for part in ("include", "host")
        for path in sorted((TEMPLATES / part).rglob("*"))
        if path.is_file()
    }
    for path, source in copied.items():
        write_bytes(path, source.read_bytes())
    return [*generated, *copied]


def region_table(region: Region) -> dict[str, Any]:
    """Return where a map lies, and what it is."""
    tensor = region.tensor
    return {
        "base": region.base,
        "words": region.words,
        "shape": list(tensor.shape),
        "bits": tensor.bits,
        "signed": tensor.signed,
        "exponent": tensor.exponent,
    }


def input_table(region: InputRegion) -> dict[str, Any]:
    """Return where the images lie; if the host unrolls them, by which window, rows and columns."""
    table = region_table(region)
    if region.window is not None:
        axes = [asdict(axis) for axis in region.window.axes]
        table["unrolled"] = {key: [axis[key] for axis in axes] for key in axes[0]}
    return table


def input_region(table: Mapping[str, Any]) -> InputRegion:
    """Return the region of an `input_table`."""
    channels, height, width = table["shape"]
    numbers = (table["bits"], table["signed"], table["exponent"])
    kind = TensorType(channels, height, width, *numbers)
    given = table.get("unrolled")
    if given is None:
        return InputRegion(table["base"], kind)
    rows, columns = (Axis(**{key: pair[i] for key, pair in given.items()}) for i in range(2))
    return InputRegion(table["base"], kind, Window(rows, columns))


def memory_map(schedule: Schedule) -> dict[str, Any]:
    """Return what a driver needs: sizes, the input's and every layer's place, the arguments.

    A layer's `cycles` are modelled; `header` says at which bytes a program's numbers of layers (16
    bits) and of images (8 bits) lie.
    """
    places = {field.name: field.word * 8 + field.low // 8 for field in abi.HEADER}
    return {
        "format": MEMORY_FORMAT,
        "engine_id": f"{abi.engine_signature(schedule.engine):016x}",
        "program_words": len(program_words(schedule)),
        "weight_bytes": schedule.weight_beats * schedule.engine.axi_bits // 8,
        "weight_beats": schedule.weight_beats,
        "feature_words": schedule.feature_words,
        "header": {
            "bytes": abi.HEADER_WORDS * 8,
            "layers_at": places["num_layers"],
            "images_at": places["num_images"],
            "most_images": abi.MAX_IMAGES,
        },
        "input": input_table(schedule.input),
        "layers": {
            plan.name: {**region_table(plan.result), "cycles": plan.cycles.total}
            for plan in schedule.layers
        },
        "ports": [
            {"register": port.name, "master": port.bundle, "memory": port.memory}
            for port in ports.PORTS
        ],
        "registers": {r.name: r.offset for r in (*ports.REGISTERS, *ports.ADDED_REGISTERS)},
        "status": {status.name.lower(): status.value for status in abi.Status},
        "status_text": {str(status.value): abi.STATUS_TEXT[status] for status in abi.Status},
    }


def sealed_json(content: Mapping[str, Any]) -> bytes:
    """Return JSON that ends with the SHA-256 of the rest of it, `seal`."""
    return (json.dumps({**content, "seal": sha256_value(content)}, indent=2) + "\n").encode()


def emit_data(folder: Path, schedule: Schedule, images: int = 1, **more: Any) -> list[Path]:
    """Write program, weights and memory map of a scheduled network; return the files.

    A run of the program takes `images`, whose maps lie `feature_words` apart. The memory map says
    `more`, too.
    """
    weights = b"".join(plan.packed.tobytes() for plan in schedule.layers)
    contents = {"program.bin": program_words(schedule, images).tobytes(), "weights.bin": weights}
    hashes = {name: sha256_bytes(content) for name, content in contents.items()}
    contents["memory.json"] = sealed_json({**memory_map(schedule), **more, "sha256": hashes})
    files = {folder / name: content for name, content in contents.items()}
    for path, content in files.items():
        write_bytes(path, content)
    return list(files)
