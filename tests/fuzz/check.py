# SPDX-License-Identifier: Apache-2.0
"""Judges a batch of cases: what the RTL sends must be what the C++ sends, with every stall rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openhls.errors import HlsError
from tests.fuzz.bench import (
    Expected,
    Found,
    build_host,
    build_model,
    compile_cases,
    run_host,
    run_model,
)
from tests.fuzz.case import Case

STALLS = (0, 30, 70)


@dataclass(frozen=True)
class Failure:
    """Why a case fails: kind is "refused", "differs" or "hangs"."""

    kind: str
    text: str


def compare(case: Case, expected: Expected, found: Found) -> Failure | None:
    """Return the first difference between C++ and RTL.

    The RTL may send more than the calls that are compared, but only what later calls would send.
    """
    for name in case.outputs:
        sent, wanted = found.sent.get(name, ()), expected.sent[name]
        for i, token in enumerate(sent):
            if i >= len(wanted) or token != wanted[i]:
                right = f"{wanted[i]:x}" if i < len(wanted) else "nothing"
                return Failure("differs", f"stream '{name}', token {i}: C++ {right}, RTL {token:x}")
    for name in case.outputs:
        sent, least = found.sent.get(name, ()), expected.least[name]
        if len(sent) < least:
            text = f"stream '{name}', token {len(sent)}: C++ {expected.sent[name][len(sent)]:x}, "
            return Failure("hangs", f"{text}RTL nothing; {least} tokens expected")
    for name in case.inputs:
        if found.left.get(name, 0):
            taken = expected.taken[name]
            text = f"stream '{name}': C++ takes {taken} tokens, RTL {taken - found.left[name]}"
            return Failure("hangs", text)
    return None


def refusals(cases: Sequence[Case], folder: Path, *, seed: int = 1) -> dict[str, Failure]:
    """Return what openhls refuses; the others are not run. `seed` is not used."""
    del seed
    folder.mkdir(parents=True, exist_ok=True)
    compiled = compile_cases(cases, folder)
    return {n: Failure("refused", str(x)) for n, x in compiled.items() if isinstance(x, HlsError)}


def check(
    cases: Sequence[Case], folder: Path, *, seed: int = 1, cache_folder: Path | None = None
) -> dict[str, Failure]:
    """Return the failures by the name of their case, in a folder for intermediate files."""
    folder.mkdir(parents=True, exist_ok=True)
    compiled = compile_cases(cases, folder, cache_folder)
    failures: dict[str, Failure] = {}
    good = {}
    for name, processes in compiled.items():
        if isinstance(processes, HlsError):
            failures[name] = Failure("refused", str(processes))
        else:
            good[name] = processes
    left = [case for case in cases if case.name in good and case.outputs]
    if not left:
        return failures
    expected = run_host(build_host(left, folder, cache_folder), left, folder)
    model = build_model(left, good, folder, cache_folder)
    tokens = {
        name: given[: expected[case.name].taken[name]]
        for case in left
        for name, given in case.tokens.items()
        if name in case.inputs
    }
    for stall in STALLS:
        found = run_model(model, tokens, folder, stall=stall, seed=seed)
        for case in left:
            failure = compare(case, expected[case.name], found)
            if failure is not None and case.name not in failures:
                text = f"{failure.text} ({stall}% stalls, seed {seed})"
                failures[case.name] = Failure(failure.kind, text)
    return failures
