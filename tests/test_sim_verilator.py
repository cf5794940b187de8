# SPDX-License-Identifier: Apache-2.0
"""Waveforms: what packs them, judged by decoders of our own and Python's; a file, by Yosys."""

from __future__ import annotations

import random
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import pytest

from sim.verilator import FST, build_harness, content_hash, environment, fst_options
from tests.engines import CACHE

HARNESS = Path(__file__).parent / "harness"


@cache
def packer() -> Path:
    """Return the program that packs its input with the functions of sim/harness/fst."""
    source = HARNESS / "fst_main.cpp"
    binary = CACHE / f"fst-{content_hash([source, *FST])}"
    if not binary.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
        command += [f"-I{FST[0].parent}", str(source), "-o", str(binary)]
        subprocess.run(command, check=True)
    return binary


def pack(method: str, data: bytes) -> bytes:
    """Return `data` packed; fails when more is written than the stated bound."""
    return subprocess.run([packer(), method], input=data, capture_output=True, check=True).stdout


def long_length(block: bytes, at: int, length: int) -> tuple[int, int]:
    """Return a length of the token with its further bytes, and the place behind them."""
    if length == 15:
        while True:
            length, at = length + block[at], at + 1
            if block[at - 1] != 255:
                break
    return length, at


def unpack_lz4(block: bytes) -> bytes:
    """Decode an LZ4 block and hold it to the rules for its end."""
    out, at, matches = bytearray(), 0, list[tuple[int, int]]()
    while True:
        token = block[at]
        count, at = long_length(block, at + 1, token >> 4)
        assert at + count <= len(block)
        out += block[at : at + count]
        at += count
        if at == len(block):
            break
        offset = int.from_bytes(block[at : at + 2], "little")
        length, at = long_length(block, at + 2, token & 15)
        assert 1 <= offset <= len(out)
        matches.append((len(out), length + 4))
        for _ in range(length + 4):
            out.append(out[-offset])
    assert token & 15 == 0
    assert not matches or matches[-1][0] <= len(out) - 12
    assert not matches or sum(matches[-1]) <= len(out) - 5
    return bytes(out)


def samples() -> dict[str, bytes]:
    """Return data that meets every rule of the formats: ends, long lengths, far matches, blocks."""
    draw = random.Random(1)
    noise = draw.randbytes(70_000)
    words = [draw.randbytes(5) for _ in range(40)]
    found = {f"zeros {n}": bytes(n) for n in (0, 1, 4, 5, 11, 12, 13, 14, 17, 65_535, 65_536)}
    found |= {f"noise {n}": noise[:n] for n in (15, 16, 269, 270, 271, 525, 65_535, 65_537)}
    found["words"] = b"".join(draw.choice(words) for _ in range(30_000))
    found["far matches"] = noise[:64] + noise[100:65_571] + noise[:64] + noise[:300]
    found["long match"] = noise[:9] + bytes(1000) + noise[:9]
    found["one run"] = b"\1" * 131_070
    return found


@pytest.mark.parametrize("name", samples())
def test_packed_waves_decode_to_the_same_bytes(name: str) -> None:
    data = samples()[name]
    assert unpack_lz4(pack("lz4", data)) == data
    assert zlib.decompress(pack("zlib", data)) == data


def test_lz4_makes_repeating_bytes_small() -> None:
    """A file of waveforms is small because of this: runs by 255, words of 5 bytes to half."""
    found = {name: len(pack("lz4", data)) / len(data) for name, data in samples().items() if data}
    assert found["one run"] < 1 / 200
    assert found["words"] < 0.8
    assert found["noise 65537"] > 1


def replay(waves: Path, design: str, folder: Path) -> str:
    """Let Yosys compare a design with its waveforms in every step; return what it prints."""
    source = folder / "design.v"
    source.write_text(design)
    commands = [f"read_verilog {source}", "hierarchy -top waved", "proc"]
    commands.append(f"sim -r {waves} -scope TOP.waved -clock clk -sim-cmp -q")
    lines = ["from pyosys import libyosys", "design = libyosys.Design()"]
    lines += [f"design.run_pass({command!r})" for command in commands]
    command = [sys.executable, "-c", "\n".join(lines)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout + run.stderr


def test_waveforms_replay_in_yosys(tmp_path: Path) -> None:
    """Yosys reads the file with GTKWave's reader and simulates the design beside it."""
    design = HARNESS / "waved.v"
    options = fst_options(tmp_path / "libraries")
    main = [HARNESS / "waved_main.cpp", *FST]
    program = build_harness([design], main, "waved", [], tmp_path, options=options)
    waves = tmp_path / "waved.fst"
    subprocess.run([program, waves], check=True, env=environment())
    text = design.read_text()
    found = replay(waves, text, tmp_path)
    assert "ERROR" not in found
    assert "FSTAPI" not in found, "the reader complains"
    other = text.replace("state[69] ^ state[4]", "state[69] ^ state[5]")
    assert "ERROR: Signal difference" in replay(waves, other, tmp_path)
