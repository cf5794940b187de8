# SPDX-License-Identifier: Apache-2.0
"""VGG networks of the library through all stages of quant to the integer graph: exact."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from codegen.check import check_graph
from codegen.ir import Winograd
from codegen.lower import lower_checkpoint
from quant.build import Build, load_quantized, load_stage
from quant.network.graph import BatchNorm, Dropout, Identity
from quant.run import STAGES, run_stage
from tests.engines import CACHE, expected_maps
from winnow.artefact import Record, load_arrays
from winnow.config import (
    ChannelPruningConfig,
    Config,
    DataConfig,
    ModelConfig,
    PruneConfig,
    QuantizeConfig,
    TrainConfig,
)

IMAGES = 20  # test images whose integers are compared


def config_of(name: str, width: float) -> Config:
    return Config(
        data=DataConfig(source="colour", image_size=32, train_images=100, test_images=100),
        model=ModelConfig(name=name, width=width),
        train=TrainConfig(epochs=1, batch=50),
        prune=PruneConfig(keep=2, steps=1, epochs=1),
        quantize=QuantizeConfig(weight_bits=(4, 8), budget_share=1.0, epochs=1),
    )


def climb(config: Config, out: Path) -> None:
    """Run all stages; golden integers, Brevitas and the interpreter must agree."""
    build = Build(config, out)
    for stage in STAGES.values():
        run_stage(stage, build)
    golden = load_arrays(out / "golden.npz", "")
    graph = lower_checkpoint(config, out)
    check_graph(graph)
    maps = expected_maps(graph, golden["images"][:IMAGES])
    assert {f"layer.{name}" for name in maps} == {n for n in golden if n.startswith("layer.")}
    for name, integers in maps.items():
        np.testing.assert_array_equal(golden[f"layer.{name}"][:IMAGES], integers)
    head = list(maps.values())[-1][:, :, 0, 0].argmax(1)
    with torch.no_grad():
        images = torch.from_numpy(golden["images"][:IMAGES]).double()
        logits = load_quantized(build)(images * 2.0**-8)
    np.testing.assert_array_equal(head, logits.argmax(1))
    right = golden[f"layer.{list(maps)[-1]}"][:, :, 0, 0].argmax(1) == golden["labels"]
    accuracy = Record.load(out / "golden.json", "").numbers["golden_accuracy"]
    assert accuracy == pytest.approx(100 * right.mean())
    assert sum(isinstance(node, Winograd) for node in graph.nodes) >= 8
    idle = (Dropout, Identity)
    assert not any(isinstance(node, idle) for node in load_quantized(build).graph.nodes)
    has_norm = any(isinstance(n, BatchNorm) for n in load_stage(build, "train").graph.nodes)
    assert has_norm == config.model.name.endswith("_bn")
    assert not any(isinstance(n, BatchNorm) for n in load_stage(build, "prune").graph.nodes)


def test_smallest_vgg_goes_to_the_graph(tmp_path: Path) -> None:
    climb(config_of("vgg_nagadomi_bn", 0.05), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "vgg_nagadomi", "vgg_nagadomi_bn"])
def test_library_vggs_go_to_the_graph(name: str, tmp_path: Path) -> None:
    config = config_of(name, 0.25)
    keys = ChannelPruningConfig(method="cascade", budget="flops", share=0.7, levels=1, epochs=1)
    climb(replace(config, prune_channels=keys) if name == "vgg16_bn" else config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "vgg_nagadomi", "vgg_nagadomi_bn"])
def test_library_vggs_go_to_rtl(name: str, tmp_path: Path, root: Path) -> None:
    """`make hls` on a narrow VGG: every rung equal, then the report."""
    config = tmp_path / f"{name}.toml"
    config.write_text(
        "[data]\nsource = 'colour'\nimage_size = 32\ntrain_images = 100\ntest_images = 100\n"
        f"[model]\nname = '{name}'\nwidth = 0.125\n[train]\nepochs = 1\nbatch = 50\n"
        "[prune]\nsteps = 1\nepochs = 1\n[quantize]\nbudget_share = 1.0\nepochs = 1\n"
    )
    out = CACHE.parent / "vggs" / name  # compiled engines are shared with later runs
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "winnow", "run", "--config", str(config), "--out", str(out)]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    for rung in ("interpreter", "HLS C++", "RTL"):
        assert f"  Brevitas (float64) = {rung:<14}" in run.stdout
    layers = Record.load(out / "rtlsim.json", "").numbers["stall_0"]["layer_cycles"]
    assert len(layers) == len(Record.load(out / "schedule.json", "").numbers["cycles"]) >= 10
