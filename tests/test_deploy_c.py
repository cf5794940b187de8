# SPDX-License-Identifier: Apache-2.0
"""The C header and its example: compiled, and run against the RTL through callbacks.

The example's code that drives the engine is the same as on a board; only what reads and writes
registers and syncs memory is ours.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator
from ctypes import CFUNCTYPE, POINTER, c_int, c_uint, c_uint8, c_uint32, c_uint64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from codegen import abi, ports
from codegen.descriptor import layer_fields
from codegen.emit import C_HEADER, emit_data, emit_engine
from codegen.layout import pack_features, unpack_features
from codegen.ports import OFFSETS
from codegen.program import layer_words, program_words
from codegen.schedule import Schedule, schedule
from deploy.virtual_board import VirtualBoard, virtual_board
from tests.conftest import ROOT
from tests.engines import chain_case, expected_maps
from tests.ladder import random_images
from tests.test_sim_rtl import ENGINES, harness, rtl_folder
from winnow.config import TargetConfig

EXAMPLE = ROOT / "deploy" / "c" / "winnow_run.c"
ENGINE = ENGINES["default"]
STRICT = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
GRAPH = chain_case(15, 4)  # whose results differ from image to image
PLAN = schedule(GRAPH, ENGINE)
IMAGES = random_images(GRAPH, 0, 3)
ROOM = 1 << 20
Read, Write, Sync = (
    CFUNCTYPE(c_uint32, c_uint32),
    CFUNCTYPE(None, c_uint32, c_uint32),
    CFUNCTYPE(None),
)


class Board(ctypes.Structure):
    """`struct winnow_board`."""

    _fields_ = (
        ("read32", Read),
        ("write32", Write),
        ("to_device", Sync),
        ("from_device", Sync),
        ("memory", POINTER(c_uint8)),
        ("address", c_uint64),
        ("bytes", c_uint64),
    )


@pytest.fixture(scope="module")
def include(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("c")
    emit_engine(folder, ENGINE, TargetConfig())
    return folder / "c"


def compiled(arguments: list[str], include: Path) -> None:
    command = ["gcc", *STRICT, "-O1", "-I", str(include), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def example(include: Path) -> Any:
    library = include / "example.so"
    compiled(["-shared", "-fPIC", str(EXAMPLE), "-o", str(library)], include)
    found = ctypes.CDLL(str(library))
    found.winnow_run.restype = c_int
    found.winnow_result_bytes.restype = found.winnow_input_bytes.restype = c_uint64
    return found


@pytest.fixture
def board() -> Iterator[VirtualBoard]:
    with virtual_board(harness("default"), rtl_folder("default")) as found:
        yield found


def pointer(content: np.ndarray[Any, Any]) -> Any:
    return content.ctypes.data_as(POINTER(c_uint8))


def run(
    example: Any, board: VirtualBoard, plan: Schedule, images: Any, *, room: int = ROOM, count: int
) -> tuple[int, np.ndarray[Any, Any]]:
    """Run the example's winnow_run; return its code and the results [count, bytes]."""
    memory = board.allocate(room)
    described = Board(
        Read(board.read32),
        Write(board.write32),
        Sync(lambda: board.to_device(memory)),
        Sync(lambda: board.from_device(memory)),
        pointer(memory),
        board.address(memory),
        room,
    )
    program = program_words(plan).view(np.uint8)
    weights = np.concatenate([layer.packed.reshape(-1) for layer in plan.layers])
    packed = np.ascontiguousarray(pack_features(plan.input.tensor, images))
    assert example.winnow_input_bytes(pointer(program)) == packed.shape[1]
    results = np.zeros((count, example.winnow_result_bytes(pointer(program))), np.uint8)
    sized = [item for c in (program, weights) for item in (pointer(c), c_uint64(c.nbytes))]
    code = example.winnow_run(
        ctypes.byref(described), *sized, pointer(packed), pointer(results), c_uint(count)
    )
    board.free(memory)
    return code, results


def test_example_gives_the_last_map_of_every_image(example: Any, board: VirtualBoard) -> None:
    last = PLAN.layers[-1]
    for images in (IMAGES, IMAGES[:1]):
        code, results = run(example, board, PLAN, images, count=len(images))
        assert code == 0
        found = unpack_features(last.result.tensor, results)
        assert np.array_equal(found, expected_maps(GRAPH, images)[last.name])


def test_example_says_what_went_wrong(
    example: Any, board: VirtualBoard, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(example, board, PLAN, IMAGES, room=4096, count=3)[0] == -1
    assert "error: 3 images need " in capfd.readouterr().err
    assert run(example, board, schedule(GRAPH, ENGINES["small"]), IMAGES, count=3)[0] == -1
    text = abi.STATUS_TEXT[abi.Status.WRONG_ENGINE]
    assert f"error: image 0, layer 0: {text}; axi_error 0" in capfd.readouterr().err


def test_program_of_the_example_names_what_is_missing(include: Path, tmp_path: Path) -> None:
    binary = tmp_path / "winnow_run"
    compiled([str(EXAMPLE), "-o", str(binary)], include)

    def error(*arguments: object) -> str:
        command = [str(binary), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        return done.stderr

    assert error().endswith(" UIO UDMABUF PROGRAM WEIGHTS IMAGES RESULTS\n")
    emit_data(tmp_path, PLAN)
    files = [tmp_path / name for name in ("program.bin", "weights.bin")]
    names = ("winnow_no_uio", "winnow_no_memory")
    assert error(*names, *files, "no_images", "r") == "error: cannot read no_images\n"
    images = tmp_path / "images.bin"
    images.write_bytes(pack_features(PLAN.input.tensor, IMAGES).tobytes())
    assert "cannot read /sys/class/uio/winnow_no_uio/maps/map0/size; are" in error(
        *names, *files, images, tmp_path / "results"
    )
    size = 8 * PLAN.input.words
    images.write_bytes(images.read_bytes()[:-1])
    text = f"error: {images} has {len(IMAGES) * size - 1} bytes, an image {size}\n"
    assert error(*names, *files, images, "r") == text
    whole = files[0].read_bytes()
    last = len(whole) - 8  # a word of the last layer's descriptor is missing
    for cut in (b"", whole[:8], whole[:63], whole[:64], whole[:last], whole[1:], bytes(len(whole))):
        files[0].write_bytes(cut)
        text = "error: the program is none, or was cut short\n"
        assert error(*names, *files, images, "r") == text


def test_example_tells_an_engine_that_does_not_answer_and_counts(
    example: Any, board: VirtualBoard, capfd: pytest.CaptureFixture[str]
) -> None:
    for count in (0, 256):
        assert run(example, board, PLAN, IMAGES, count=count)[0] == -1
        error = f"error: a start runs 1..255 images, not {count}\n"
        assert capfd.readouterr().err == error
    dark: Any = SimpleNamespace(
        allocate=board.allocate,
        address=board.address,
        free=board.free,
        read32=lambda _: 0xFFFFFFFF,
        write32=lambda *_: None,
        to_device=lambda _: None,
        from_device=lambda _: None,
    )
    assert run(example, dark, PLAN, IMAGES, count=1)[0] == -1
    assert "error: no engine answers: is the bitstream loaded?" in capfd.readouterr().err


# --- the header is the table's --------------------------------------------------------------------

PRINT = """
#include <stdio.h>
#include "winnow_engine.h"
#define NUMBER(name) printf(#name " %llu\\n", (unsigned long long)(name));
#define PORT(name, at, bits, memory) printf(#name " %u %u " #memory "\\n", at, (unsigned)bits);
int main(void) {
  LINES
  WINNOW_PORTS(PORT)
  return 0;
}
"""


def printed(lines: list[str], include: Path, folder: Path) -> list[str]:
    source, binary = folder / "print.c", folder / "print"
    source.write_text(PRINT.replace("LINES", "\n".join(lines)))
    compiled([str(source), "-o", str(binary)], include)
    return subprocess.run([str(binary)], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )


def test_header_has_registers_status_codes_and_ports(include: Path, tmp_path: Path) -> None:
    expected = {
        "WINNOW_MAGIC": abi.MAGIC,
        "WINNOW_VERSION": abi.VERSION,
        "WINNOW_SIGNATURE": abi.engine_signature(ENGINE),
        "WINNOW_HEADER_WORDS": abi.HEADER_WORDS,
        "WINNOW_LAYER_WORDS": abi.LAYER_WORDS,
        "WINNOW_MAX_LAYERS": abi.MAX_LAYERS,
        "WINNOW_MAX_IMAGES": abi.MAX_IMAGES,
        "WINNOW_WEIGHTS_BITS": ENGINE.axi_bits,
        **{f"WINNOW_REG_{name.upper()}": offset for name, offset in OFFSETS.items()},
        **{f"WINNOW_CONTROL_{bit.name}": int(bit) for bit in ports.Control},
        **{f"WINNOW_{status.name}": int(status) for status in abi.Status},
    }
    found = printed([f"NUMBER({name})" for name in expected], include, tmp_path)
    numbers, rest = found[: len(expected)], found[len(expected) : -1]
    assert dict(line.split() for line in numbers) == {n: str(v) for n, v in expected.items()}
    assert rest == [f"{p.name} {OFFSETS[p.name]} {p.bits(ENGINE)} {p.memory}" for p in ports.PORTS]


def test_header_reads_and_writes_every_field(include: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fields = [field for field in layer_fields(ENGINE) if not field.is_array]
    values: dict[str, Any] = {
        f.name: int(rng.integers(max(f.bounds[0], 0), f.bounds[1] + 1)) for f in fields
    }
    values |= {f.name: (0,) * f.count for f in layer_fields(ENGINE) if f.is_array}
    words = ", ".join(f"{word:#x}ull" for word in layer_words(ENGINE, values))
    lines = [f"static const uint64_t words[] = {{{words}}};", "uint64_t mine[WINNOW_LAYER_WORDS];"]
    lines += [
        f'printf("{f.name} %llu\\n", '
        f"(unsigned long long)winnow_field(words, WINNOW_LAYER_{f.name.upper()}));"
        for f in fields
    ]
    lines.append("for (int i = 0; i < 32; i++) mine[i] = i == 31 ? words[i] : 0;")
    lines += [
        f"winnow_set_field(mine, WINNOW_LAYER_{f.name.upper()}, {values[f.name]}ull);"
        for f in fields
    ]
    lines.append('for (int i = 0; i < 32; i++) printf("same %d\\n", mine[i] == words[i]);')
    found = printed(lines, include, tmp_path)
    numbers = dict(line.split() for line in found[: len(fields)])
    assert numbers == {f.name: str(values[f.name]) for f in fields}
    assert found[len(fields) : len(fields) + 32] == ["same 1"] * 32


def test_header_is_as_reviewed(include: Path, golden: Callable[[str, str], None]) -> None:
    golden("winnow_engine.h.txt", (include / C_HEADER).read_text(encoding="utf-8"))
