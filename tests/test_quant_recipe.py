# SPDX-License-Identifier: Apache-2.0
"""The full digits recipe: accuracy, sparsity and mixed widths, as the project promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codegen.lower import lower_checkpoint
from quant.build import Build
from quant.run import STAGES, run_stage
from tests.ladder import multiplies
from winnow.artefact import Record
from winnow.config import load_config

MAX_LOSS = 1.0  # percentage points between fp32 and quantized
MIN_ACCURACY = 97.0


@pytest.mark.slow
def test_digits_recipe_keeps_its_promises(root: Path, tmp_path: Path) -> None:
    config = load_config(root / "configs/digits.toml")
    build = Build(config, tmp_path, torch.device("cpu"))
    for stage in STAGES.values():
        run_stage(stage, build)
    numbers = {name: Record.load(tmp_path / f"{name}.json", "").numbers for name in STAGES}
    fp32, quantized = numbers["train"]["fp32_accuracy"], numbers["qat"]["quantized_accuracy"]
    assert quantized >= MIN_ACCURACY
    assert quantized >= fp32 - MAX_LOSS
    keep = numbers["prune"]["keep"]
    assert keep == {"conv1": 1, "conv2": 2, "conv3": 2, "conv4": 2, "fc": 2}
    graph = lower_checkpoint(config, tmp_path)
    assert {layer.name: layer.keep for layer in multiplies(graph)} == keep
    assert len(set(numbers["bits"]["bits"].values())) >= 2
