# SPDX-License-Identifier: Apache-2.0
"""Emission: the same bytes for the same input, golden texts, and numbers that reach the C++."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError

from codegen import abi, emit, ports
from codegen.emit import TEMPLATES, emit_data, emit_engine, memory_map
from codegen.program import program_words
from codegen.schedule import schedule
from tests.engines import ENGINES, chain_case
from winnow.artefact import sha256_file, sha256_value
from winnow.blocking import Op
from winnow.config import TargetConfig
from winnow.engine import EngineConfig


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["default", "large_tile_strips"])
def test_same_input_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    plan = schedule(chain_case(0, 4), ENGINES["default"])
    for folder in (tmp_path / "a", tmp_path / "elsewhere" / "b"):
        emit_engine(folder, ENGINES[name], TargetConfig())
        emit_data(folder / "data", plan)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "elsewhere" / "b")
    assert str(tmp_path).encode() not in b"".join(first.values())
    emit_engine(tmp_path / "a", ENGINES[name], TargetConfig())  # over itself
    assert contents(tmp_path / "a") == first


def test_generated_texts_are_as_reviewed(
    tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    emit_engine(tmp_path, EngineConfig(), TargetConfig())
    headers = ("include/abi.hpp", "include/config.hpp", "include/program.hpp")
    for name in (*headers, "src/top.cpp", "csynth.tcl"):
        path = tmp_path / name
        suffix = "" if path.suffix == ".tcl" else ".txt"  # sources in tests/ are ours
        golden(path.name + suffix, path.read_text(encoding="utf-8"))


def test_all_files_are_returned_and_headers_are_copied(tmp_path: Path) -> None:
    files = emit_engine(tmp_path, EngineConfig(), TargetConfig())
    assert len(set(files)) == len(files)
    assert {path.relative_to(tmp_path).as_posix() for path in files} == set(contents(tmp_path))
    for part in ("include", "host"):
        for source in (TEMPLATES / part).rglob("*.h*"):
            copy = tmp_path / source.relative_to(TEMPLATES)
            assert copy.read_bytes() == source.read_bytes()
    assert not [name for name in contents(tmp_path) if name.endswith(".j2")]


@pytest.mark.parametrize("name", ENGINES)
def test_constants_are_those_of_the_engine(tmp_path: Path, name: str) -> None:
    engine = ENGINES[name]
    emit_engine(tmp_path, engine, TargetConfig())
    headers = [tmp_path / "include" / name for name in ("config.hpp", "abi.hpp")]
    text = "".join(path.read_text(encoding="utf-8") for path in headers)
    found = dict(re.findall(r"^constexpr [a-z ]+ (k\w+) = (\w+);", text, re.MULTILINE))
    values = {key: int(value.rstrip("ul"), 0) for key, value in found.items()}
    assert values == {
        "kM": engine.m,
        "kPo": engine.po,
        "kPt": engine.pt,
        "kAxiBits": engine.axi_bits,
        "kVWords": engine.v_words,
        "kWWords": engine.w_words,
        "kOutTiles": engine.out_tiles,
        "kLinePixels": engine.line_pixels,
        "kPlanePixels": engine.plane_pixels,
        "kAccBits": engine.acc_bits,
        "kYBits": engine.y_bits,
        "kMagic": abi.MAGIC,
        "kVersion": abi.VERSION,
        "kSignature": abi.engine_signature(engine),
        "kHeaderWords": abi.HEADER_WORDS,
        "kLayerWords": abi.LAYER_WORDS,
        "kEarlyWords": abi.EARLY_WORDS,
        "kMaxLayers": abi.MAX_LAYERS,
        "kMaxImages": abi.MAX_IMAGES,
        "kBoundBits": abi.BOUND_BITS,
        "kKeepBits": abi.KEEP_BITS,
        "kMaxVLimit": abi.MAX_V_LIMIT,
        "kMaxAddShift": abi.MAX_ADD_SHIFT,
        "kMaxAveragePixels": abi.MAX_AVERAGE_PIXELS,
        "kStatusCodeBits": abi.STATUS_CODE_BITS,
        "kStatusLayersBits": abi.STATUS_LAYERS_BITS,
        "kStatusImagesBits": abi.STATUS_IMAGES_BITS,
        **{f"k{port.name.capitalize()}Bits": port.bits(engine) for port in ports.PORTS},
        **{f"k{name.capitalize()}Depth": n for name, n in ports.MEMORY_DEPTHS.items()},
        **{f"kOp{op.name.capitalize()}": op.value for op in Op},
        **{f"kStatus{s.name.title().replace('_', '')}": s.value for s in abi.Status},
        **{f"k{r.name.title().replace('_', '')}Offset": r.offset for r in ports.ALL_REGISTERS},
        **{f"kControl{b.name.title().replace('_', '')}": int(b) for b in ports.Control if b.name},
    }
    top = (tmp_path / "src" / "top.cpp").read_text(encoding="utf-8")
    for process in ("load_v", "load_w", "multiply_lane", "drain_lane"):
        assert len(re.findall(rf"^  {process}\(", top, re.MULTILINE)) == engine.num_lanes


def test_target_reaches_the_tool_script(tmp_path: Path) -> None:
    emit_engine(tmp_path, EngineConfig(), TargetConfig(part="XC7Z045FFG900-2", clock_mhz=275))
    script = (tmp_path / "csynth.tcl").read_text(encoding="utf-8")
    assert "set_part {xc7z045ffg900-2}\n" in script
    assert "create_clock -period 275MHz " in script


def test_undefined_name_in_a_template_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = emit._context(EngineConfig(), TargetConfig())
    for key in whole:
        less = {k: v for k, v in whole.items() if k != key}
        monkeypatch.setattr(emit, "_context", lambda *_, less=less: less)
        # A formatting filter meets the undefined name as a type error.
        with pytest.raises((UndefinedError, TypeError), match=rf"'{key}' is undef|StrictUndefined"):
            emit_engine(tmp_path, EngineConfig(), TargetConfig())


def test_data_files_hold_program_and_weights(tmp_path: Path) -> None:
    plan = schedule(chain_case(0, 4), ENGINES["wide_port"])
    files = emit_data(tmp_path, plan)
    assert {path.name for path in files} == {"program.bin", "weights.bin", "memory.json"}
    words = np.frombuffer((tmp_path / "program.bin").read_bytes(), dtype="<u8")
    assert np.array_equal(words, program_words(plan))
    weights = (tmp_path / "weights.bin").read_bytes()
    assert len(weights) == plan.weight_beats * 16
    for layer in plan.layers:
        start = layer.weight_base * 16
        assert weights[start : start + layer.packed.size] == layer.packed.tobytes()


def test_memory_map_names_every_place(tmp_path: Path) -> None:
    plan = schedule(chain_case(0, 4), ENGINES["default"])
    emit_data(tmp_path, plan)
    found = json.loads((tmp_path / "memory.json").read_text(encoding="utf-8"))
    seal = found.pop("seal")
    assert sha256_value(found) == seal
    for name, digest in found.pop("sha256").items():
        assert sha256_file(tmp_path / name) == digest
    assert found == memory_map(plan)
    assert found["weight_beats"] == plan.weight_beats
    assert int(found["engine_id"], 16) == abi.engine_signature(plan.engine)
    program = (tmp_path / "program.bin").read_bytes()
    at = found["header"]["layers_at"]
    assert int.from_bytes(program[at : at + 2], "little") == 4
    assert found["header"]["bytes"] == 8 * abi.HEADER_WORDS
    assert found["feature_words"] == plan.feature_words
    assert found["program_words"] == 8 + 4 * 32
    assert found["weight_bytes"] == (tmp_path / "weights.bin").stat().st_size
    assert list(found["layers"]) == [layer.name for layer in plan.layers]
    last, tensor = found["layers"][plan.layers[-1].name], plan.layers[-1].result.tensor
    assert last == {
        "base": plan.layers[-1].result.base,
        "words": plan.layers[-1].result.words,
        "shape": [tensor.channels, 1, 1],
        "bits": 32,
        "signed": True,
        "exponent": tensor.exponent,
        "cycles": plan.layers[-1].cycles.total,
    }
    assert [port["memory"] for port in found["ports"]] == [port.memory for port in ports.PORTS]
    assert found["status_text"]["5"] == "the header is damaged"
    assert found["registers"]["status"] == 0x40
    assert found["status"]["bad_header"] == 5
