# SPDX-License-Identifier: Apache-2.0
"""A keep for every layer: what it costs and loses, the best choice, and builds of it."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import quant.prune.methods as methods
from codegen.lower import lower_checkpoint
from quant.allocate.sizes import layer_shapes
from quant.build import load_pruned
from quant.layers.winograd_layer import WinogradConv2d
from quant.network.network import Network
from quant.network.rewrite import tap_layers, to_winograd
from quant.prune.keep_per_layer import chosen_keeps, keep_costs, keep_losses
from tests.engines import expected_maps
from tests.ladder import multiplies
from tests.test_quant_stages import TINY, build_at, run_all
from winnow.artefact import Record, load_arrays
from winnow.config import (
    Config,
    ModelConfig,
    PruneConfig,
    QuantizeConfig,
    TrainConfig,
    load_config,
)
from winnow.cycles import layer_cycles
from winnow.errors import ConfigError
from winnow.flow import BY_NAME

CONFIG = Config(prune=PruneConfig(method="magnitude", keep=3, per_layer=True))


def network() -> Network:
    """Two 3x3 convolutions with BatchNorm, a strided one and a classifier, all dense."""
    torch.manual_seed(0)
    parts = [
        *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 16, 5)),
    ]
    return to_winograd(Network.of(nn.Sequential(*parts), (8, 8, 8)), 2)


X = torch.randn(32, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def by_hand(net: Network, name: str, keep: int) -> float:
    """Prune one layer weight by weight; KL divergence with BatchNorm statistics of X."""
    pruned, dense = copy.deepcopy(net).train(), copy.deepcopy(net).train()
    layer = tap_layers(pruned)[name]
    u = layer.by_channel(layer.u.detach()).numpy().copy()
    for out, first, place in product(range(len(u)), range(0, u.shape[1], 8), range(u.shape[2])):
        row = u[out, first : first + 8, place]
        row[np.argsort(np.abs(row))[: len(row) - keep]] = 0
    layer.set_u(torch.from_numpy(u).view_as(layer.u))
    with torch.no_grad():
        p, q = dense(X).double().softmax(1), pruned(X).double().softmax(1)
    return float((p * (p / q).log()).sum(1).mean())


def test_loss_is_the_divergence_of_one_pruned_layer() -> None:
    net = network()
    names = list(tap_layers(net))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    lost = keep_losses(CONFIG, net, names, X)
    for row, name in enumerate(names):
        for keep in (1, 3, 7):
            assert lost[row, keep - 1] == pytest.approx(by_hand(net, name, keep), rel=1e-3)
        assert lost[row, 7] == 0
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_loss_of_whole_kernels_prunes_all_taps_alike() -> None:
    net = network()
    name = next(iter(tap_layers(net)))
    layer = tap_layers(net)[name]
    assert isinstance(layer, WinogradConv2d)
    layer.load_spatial(
        torch.arange(16 * 8)[:, None, None].remainder(8).view(16, 8, 1, 1)
        + 0.1
        + torch.zeros(16, 8, 3, 3)
    )
    kernels = replace(CONFIG, prune=replace(CONFIG.prune, method="kernels"))
    lost = keep_losses(kernels, net, [name], X)[0]
    dense = copy.deepcopy(net).train()
    u = layer.u.detach().clone()
    u[:, :6] = 0  # the two largest kernels of eight are the last ones
    layer.set_u(u)
    with torch.no_grad():
        p, q = dense(X).softmax(1), net.train()(X).softmax(1)
    assert lost[1] == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-3)


def test_choice_is_the_best_of_all_within_the_cycles() -> None:
    net = network()
    layers = dict(list(tap_layers(net).items())[1:])
    names = list(layers)
    cost, allowed = keep_costs(CONFIG, net, names)
    lost = keep_losses(CONFIG, net, names, X)
    assert allowed == cost[:, 2].sum()
    best = min(
        sum(lost[row, column] for row, column in enumerate(columns))
        for columns in product(range(8), repeat=len(names))
        if sum(cost[row, column] for row, column in enumerate(columns)) <= allowed
    )
    chosen = chosen_keeps(CONFIG, net, layers, X)
    columns = [chosen[name] - 1 for name in names]
    assert sum(cost[row, column] for row, column in enumerate(columns)) <= allowed
    assert sum(lost[row, column] for row, column in enumerate(columns)) == pytest.approx(best)
    assert len(set(chosen.values())) > 1


WIDE = replace(
    TINY,
    model=ModelConfig(channels=(8, 16, 16), pool_after=(1, 3), exit_after=(1,)),
    train=TrainConfig(epochs=1, batch=128),
    quantize=QuantizeConfig(epochs=1),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a trained build; tests must not change them."""
    out = tmp_path_factory.mktemp("trained")
    run_all(build_at(out, WIDE), ("train", "prune_channels"))
    return out


@pytest.mark.parametrize("method", ["magnitude", "kernels"])
def test_build_keeps_what_was_chosen(
    trained: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune = PruneConfig(method=method, keep=4, per_layer=True, steps=1, epochs=1)
    config, asked = replace(WIDE, prune=prune), dict[str, int]()
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    build = build_at(tmp_path, config)

    def noted(*task: Any) -> dict[str, int]:
        asked.update(chosen_keeps(*task))
        return asked

    monkeypatch.setattr(methods, "chosen_keeps", noted)
    run_all(build, ("prune", "bits", "qat", "golden"))
    measured = Record.load(tmp_path / "prune.json", "").numbers["keep"]
    assert asked == {name: measured[name] for name in asked}
    assert len(set(asked.values())) > 1
    graph = lower_checkpoint(config, tmp_path)
    assert {layer.name: layer.keep for layer in multiplies(graph)} == measured
    golden = load_arrays(tmp_path / "golden.npz", "")
    for name, integers in expected_maps(graph, golden["images"][:20]).items():
        np.testing.assert_array_equal(golden[f"layer.{name}"][:20], integers)
    net = load_pruned(build)
    shapes = layer_shapes(net, measured, dict.fromkeys(measured, 8))
    widest = {name: layer_cycles(config.engine, shapes[name], name).total for name in measured}
    priced = Record.load(tmp_path / "bits.json", "").numbers["cost"]
    assert {name: row[-1] for name, row in priced.items()} == widest


def test_pruning_reads_the_engine_only_to_choose_keeps() -> None:
    plain = replace(CONFIG, prune=PruneConfig())
    assert "engine" in BY_NAME["prune"].keys_of(CONFIG)
    assert "engine" not in BY_NAME["prune"].keys_of(plain)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "per_tap = true\nper_layer = true",
            "prune.per_layer is for sub-rows of 8 whose taps keep the same number, got true beside "
            "prune.per_tap True and prune.sub_row 8; remove one of them",
        ),
        (
            "sub_row = 16\nper_layer = true",
            "prune.per_layer is for sub-rows of 8 whose taps keep the same number, got true beside "
            "prune.per_tap False and prune.sub_row 16; remove one of them",
        ),
        (
            "per_layer = true\n[quantize]\nbudget_share = 0.9",
            "quantize.budget_share must be 0 with prune.per_layer, as which share the widths can "
            "reach is known after pruning only; got 0.9",
        ),
    ],
)
def test_what_per_layer_does_not_go_with_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(f"[prune]\n{text}\n")
    with pytest.raises(ConfigError) as found:
        load_config(path)
    assert str(found.value).endswith(message)


def test_a_network_whose_layers_are_all_skipped_has_no_keeps() -> None:
    assert chosen_keeps(CONFIG, network(), {}, X) == {}
