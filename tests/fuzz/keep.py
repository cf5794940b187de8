# SPDX-License-Identifier: Apache-2.0
"""A failing design becomes a small case in tests/fuzz/cases/, which the tests repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from tests.fuzz.case import Case, case_of, read_case
from tests.fuzz.check import Failure, check, refusals
from tests.fuzz.program import Design
from tests.fuzz.shrink import shrink

CASES = Path(__file__).parent / "cases"


def renamed(case: Case, name: str) -> Case:
    """Return the case with another name, which all its identifiers begin with."""
    return read_case(name, case.text().replace(f"{case.name}_", f"{name}_"))


def kept_cases() -> list[Case]:
    """Return the cases in tests/fuzz/cases/."""
    return [read_case(path.stem, path.read_text()) for path in sorted(CASES.glob("*.cpp"))]


def shrink_failure(
    design: Design, failure: Failure, folder: Path, seed: int
) -> tuple[Case, Failure]:
    """Return the smallest case found that fails in the same way, and how it fails."""
    rounds = count()

    def fails(designs: Sequence[Design]) -> list[bool]:
        cases = [renamed(case_of(x), f"{x.name}_{i}") for i, x in enumerate(designs)]
        judge = refusals if failure.kind == "refused" else check
        found = judge(cases, folder / f"shrink{next(rounds)}", seed=seed)
        return [case.name in found and found[case.name].kind == failure.kind for case in cases]

    case = case_of(shrink(design, fails))
    return case, check([case], folder / "shrunken", seed=seed).get(case.name, failure)


def keep_case(case: Case, failure: Failure, folder: Path = CASES) -> Path:
    """Write a case to a new file that says how it failed; return its path."""
    names = (case.name if i == 0 else f"{case.name}_{i}" for i in count())
    path = next(p for p in (folder / f"{name}.cpp" for name in names) if not p.exists())
    folder.mkdir(parents=True, exist_ok=True)
    head = f"// SPDX-License-Identifier: Apache-2.0\n// {failure.kind}: {failure.text}\n"
    path.write_text(head + renamed(replace(case), path.stem).text())
    return path
