# SPDX-License-Identifier: Apache-2.0
"""PCNN: the patterns chosen are good, kernels keep them, and training never loses them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from codegen.lower import lower_checkpoint
from quant.build import load_bits, load_pruned, load_quantized, quantized_network
from quant.data import to_input
from quant.layers.quantizers import scale_of
from quant.layers.winograd_layer import DirectConv2d, Window, WinogradConv2d
from quant.network.calibrate import calibrate
from quant.network.rewrite import tap_layers
from quant.prune.kernel import hold_pattern, kernel_of, release, through_kernel
from quant.prune.methods import new_pruner
from quant.prune.pattern import all_patterns, distil, kept_energy, nearest
from quant.prune.storage import pack, unpack
from quant.results import SAMPLE_IMAGES
from quant.run import STAGES, run_stage
from tests.engines import expected_maps
from tests.ladder import multiplies
from tests.test_quant_stages import TINY, build_at, interrupt_after, run_all
from winnow.artefact import Record, load_arrays
from winnow.config import PruneConfig, load_config
from winnow.errors import ConfigError

PATTERN = PruneConfig(method="pattern", pattern_keep=3, patterns=8, epochs=4, rho=0.1)
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])  # Lavin & Gray, F(2, 3)


def kernels_of_u(u: torch.Tensor) -> np.ndarray:
    """Return the 3x3 kernels [oc, ic, 9] of U [oc, ic, 16], by least squares; checks they exist."""
    lift = np.kron(G, G)
    flat = u.detach().double().cpu().numpy().reshape(-1, 16).T
    kernels, *_ = np.linalg.lstsq(lift, flat)
    np.testing.assert_allclose(lift @ kernels, flat, atol=1e-5 * np.abs(flat).max())
    return kernels.T.reshape(*u.shape[:2], 9)


def non_zeros(kernels: np.ndarray) -> np.ndarray:
    """Count the weights of each kernel that are not rounding errors."""
    return (np.abs(kernels) > 1e-4 * np.abs(kernels).max()).sum(axis=-1)


@pytest.mark.parametrize(("keep", "count"), [(1, 9), (4, 126), (9, 1)])
def test_all_patterns_are_there_once(keep: int, count: int) -> None:
    patterns = all_patterns(keep)
    assert len({tuple(row) for row in patterns.tolist()}) == len(patterns) == count
    assert set(patterns.sum(dim=1).tolist()) == {keep}


def energy_of(kernels: torch.Tensor, patterns: torch.Tensor) -> float:
    return float(kept_energy(kernels, patterns).amax(dim=1).sum())


def test_chosen_patterns_are_near_the_best_of_all_sets() -> None:
    candidates, shares = all_patterns(2), []
    for seed in range(8):
        kernels = torch.randn(40, 9, generator=torch.Generator().manual_seed(seed))
        best = max(energy_of(kernels, candidates[list(s)]) for s in combinations(range(36), 3))
        shares.append(energy_of(kernels, distil(kernels, 2, 3)) / best)
    assert max(shares) <= 1 + 1e-6
    assert min(shares) >= 0.9
    assert np.mean(shares) >= 0.96


def test_patterns_that_the_kernels_have_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = all_patterns(4)[[3, 40, 77, 101, 125]]
    kernels = torch.randn(500, 9, generator=generator) * hidden.repeat(100, 1)
    found = distil(kernels, 4, 5)
    assert sorted(found.tolist()) == sorted(hidden.tolist())


def test_every_pattern_is_chosen_once_even_if_useless() -> None:
    chosen = distil(torch.zeros(3, 9), 1, 9)
    assert sorted(chosen.tolist()) == sorted(all_patterns(1).tolist())


def test_nearest_pattern_keeps_most() -> None:
    patterns = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0, 0]])
    kernels = torch.tensor([[3.0, 0, 9, 9, 2, 2, 9, 9, 9], [2.0, 0, 9, 9, 2, -2, 9, 9, 9]])
    assert nearest(kernels, patterns).tolist() == patterns.tolist()


@pytest.mark.parametrize("m", [2, 4])
def test_layer_trained_through_its_kernel_is_the_same_layer(m: int) -> None:
    generator = torch.Generator().manual_seed(m)
    kernel = torch.randn(6, 5, 3, 3, generator=generator)
    x = torch.randn(2, 5, 8, 8, generator=generator)
    layer = WinogradConv2d(5, 6, m)
    layer.load_spatial(kernel)
    made = through_kernel(layer)
    torch.testing.assert_close(kernel_of(layer).detach(), kernel.flatten(2), atol=1e-5, rtol=1e-5)
    made.pattern[:, :, ::2] = 0
    masked = kernel.flatten(2).clone()
    masked[:, :, ::2] = 0
    want = F.conv2d(x, masked.view_as(kernel), padding=1)
    torch.testing.assert_close(layer(x).detach(), want, atol=1e-4, rtol=1e-4)
    layer(x).square().sum().backward()
    gradient = kernel_of(layer).grad
    assert (gradient[:, :, ::2] == 0).all()
    assert (gradient[:, :, 1::2] != 0).all()
    release(layer)
    assert type(layer) is WinogradConv2d
    assert layer.weight.shape == (6, 5, (m + 2) ** 2)
    torch.testing.assert_close(layer(x).detach(), want, atol=1e-4, rtol=1e-4)


def test_held_pattern_is_the_one_the_kernel_has() -> None:
    generator = torch.Generator().manual_seed(0)
    pattern = nearest(torch.randn(6, 5, 9, generator=generator), all_patterns(4))
    layer = WinogradConv2d(5, 6, 2)
    layer.load_spatial((torch.randn(6, 5, 9, generator=generator) * pattern).view(6, 5, 3, 3))
    hold_pattern(layer, 4)
    assert torch.equal(layer.parametrizations.weight[0].pattern, pattern)


@pytest.mark.parametrize("kind", ["winograd", "direct"])
def test_pruned_kernels_have_patterns_of_the_record(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    kernel = torch.randn(6, 5, 3, 3, generator=generator)
    layer: WinogradConv2d | DirectConv2d = WinogradConv2d(5, 6, 2)
    if kind == "direct":
        layer = DirectConv2d(5, 6, Window((3, 3), (2, 2), (1, 1)))
    layer.load_spatial(kernel)
    pruner = new_pruner(PATTERN, nn.Sequential(layer), {"0": layer}, torch.zeros(1, 5, 8, 8))
    for epoch in range(4):
        pruner.begin_epoch(epoch)
    pruner.release()
    u = layer.u.detach()
    kernels = kernels_of_u(u) if kind == "winograd" else u.numpy().reshape(6, 5, 9)
    texts = pruner.numbers()["patterns"]["0"]
    assert len(texts) == len(set(texts)) == 8
    patterns = np.array([[place == "1" for place in text] for text in texts])
    assert (patterns.sum(axis=1) == 3).all()
    assert (non_zeros(kernels) == 3).all()
    exact = np.where(np.abs(kernels) > 1e-4, kernels, 0).reshape(-1, 9)
    np.testing.assert_array_equal(unpack(pack(exact, patterns)), exact)
    kept = exact != 0
    np.testing.assert_allclose(exact[kept], kernel.numpy().reshape(-1, 9)[kept], atol=1e-5)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny build with pattern pruning, all stages."""
    out = tmp_path_factory.mktemp("pattern")
    run_all(build_at(out, replace(TINY, prune=PATTERN)))
    return out


def test_pattern_survives_all_stages(done: Path) -> None:
    config = replace(TINY, prune=PATTERN)
    pruned = tap_layers(load_pruned(build_at(done, config)))["conv2"].u
    trained = tap_layers(load_quantized(build_at(done, config)))["conv2"].u
    before, after = kernels_of_u(pruned), kernels_of_u(trained)
    assert (non_zeros(before) == 3).all()
    pattern = np.abs(before) > 1e-4
    assert np.abs(after[~pattern]).max() < 1e-5
    assert np.abs(after - before)[pattern].max() > 1e-3


def test_training_leaves_the_scales_of_calibration(done: Path) -> None:
    build = build_at(done, replace(TINY, prune=PATTERN))
    fresh = quantized_network(build, load_pruned(build), load_bits(build))
    x = to_input(build.split().train.images[:SAMPLE_IMAGES])
    calibrate(fresh, x, clip=build.config.quantize.weight_scale == "mse")
    trained = tap_layers(load_quantized(build))
    for name, layer in tap_layers(fresh).items():
        for before, after in zip(layer.scaled(), trained[name].scaled(), strict=True):
            assert torch.equal(scale_of(before), scale_of(after)), name


def test_pattern_network_is_exact_in_the_integer_graph(done: Path) -> None:
    graph = lower_checkpoint(replace(TINY, prune=PATTERN), done)
    golden = load_arrays(done / "golden.npz", "")
    for name, integers in expected_maps(graph, golden["images"][:40]).items():
        np.testing.assert_array_equal(golden[f"layer.{name}"][:40], integers)
    assert {layer.name: layer.keep for layer in multiplies(graph)}["conv2"] == 4  # all its channels


def test_record_compares_storage(done: Path) -> None:
    numbers = Record.load(done / "prune.json", "").numbers
    stored = 4 * 8 * (3 + 3 * 8) + 8 * 9  # kernels x (index + values) + the patterns
    assert numbers["storage"] == {
        "dense_bits": 4 * 8 * 72,
        "stored_bits": stored,
        "rate": pytest.approx(4 * 8 * 72 / stored),
    }
    assert numbers["keep"]["conv2"] == 4


@pytest.mark.parametrize(
    ("verb", "steps", "epoch"), [("prune", 12, 1), ("prune", 28, 3), ("qat", 12, 1)]
)
def test_resumed_run_ends_with_the_same_bits(
    done: Path, tmp_path: Path, verb: str, steps: int, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in done.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / f"{verb}.json").unlink()
    build = build_at(tmp_path, replace(TINY, prune=PATTERN))
    with monkeypatch.context() as patch:
        interrupt_after(steps, patch)
        with pytest.raises(KeyboardInterrupt):
            run_stage(STAGES[verb], build)
    assert int(load_arrays(tmp_path / f"{verb}.resume.npz", "")["epoch"]) == epoch
    run_stage(STAGES[verb], build)
    want, got = (load_arrays(folder / f"{verb}.npz", "") for folder in (done, tmp_path))
    assert want.keys() == got.keys()
    assert all(want[name].tobytes() == got[name].tobytes() for name in want)


def test_nothing_to_prune_is_said_before_training(tmp_path: Path) -> None:
    config = replace(TINY, prune=replace(PATTERN, skip=2))
    match = (
        r"^prune\.method 'pattern' needs a 3x3 convolution without groups .* prune\.skip, now 2$"
    )
    with pytest.raises(ConfigError, match=match):
        run_stage(STAGES["train"], build_at(tmp_path, config))
    assert not list(tmp_path.glob("train*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pattern_keep = 10", r"prune\.pattern_keep must be an integer in 1\.\.9, got 10"),
        ("patterns = 127", r"prune\.patterns must be an integer in 1\.\.126, got 127"),
        (
            "pattern_keep = 2\npatterns = 37",
            r"prune\.patterns must be at most 36, .* for prune\.pattern_keep 2, got 37",
        ),
        ("per_tap = true", r"prune\.per_tap is for sub-rows, which .* has none of; .* got True"),
        ("sub_row = 16", r"prune\.sub_row is for sub-rows, which .* has none of; .* got 16"),
        ("epochs = 1", r"prune\.epochs must be at least 2 for prune\.method 'pattern', .*, got 1"),
    ],
)
def test_impossible_recipe_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(f'[prune]\nmethod = "pattern"\n{text}\n')
    with pytest.raises(ConfigError, match=rf"bad\.toml: {message}$"):
        load_config(path)
