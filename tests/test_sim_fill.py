# SPDX-License-Identifier: Apache-2.0
"""The fit of the cycle model's one number to measured cycles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from codegen.schedule import Schedule, schedule
from sim import fill
from tests.builds import play_all
from tests.engines import chain_case
from winnow.config import Config
from winnow.cycles import FILL_CYCLES
from winnow.engine import EngineConfig
from winnow.errors import ArtefactError
from winnow.flow import STAGES, Build


@pytest.fixture
def plan() -> Schedule:
    return schedule(chain_case(3, 3), EngineConfig())


def test_fit_is_the_median_of_what_the_layers_ask_for(plan: Schedule) -> None:
    modelled = {layer.name: layer.cycles.total for layer in plan.layers}
    first, second, third = modelled
    measured = {first: modelled[first] + 9, second: modelled[second] + 1, third: modelled[third]}
    found = fill.fits(plan.engine, plan.layers, measured)
    assert [fit.fill - FILL_CYCLES for fit in found] == [9, 1, 0]
    text = fill.format_fits(found)
    assert text.endswith(
        f"FILL_CYCLES = {FILL_CYCLES + 1} fits best; winnow/cycles.py has {FILL_CYCLES}"
    )
    error = 100 * (measured[first] / (modelled[first] + 1) - 1)
    assert f"{measured[first]:>10}{FILL_CYCLES + 9:>13}{error:>+6.1f} %\n" in text


def test_fit_follows_the_model_of_today(plan: Schedule) -> None:
    """Cycles that an older model has left in schedule.json have no say."""
    old = [replace(layer, cycles=replace(layer.cycles, total=1)) for layer in plan.layers]
    measured = {layer.name: layer.cycles.total for layer in plan.layers}
    assert {fit.fill for fit in fill.fits(plan.engine, old, measured)} == {FILL_CYCLES}


def test_verb_reads_the_run_without_stalls(
    plan: Schedule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cycles = {layer.name: layer.cycles.total + 5 for layer in plan.layers}
    numbers = {"stall_0": {"layer_cycles": cycles}, "stall_30": {"layer_cycles": {}}}
    build = Build(Config(), tmp_path)
    with pytest.raises(ArtefactError, match="stage 'train' must run first: it has not run"):
        fill.fill(build)
    play_all(build, [stage.name for stage in STAGES if not stage.optional], {"rtlsim": numbers})
    monkeypatch.setattr(fill, "read_schedule", lambda _: plan)
    fill.fill(build)
    assert f"FILL_CYCLES = {FILL_CYCLES + 5} fits best" in capsys.readouterr().out
