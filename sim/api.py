# SPDX-License-Identifier: Apache-2.0
"""The flow on a user's Python objects: `winnow.build` and `winnow.layer` (docs/python.md).

A build is the same as that of the command line: what is given is written into its folder, beside a
configuration, and every stage runs in a process of its own when what it reads has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.check import check_graph
from codegen.emit import emit_data, emit_engine
from codegen.fuse import fuse, written_maps
from codegen.golden import Golden, golden_of, require_golden
from codegen.graph_text import save_graph
from codegen.interpret import interpret
from codegen.ir import Graph
from codegen.lower import lower_whole
from codegen.schedule import Schedule, schedule
from codegen.stages.schedule import read_schedule
from openhls.project import compile_design
from quant import api
from quant.trace import Traced
from sim import csim, rtl
from sim.report import format_report, read_records
from sim.stages import rtlsim
from winnow.__main__ import Options, run, wanted_stages
from winnow.config import TargetConfig, load_config
from winnow.engine import EngineConfig
from winnow.errors import ConfigError, ToolError, shown
from winnow.flow import BY_NAME, Build
from winnow.given import write_given
from winnow.place import require_plain
from winnow.schema import from_table


@dataclass(frozen=True)
class Session:
    """A build whose stages are methods: `session.train()` runs training and what it needs.

    Members:
        build: its configuration and folder.
        how: device and threads of training.
    """

    build: Build
    how: Options

    def __getattr__(self, name: str) -> Any:
        """Return what runs the stage of this name, and all that it needs."""
        if name not in BY_NAME:
            raise AttributeError(f"a build has no stage '{name}'; it has {', '.join(BY_NAME)}")
        return partial(self.run, to=name)

    def run(self, to: str | None = None) -> Session:
        """Run every stage that is not current, up to the stage `to` or all; return the build.

        Raises ToolError when a stage fails, whose one line is on stderr.
        """
        if to is not None and to not in BY_NAME:
            raise ConfigError(f"to must be one of {', '.join(BY_NAME)}, got {shown(to)}")
        try:
            run(self.build, self.how, wanted_stages(to, vitis=False))
        except SystemExit as error:
            raise ToolError(
                f"a stage of '{self.build.out}' failed; it said why on stderr",
                "",
                int(error.code or 1),
            ) from error
        return self

    def numbers(self, stage: str) -> dict[str, Any]:
        """Return what a stage measured; ArtefactError if it has not run."""
        return dict(self.build.record(stage).numbers)

    def report(self) -> str:
        """Return the report; ArtefactError names the first stage that is not current."""
        return format_report(read_records(self.build), read_schedule(self.build))

    def trace(self, images: NDArray[np.uint8] | None = None) -> tuple[Traced, ...]:
        """Return where accuracy goes, layer by layer, on bytes [n, c, h, w] or on test images."""
        return api.trace_build(self.build, images)


def build(
    net: Any = None,
    data: Any = None,
    *,
    out: str | Path,
    device: str = "cpu",
    threads: int = 1,
    **options: Any,
) -> Session:
    """Return a build of a network and data in the folder `out`; no stage has run yet.

    `net` is an `nn.Module`, a `model.name` whose file is relative to the working directory, or None
    for that of `options`, where files are relative to `out`; `data` is (images,
    labels), a dict of the arrays of docs/data.md, or the section [data]. `options` are
    configuration keys, as nested dicts or with dotted names: `train={"epochs": 5}` or
    `**{"train.epochs": 5}`. Raises ConfigError for a key or value that is wrong.
    """
    folder = Path(out)
    _require_folder(folder)
    if isinstance(data, Mapping) and "images" not in data:
        options, data = {**options, "data": data}, None
    if isinstance(net, str):
        options, net = {**options, "model.name": _from_here(net)}, None
    labels = options.get("data.labels", "classes")
    path = write_given(folder, api.given(net, data, folder, labels), options)
    built = Build(load_config(path), folder, config_path=str(path))
    return Session(built, Options(device, threads))


def _from_here(name: str) -> str:
    """Return a `model.name` with the absolute path of its file, if it names one."""
    place, colon, function = name.rpartition(":")
    if name.endswith(".onnx"):
        return str(Path(name).absolute())
    return f"{Path(place).absolute()}{colon}{function}" if place.endswith(".py") else name


def _require_folder(folder: Path) -> None:
    require_plain(folder, "choose another folder for out")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out must be a folder, '{folder}' is a file")


@dataclass(frozen=True, eq=False)
class Layer:
    """One or a few layers as integers and C++, equal to the quantized module on the images given.

    Members:
        graph: the integer graph.
        plan: how the engine runs it.
        golden: the images and every result in integers.
        folder: of the files: graph.txt, hls/.
    """

    graph: Graph
    plan: Schedule
    golden: Golden
    folder: Path

    def csim(self) -> int:
        """Compile and run the C++ on the images; return how many integers were equal.

        Raises MismatchError that names the first one that is not.
        """
        engine = csim.build(self.folder / "hls", self.folder / ".cache" / "csim")
        return require_golden(csim.run(engine, self.plan, self.golden.images), self.golden)

    def rtl(self) -> list[Path]:
        """Compile the C++ to SystemVerilog in the folder `rtl`; return its files (minutes)."""
        hls, place = self.folder / "hls", self.folder / "rtl"
        cache = self.folder / ".cache" / "openhls"
        source = hls / "src" / "top.cpp"
        return list(compile_design(source, [hls / "include"], rtl.TOP, place, cache).files)

    def rtlsim(self) -> int:
        """Run what `rtl` made on the images, without and with stalls; return integers compared.

        Raises MismatchError that names the first one that is not equal, ToolError without Verilator
        or RTL.
        """
        harness = rtl.build(self.folder / "rtl", self.plan.engine, self.folder / ".cache" / "rtl")
        found = [rtl.run(harness, self.plan, self.golden.images, stall=s) for s in rtlsim.STALLS]
        return sum(require_golden(result.maps, self.golden) for result in found)


def layer(
    module: Any,
    images: Any,
    *,
    out: str | Path,
    engine: Mapping[str, Any] | None = None,
    keep: int = 8,
    **widths: Any,
) -> Layer:
    """Write a layer, or a few in a row, as integer graph and C++ into the folder `out`.

    `module` is an `nn.Module` that the flow can read, or the result of `quantize`; `images` are
    bytes [n, c, h, w] of the map it reads. `engine` are keys of [engine]. `keep` of 8 weights stay;
    `widths` are those of `quantize`. Raises the errors of `prune` and `quantize`, LoweringError or
    ScheduleError for what the engine does not run.
    """
    folder = Path(out)
    _require_folder(folder)
    config = from_table(EngineConfig, dict(engine or {}), "engine")
    net, arrays = api.sample(module, images, m=config.m, keep=keep, **widths)
    graph, golden = lower_whole(net), golden_of(arrays)
    check_graph(graph)
    require_golden(written_maps(fuse(graph), interpret(graph, golden.images)), golden)
    plan = schedule(graph, config)
    save_graph(folder, graph)
    emit_engine(folder / "hls", config, TargetConfig())
    emit_data(folder / "hls" / "data", plan)
    return Layer(graph, plan, golden, folder)
