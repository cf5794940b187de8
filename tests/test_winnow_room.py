# SPDX-License-Identifier: Apache-2.0
"""What an engine surely needs of a part: refused before training, never more than Yosys counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from codegen.stages import check
from openhls.synth import synthesise, total
from tests.conftest import ROOT
from winnow.config import Config, ModelConfig, TargetConfig
from winnow.engine import EngineConfig
from winnow.errors import ConfigError
from winnow.flow import Build
from winnow.parts import find_part
from winnow.room import bank_brams, least_resources, require_room

# (bits, words of a half) -> BRAM36 of openhls_bank.sv, as Yosys maps it.
MEASURED = {
    (128, 512): 4,
    (44, 256): 1,
    (64, 512): 2,
    (128, 256): 2,
    (128, 128): 2,
    (88, 256): 1.5,
    (44, 64): 1,
    (128, 2048): 15,
    (128, 300): 4,
    (22, 256): 0.5,
    (64, 4096): 16,
    (192, 256): 3,
}


@pytest.mark.parametrize(("bits", "words"), MEASURED)
def test_banks_are_as_large_as_measured(bits: int, words: int) -> None:
    assert bank_brams(bits, words) == MEASURED[bits, words]


def test_small_banks_may_be_no_block_ram() -> None:
    assert bank_brams(44, 16) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "words"), [(88, 256), (128, 2048), (44, 64)])
def test_measured_banks_are_what_yosys_maps(bits: int, words: int, tmp_path: Path) -> None:
    text = (ROOT / "openhls" / "rtl" / "openhls_bank.sv").read_text()
    for name, default, value in (("WIDTH", 32, bits), ("DEPTH", 512, words)):
        text = text.replace(f"parameter int {name} = {default}", f"parameter int {name} = {value}")
    (tmp_path / "bank.sv").write_text(text)
    found = synthesise([tmp_path / "bank.sv"], "openhls_bank", tmp_path / "yosys.log")
    assert total(found.rows).bram == MEASURED[bits, words]


def test_default_engine_needs_less_than_all_of_it_was_measured_to_need() -> None:
    need = least_resources(EngineConfig())
    assert (need.dsp, need.bram) == (64, 80)  # all banks and RAMs: 93, docs/engine.md


def test_line_says_what_was_compared() -> None:
    assert require_room(EngineConfig(), find_part("xc7z020clg400-1")) == (
        "xc7z020clg400-1: lanes need 64 of 220 DSP, their banks 80 of 140 BRAM36; stage synth "
        "counts the rest, and LUTs and flip-flops"
    )


@pytest.mark.parametrize(
    ("engine", "part", "words"),
    [
        (EngineConfig(), "xc7z010clg400-1", "has 60 BRAM36, the banks of the lanes alone need 80;"),
        (EngineConfig(po=8), "xc7z010clg400-1", "has 80 DSP, the lanes need 128; choose a larger"),
    ],
)
def test_part_that_is_too_small_is_refused_by_check(
    engine: EngineConfig, part: str, words: str
) -> None:
    chain = ModelConfig(channels=(4,), pool_after=(1,))
    config = Config(model=chain, engine=engine, target=TargetConfig(part=part))
    with pytest.raises(ConfigError, match=rf"^target\.part: {part} {words}"):
        check.run(Build(config, Path("never")), {})


def test_check_prints_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    chain = ModelConfig(channels=(4,), pool_after=(1,))
    check.run(Build(replace(Config(), model=chain), Path("never")), {})
    assert capsys.readouterr().out.startswith("check: xc7z020clg400-1: lanes need 64 of 220 DSP,")
