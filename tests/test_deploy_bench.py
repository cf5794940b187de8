# SPDX-License-Identifier: Apache-2.0
"""What `make bench` says of driver and virtual boards, measured on a chain of four layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy import bench
from deploy.bench import LINES, BoardSpeeds
from sim import rtl
from tests.test_deploy_pynq import python_of
from tests.test_deploy_virtual_board import ENGINE, bundle  # noqa: F401
from tests.test_sim_rtl import harness, rtl_folder
from winnow.config import Config
from winnow.flow import Build

SPEEDS = BoardSpeeds(0.16, 0.15, 0.995, 71.5, 0.7, 0.2)


def test_floors_are_told_and_missed_ones_noted() -> None:
    rows = bench.format_bench(SPEEDS).splitlines()
    assert rows[0].startswith("boards, virtual, measured on this machine")
    assert rows[1].startswith("  driver, an image per start ")
    assert rows[1].split()[-4:] == ["s/image", "at", "most", "0.3"]
    assert rows[3].split()[-4:] == ["0.995", "at", "most", "1.05"]
    assert len(rows) == 1 + len(LINES)
    slow = bench.format_bench(replace(SPEEDS, pynq_seconds_per_image=1.5)).splitlines()
    assert slow[-1].split()[-6:] == ["1.5", "s/image", "at", "most", "1,", "missed"]
    without = replace(SPEEDS, pynq_open_seconds=None, pynq_seconds_per_image=None)
    assert bench.format_bench(without).count("needs: make setup-pynq") == 2


@pytest.fixture
def build(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:  # noqa: F811
    """The chain as a build, with the harness of the tests."""
    out = tmp_path / "chain"
    out.mkdir()
    (out / "bundle").symlink_to(bundle)
    (out / "rtl").symlink_to(rtl_folder(ENGINE))
    built = harness(ENGINE)
    monkeypatch.setattr(rtl, "build", lambda *_: built)
    monkeypatch.setattr(bench, "require_current", lambda *_, **__: None)
    monkeypatch.setattr(bench, "BATCH", 8)
    return Build(Config(), out)


def test_bench_measures_batches_and_the_wheel(
    build: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "FOLDER", Path("no-pynq"))
    bench.bench(build)
    rows = {line[2:28].strip(): line[28:].split() for line in capsys.readouterr().out.splitlines()}
    assert 0.9 < float(rows["cycles, batched to single"][0]) < 1.05
    assert float(rows["wheel, no bitstream"][0]) < 1000
    assert float(rows["driver, an image per start"][0]) > 0
    assert list(build.out.glob("*.whl")) == []


@pytest.mark.slow
def test_bench_measures_pynq_through_the_network(build: Build) -> None:
    python_of("4.0.0")
    found = bench.measure(build)
    assert found.pynq_open_seconds is not None
    assert found.pynq_seconds_per_image is not None
    assert 0 < found.pynq_open_seconds < 60
    assert 0 < found.pynq_seconds_per_image < 60
