# SPDX-License-Identifier: Apache-2.0
"""Host simulation: compile the generated C++ with g++ and run networks on it.

What a vendor's headers would define is stood in for by `hls_templates/host`: ports and banks, and
in `native` numbers and streams, on the machine's own integers. AMD's own `ap_int.h` and
`hls_stream.h` (from the hls4ml wheel) can take the place of the latter, and are the second witness
of the tests. Compiled engines are cached by the content of their sources. Starts are spread over
the cores, a process each.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codegen.abi import STATUS_TEXT, Status
from codegen.emit import emit_data
from codegen.fuse import LayerMaps
from codegen.layout import unpack_features
from codegen.pack import Bytes
from codegen.schedule import LayerPlan, Region, Schedule
from codegen.split import join_maps
from winnow.artefact import sha256_bytes, write_text
from winnow.cache import is_sealed, lock, seal
from winnow.errors import MismatchError, ToolError
from winnow.fixed_point import IntArray
from winnow.process import map_commands
from winnow.process import run as run_command
from winnow.progress import waiting

FLAGS = (
    "-std=c++14",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-unused-label",
    "-Wno-maybe-uninitialized",
    "-Wno-uninitialized",
)
LEFTOVER = "leftover data"  # what hls_stream.h prints when a stream is destroyed with tokens in it
NATIVE = "native"  # folder of number types and streams of host simulation, in host/
OUTPUT = "output.bin"  # the memory behind every start, written as they end
CYCLES_ALONE = 500_000  # modelled cycles that one process runs, about half a second
GAP = 0xA5  # what fills memory between the inputs of a start


def ap_types() -> Path:
    """Return the folder of AMD's arbitrary-precision headers; ToolError when it is missing."""
    spec = importlib.util.find_spec("hls4ml")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        headers = Path(folder) / "templates" / "vivado" / "ap_types"
        if (headers / "ap_int.h").is_file():
            return headers
    raise ToolError("AMD's ap_int.h is missing (it comes with the hls4ml wheel); run: make setup")


@dataclass(frozen=True)
class Engine:
    """A compiled engine."""

    binary: Path


def source_files(project: Path) -> list[Path]:
    """Return the files that decide the binary."""
    return sorted(
        path
        for part in ("include", "host", "src")
        for path in (project / part).rglob("*")
        if path.is_file()
    )


def _source_hash(project: Path, amd: bool, flags: Sequence[str]) -> str:
    files = source_files(project)
    return sha256_bytes(
        b"\0".join(
            [" ".join([*FLAGS, *flags]).encode(), str(amd).encode()]
            + [str(f.relative_to(project)).encode() + b"\0" + f.read_bytes() for f in files]
        )
    )


def build(project: Path, cache: Path, *, amd: bool = False, flags: Sequence[str] = ()) -> Engine:
    """Compile the project in `project`, or take the binary of the same sources from `cache`.

    Numbers and streams are AMD's if `amd`, slower and the same; `flags` are g++'s beside `FLAGS`.
    Processes may share a cache: the first one compiles, the others wait for it. A binary that is
    not the one that was compiled is compiled again.
    """
    key = _source_hash(project, amd, flags)[:24]
    binary = cache / key / "csim"
    if not is_sealed(binary, key):
        with lock(binary.parent):
            if not is_sealed(binary, key):
                compile_project(project, binary, amd=amd, flags=flags)
                seal(binary, key)
    return Engine(binary)


def compile_project(
    project: Path,
    binary: Path,
    top: Path | None = None,
    stand_ins: Sequence[Path] = (),
    *,
    amd: bool = False,
    flags: Sequence[str] = (),
) -> None:
    """Compile a project, or another top in its place, with headers that go before its own."""
    if shutil.which("g++") is None:
        raise ToolError("g++ is missing; install it with: apt-get install g++")
    log = binary.parent / "compile.log"
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        partial = Path(folder) / "csim"
        host = project / "host"
        folders = [*stand_ins, project / "include", host, *([] if amd else [host / NATIVE])]
        command = ["g++", *FLAGS, *flags, *(part for path in folders for part in ("-I", str(path)))]
        command += ["-isystem", str(ap_types())] if amd else []
        command += [str(top or project / "src" / "top.cpp")]
        command += [str(host / "csim_main.cpp"), "-o", str(partial)]
        with waiting("g++"):
            result = run_command(command)
        write_text(log, " ".join(command) + "\n" + result.stdout + result.stderr)
        if result.code != 0:
            raise ToolError(
                f"g++ failed on '{project}' with exit code {result.code}; see '{log}'",
                " ".join(command),
                result.code,
                log,
            )
        partial.replace(binary)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the engine reported, and the feature memory [starts, bytes] after each start."""

    status: Status
    layers_run: int
    images_run: int
    memory: Bytes


def execute(
    engine: Engine,
    folder: Path,
    images: bytes,
    sizes: tuple[int, int, int],
    settings: Mapping[str, str] | None = None,
    *,
    processes: int = 1,
) -> Outcome:
    """Run the program in `folder` (program.bin, weights.bin) on raw image words.

    `sizes` are the feature words, the input's first word and its words; `settings` variables of the
    environment. The starts are spread over at most `processes`. Raises MismatchError when a process
    of the engine left tokens behind or accessed memory it does not own.
    """
    parts = _parts(images, sizes[2] * 8, processes)
    outcomes: dict[int, Outcome] = {}
    with tempfile.TemporaryDirectory() as work:
        places = [Path(work) / str(number) for number in range(len(parts))]

        def run_part(number: int) -> None:
            places[number].mkdir()
            part = parts[number], places[number]
            outcomes[number] = _execute_part(engine, folder, *part, sizes, settings)

        def images_done() -> int:
            return sum(starts_written(place / OUTPUT, sizes[0]) for place in places)

        with waiting("C++, images", len(images) // (sizes[2] * 8), images_done):
            map_commands(run_part, range(len(parts)), len(parts))
    found = [outcomes[number] for number in range(len(parts))]
    worst = max(found, key=lambda outcome: outcome.status)
    memory = np.concatenate([outcome.memory for outcome in found])
    return Outcome(worst.status, worst.layers_run, worst.images_run, memory)


def _parts(images: bytes, start_bytes: int, most: int) -> list[bytes]:
    """Return the starts in order, in at most so many parts, one if there is no start."""
    starts = len(images) // start_bytes
    count = max(1, min(starts, most))
    ends = [starts * part // count * start_bytes for part in range(count)] + [len(images)]
    return [images[first:end] for first, end in itertools.pairwise(ends)]


def starts_written(output: Path, feature_words: int) -> int:
    """Return how many starts a program has written the memory of."""
    try:
        return output.stat().st_size // (feature_words * 8)
    except FileNotFoundError:
        return 0


def _execute_part(
    engine: Engine,
    folder: Path,
    images: bytes,
    work: Path,
    sizes: tuple[int, int, int],
    settings: Mapping[str, str] | None,
) -> Outcome:
    """Run one process on some of the starts; its files go to `work`."""
    image_file, output = work / "images.bin", work / OUTPUT
    image_file.write_bytes(images)
    files = [str(folder / "program.bin"), str(folder / "weights.bin")]
    command = [str(engine.binary), *files, str(image_file), str(output)]
    command += [str(size) for size in sizes]
    result = run_command(command, env={**os.environ, **(settings or {})})
    if result.code not in (0, 2):
        raise MismatchError(f"csim stopped with code {result.code}: {result.last_line}")
    if LEFTOVER in result.stdout + result.stderr:
        line = next(x for x in (result.stdout + result.stderr).splitlines() if LEFTOVER in x)
        raise MismatchError(f"csim left tokens in a stream: {line.strip()}")
    memory = np.frombuffer(output.read_bytes(), dtype=np.uint8)
    reports = [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("status")]
    worst = max(reports, key=lambda report: int(report[0]))
    code, layers, ran = map(int, worst)
    return Outcome(Status(code), layers, ran, memory.reshape(-1, sizes[0] * 8))


@dataclass(frozen=True)
class Starts:
    """What the hosts' command lines take: the memory of inputs of every start, and its sizes.

    `sizes` are the feature words of a start, the first word of its inputs and their words.
    """

    content: bytes
    sizes: tuple[int, int, int]


def feature_memory(plan: Schedule, images: IntArray) -> Bytes:
    """Return feature memory [n, bytes] with integer images [n, c, h, w], and `GAP` elsewhere."""
    packed, first = plan.input.pack(images), plan.input.base * 8
    memory = np.full((len(images), plan.feature_words * 8), GAP, np.uint8)
    memory[:, first : first + packed.shape[1]] = packed
    return memory


def starts(plan: Schedule, images: IntArray, per_start: int = 1) -> Starts:
    """Lay integer images [n, c, h, w] out for starts of `per_start` images, which must divide n."""
    memory, slot = feature_memory(plan, images), plan.feature_words * 8
    first, length = plan.input.base * 8, plan.input.words * 8
    last = (per_start - 1) * slot + first + length
    content = memory.reshape(-1, per_start * slot)[:, first:last].tobytes()
    words = (per_start * plan.feature_words, plan.input.base, (last - first) // 8)
    return Starts(content, words)


def run(
    engine: Engine,
    schedule: Schedule,
    images: IntArray,
    settings: Mapping[str, str] | None = None,
    *,
    per_start: int = 1,
) -> LayerMaps:
    """Run a scheduled network on integer images [n, c, h, w]; return every layer's map.

    A start runs `per_start` images. Work of many cycles is spread over the cores. Raises
    MismatchError when the engine reports an error.
    """
    inputs = starts(schedule, images, per_start)
    long = schedule.total_cycles * len(images) > CYCLES_ALONE
    cores = len(os.sched_getaffinity(0)) if long else 1
    with tempfile.TemporaryDirectory() as folder:
        emit_data(Path(folder), schedule, per_start)
        outcome = execute(
            engine, Path(folder), inputs.content, inputs.sizes, settings, processes=cores
        )
    require_ok(schedule.layers, outcome)
    return layer_maps(schedule, outcome.memory.reshape(len(images), -1))


def require_ok(plans: Sequence[LayerPlan], outcome: Outcome) -> None:
    """Raise MismatchError if an engine that ran some layers reports an error."""
    if outcome.status is not Status.OK:
        name = plans[min(outcome.layers_run, len(plans) - 1)].name
        raise MismatchError(
            f"the engine stopped at layer '{name}' with status {outcome.status.value}: "
            f"{STATUS_TEXT[outcome.status]}"
        )


def layer_maps(schedule: Schedule, memory: Bytes) -> LayerMaps:
    """Cut feature memory [n, bytes] into the maps of all layers."""
    return join_maps({plan.name: read_map(plan.result, memory) for plan in schedule.layers})


def read_map(region: Region, memory: Bytes) -> IntArray:
    """Cut one map [n, c, h, w] out of feature memory [n, bytes]."""
    first = region.base * 8
    return unpack_features(region.tensor, memory[:, first : first + region.words * 8])
