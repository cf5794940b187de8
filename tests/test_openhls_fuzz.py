# SPDX-License-Identifier: Apache-2.0
"""Random designs: their RTL sends what the same C++, compiled with AMD's headers, sends.

`make fuzz COUNT=1000 SEED=7` runs others than `make test`. What fails is shrunk and kept in
tests/fuzz/cases/; the message names seed, design, stream, token and both values.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from openhls.expression_graph import ExpressionGraph, Ref
from tests.fuzz.bench import CACHE, Expected, Found
from tests.fuzz.case import case_of, read_case
from tests.fuzz.check import Failure, check, compare
from tests.fuzz.generate import random_design
from tests.fuzz.keep import keep_case, kept_cases, renamed, shrink_failure
from tests.fuzz.program import (
    BOOL,
    COUNTER,
    Assign,
    Binary,
    Design,
    If,
    Literal,
    Loop,
    Name,
    Process,
    Receive,
    Send,
    Stream,
    Token,
    Type,
    Variable,
)
from tests.fuzz.shrink import shrink

DEFAULT_SEED = 1
# What designs of the subset may meet, with docs/openhls.md; one in 25 at most.
REFUSALS = ("cannot run one iteration per cycle", "an address that is not known at compile time")
MOST_REFUSED = 0.04
BATCH = 50  # designs that share a host program and a Verilated model


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "first_design" in metafunc.fixturenames:
        count = metafunc.config.getoption("--fuzz-count")
        metafunc.parametrize("first_design", range(0, count, BATCH))


def report(design: Design, failure: Failure, folder: Path, seed: int) -> str:
    """Shrink and keep a failing design; return a line that says all about it."""
    case, smallest = shrink_failure(design, failure, folder, seed)
    path = keep_case(case, smallest)
    return (
        f"design '{design.name}' of seed {seed} {failure.kind}: {failure.text}\n"
        f"shrunken to {path.name}: {smallest.text}\n{case.text()}"
    )


def test_random_designs(first_design: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    seed = request.config.getoption("--fuzz-seed")
    numbers = range(
        first_design, min(first_design + BATCH, request.config.getoption("--fuzz-count"))
    )
    print(f"seed {seed}, designs {numbers.start} to {numbers.stop - 1}")
    designs = {f"s{seed}k{n}": random_design(seed, n) for n in numbers}
    cases = [case_of(design) for design in designs.values()]
    kept = CACHE if seed == DEFAULT_SEED else None
    failures = check(cases, tmp_path / "batch", seed=seed, cache_folder=kept)
    refused = [n for n, x in failures.items() if any(text in x.text for text in REFUSALS)]
    assert len(refused) <= len(cases) * MOST_REFUSED, f"refused: {', '.join(refused)}"
    for name in failures.keys() - refused:
        pytest.fail(report(designs[name], failures[name], tmp_path, seed), pytrace=False)


def test_kept_cases(tmp_path: Path) -> None:
    """What once failed is right, or refused, with the message that its first line states."""
    cases = kept_cases()
    assert cases
    failures = check(cases, tmp_path, cache_folder=CACHE)
    assert {name: x.text for name, x in failures.items()} == {
        case.name: case.refusal for case in cases if case.refusal
    }


# The fuzzer itself


def small_design(seed: int = 1) -> Design:
    """Return a design that does many things, one of them a product."""
    number, wide = Type(11, True), Type(40, True)
    a, b, c = Name(number, "a"), Name(number, "b"), Name(wide, "c")
    i = Name(COUNTER, "i")
    source = Stream("s1k0_in", Token("", (("", number),)))
    target = Stream("s1k0_out", Token("", (("", wide),)))
    product = Binary(Type(22, True), "*", a, b)
    total = Binary(Type(41, True), "+", c, product)
    inner = (
        Receive(False, "b", source.name),
        If(
            False,
            Binary(BOOL, "<", a, b),
            (Assign(False, c, "=", total, exact=True),),
            (Assign(False, c, "^=", Literal(wide, 3), exact=True),),
        ),
        Send(False, target.name, target.token, (Binary(wide, "-", c, i),)),
    )
    loop = Loop(False, "i", 4, "for", "pipeline", Literal(COUNTER, 0), Literal(BOOL, 0), inner)
    body = (Receive(True, "a", source.name), loop, Send(False, target.name, target.token, (a,)))
    names = {"a": number, "b": number, "c": wide}
    variables = tuple(Variable(name, Token("", (("", type_),))) for name, type_ in names.items())
    process = Process("s1k0_p0", (source,), (target,), (), variables, (), body)
    tokens = tuple((seed + 37 * x) % 2048 for x in range(60))
    return Design("s1k0", (process,), ((source.name, tokens),), 2)


@pytest.mark.slow
def test_a_broken_translator_is_found_and_shrunken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With wrong products, hardly more than a product is left of a design."""
    right = ExpressionGraph.multiply

    def wrong(graph: ExpressionGraph, a: Ref, b: Ref) -> Ref:
        product = right(graph, a, b)
        return graph.xor(product, graph.literal(graph.width(product), 1))

    assert check([case_of(small_design())], tmp_path / "right") == {}
    monkeypatch.setattr(ExpressionGraph, "multiply", wrong)
    design = small_design()
    failure = check([case_of(design)], tmp_path / "wrong")[design.name]
    assert failure.kind == "differs"
    assert "stream 's1k0_out', token" in failure.text
    case, smallest = shrink_failure(design, failure, tmp_path, 1)
    path = keep_case(case, smallest, tmp_path / "cases")
    text = path.read_text()
    assert f"// differs: {smallest.text}" in text
    assert text.count("\n") < 25
    assert "*" in case.source
    assert "^=" not in case.source
    again = read_case(path.stem, text)
    assert check([again], tmp_path / "again")[again.name].text == smallest.text
    monkeypatch.setattr(ExpressionGraph, "multiply", right)
    assert check([again], tmp_path / "fixed") == {}


def test_designs_follow_from_their_seed() -> None:
    assert random_design(3, 5) == random_design(3, 5)
    texts = {random_design(seed, n).text() for seed in (1, 2) for n in range(20)}
    assert len(texts) == 40


@pytest.mark.parametrize("number", range(20))
def test_cases_survive_a_file(number: int) -> None:
    case = case_of(random_design(1, number))
    assert read_case(case.name, case.text()) == case
    other = renamed(case, "other")
    assert other.name == "other"
    assert f"{case.name}_" not in other.text()


@pytest.mark.parametrize("number", range(10))
def test_shrinking_ends_at_what_fails(number: int) -> None:
    """With "reads a RAM" for a failure, hardly more than that is left of a process."""
    designs = (random_design(9, n) for n in range(20 * number, 20 * number + 20))
    design = next(x for x in designs if ".read(unsigned(" in x.text() and not x.banks())

    def fails(designs: Sequence[Design]) -> list[bool]:
        return [".read(unsigned(" in x.text() for x in designs]

    smaller = shrink(design, fails)
    assert fails([smaller]) == [True]
    assert shrink(smaller, fails) == smaller
    assert len(smaller.text()) < 1500


def test_a_difference_names_stream_token_and_values() -> None:
    """The judge sees a wrong value, a missing token, one too many, and one not taken."""
    case = case_of(small_design())
    name = "s1k0_out"
    expected = Expected({"s1k0_in": 3}, {name: (1, 2, 3)}, {name: 2})

    def judged(sent: tuple[int, ...], left: int = 0) -> str:
        found = compare(case, expected, Found({name: sent}, {"s1k0_in": left}))
        return "" if found is None else f"{found.kind}: {found.text}"

    assert judged((1, 2)) == judged((1, 2, 3)) == ""
    assert judged((1, 10)) == "differs: stream 's1k0_out', token 1: C++ 2, RTL a"
    assert (
        judged((1,)) == "hangs: stream 's1k0_out', token 1: C++ 2, RTL nothing; 2 tokens expected"
    )
    assert judged((1, 2, 3, 4)) == "differs: stream 's1k0_out', token 3: C++ nothing, RTL 4"
    assert judged((1, 2), 1) == "hangs: stream 's1k0_in': C++ takes 3 tokens, RTL 2"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("count", "x", "COUNT (--fuzz-count) must be a whole number of at least 1, got 'x'"),
        ("count", "0", "COUNT (--fuzz-count) must be a whole number of at least 1, got '0'"),
        ("seed", "-1", "SEED (--fuzz-seed) must be a whole number of at least 0, got '-1'"),
        ("layers", "1.5", "LAYERS (--fuzz-layers) must be a whole number of at least 1, got '1.5'"),
    ],
)
def test_wrong_numbers_end_before_any_test(
    root: Path, option: str, value: str, message: str
) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n0",
            "tests/test_layering.py",
            f"--fuzz-{option}={value}",
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert (run.stdout + run.stderr).strip() == f"ERROR: {message}"
