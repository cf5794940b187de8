# SPDX-License-Identifier: Apache-2.0
"""One stage of the flow: skip it when nothing it reads has changed, else run and record it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from winnow.artefact import Record, is_current, sha256_bytes, sha256_file


@dataclass(frozen=True)
class Result:
    """What a stage made: its files, one summary line, and the numbers to keep."""

    outputs: Sequence[Path]
    summary: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def sources_hash(folder: Path, pattern: str = "*.py") -> str:
    """Return the hash of all sources in `folder`, so that a stage reruns when its code changes."""
    return files_hash(sorted(path for path in folder.rglob(pattern) if path.is_file()))


def files_hash(files: Iterable[Path]) -> str:
    """Return the hash of the names and contents of files, in their order."""
    return sha256_bytes("\n".join(f"{f.name} {sha256_file(f)}" for f in files).encode())


def run_stage(out: Path, name: str, inputs: Mapping[str, str], work: Callable[[], Result]) -> None:
    """Run `work` unless `out`/`name`.json shows that the same inputs gave the files at hand."""
    record_path = out / f"{name}.json"
    if is_current(record_path, inputs):
        print(f"{name}: up to date")
        return
    started = time.monotonic()
    result = work()
    seconds = time.monotonic() - started
    outputs = {str(path.relative_to(out)): sha256_file(path) for path in result.outputs}
    numbers = {**result.numbers, "seconds": round(seconds, 1)}
    Record(name, dict(inputs), outputs, numbers).save(record_path)
    print(f"{name}: {result.summary} in {seconds:.0f} s")
