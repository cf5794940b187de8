# SPDX-License-Identifier: Apache-2.0
"""`make networks`: whole networks of the library through every rung, and their table."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from sim import csim, networks, rtl
from sim.networks import (
    NARROW,
    Engines,
    Keeps,
    NetworkRun,
    Wanted,
    engine_of,
    format_table,
    run_network,
)
from tests.engines import ENGINES, compiled
from tests.test_sim_rtl import LONG, harness
from winnow.engine import EngineConfig
from winnow.errors import ConfigError


@dataclass(frozen=True)
class Ready:
    """The compiled engines of the ladder in the place of new ones."""

    out: Path
    config: EngineConfig
    cpp: csim.Engine
    harness: rtl.Harness


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    ready = Ready(tmp_path / "out", ENGINES["default"], compiled("default"), harness("default"))
    return cast(Engines, ready)


def require_sound(run: NetworkRun) -> None:
    assert run.macs > 0
    assert run.measured > LONG
    assert run.measured == pytest.approx(run.modelled, rel=0.05)
    assert run.stalled > run.measured
    assert set(run.seconds) == set(networks.STAGES)


def test_small_network_is_exact_at_every_rung(engines: Engines) -> None:
    run = run_network(Wanted("resnet8", 0.5, 32), engines)
    require_sound(run)
    assert run.layers == 11  # an average


def test_imagenet_form_of_a_resnet_is_exact_at_every_rung(engines: Engines) -> None:
    """A 7x7 stem of stride 2, a 3x3 pool of stride 2, four stages, an average."""
    run = run_network(Wanted("resnet18", 0.125, 72), engines)
    require_sound(run)
    assert run.layers == 23  # 20 convolutions, the classifier, the pool, the average


@pytest.mark.slow
@pytest.mark.parametrize("text", NARROW)
def test_narrow_networks_are_exact_at_every_rung(text: str, engines: Engines) -> None:
    require_sound(run_network(Wanted.of(text), engines))


def test_networks_are_named_by_width_and_edge() -> None:
    assert Wanted.of("resnet18:0.125:72") == Wanted("resnet18", 0.125, 72)
    assert Wanted.of("vgg16") == Wanted("vgg16", 1.0, 32)
    assert Wanted.of("vgg16:0.5") == Wanted("vgg16", 0.5, 32)
    assert str(Wanted.of("resnet18:0.50:72")) == "resnet18:0.5:72"
    assert [str(Wanted.of(text)) for text in NARROW] == list(NARROW)
    for text in ("resnet18:a", "resnet18:1:2:3", "resnet18:1:x"):
        with pytest.raises(ConfigError) as caught:
            Wanted.of(text)
        assert str(caught.value) == (
            f"network '{text}': must be NAME:WIDTH:EDGE such as resnet18:0.125:72"
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chain", "NAME must be one of vgg16, vgg16_bn, "),
        ("", "NAME must be one of vgg16, vgg16_bn, "),
        ("resnet8:0:32", "WIDTH must be above 0 and at most 16, EDGE 1..1024"),
        ("resnet8:nan:32", "WIDTH must be above 0 and at most 16, EDGE 1..1024"),
        ("resnet8:1:-3", "WIDTH must be above 0 and at most 16, EDGE 1..1024"),
        ("vgg16:1:20", "EDGE of vgg16 must be at least 32"),
    ],
)
def test_network_is_refused_before_another_runs(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["networks", "resnet8", text, "--out", str(tmp_path / "x")])
    with pytest.raises(ConfigError, match=rf"^network '{text}': {re.escape(words)}"):
        networks.main()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["v_words"], "engine 'v_words': must be KEY=NUMBER such as v_words=576"),
        (["v_words=-1"], "engine 'v_words=-1': must be KEY=NUMBER such as v_words=576"),
        (["v_words=8"], "engine.v_words must be an integer in 16..4096, got 8"),
    ],
)
def test_engine_of_a_wrong_setting_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        engine_of(settings)
    assert str(caught.value) == message


def test_engine_and_keep_of_the_command_line() -> None:
    assert engine_of(["v_words=576", "w_words=512"]) == EngineConfig(v_words=576, w_words=512)
    assert engine_of([]) == EngineConfig()
    Keeps(8, 0)
    with pytest.raises(ConfigError, match=r"^keep 9: must be 1\.\.8$"):
        Keeps(9)
    with pytest.raises(ConfigError, match=r"^first-keep -1: must be 0\.\.8$"):
        Keeps(2, -1)


def test_table_and_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def pretend(wanted: Wanted, engines: Engines, keeps: Keeps) -> NetworkRun:
        assert (engines.config, keeps) == (EngineConfig(v_words=576), Keeps(8, 3))
        seconds = dict.fromkeys(networks.STAGES, 1.25)
        return NetworkRun(wanted, 3, 1000, 990, 1000, 0 if wanted.edge > 32 else 1100, seconds)

    monkeypatch.setattr(networks, "run_network", pretend)
    words = ["networks", "resnet18:1:224", "resnet8", "--out", str(tmp_path / "x" / "networks")]
    words += ["--keep", "8", "--first-keep", "3", "--engine", "v_words=576"]
    monkeypatch.setattr(sys, "argv", words)
    networks.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "resnet18:1:224: Brevitas (float64) = interpreter = C++ = RTL on every map"
    head, large, small = lines[2:]
    assert head.split()[:4] == ["network", "layers", "MACs", "modelled"]
    assert large.split()[:8] == [
        *("resnet18:1:224", "3", "1000", "990", "1000", "-1.0", "%", "-"),
    ]
    assert small.split()[7] == "1100"
    assert len({len(line) for line in (head, large, small)}) == 1
    assert format_table([]).startswith("network")
