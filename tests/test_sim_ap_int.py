# SPDX-License-Identifier: Apache-2.0
"""The numbers of host simulation give what AMD's give, and what they do not have does not compile.

WINNOW_AMD_HEADERS names AMD's newest headers; without it those of the hls4ml wheel are compared.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from codegen.emit import TEMPLATES
from sim.csim import NATIVE, ap_types
from winnow.process import Finished, run

FUZZ = Path(__file__).with_name("ap_int_fuzz.hpp")
# Of the engine, and around the sizes of machine integers.
WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17, 18, 25, 31, 32, 33, 34, 40, 44, 48, 63, 64)
WIDE = (65, 88, 127, 128, 129, 192, 256, 320)
PAIRS = 8  # of types, of a program
AMD = os.environ.get("WINNOW_AMD_HEADERS", "")


def _type(rng: random.Random, widths: tuple[int, ...]) -> tuple[str, int]:
    width = rng.choice(widths)
    return f"ap_{rng.choice(('int', 'uint'))}<{width}>", width


def fuzz_source(seed: int, pairs: int) -> str:
    """Return a program that prints the results of random pairs of types and values."""
    rng = random.Random(seed)
    calls = [f"random_state = {seed + 1};"]
    for i in range(pairs):
        widths = WIDTHS if i % 4 else WIDTHS + WIDE
        (a, a_bits), (b, b_bits) = _type(rng, widths), _type(rng, widths)
        amount, _ = _type(rng, tuple(width for width in WIDTHS if width <= 32))
        tests = [f"pair<{a}, {b} >", f"shift<{a}, {amount} >", f"unary<{a} >"]
        tests += [f"product<{a}, {b} >"] if a_bits + b_bits <= 128 else []
        tests += [f"quotient<{a}, {b} >"] if max(a_bits, b_bits) <= 64 else []
        tests += [f"native<{a} >"] if a_bits <= 64 else []
        tests += [f"builtins<{a} >"] if i % 4 == 0 else []
        calls += [f"test_{test}();" for test in tests]
    return "\n".join([f'#include "{FUZZ}"', "int main() {", *calls, "}", ""])


def compile_with(source: str, folder: Path, *flags: str) -> Finished:
    """Compile a program to `folder`/program."""
    main = folder / "main.cpp"
    main.write_text(source)
    return run(["g++", "-std=c++14", *flags, str(main), "-o", str(folder / "program")])


def native(source: str, folder: Path, *flags: str) -> Finished:
    """Compile a program with the headers of host simulation."""
    return compile_with(source, folder, "-I", str(TEMPLATES / "host" / NATIVE), *flags)


def printed(compiled: Finished, folder: Path) -> list[str]:
    """Return the lines that a compiled program prints."""
    assert compiled.code == 0, compiled.stderr[:4000]
    finished = run([folder / "program"])
    assert finished.code == 0, finished.last_line
    return finished.stdout.splitlines()


def require_amd(seed: int, folder: Path) -> None:
    """Compare a program's results with those of AMD's headers; it must do nothing undefined."""
    source = fuzz_source(seed, PAIRS)
    undefined = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
    found = printed(native(source, folder, "-O1", "-DNUMBER=ap_bits", *undefined), folder)
    headers = ("-isystem", AMD or str(ap_types()), "-DHLS_NO_XIL_FPO_LIB")
    amd = compile_with(source, folder, "-O0", "-w", "-DNUMBER=ap_int_base", *headers)
    expected = printed(amd, folder)
    assert len(expected) > 300
    differ = [(e, f) for e, f in zip(expected, found, strict=True) if e != f]
    assert differ == [], f"{len(differ)} lines differ, first:\n{differ[0][0]}\n{differ[0][1]}"


@pytest.mark.parametrize("seed", range(2))
def test_numbers_are_those_of_amd(tmp_path: Path, seed: int) -> None:
    require_amd(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 20))
def test_more_numbers_are_those_of_amd(tmp_path: Path, seed: int) -> None:
    require_amd(seed, tmp_path)


FRAME = """#include <ap_int.h>
enum Colour {{ kRed, kGreen }};
int main() {{
  ap_int<9> a = 3;
  ap_uint<5> b = 2;
  ap_uint<100> wide = 1;
  const int i = 1;
  {}
  return a == 0 && b == 0 && wide == 0 && i == 0;
}}
"""
HELD = ("a = b;", "a += b * i;", "b <<= 3;", "wide = wide | b;", "i + int(b);", "if (b) a--;")
REFUSED = (
    "a % b;",
    "a % i;",
    "i % a;",
    "a %= b;",
    "(a, b);",
    "(a, i);",
    "(i, a);",
    "a + 1.5;",
    "1.5f * a;",
    "a < 1.5;",
    "a = 1.5;",
    "ap_int<9> c(1.5);",
    "a == kGreen;",
    "a + kGreen;",
    "a & nullptr;",
    "ap_int<9> c(kGreen);",
    'ap_int<9> c("12");',
    "a << 1.5;",
    "a << ap_uint<33>(1);",
    "a << 1l;",
    "i << b;",
    "i >> b;",
    "(a + b) = 1;",
    "ap_int<9>(3) += 1;",
    "a[1] = 1;",
    "a.range(3, 1);",
    "a(3, 1);",
    "a.concat(b);",
    "a.reverse();",
    "int c = wide;",
    "if (wide) a = 1;",
    "int c = i ? a : 1;",
    "wide * wide;",
    "wide * 3 / ap_int<100>(wide);",
    "ap_uint<0> c;",
    "ap_int<1025> c;",
    "volatile ap_int<9> c = 1; a = c;",
    "int j = 1; j += a * 2.0;",
)


def test_what_is_held_compiles(tmp_path: Path) -> None:
    source = FRAME.format(" ".join(HELD))
    assert native(source, tmp_path, "-Wall", "-Wextra", "-Wno-unused-value").stderr == ""


@pytest.mark.parametrize("statement", REFUSED)
def test_all_else_does_not_compile(tmp_path: Path, statement: str) -> None:
    compiled = native(FRAME.format(statement), tmp_path, "-fsyntax-only")
    assert compiled.code == 1, f"'{statement}' compiles"
    assert "error:" in compiled.stderr


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("b[i * 5];", "error: ap_int: bit 5 of a number of 5 bits"),
        ("a / (b - 2);", "error: ap_int: division by zero"),
    ],
)
def test_what_only_a_run_can_tell_ends_it(tmp_path: Path, statement: str, message: str) -> None:
    assert native(FRAME.format(statement), tmp_path).code == 0
    finished = run([tmp_path / "program"])
    assert (finished.code, finished.last_line) == (3, message)


def test_numbers_without_a_value_are_no_zeros(tmp_path: Path) -> None:
    source = FRAME.format(
        "struct S { ap_uint<5> x; ap_int<100> y; } s = {}; return s.x + (s.y > 0);"
    )
    assert native(source, tmp_path).code == 0
    assert run([tmp_path / "program"]).code == 0b01001 + 1
