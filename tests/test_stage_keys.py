# SPDX-License-Identifier: Apache-2.0
"""A stage reads only the configuration keys it declares, so that no change of another is missed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import deploy.stages.bundle
import sim.stages.csim
import sim.stages.rtl
import sim.stages.rtlsim
import sim.stages.synth
from codegen.emit import abi_header
from quant.build import Build
from quant.train.resume import Resume
from tests.test_quant_stages import TINY
from winnow.config import (
    ChannelPruningConfig,
    Config,
    DistillConfig,
    ModelConfig,
    PruneConfig,
    QuantizeConfig,
    TrainConfig,
)
from winnow.flow import BY_NAME, STAGES, Stage, record_run
from winnow.parts import find_part

SHORT = replace(
    TINY,
    train=TrainConfig(epochs=1, batch=256),
    prune=PruneConfig(steps=1, epochs=1),
    quantize=QuantizeConfig(budget_share=1.0, epochs=1),
)
EIGHTS = ModelConfig(channels=(16, 16), pool_after=(1, 2), exit_after=(1,))
VARIANTS = {
    "plain": SHORT,
    "narrowed by cycles": replace(
        SHORT,
        model=EIGHTS,
        prune_channels=ChannelPruningConfig(method="cascade", share=0.9, levels=1, epochs=1),
    ),
    "narrowed by parameters": replace(
        SHORT,
        model=EIGHTS,
        prune_channels=ChannelPruningConfig(
            method="structure", budget="parameters", share=0.9, block_epochs=1, epochs=1
        ),
    ),
    "patterns, features, bops": replace(
        SHORT,
        prune=PruneConfig(method="pattern", epochs=2),
        distill=DistillConfig(feature=1.0, schedule="cosine"),
        quantize=QuantizeConfig(budget="bops", budget_share=1.0, epochs=1, sensitivity="hessian"),
    ),
    "keeps by cycles": replace(
        SHORT,
        prune=PruneConfig(steps=1, epochs=1, per_layer=True),
        quantize=QuantizeConfig(epochs=1),
    ),
    "exit": replace(SHORT, model=replace(TINY.model, exit=1)),
}


def recording(section: Any, prefix: str, seen: set[str]) -> Any:
    """Return a copy of a configuration that notes in `seen` every key that is read."""
    names = {f.name for f in fields(section)}

    class Recording(type(section)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if name in names and not is_dataclass(object.__getattribute__(self, name)):
                seen.add(prefix + name)
            return object.__getattribute__(self, name)

        def __hash__(self) -> int:
            return hash(tuple(getattr(self, name) for name in names))

    made = object.__new__(Recording)
    for name in names:
        value = getattr(section, name)
        if is_dataclass(value):
            value = recording(value, f"{prefix}{name}.", seen)
        object.__setattr__(made, name, value)
    return made


def undeclared(stage: Stage, config: Config, seen: set[str]) -> set[str]:
    """Return the keys that were read but are not declared, by section or by themselves."""
    declared = set(stage.keys_of(config))
    return {key for key in seen if not {key, key.partition(".")[0]} & declared}


def test_recording_sees_reads_of_all_kinds() -> None:
    seen: set[str] = set()
    config = recording(SHORT, "", seen)
    assert (config.prune.keep, config.seed) == (2, 0)
    replace(config.engine, po=2)
    assert {"prune.keep", "seed", "engine.m", "engine.po"} <= seen
    assert not any(key.startswith(("data", "train", "prune.method")) for key in seen)
    stage = Stage("s", "", "", ("engine.m", "prune"))
    assert undeclared(stage, SHORT, {"engine.m", "engine.po", "prune.keep", "seed"}) == {
        "engine.po",
        "seed",
    }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes long and reads no configuration: compilers and simulators."""
    design = SimpleNamespace(reports={}, instances=0, seconds=0.0, files=(), rows=dict)
    monkeypatch.setattr(sim.stages.rtl, "compile_design", lambda *_: design)
    monkeypatch.setattr(sim.stages.rtl, "lint", lambda *_: None)
    monkeypatch.setattr(sim.stages.rtl.rtl, "rtl_sources", lambda _: [])
    monkeypatch.setattr(sim.stages.csim.csim, "build", lambda *_: None)
    monkeypatch.setattr(sim.stages.csim, "compare", lambda *_: (1, 1.0))
    monkeypatch.setattr(sim.stages.rtlsim.rtl, "build", lambda _, engine, __: abi_header(engine))
    monkeypatch.setattr(sim.stages.rtlsim, "require_golden", lambda *_: 1)

    def simulated(_: object, plan: Any, images: np.ndarray, **__: object) -> SimpleNamespace:
        cycles = [[1] * len(plan.layers)] * len(images)
        return SimpleNamespace(maps={}, cycles=[1] * len(images), layer_cycles=cycles)

    monkeypatch.setattr(sim.stages.rtlsim.rtl, "run", simulated)
    monkeypatch.setattr(deploy.stages.bundle, "drive", lambda *_: ({}, 0.0))
    monkeypatch.setattr(deploy.stages.bundle, "require_golden", lambda *_: 1)
    whole = find_part(SHORT.target.part).device.resources
    found = SimpleNamespace(rows=[], inter_module_path=SimpleNamespace(_asdict=dict))
    monkeypatch.setattr(sim.stages.synth, "synthesise", lambda *_: found)
    monkeypatch.setattr(sim.stages.synth, "group_rows", lambda _: [])
    monkeypatch.setattr(sim.stages.synth, "total", lambda _: whole)


def read_by_stages(config: Config, out: Path) -> dict[str, set[str]]:
    """Run all stages on a recording configuration; return the keys that each has read."""
    read = {}
    for stage in (stage for stage in STAGES if not stage.optional):
        seen: set[str] = set()
        build = Build(recording(config, "", seen), out)
        module = import_module(stage.module)
        if stage.folder == "quant":
            result = module.run(build, Resume(out / f"{stage.name}.resume.npz", "", ""))
        else:
            result = module.run(build, {})
        read[stage.name] = set(seen)
        record_run(stage, replace(build, config=config), lambda _, made=result: made)
    return read


@pytest.mark.usefixtures("quick")
def test_stages_read_what_they_declare(tmp_path: Path) -> None:
    """No more, in any variant; and nothing is declared that no variant reads."""
    read: dict[str, set[str]] = {stage.name: set() for stage in STAGES}
    declared: dict[str, set[str]] = {stage.name: set() for stage in STAGES if not stage.optional}
    for variant, config in VARIANTS.items():
        for name, seen in read_by_stages(config, tmp_path / variant.replace(" ", "_")).items():
            assert undeclared(BY_NAME[name], config, seen) == set(), (variant, name)
            read[name] |= seen
            declared[name] |= set(BY_NAME[name].keys_of(config))
    unread = {
        name: sorted(k for k in keys if not any(k in (r, r.partition(".")[0]) for r in read[name]))
        for name, keys in declared.items()
    }
    assert unread == {name: [] for name in declared}
