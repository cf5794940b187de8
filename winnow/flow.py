# SPDX-License-Identifier: Apache-2.0
"""The list of stages, and the rule by which one runs: its inputs or its outputs have changed.

A stage is a row of `STAGES` and a module that does its work. It reads the configuration keys and
the stages it names, and ends by writing `OUT/NAME.json`: the hashes of what it read and of what it
made, and the numbers it measured. A stage is *current* while all of these hold on disk. Contents
decide, never times, so a file that is damaged, emptied, swapped or gone is made again.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winnow.artefact import Record, listing_hash, sha256_file, sha256_value, write_bytes
from winnow.code_hash import code_hash, files_hash, tool_versions
from winnow.config import Config, load_profiles
from winnow.errors import ArtefactError
from winnow.lock import folder_lock
from winnow.profiles import PROFILES, split_name

Keys = tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """A stage of the flow.

    Members:
        name: its verb, and the name of its record.
        summary: what it does, for the help of command lines.
        module: where its work is done; the first part is the folder whose command line runs it.
        keys: what it reads of the configuration, sections ("prune") or single keys ("engine.m"); a
            function of the configuration where that depends on a method.
        reads: stages whose results it reads.
        sources: files and folders that decide its result beside Python code.
        tools: packages whose versions decide its result.
        programs: what it starts, names of `winnow.programs`.
        outside: (key, name) pairs: it reads the file or folder `name` under the path that a key
            holds, outside the build; an empty name is the path itself.
        optional: whether it runs only when it is asked for.
    """

    name: str
    summary: str
    module: str
    keys: Keys | Callable[[Config], Keys] = ()
    reads: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    outside: tuple[tuple[str, str], ...] = ()
    optional: bool = False

    @property
    def folder(self) -> str:
        """The folder whose command line runs it."""
        return self.module.partition(".")[0]

    def keys_of(self, config: Config) -> Keys:
        """Return the keys it reads under a configuration."""
        return self.keys(config) if callable(self.keys) else self.keys


def _channel_keys(config: Config) -> Keys:
    """Return what the narrowed network depends on: an engine only if its cycles are the budget."""
    if config.prune_channels.method == "none":
        return ("seed", "data", "model", "prune_channels.method")
    engine = ("prune", "engine") if config.prune_channels.budget == "cycles" else ()
    return ("seed", "data", "model", "train", "distill", "prune_channels", *engine)


def _prune_keys(config: Config) -> Keys:
    """Return what the pruned network depends on: an engine only if its cycles choose keeps."""
    engine = "engine" if config.prune.keeps_by_cycles else "engine.m"
    return ("seed", "data", "train", "distill", "prune", engine)


_TORCH = ("torch", "brevitas", "numpy", "scipy", "scikit-learn")
_DATA = ("data.path", "")
_TEACHER = ("distill.teacher", "train.npz")
_NETWORK = (("model.name", ""), ("model.checkpoint", ""))
_COMPILER = ("ziglang", "xls-python")
_ENGINE = ("engine", "target")
_SIMULATOR = ("g++", "make", "perl", "Verilator")

STAGES: tuple[Stage, ...] = (
    Stage(
        "check",
        "find out with untrained weights what later stages would refuse",
        "codegen.stages.check",
        (
            *("seed", "data", "model", "train.epochs", "distill", "prune_channels", "prune"),
            *("quantize", "engine", "target.part"),
        ),
        tools=_TORCH,
        outside=(_DATA, _TEACHER, *_NETWORK),
    ),
    Stage(
        "train",
        "train the fp32 network with self-distillation",
        "quant.stages.train",
        ("seed", "data", "model", "train", "distill"),
        tools=_TORCH,
        outside=(_DATA, _TEACHER, *_NETWORK),
    ),
    Stage(
        "prune_channels",
        "remove channels until the network is within its budget",
        "quant.stages.prune_channels",
        _channel_keys,
        ("train",),
        tools=_TORCH,
        outside=(_DATA, _TEACHER),
    ),
    Stage(
        "prune",
        "prune by the configured method, fold BatchNorm",
        "quant.stages.prune",
        _prune_keys,
        ("train", "prune_channels"),
        tools=_TORCH,
        outside=(_DATA, _TEACHER),
    ),
    Stage(
        "bits",
        "choose the widths of every layer under the budget",
        "quant.stages.bits",
        ("data", "model.name", "quantize", "engine"),
        ("prune",),
        tools=_TORCH,
        outside=(_DATA, _NETWORK[0]),  # a quantized file fixes them
    ),
    Stage(
        "qat",
        "calibrate and fine-tune the Brevitas network",
        "quant.stages.qat",
        (
            *("seed", "data", "train", "distill", "quantize"),
            *("prune.method", "prune.skip"),
        ),
        ("train", "prune", "bits"),
        tools=_TORCH,
        outside=(_DATA, _TEACHER),
    ),
    Stage(
        "golden",
        "write every layer's integers for the whole test set",
        "quant.stages.golden",
        ("data",),
        ("qat",),
        tools=_TORCH,
        outside=(_DATA,),
    ),
    Stage(
        "lower",
        "turn the quantized model into the integer graph, equal to the golden values",
        "codegen.stages.lower",
        ("data",),
        ("qat", "golden"),
        tools=_TORCH,
    ),
    Stage(
        "schedule",
        "fit the graph to the engine; write program, weights, memory map",
        "codegen.stages.schedule",
        ("engine",),
        ("lower",),
    ),
    Stage(
        "emit",
        "write the HLS C++ project",
        "codegen.stages.emit",
        _ENGINE,
        sources=("hls_templates",),
        tools=("jinja2",),
    ),
    Stage(
        "csim",
        "run the test set on the compiled C++, equal to the golden values",
        "sim.stages.csim",
        ("engine",),
        ("golden", "lower", "schedule", "emit"),
        programs=("g++",),
    ),
    Stage(
        "rtl",
        "compile the C++ to SystemVerilog and lint it",
        "sim.stages.rtl",
        (),
        ("emit",),
        ("openhls/include", "openhls/rtl", "openhls/templates"),
        (*_COMPILER, "verilator", "jinja2"),
        programs=("clang", "XLS", "perl", "Verilator"),
    ),
    Stage(
        "rtlsim",
        "run test images on the RTL, equal to the golden values",
        "sim.stages.rtlsim",
        ("seed", "engine"),
        ("golden", "lower", "schedule", "rtl"),
        ("sim/harness", "hls_templates/config.hpp.j2"),  # of the latter abi.hpp
        ("verilator", "jinja2"),
        programs=_SIMULATOR,
    ),
    Stage(
        "synth",
        "estimate resources and longest paths, compare with the part",
        "sim.stages.synth",
        ("target",),
        ("rtl",),
        tools=("pyosys",),
        programs=("Yosys",),
    ),
    Stage(
        "bundle",
        "write what a board gets; the driver on a virtual board, equal to the golden values",
        "deploy.stages.bundle",
        ("data.mean", "engine"),
        ("golden", "schedule", "rtl"),
        ("sim/harness", "hls_templates/config.hpp.j2"),
        ("verilator", "jinja2"),
        programs=_SIMULATOR,
    ),
    Stage(
        "vitis",
        "synthesise the C++ with Vitis HLS",
        "codegen.stages.vitis",
        _ENGINE,
        ("emit",),
        optional=True,
    ),
)
BY_NAME = {stage.name: stage for stage in STAGES}


@dataclass(frozen=True)
class Build:
    """One build: its configuration, the folder of its files, and where the configuration was."""

    config: Config
    out: Path
    config_path: str = field(default="CONFIG", kw_only=True)

    @property
    def hls(self) -> Path:
        """The C++ project."""
        return self.out / "hls"

    @property
    def rtl(self) -> Path:
        """The SystemVerilog."""
        return self.out / "rtl"

    @property
    def cache(self) -> Path:
        """Compiled things, shared by all builds beside this one and by their profiles."""
        is_profile = split_name(Path(self.config_path))[1] and self.out.parent.name == PROFILES
        return (self.out.parent.parent.parent if is_profile else self.out.parent) / ".cache"

    def command(self, verb: str) -> str:
        """Return the command that runs a stage, or another verb of `winnow`, on this build."""
        module = BY_NAME[verb].folder if verb in BY_NAME else "winnow"
        config, out = shlex.quote(self.config_path), shlex.quote(str(self.out))
        return f"python -m {module} {verb} --config {config} --out {out}"

    def record_path(self, stage: Stage) -> Path:
        """Return the place of a stage's record."""
        return self.out / f"{stage.name}.json"

    def record(self, name: str) -> Record:
        """Read a stage's record; ArtefactError when it is missing or damaged."""
        return Record.load(self.out / f"{name}.json", self.command(name))


def profile_builds(build: Build) -> dict[str, Build]:
    """Return the builds of a configuration's profiles; ConfigError if it has none."""
    path = Path(build.config_path)
    return {
        name: Build(config, build.out / PROFILES / name, config_path=f"{path}:{name}")
        for name, config in load_profiles(path).items()
    }


@dataclass(frozen=True)
class Result:
    """What a stage made: its files, one summary line, and the numbers to keep."""

    outputs: Sequence[Path]
    summary: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def setting(config: Config, key: str) -> Any:
    """Return the plain value of a section, or of one of its keys ("engine.m")."""
    section, _, name = key.partition(".")
    value = config.section(section)[section]
    return value[name] if name else value


def stage_inputs(stage: Stage, build: Build) -> dict[str, str]:
    """Return the hashes of all that a stage reads; ArtefactError if a record is missing."""
    config = build.config
    values = {key: setting(config, key) for key in stage.keys_of(config)}
    hashes = {"config": sha256_value(values), "code": code_hash([stage.module])}
    if stage.sources:
        hashes["sources"] = files_hash(stage.sources)
    if stage.tools:
        hashes["tools"] = tool_versions(stage.tools)
    for key, name in stage.outside:
        places = config.places(key) if _reads(stage, config, key) else ()
        if places:
            found = [listing_hash(place / name) for place in places]
            hashes[key] = found[0] if len(found) == 1 else sha256_value(found)
    return hashes | {name: build.record(name).result_hash() for name in stage.reads}


def _reads(stage: Stage, config: Config, key: str) -> bool:
    return bool({key, key.partition(".")[0]} & set(stage.keys_of(config)))


def staleness(stage: Stage, build: Build) -> str | None:
    """Return why a stage must run, or None if it is current. The stages it reads must be so."""
    if not build.record_path(stage).is_file():
        return "it has not run"
    return difference(stage, build.out, stage_inputs(stage, build))


def difference(stage: Stage, folder: Path, inputs: Mapping[str, str]) -> str | None:
    """Return how the record and files of a stage in `folder` differ from those of `inputs`."""
    path = folder / f"{stage.name}.json"
    try:
        record = Record.load(path, "")
    except ArtefactError:
        return f"{path.name} is {'damaged' if path.is_file() else 'missing'}"
    if record.stage != stage.name:
        return f"{path.name} is the record of '{record.stage}'"
    for name in sorted(inputs.keys() | record.inputs.keys()):
        if inputs.get(name) != record.inputs.get(name):
            return f"its {name} changed" if name in inputs else f"it no longer reads {name}"
    return next(_changed_files(record, folder), None)


def _changed_files(record: Record, out: Path) -> Iterator[str]:
    for name, digest in record.outputs.items():
        if not (out / name).is_file():
            yield f"{name} is missing"
        elif sha256_file(out / name) != digest:
            yield f"{name} is not the one it made"


def adopt(stage: Stage, build: Build, inputs: Mapping[str, str], source: Path) -> bool:
    """Take what another build made of the same `inputs`; return whether `source` has that."""
    if difference(stage, source, inputs) is not None:
        return False
    copy_results(stage, source, build.out)
    return True


def copy_results(stage: Stage, source: Path, target: Path) -> None:
    """Copy a stage's files, the record last: without it the others count as not there."""
    record = f"{stage.name}.json"
    for file in (*Record.load(source / record, "").outputs, record):
        write_bytes(target / file, (source / file).read_bytes())


def require_current(
    names: Sequence[str], build: Build, seen: set[str] | None = None, *, verb: str | None = None
) -> None:
    """Raise ArtefactError unless the stages `names`, and all that they read, are current.

    It names the command of the first stage that is not, or of `verb`.
    """
    seen = set() if seen is None else seen
    for name in names:
        if name in seen:
            continue
        stage = BY_NAME[name]
        require_current(stage.reads, build, seen, verb=verb)
        reason = staleness(stage, build)
        if reason is not None:
            raise ArtefactError(
                f"'{build.out}': stage '{name}' must run first: {reason}; run: "
                f"{build.command(verb or name)}"
            )
        seen.add(name)


def refuse_to_lose_import(stage: Stage, build: Build, reason: str) -> None:
    """Raise ArtefactError if running `stage` would train over weights that a user imported."""
    path = build.record_path(stage)
    try:
        imported = path.is_file() and build.record(stage.name).numbers.get("imported")
    except ArtefactError:
        return
    if imported:
        raise ArtefactError(
            f"'{build.out}' holds weights imported from '{imported}' and {reason}; import them "
            f"again, or delete '{path}' to train: {build.command(stage.name)}"
        )


def run_stage(stage: Stage, build: Build, work: Callable[[Mapping[str, str]], Result]) -> bool:
    """Run a stage unless it is current, and record it; return whether it ran.

    `work` takes the hashes of what the stage reads. Raises ArtefactError when a stage before it is
    not current. Only one process at a time works in a build's folder; the others wait.
    """
    with folder_lock(build.out, "the build"):
        require_current(stage.reads, build)
        reason = staleness(stage, build)
        if reason is None:
            print(f"{stage.name}: up to date", flush=True)
            return False
        refuse_to_lose_import(stage, build, reason)
        record_run(stage, build, work)
        return True


def record_run(stage: Stage, build: Build, work: Callable[[Mapping[str, str]], Result]) -> None:
    """Run a stage's work, record it, and print one line of what it measured."""
    inputs = stage_inputs(stage, build)
    build.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    result = work(inputs)
    seconds = time.monotonic() - started
    outputs = {path.relative_to(build.out).as_posix(): sha256_file(path) for path in result.outputs}
    numbers = {**result.numbers, "seconds": round(seconds, 1)}
    Record(stage.name, inputs, outputs, numbers).save(build.record_path(stage))
    print(f"{stage.name}: {result.summary} in {seconds:.0f} s", flush=True)
