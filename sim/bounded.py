# SPDX-License-Identifier: Apache-2.0
"""The compiled C++ with channels exactly as deep as declared: finds FIFOs that are too shallow.

hls/src/top.cpp -> the same with a coroutine per process (sim/harness/bounded) -> binary

Host simulation has streams without end, the RTL of openhls FIFOs that hold more than declared. Here
a stream holds its depth (2 if none is declared), a bank two halves. Every process may also hold
back what it sends for some iterations, as a pipeline does that waits for its next input. The
dataflow functions of the top are canonical (tests/test_codegen_vitis.py), so lines can be replaced:

    Stream<Word> pixels;                       ->  ... bounded::set(pixels, "pixels", 2);
    #pragma HLS stream variable = x depth = 4  ->  bounded::set(x, "x", 4);
    form_tiles(config, pixels, patches);       ->  bounded::spawn("form_tiles", {...}, [&] {...});
    }  // of a function with the pragma dataflow   bounded::run(); }
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from codegen.golden import load_golden
from codegen.stages.schedule import read_schedule
from sim import csim
from sim.csim import Engine, compile_project, source_files
from winnow.artefact import sha256_value, write_text
from winnow.cache import is_sealed, lock, seal
from winnow.code_hash import files_hash
from winnow.errors import MismatchError
from winnow.flow import Build, require_current

HARNESS = Path(__file__).resolve().parent / "harness" / "bounded"
DEFAULT_DEPTH = 2  # of a stream without a pragma, of Vitis HLS and of openhls
HOLDS = (0, 1, 8, 64)  # iterations that a process keeps what it sends
_DECLARED = re.compile(r"  (Stream|Bank)<\w+> ([\w, \[\]]+);")
_DEPTH = re.compile(r"#pragma HLS stream variable = (\w+) depth = (\d+)")
_CALL = re.compile(r"  (\w+)\(([^()]*)\);", re.DOTALL)


@dataclass(frozen=True)
class BoundedEngine:
    """A compiled engine and the declared depth of every stream."""

    engine: Engine
    depths: dict[str, int]


def declared_depths(top: str) -> dict[str, int]:
    """Return the depth of every stream of a top, by name."""
    streams = [names for kind, names in _DECLARED.findall(top) if kind == "Stream"]
    found = {name: DEFAULT_DEPTH for names in streams for name in _names(names)}
    return found | {name: int(depth) for name, depth in _DEPTH.findall(top)}


def _names(declared: str) -> list[str]:
    return [name.partition("[")[0].strip() for name in declared.split(",")]


def bounded_top(top: str) -> str:
    """Return the top with a coroutine per process."""
    text = _DECLARED.sub(lambda m: m[0] + "".join(_set(name) for name in _names(m[2])), top)
    text = _DEPTH.sub(lambda m: f'  bounded::set({m[1]}, "{m[1]}", {m[2]});', text)
    parts = text.split("#pragma HLS dataflow\n")
    regions = [_region(part) for part in parts[1:]]
    return '#include "bounded.hpp"\n' + "".join([parts[0], *regions])


def _set(name: str) -> str:
    return f'\n  bounded::set({name}, "{name}", {DEFAULT_DEPTH});'


def _region(text: str) -> str:
    """Rewrite what follows the pragma of a dataflow function, to the end of the file."""
    body, end, rest = text.partition("\n}\n")
    calls = _CALL.findall(body)
    names = iter(_process_names(calls))
    spawned = _CALL.sub(lambda m: _spawn(next(names), m[1], m[2]), body)
    return f"{spawned}\n  bounded::run();{end}{rest}"


def _process_names(calls: list[tuple[str, str]]) -> Iterator[str]:
    """Yield a name per call: `load_w[3]` of the element it is given, or of its first channel."""
    counts = Counter(function for function, _ in calls)
    for function, arguments in calls:
        first = arguments.partition(",")[0].strip()
        if counts[function] == 1:
            yield function
        elif "[" in first:
            yield function + first[first.index("[") :]
        else:
            yield f"{function}({first})"


def _spawn(name: str, function: str, arguments: str) -> str:
    channels = ", ".join(f'"{word.strip()}"' for word in arguments.split(","))
    return f'  bounded::spawn("{name}", {{{channels}}}, [&] {{ {function}({arguments}); }});'


def compile_bounded(project: Path, cache: Path) -> BoundedEngine:
    """Compile a project's C++ with bounded channels, or take the binary from `cache`."""
    top = (project / "src" / "top.cpp").read_text(encoding="utf-8")
    files = [(str(p.relative_to(project)), p.read_bytes().hex()) for p in source_files(project)]
    key = sha256_value([files, bounded_top(top), files_hash(["sim/harness/bounded"])])[:24]
    binary = cache / key / "csim"
    if not is_sealed(binary, key):
        with lock(binary.parent):
            if not is_sealed(binary, key):
                path = binary.with_name("top.cpp")
                write_text(path, bounded_top(top))
                compile_project(project, binary, path, [HARNESS])
                seal(binary, key)
    return BoundedEngine(Engine(binary), declared_depths(top))


def settings(hold: int = 0, stream: str = "", depth: int = 0) -> dict[str, str]:
    """Return the variables of a run: iterations of holding back, another depth of a stream."""
    given = {"WINNOW_HOLD": str(hold)}
    return given | ({"WINNOW_DEPTH": f"{stream}={depth}"} if stream else {})


def least_depths(depths: dict[str, int], run: Callable[[dict[str, str]], object]) -> dict[str, int]:
    """Return the least depth of every stream with which `run` ends, the others as declared.

    `run` takes settings, and raises MismatchError when processes wait for one another for ever.
    """
    return {stream: _least(stream, declared, run) for stream, declared in depths.items()}


def _least(stream: str, declared: int, run: Callable[[dict[str, str]], object]) -> int:
    for depth in range(1, declared):
        try:
            run(settings(0, stream, depth))
        except MismatchError:
            continue
        return depth
    return declared


def depths(build: Build) -> None:
    """Print declared and least depth of every stream, for the network of a build.

    ArtefactError names the command that makes it if it is not whole or not current.
    """
    require_current(["golden", "emit"], build, verb="run")
    plan, golden = read_schedule(build), load_golden(build)
    bounded = compile_bounded(build.hls, build.cache / "bounded")
    images = golden.images[:1]

    def run(given: dict[str, str]) -> None:
        csim.run(bounded.engine, plan, images, given)

    for hold in HOLDS:
        run(settings(hold))
    print(format_depths(bounded.depths, least_depths(bounded.depths, run)))


def format_depths(declared: dict[str, int], least: dict[str, int]) -> str:
    """Return the table of streams that hold more than one word, and of how many do not."""
    lines = [f"  {'stream':<20}{'declared':>10}{'least':>8}"]
    deep = [name for name, depth in declared.items() if depth > 1]
    lines += [f"  {name:<20}{declared[name]:>10}{least[name]:>8}" for name in deep]
    head = "words a stream must hold so that the network ends, and what is declared (simulated):"
    return "\n".join([head, *lines, f"  {len(declared) - len(deep)} more hold one word"])
