# SPDX-License-Identifier: Apache-2.0
"""Networks of the library through all stages of quant to the integer graph, and to RTL: exact."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from codegen.check import check_graph
from codegen.ir import Add, Direct, GlobalAverage, Graph, Node, Winograd
from codegen.lower import lower_checkpoint
from codegen.schedule import schedule
from quant.allocate.sizes import layer_shapes, measured_keeps, pool_shapes
from quant.build import Build, load_bits, load_quantized, load_stage
from quant.golden import layer_names
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
VGGS = ("vgg16", "vgg16_bn", "vgg_nagadomi", "vgg_nagadomi_bn")
RESNETS = ("resnet8", "resnet20", "resnet18", "resnet34", "resnet50")
# What makes the network: direct convolutions are strided or 1x1.
NODES: dict[str, dict[type[Node], int]] = {
    "resnet8": {Winograd: 5, Direct: 4, Add: 3, GlobalAverage: 1},
    "resnet20": {Winograd: 17, Direct: 4, Add: 9, GlobalAverage: 1},
    "resnet18": {Winograd: 14, Direct: 6, Add: 8, GlobalAverage: 1},
    "resnet34": {Winograd: 30, Direct: 6, Add: 16, GlobalAverage: 1},
    "resnet50": {Winograd: 14, Direct: 39, Add: 16, GlobalAverage: 1},
    "vgg_nagadomi_bn": {Winograd: 8},
    "vgg_nagadomi": {Winograd: 8},
    "vgg16": {Winograd: 13},
    "vgg16_bn": {Winograd: 13},
}


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
    require_shapes(build, graph)
    head = list(maps.values())[-1][:, :, 0, 0].argmax(1)
    with torch.no_grad():
        images = torch.from_numpy(golden["images"][:IMAGES]).double()
        logits = load_quantized(build)(images * 2.0**-8)
    np.testing.assert_array_equal(head, logits.argmax(1))
    right = golden[f"layer.{list(maps)[-1]}"][:, :, 0, 0].argmax(1) == golden["labels"]
    accuracy = Record.load(out / "golden.json", "").numbers["golden_accuracy"]
    assert accuracy == pytest.approx(100 * right.mean())
    counts = Counter(type(node) for node in graph.nodes)
    assert {kind: counts[kind] for kind in NODES[config.model.name]} == NODES[config.model.name]
    idle = (Dropout, Identity)
    assert not any(isinstance(node, idle) for node in load_quantized(build).graph.nodes)
    has_norm = any(isinstance(n, BatchNorm) for n in load_stage(build, "train").graph.nodes)
    assert has_norm == (config.model.name.endswith("_bn") or config.model.name in RESNETS)
    assert not any(isinstance(n, BatchNorm) for n in load_stage(build, "prune").graph.nodes)


def require_shapes(build: Build, graph: Graph) -> None:
    """The cycle budgets saw the layers that are scheduled; rounding may only empty sub-rows."""
    net = load_quantized(build)
    bits = {name: choice.weight for name, choice in load_bits(build).items()}
    names = layer_names(net.graph)
    shapes = layer_shapes(net, measured_keeps(net), bits) | pool_shapes(net.graph)
    seen = {names[n]: shape for n, shape in shapes.items()}
    plans = {plan.name: plan.shape for plan in schedule(graph, build.config.engine).layers}
    assert {n: replace(s, keep=0) for n, s in seen.items()} == {
        n: replace(s, keep=0) for n, s in plans.items()
    }
    assert all(plans[n].keep <= shape.keep for n, shape in seen.items())


def test_smallest_vgg_goes_to_the_graph(tmp_path: Path) -> None:
    climb(config_of("vgg_nagadomi_bn", 0.05), tmp_path)


def test_smallest_resnet_goes_to_the_graph(tmp_path: Path) -> None:
    climb(config_of("resnet8", 0.5), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", RESNETS[1:])
def test_library_resnets_go_to_the_graph(name: str, tmp_path: Path) -> None:
    config = config_of(name, 0.125)
    keys = ChannelPruningConfig(method="cascade", budget="cycles", share=0.8, levels=1, epochs=1)
    climb(replace(config, prune_channels=keys) if name == "resnet18" else config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", VGGS)
def test_library_vggs_go_to_the_graph(name: str, tmp_path: Path) -> None:
    config = config_of(name, 0.25)
    keys = ChannelPruningConfig(method="cascade", budget="flops", share=0.7, levels=1, epochs=1)
    climb(replace(config, prune_channels=keys) if name == "vgg16_bn" else config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VGGS, *RESNETS])
def test_library_networks_go_to_rtl(name: str, tmp_path: Path, root: Path) -> None:
    """`make hls` on a narrow network: every rung equal, then the report."""
    config = tmp_path / f"{name}.toml"
    config.write_text(
        "[data]\nsource = 'colour'\nimage_size = 32\ntrain_images = 100\ntest_images = 100\n"
        f"[model]\nname = '{name}'\nwidth = 0.125\n[train]\nepochs = 1\nbatch = 50\n"
        "[prune]\nsteps = 1\nepochs = 1\n[quantize]\nbudget_share = 1.0\nepochs = 1\n"
    )
    out = CACHE.parent / "networks" / name  # compiled engines are shared with later runs
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "winnow", "run", "--config", str(config), "--out", str(out)]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    for rung in ("interpreter", "HLS C++", "RTL"):
        assert f"  Brevitas (float64) = {rung:<14}" in run.stdout
    layers = Record.load(out / "rtlsim.json", "").numbers["stall_0"]["layer_cycles"]
    assert len(layers) == len(Record.load(out / "schedule.json", "").numbers["cycles"]) >= 10
