# SPDX-License-Identifier: Apache-2.0
"""C++ to optimised LLVM IR through clang (the ziglang wheel), with the processes kept apart.

A process is a function that a `#pragma HLS dataflow` function calls with channels only
(hls::stream, hls::stream_of_blocks, hls::burst_maxi and arrays of them). Processes stay functions,
everything else is inlined. clang 22, LLVM IR with opaque pointers.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openhls import llvm
from openhls.errors import HlsError
from openhls.pragma import rewrite_pragmas
from winnow.errors import ToolError
from winnow.process import run

INCLUDE = Path(__file__).parent / "include"
_TARGET = ("-target", "x86_64-linux-gnu")
_LANGUAGE = (
    *("-std=c++26", "-ffreestanding", "-fno-exceptions", "-fno-rtti", "-fno-sanitize=all"),
    *("-Wno-unknown-pragmas", "-Wno-unused-label", "-Wno-pass-failed", "-Wno-c++26-extensions"),
)
_OPTIMISE = (
    *("-O2", "-S", "-emit-llvm", "-g", "-fno-vectorize", "-fno-slp-vectorize"),
    *("-fno-jump-tables", "-fno-discard-value-names", "-fno-sanitize=all"),
    *("-mllvm", "-disable-loop-idiom-all", "-mllvm", "-indvars-widen-indvars=false"),
    # else the addresses of channels meet in phis
    *("-mllvm", "-sink-common-insts=false"),
    # else a pipelined loop becomes a nest of loops, with a control step for each
    *("-mllvm", "-jump-threading-threshold=0"),
    *("-mllvm", "-inline-threshold=1000000"),
)
_DEFINITION = re.compile(r'^define [^\n]*?@("[^"]*"|[-\w.$]+)\([^\n]*\{\n.*?^\}', re.M | re.S)
_LINKAGE = re.compile(
    r"^define (?:(?:linkonce_odr|linkonce|weak_odr|weak|internal|private|available_externally) )?"
)
_CALL = re.compile(r'\bcall [^\n@]*@("[^"]*"|[-\w.$]+)\(')
_CHANNEL = re.compile(r"(stream|stream_of_blocks|burst_maxi)<")
_ERROR = re.compile(r"^(.*?:\d+:)\d+: (?:fatal )?error: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Unit:
    """An optimised translation unit. `processes` maps mangled to source names."""

    module: llvm.Module
    top: str
    processes: Mapping[str, str]


class _Types:
    """Which functions take channels only, from the debug information."""

    def __init__(self, metadata: Mapping[str, Mapping[str, str]]) -> None:
        self._metadata = metadata

    def _node(self, reference: str | None) -> Mapping[str, str]:
        return self._metadata.get((reference or "").strip().lstrip("!"), {})

    def is_channel(self, reference: str | None) -> bool:
        node = self._node(reference)
        while node.get("kind") == "DIDerivedType" or "array" in node.get("tag", ""):
            if node.get("tag") == "DW_TAG_pointer_type":  # `this` of a member function
                return False
            node = self._node(node.get("baseType"))
        scope = self._node(node.get("scope"))
        name = node.get("name", "").strip('"')
        return bool(_CHANNEL.match(name)) and scope.get("name") == '"hls"'

    def takes_channels_only(self, subprogram: str) -> bool:
        signature = self._node(self._node(subprogram).get("type"))
        types = self._node(signature.get("types")).get("items", "").split(",")
        parameters = types[1:]
        returns_nothing = types[0].strip() == "null"
        return returns_nothing and bool(parameters) and all(map(self.is_channel, parameters))


def _clang(arguments: Sequence[str]) -> str:
    command = [sys.executable, "-m", "ziglang", "c++", *_TARGET, *arguments]
    result = run(command)
    if result.code != 0:
        found = _ERROR.search(result.stderr)
        if found:
            raise HlsError(f"{found.group(1)} {found.group(2)}")
        raise ToolError(f"clang failed: {result.last_line}", " ".join(command), result.code)
    return result.stdout


def _find_processes(text: str) -> dict[str, str]:
    """Return mangled -> source name of the processes in unoptimised IR."""
    metadata = llvm.parse_metadata(text)
    types = _Types(metadata)
    bodies = {match.group(1): match.group(0) for match in _DEFINITION.finditer(text)}
    processes: dict[str, str] = {}
    for body in bodies.values():
        if "@__openhls_dataflow(" not in body:
            continue
        for callee in _CALL.findall(body):
            debug = re.search(r"!dbg !(\d+) \{$", bodies.get(callee, "").split("\n", 1)[0])
            if debug and types.takes_channels_only(debug.group(1)):
                processes[callee] = metadata[debug.group(1)]["name"].strip('"')
    return processes


def _keep_apart(text: str, processes: Mapping[str, str], top: str) -> str:
    """Make every function inline into its callers, but for the processes and the top."""

    def mark(match: re.Match[str]) -> str:
        head, body = match.group(0).split("\n", 1)
        name = match.group(1)
        attribute = "noinline" if name in processes or name == top else "alwaysinline"
        if attribute == "noinline":
            head = re.sub(r" comdat(?:\([^)]*\))?", "", _LINKAGE.sub("define ", head))
        place = re.search(r"\)(?: local_unnamed_addr| unnamed_addr)?(?= [^()]*\{$)", head)
        if place is None:
            raise AssertionError(f"no place for attributes in: {head}")
        head = f"{head[: place.end()]} {attribute}{head[place.end() :]}"
        return f"{head}\n{body}"

    return _DEFINITION.sub(mark, text)


def _unique_names(processes: Mapping[str, str]) -> dict[str, str]:
    """Number processes that share a source name (overloads, template instances)."""
    total: dict[str, int] = {}
    names = {}
    for mangled, name in processes.items():
        plain = re.sub(r"\W+", "_", name).strip("_")
        total[plain] = total.get(plain, 0) + 1
        names[mangled] = plain if total[plain] == 1 else f"{plain}_{total[plain]}"
    return names


def preprocess(source: Path, include_dirs: Sequence[Path]) -> str:
    """Return the source after the preprocessor, with its HLS pragmas rewritten."""
    includes = [f"-I{path}" for path in (INCLUDE, *include_dirs)]
    return rewrite_pragmas(_clang([*_LANGUAGE, *includes, "-E", str(source)]))


def compile_unit(preprocessed: str, top: str) -> Unit:
    """Compile preprocessed C++ whose top function is `top` (a source or mangled name)."""
    with tempfile.TemporaryDirectory() as folder:
        cpp, raw, out = (Path(folder) / name for name in ("unit.cpp", "raw.ll", "unit.ll"))
        cpp.write_text(preprocessed, encoding="utf-8")
        flags = ["-O2", "-S", "-emit-llvm", "-g", "-fstandalone-debug"]
        flags += ["-Xclang", "-disable-llvm-passes", "-fno-discard-value-names"]
        _clang([*_LANGUAGE, *flags, str(cpp), "-o", str(raw)])
        text = raw.read_text(encoding="utf-8")
        processes = _find_processes(text)
        mangled = _find_top(text, top)
        raw.write_text(_keep_apart(text, processes, mangled), encoding="utf-8")
        _clang([*_OPTIMISE, str(raw), "-o", str(out)])
        module = llvm.parse(out.read_text(encoding="utf-8"))
    return Unit(module, mangled, _unique_names(processes))


def _find_top(text: str, top: str) -> str:
    names = []
    metadata = llvm.parse_metadata(text)
    for match in _DEFINITION.finditer(text):
        debug = re.search(r"!dbg !(\d+) \{$", match.group(0).split("\n", 1)[0])
        source = metadata.get(debug.group(1), {}).get("name", "").strip('"') if debug else ""
        if top in (match.group(1), source):
            names.append(match.group(1))
    if len(names) != 1:
        raise HlsError(f"there must be one function '{top}', got {len(names)}")
    return names[0]
