# SPDX-License-Identifier: Apache-2.0
"""What `check` accepts fails in no later stage: users' networks, trained for one epoch each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.golden import load_golden
from codegen.lower import lower_checkpoint
from codegen.schedule import schedule
from codegen.stages import check, lower
from quant.build import Build
from quant.run import STAGES, run_stage
from tests.conftest import ROOT
from tests.own import either, good
from tests.test_own_networks import NAMED, networks
from winnow.config import Config, DataConfig, ModelConfig, PruneConfig, QuantizeConfig, TrainConfig

NETWORKS: dict[str, dict[str, Callable[..., Any]]] = {
    "good": networks(good, "conv", "tail", "Conv3", "with_arguments"),
    "either": networks(either),
}
SHORT = {
    "train": TrainConfig(epochs=1),
    "prune": PruneConfig(epochs=1, steps=1),
    "quantize": QuantizeConfig(epochs=1),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("data")
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 16, 16), np.uint8)
    np.savez(folder / "x.npz", images=images, labels=np.arange(60) % 10)
    return DataConfig(source="npz", path="x.npz", base=folder, mean=(0.3,), std=(0.4,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file, found in NETWORKS.items() for name in found]
)
def test_what_check_accepts_fails_nowhere_later(
    file: str, name: str, data: DataConfig, tmp_path: Path
) -> None:
    model = ModelConfig(name=f"own/{file}.py:{name}", base=ROOT / "tests")
    build = Build(Config(data=data, model=model, **SHORT), tmp_path / "out", config_path="x.toml")
    layers, refusal = 0, ""
    try:
        layers = check.run(build, {}).numbers["layers"]
    except NAMED as error:
        refusal = str(error)
    if refusal:
        assert file == "either" or "data.mean" in refusal
        return
    for stage in STAGES.values():
        run_stage(stage, build)
    assert lower.run(build, {}).numbers["layers"] == layers
    plan = schedule(lower_checkpoint(build.config, build.out), build.config.engine)
    assert set(load_golden(build).layers) == {layer.name for layer in plan.layers}
