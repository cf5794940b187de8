# SPDX-License-Identifier: Apache-2.0
"""The stages of `python -m codegen`: each reads files of a build and writes its own.

lower     bits.json, qat.npz, golden.npz -> graph.txt, graph.npz (and graph = golden, bit for bit)
schedule  graph -> hls/data/: program, weights, memory map; schedule.txt
emit      engine -> hls/: the C++ project
vitis     hls/ -> Vitis HLS synthesis, where the tool is installed
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codegen.emit import TEMPLATES, emit_data, emit_engine
from codegen.graph_text import load_graph, save_graph
from codegen.interpret import interpret
from codegen.ir import Graph, LayerMaps
from codegen.schedule import Schedule, schedule
from winnow.artefact import load_arrays, sha256_file, sha256_value, write_text
from winnow.compare import require_equal
from winnow.config import Config
from winnow.errors import ArtefactError, ToolError
from winnow.fixed_point import IntArray
from winnow.host import find_vitis
from winnow.stage import Result, run_stage, sources_hash

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Build:
    """One build: its configuration, where that came from, and its folder."""

    config: Config
    config_path: Path
    out: Path

    @property
    def hls(self) -> Path:
        return self.out / "hls"

    @property
    def rtl(self) -> Path:
        return self.out / "rtl"

    def command(self, module: str, verb: str) -> str:
        """Return the command that runs a stage of this build."""
        return f"python -m {module} {verb} --config {self.config_path} --out {self.out}"

    def inputs(self, sections: tuple[str, ...], files: dict[str, str]) -> dict[str, str]:
        """Return the hashes of configuration sections, code and `files` (name -> its command)."""
        hashes = {
            "config": sha256_value(self.config.section(*sections)),
            "code": sources_hash(HERE) + sources_hash(HERE.parent / "winnow"),
        }
        for name, made_by in files.items():
            path = self.out / name
            if not path.is_file():
                raise ArtefactError(f"'{path}' is missing; make it with: {made_by}")
            hashes[name] = sha256_file(path)
        return hashes


@dataclass(frozen=True, eq=False)
class Golden:
    """The Brevitas model's integers: images and every layer's map [n, c, h, w], labels [n]."""

    images: IntArray
    labels: IntArray
    layers: LayerMaps


def load_golden(build: Build) -> Golden:
    """Read golden.npz; raises ArtefactError when it is missing, damaged or incomplete."""
    made_by = build.command("quant", "golden")
    arrays = load_arrays(build.out / "golden.npz", made_by)
    images, labels = arrays.get("images", np.empty(0)), arrays.get("labels", np.empty(0))
    if images.ndim != 4 or len(images) == 0 or labels.shape != (len(images),):
        raise ArtefactError(
            f"'{build.out / 'golden.npz'}' must hold images [n, c, h, w] and labels [n]; "
            f"run: {made_by}"
        )
    layers = {
        name.removeprefix("layer."): array.astype(np.int64)
        for name, array in arrays.items()
        if name.startswith("layer.")
    }
    return Golden(images.astype(np.int64), labels.astype(np.int64), layers)


def lower(build: Build) -> None:
    """Turn the quantized model into the integer graph and check it against the golden values."""
    sections = ("data", "model", "quantize", "engine")
    files = {
        "bits.json": build.command("quant", "bits"),
        "qat.npz": build.command("quant", "qat"),
        "golden.npz": build.command("quant", "golden"),
    }

    def work() -> Result:
        # Deferred: the only stage that needs torch.
        from codegen.lower import lower_checkpoint

        graph = lower_checkpoint(build.config, build.out)
        golden = load_golden(build)
        values = require_golden(interpret(graph, golden.images), golden)
        save_graph(build.out, graph)
        return Result(
            [build.out / "graph.txt", build.out / "graph.npz"],
            f"{len(graph.layers)} layers; interpreter = Brevitas on {values} values of "
            f"{len(golden.images)} images",
            {"layers": len(graph.layers), "values": values, "images": len(golden.images)},
        )

    run_stage(build.out, "lower", build.inputs(sections, files), work)


def require_golden(actual: LayerMaps, golden: Golden) -> int:
    """Compare every layer with the golden values; return how many integers were compared."""
    require_equal(golden.layers, actual)
    return sum(m.size for m in golden.layers.values())


def read_graph(build: Build) -> Graph:
    """Read the build's graph; ArtefactError when it is missing or damaged."""
    return load_graph(build.out)


def read_schedule(build: Build) -> Schedule:
    """Schedule the build's graph on its engine."""
    return schedule(read_graph(build), build.config.engine)


def schedule_stage(build: Build) -> None:
    """Fit the graph to the engine and write program, weights and memory map."""
    made_by = build.command("codegen", "lower")
    files = {"graph.txt": made_by, "graph.npz": made_by}

    def work() -> Result:
        plan = read_schedule(build)
        table = build.out / "schedule.txt"
        write_text(table, format_schedule(plan))
        outputs = [table, *emit_data(build.hls / "data", plan)]
        return Result(
            outputs,
            f"{plan.total_cycles} modelled cycles, {plan.engine.num_dsp} multipliers",
            {
                "cycles": {layer.name: layer.cycles.total for layer in plan.layers},
                "total_cycles": plan.total_cycles,
                "weight_bytes": plan.weight_beats * plan.engine.axi_bits // 8,
            },
        )

    run_stage(build.out, "schedule", build.inputs(("engine",), files), work)


def format_schedule(plan: Schedule) -> str:
    """Return the schedule as a table: strips, blocks, memory and modelled cycles per layer."""
    head = (
        f"{'layer':<12}{'op':<10}{'keep':>5}{'bits':>5}{'strips':>7}{'groups':>7}{'blocks':>7}"
        f"{'steps':>6}{'in':>8}{'out':>8}{'weights':>9}{'cycles':>9}{'use %':>7}  bound by"
    )
    lines = [head]
    for layer in plan.layers:
        blocking, cycles = layer.blocking, layer.cycles
        strips = list(blocking.strips())
        lines.append(
            f"{layer.name:<12}{layer.shape.op:<10}{blocking.keep:>5}"
            f"{layer.shape.weight_bits:>5}{len(strips):>7}{strips[0].num_groups:>7}"
            f"{blocking.blocks:>7}{blocking.steps:>6}{layer.source.base:>8}"
            f"{layer.result.base:>8}{layer.weight_base:>9}{cycles.total:>9}"
            f"{100 * cycles.utilisation:>7.1f}  {cycles.bound}"
        )
    lines.append(f"total: {plan.total_cycles} modelled cycles")
    return "\n".join(lines) + "\n"


def emit(build: Build) -> None:
    """Write the HLS C++ project."""
    inputs = build.inputs(("engine", "target"), {})
    inputs["templates"] = sources_hash(TEMPLATES, "*")

    def work() -> Result:
        files = emit_engine(build.hls, build.config.engine, build.config.target)
        return Result(files, f"{len(files)} files in {build.hls}", {"files": len(files)})

    run_stage(build.out, "emit", inputs, work)


def vitis(build: Build) -> None:
    """Synthesise the project with Vitis HLS; ToolError when the tool is missing or fails."""
    tool = find_vitis()
    script = build.hls / "csynth.tcl"
    if not script.is_file():
        raise ArtefactError(
            f"'{script}' is missing; make it with: {build.command('codegen', 'emit')}"
        )
    old_style = tool.name == "vitis_hls"
    options = ["-f", script.name] if old_style else ["--mode", "hls", "--tcl", script.name]
    command = [str(tool), *options]

    def work() -> Result:
        log = build.hls / "vitis.log"
        with log.open("wb") as file:
            code = subprocess.run(
                command, cwd=build.hls, stdout=file, stderr=subprocess.STDOUT, check=False
            ).returncode
        if code != 0:
            text = f"{tool.name} failed with exit code {code}; see '{log}'"
            raise ToolError(text, " ".join(command), code, log)
        return Result([log], f"synthesised with {tool.name}")

    inputs = build.inputs(("engine", "target"), {"emit.json": build.command("codegen", "emit")})
    run_stage(build.out, "vitis", inputs, work)


STAGES = {"lower": lower, "schedule": schedule_stage, "emit": emit, "vitis": vitis}
