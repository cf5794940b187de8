# SPDX-License-Identifier: Apache-2.0
"""PCNN with n weights a kernel in every layer: the storage it may take, the best choice, builds."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import quant.prune.methods as methods
from codegen.lower import lower_checkpoint
from quant.build import load_pruned, load_quantized
from quant.network.network import Network
from quant.network.rewrite import tap_layers
from quant.prune.pattern import distil
from quant.prune.places_per_layer import chosen_places, place_costs, place_losses
from tests.engines import expected_maps
from tests.test_quant_prune_keep_per_layer import WIDE, X, network
from tests.test_quant_prune_pattern import kernels_of_u, non_zeros
from tests.test_quant_stages import build_at, run_all
from winnow.artefact import Record, load_arrays
from winnow.config import Config, PruneConfig, load_config
from winnow.flow import BY_NAME

PRUNE = PruneConfig(method="pattern", pattern_keep=3, patterns=8, per_layer=True, epochs=2)
CONFIG = Config(prune=PRUNE)


def by_hand(net: Network, name: str, places: int) -> float:
    """Prune one layer kernel by kernel; KL divergence with BatchNorm statistics of X."""
    pruned, dense = copy.deepcopy(net).train(), copy.deepcopy(net).train()
    layer = tap_layers(pruned)[name]
    u = layer.u.detach()
    is_winograd = u.shape[2] == 16
    kernels = kernels_of_u(u) if is_winograd else u.numpy().reshape(len(u), -1, 9)
    patterns = distil(torch.from_numpy(kernels).flatten(0, 1).float(), places, 8).numpy()
    for out, row in product(range(kernels.shape[0]), range(kernels.shape[1])):
        energy = patterns @ np.square(kernels[out, row])
        kernels[out, row] *= patterns[int(energy.argmax())]
    layer.load_spatial(torch.from_numpy(kernels).float().unflatten(2, (3, 3)))
    with torch.no_grad():
        p, q = dense(X).double().softmax(1), pruned(X).double().softmax(1)
    return float((p * (p / q).log()).sum(1).mean())


def test_loss_is_the_divergence_of_one_pruned_layer() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    names = list(tap_layers(net))[:3]  # two of the Winograd domain and a strided one
    lost = place_losses(CONFIG, net, names, X)
    assert lost.shape == (3, 9)
    for row, name in enumerate(names):
        for places in (1, 4):
            assert lost[row, places - 1] == pytest.approx(by_hand(net, name, places), rel=1e-3)
        assert lost[row, 8] == 0
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_storage_is_that_of_the_patterns_there_are() -> None:
    layers = {name: layer for name, layer in tap_layers(network()).items() if name != "8"}
    cost = place_costs(replace(PRUNE, patterns=16), layers)
    for row, kernels in zip(cost, (8 * 16, 16 * 16, 16 * 24), strict=False):
        assert row[0] == kernels * (4 + 8) + 9 * 9  # 9 patterns of one place
        assert row[3] == kernels * (4 + 32) + 16 * 9
        assert row[8] == kernels * 72 + 9  # one pattern needs no index


def test_choice_is_the_best_of_all_within_the_storage() -> None:
    net = network()
    layers = dict(list(tap_layers(net).items())[:3])
    cost = place_costs(PRUNE, layers)
    lost = place_losses(CONFIG, net, list(layers), X)
    allowed = sum(row[2] for row in cost)

    def total(table: np.ndarray, columns: tuple[int, ...]) -> float:
        return sum(table[row, column] for row, column in enumerate(columns))

    best = min(
        total(lost, columns)
        for columns in product(range(9), repeat=3)
        if total(cost, columns) <= allowed
    )
    chosen = chosen_places(CONFIG, net, tap_layers(net), X)  # the classifier has no kernels
    assert list(chosen) == list(layers)
    columns = tuple(places - 1 for places in chosen.values())
    assert total(cost, columns) <= allowed
    assert total(lost, columns) == pytest.approx(best)
    assert len(set(chosen.values())) > 1


def test_build_has_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the pruned network, in the record, and after quantization-aware training."""
    config, asked = replace(WIDE, prune=PRUNE), dict[str, int]()

    def noted(*task: Any) -> dict[str, int]:
        names = chosen_places(*task)
        asked.update(zip(names, (2, 4), strict=True))  # others than the best, and unlike
        return asked

    monkeypatch.setattr(methods, "chosen_places", noted)
    build = build_at(tmp_path, config)
    run_all(build)
    numbers = Record.load(tmp_path / "prune.json", "").numbers
    assert numbers["pattern_keep"] == asked
    assert len(set(asked.values())) == 2
    layers, trained = tap_layers(load_pruned(build)), tap_layers(load_quantized(build))
    stored = 0
    for name, places in asked.items():
        kernels = kernels_of_u(layers[name].u)
        assert (non_zeros(kernels) == places).all()
        after = kernels_of_u(trained[name].u)
        assert np.abs(after[np.abs(kernels) < 1e-4]).max() < 1e-5
        patterns = numbers["patterns"][name]
        assert {text.count("1") for text in patterns} == {places}
        index = (len(patterns) - 1).bit_length()
        stored += kernels[:, :, 0].size * (index + 8 * places) + 9 * len(patterns)
    assert numbers["storage"]["stored_bits"] == stored
    golden = load_arrays(tmp_path / "golden.npz", "")
    graph = lower_checkpoint(config, tmp_path)
    for name, integers in expected_maps(graph, golden["images"][:20]).items():
        np.testing.assert_array_equal(golden[f"layer.{name}"][:20], integers)


def test_patterns_per_layer_read_no_engine(tmp_path: Path) -> None:
    """Storage decides, not cycles: so widths may have a budget of their own."""
    assert "engine" not in BY_NAME["prune"].keys_of(CONFIG)
    path = tmp_path / "fine.toml"
    text = 'method = "pattern"\nper_layer = true\n[quantize]\nbudget_share = 0.9\n'
    path.write_text(f"[prune]\n{text}")
    assert load_config(path).prune.per_layer
