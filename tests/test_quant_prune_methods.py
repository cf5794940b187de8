# SPDX-License-Identifier: Apache-2.0
"""Pruning methods: each on a case whose answer is known, all with exact masks, all resumable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quant.stages.prune as stage
from codegen.lower import lower_checkpoint
from quant.allocate.sizes import layer_keeps, sparse_layers
from quant.build import load_pruned
from quant.data import InputShape
from quant.layers.winograd_layer import Dense, DirectConv2d, TapLayer, WinogradConv2d
from quant.models.library import network_of
from quant.network.network import Network
from quant.network.rewrite import tap_layers, to_winograd
from quant.prune import target
from quant.prune.keep_per_tap import allocate, gains
from quant.prune.methods import METHODS, new_pruner
from quant.prune.target import Pruner, best_mask
from quant.run import STAGES, run_stage
from tests.engines import expected_maps
from tests.ladder import multiplies
from tests.test_quant_stages import TINY, build_at, interrupt_after, run_all
from winnow.artefact import Record, load_arrays
from winnow.config import ModelConfig, PruneConfig, load_config
from winnow.errors import ConfigError
from winnow.srbs import srbs_mask, to_sub_rows

SRBS = ("obs", "magnitude", "admm", "straight_through")


def dense_layer(weights: list[float]) -> Dense:
    """A fully connected layer with one output and one pixel per channel."""
    layer = Dense(len(weights), 1, len(weights))
    layer.set_u(torch.tensor(weights)[None, :, None])
    return layer


def pruner_of(layer: TapLayer, x: Tensor, **settings: object) -> Pruner:
    config = PruneConfig(**settings)  # type: ignore[arg-type]
    return new_pruner(config, network_around(layer, x), {"0": layer}, x)


def network_around(layer: TapLayer, x: Tensor) -> Network:
    """Return the network of one layer for inputs like x [n, c, h, w]."""
    before = [nn.Flatten()] if isinstance(layer, Dense) else []
    return Network.of(nn.Sequential(*before, layer), tuple(x.shape[1:]))


def descend(layer: TapLayer, pruner: Pruner, slope: Tensor, aim: Tensor, *, steps: int) -> None:
    """Train as `fit` does, to the minimum of sum(slope (u - aim)^2) / 2 over the weights."""
    parameters = [p for p in layer.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    for epoch in range(pruner.task.config.epochs):
        pruner.begin_epoch(epoch)
        for _ in range(steps):
            optimizer.zero_grad()
            (0.5 * slope * (layer.u.flatten() - aim).square()).sum().backward()
            optimizer.step()
    pruner.release()


# Two weights, one may stay. The first is larger, but the loss is ten times steeper in the second:
# dropping the first costs 0.5 * 1 * 1.0^2, dropping the second 0.5 * 10 * 0.9^2.
LARGE_BUT_FLAT = [1.0, 0.9]
SLOPE, AIM = torch.tensor([1.0, 10.0]), torch.tensor(LARGE_BUT_FLAT)


def two_weights(method: str) -> TapLayer:
    layer = dense_layer(LARGE_BUT_FLAT)
    x = (torch.eye(2) * SLOPE.sqrt()).view(2, 2, 1, 1)
    pruner = pruner_of(layer, x, method=method, keep=1, epochs=20, steps=1, rho=0.1)
    descend(layer, pruner, SLOPE, AIM, steps=100)
    return layer


def test_magnitude_keeps_the_larger_weight() -> None:
    assert two_weights("magnitude").mask.flatten().tolist() == [1, 0]


@pytest.mark.parametrize("method", ["obs", "admm"])
def test_method_keeps_the_weight_the_loss_needs(method: str) -> None:
    layer = two_weights(method)
    assert layer.mask.flatten().tolist() == [0, 1]
    assert layer.u.flatten().tolist() == pytest.approx([0, 0.9], abs=1e-4)


@pytest.mark.parametrize(("method", "mask"), [("straight_through", [0, 1]), ("magnitude", [1, 0])])
def test_only_reselection_lets_a_dropped_weight_come_back(method: str, mask: list[int]) -> None:
    layer = dense_layer([1.0, 0.9])
    pruner = pruner_of(layer, torch.ones(4, 2, 1, 1), method=method, keep=1, epochs=4, steps=1)
    descend(layer, pruner, torch.ones(2), torch.tensor([0.1, 2.0]), steps=100)
    assert layer.mask.flatten().tolist() == mask


def test_straight_through_gradient_is_that_of_the_paper() -> None:
    layer = dense_layer([3.0, -2.0, 1.0, 4.0])
    settings = {"method": "straight_through", "keep": 2, "decay": 0.1, "steps": 1}
    pruner = pruner_of(layer, torch.ones(4, 4, 1, 1), **settings)
    pruner.begin_epoch(0)
    assert layer.u.flatten().tolist() == [3, 0, 0, 4]
    slope = torch.tensor([5.0, 6.0, 7.0, 8.0])
    (layer.u.flatten() * slope).sum().backward()
    gradient = layer.parametrizations.weight.original.grad.flatten()
    assert gradient.tolist() == pytest.approx([5, 6 - 0.2, 7 + 0.1, 8])
    pruner.release()
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.flatten().tolist() == [3, 0, 0, 4]


def test_admm_follows_its_equations() -> None:
    layer = dense_layer([3.0, 2.0])
    pruner = pruner_of(layer, torch.ones(4, 2, 1, 1), method="admm", keep=1, epochs=6, rho=0.5)
    rows: list[list[float]] = []
    for epoch, weights in enumerate(([3.0, 2.0], [3.0, 2.5], [1.0, 2.5])):
        layer.set_u(torch.tensor(weights)[None, :, None])
        pruner.begin_epoch(epoch)
        layer.weight.grad = None
        layer.weight.sum().backward()
        z, dual = layer.admm_z.flatten().tolist(), layer.admm_dual.flatten().tolist()
        rows.append([*z, *dual, *layer.weight.grad.flatten().tolist()])
    # rho 0.5, 5, 50, so the dual is divided by 10; the last two are 1 + rho (W - Z + U)
    assert rows[0] == pytest.approx([3, 0, 0, 0, 1, 1 + 0.5 * 2])
    assert rows[1] == pytest.approx([3, 0, 0, 0.25, 1, 1 + 5 * 2.75])
    assert rows[2] == pytest.approx([0, 2.75, 0.1, 0, 1 + 50 * 1.1, 1 + 50 * -0.25])
    pruner.begin_epoch(3)
    assert layer.mask.flatten().tolist() == [0, 1]
    layer.weight.grad = None
    layer.weight.sum().backward()
    assert layer.weight.grad.flatten().tolist() == [1, 1]
    pruner.release()
    assert sorted(name for name, _ in layer.named_buffers()) == ["mask", "tap_gain"]
    assert list(pruner.numbers()["cut"].values()) == pytest.approx([1 / math.hypot(1, 2.5)])


@pytest.mark.parametrize("sub_row", [8, 16])
@pytest.mark.parametrize("channels", [3, 16, 21])
@pytest.mark.parametrize("at_once", [1, 260, 1 << 24])
def test_mask_on_the_device_is_that_of_winnow(
    channels: int, sub_row: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "RANKED_AT_ONCE", at_once)
    generator = np.random.default_rng(channels)
    score = generator.integers(-3, 4, size=(5, channels, 6)).astype(np.float32)
    keeps = generator.integers(1, sub_row + 1, size=6)
    ours = best_mask(torch.from_numpy(score), keeps, sub_row)
    np.testing.assert_array_equal(ours.numpy(), srbs_mask(score, keeps, sub_row))


def test_allocation_is_the_best_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        saliency = torch.rand(3, 4, 3, generator=generator) ** (1 + seed % 4)
        saliency[:, :, seed % 3] *= 5
        table = gains(saliency, 4)
        lost = {
            keeps: sum(
                float(saliency[:, :, p].sort(dim=1).values[:, : 4 - keep].sum())
                for p, keep in enumerate(keeps)
            )
            for keeps in product(range(1, 5), repeat=3)
            if sum(keeps) == 6
        }
        chosen = tuple(allocate(table, 2).tolist())
        assert lost[chosen] == pytest.approx(min(lost.values()), rel=1e-6)


def test_allocation_has_the_mean_and_the_limits() -> None:
    table = np.array([[9.0, 8, 7, 6], [9, 0, 0, 0], [9, 0, 0, 0]])
    assert allocate(table, 2).tolist() == [4, 1, 1]
    assert allocate(table, 4).tolist() == [4, 4, 4]
    assert allocate(table, 1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("method", SRBS)
@pytest.mark.parametrize("sub_row", [8, 16])
@pytest.mark.parametrize("per_tap", [False, True])
def test_every_sub_row_keeps_exactly_its_number(method: str, sub_row: int, per_tap: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    layer = WinogradConv2d(32, 6, 2)
    layer.load_spatial(torch.randn(6, 32, 3, 3, generator=generator))
    x = torch.randn(8, 32, 8, 8, generator=generator)
    settings = {"method": method, "sub_row": sub_row, "per_tap": per_tap}
    pruner = pruner_of(layer, x, **settings, keep=2, epochs=4, steps=2)
    for epoch in range(4):
        pruner.begin_epoch(epoch)
    (target,) = pruner.task.targets
    pruner.release()
    held = (to_sub_rows(layer.u.detach().numpy(), sub_row) != 0).sum(axis=2)
    assert (held == target.keeps).all()
    assert target.keeps.mean() == 2 * sub_row / 8
    assert (len(set(target.keeps.tolist())) > 1) == per_tap


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a tiny network's fp32 training."""
    out = tmp_path_factory.mktemp("trained")
    run_all(build_at(out), ("train", "prune_channels"))
    return out


def copy_of(trained: Path, out: Path) -> Path:
    out.mkdir()
    for path in trained.glob("*.*"):
        (out / path.name).write_bytes(path.read_bytes())
    return out


VARIANTS = (
    PruneConfig(method="magnitude"),
    PruneConfig(method="admm"),
    PruneConfig(method="straight_through"),
    PruneConfig(method="kernels"),
    PruneConfig(method="obs", per_tap=True, sub_row=16),
)


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.method)
def test_resumed_run_ends_with_the_same_bits(
    trained: Path,
    tmp_path: Path,
    variant: PruneConfig,
    epoch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(TINY, prune=replace(variant, steps=2, epochs=4))
    whole, cut = (build_at(copy_of(trained, tmp_path / name), config) for name in ("whole", "cut"))
    run_stage(STAGES["prune"], whole)
    with monkeypatch.context() as patch:
        interrupt_after(8 * epoch + 4, patch)
        with pytest.raises(KeyboardInterrupt):
            run_stage(STAGES["prune"], cut)
    resume = cut.out / "prune.resume.npz"
    assert int(load_arrays(resume, "")["epoch"]) == epoch
    run_stage(STAGES["prune"], cut)
    want, got = (load_arrays(b.out / "prune.npz", "") for b in (whole, cut))
    assert want.keys() == got.keys()
    assert all(want[name].tobytes() == got[name].tobytes() for name in want)
    assert any((want[name] == 0).any() for name in want if name.endswith("mask"))
    kept, again = (Record.load(b.out / "prune.json", "").numbers.get("cut") for b in (whole, cut))
    assert kept == again
    assert (kept is not None and all(0 < share < 1 for share in kept.values())) == (
        variant.method == "admm"
    )


@pytest.mark.parametrize("method", ["admm", "straight_through"])
def test_run_stopped_after_its_last_epoch_is_only_finished(
    trained: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune = PruneConfig(method=method, steps=2, epochs=2)
    build = build_at(copy_of(trained, tmp_path / "out"), replace(TINY, prune=prune))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "new_pruner", lambda *task: stopping(new_pruner(*task), stop))
        with pytest.raises(KeyboardInterrupt):
            run_stage(STAGES["prune"], build)
    assert int(load_arrays(build.out / "prune.resume.npz", "")["epoch"]) == 2
    run_stage(STAGES["prune"], build)
    mask = load_arrays(build.out / "prune.npz", "")["fc.mask"]
    assert int((mask == 0).sum()) == mask.size * 6 // 8


def stopping(pruner: Pruner, stop: Callable[..., None]) -> Pruner:
    """Make a pruner fail where training is over and its result not yet saved."""
    pruner.release = stop  # type: ignore[method-assign]
    return pruner


@pytest.mark.parametrize(
    ("prune", "kept"),
    [
        (PruneConfig(method="straight_through", per_tap=True, sub_row=16, epochs=2), range(3, 9)),
        (PruneConfig(method="kernels", epochs=2), range(2, 3)),
    ],
    ids=["uneven", "kernels"],
)
def test_pattern_lowers_with_its_largest_keep(
    trained: Path, tmp_path: Path, prune: PruneConfig, kept: range
) -> None:
    config = replace(TINY, prune=replace(prune, steps=1))
    build = build_at(copy_of(trained, tmp_path / "out"), config)
    run_all(build, ("prune", "bits", "qat", "golden"))
    graph = lower_checkpoint(config, build.out)
    measured = Record.load(build.out / "prune.json", "").numbers["keep"]
    assert {layer.name: layer.keep for layer in multiplies(graph)} == measured
    net = load_pruned(build)
    predicted = layer_keeps(config, net)
    assert predicted == measured
    assert predicted["fc"] in kept
    golden = load_arrays(build.out / "golden.npz", "")
    maps = expected_maps(graph, golden["images"][:40])
    for name, integers in maps.items():
        np.testing.assert_array_equal(golden[f"layer.{name}"][:40], integers)


def test_masks_survive_quantization_aware_training(trained: Path, tmp_path: Path) -> None:
    config = replace(TINY, prune=PruneConfig(method="admm", epochs=2))
    build = build_at(copy_of(trained, tmp_path / "out"), config)
    run_all(build, ("prune", "bits", "qat"))
    masks = {name: layer.mask for name, layer in tap_layers(load_pruned(build)).items()}
    quantized = load_arrays(build.out / "qat.npz", "")
    for name, mask in masks.items():
        np.testing.assert_array_equal(quantized[f"{name}.mask"], mask.numpy())
    assert int((masks["fc"] == 0).sum()) == masks["fc"].numel() * 6 // 8


@pytest.mark.parametrize("method", METHODS)
def test_strided_and_pointwise_layers_of_a_residual_network(method: str) -> None:
    shape = (3, 16, 16)
    torch.manual_seed(0)
    plain = network_of(ModelConfig(name="resnet18", width=0.125), InputShape(3, 16, 10))
    net = to_winograd(plain, 2)
    sparse = sparse_layers(net, 1)
    config = PruneConfig(method=method, epochs=2, steps=1)
    pruner = new_pruner(config, net, sparse, torch.randn(64, *shape))
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for epoch in range(2):
        pruner.begin_epoch(epoch)
        net(torch.randn(8, *shape)).square().mean().backward()
        optimizer.step()
    pruner.release()
    strided = 0
    for name, layer in sparse.items():
        u = layer.by_channel(layer.u.detach()).numpy()
        if method != "pattern":
            assert (to_sub_rows(u) != 0).sum(axis=2).max() == 2, name
        elif isinstance(layer, DirectConv2d) and layer.window.kernel == (3, 3):
            assert ((u != 0).sum(axis=2) == config.pattern_keep).all(), name
            strided += 1
    assert strided == (3 if method == "pattern" else 0)


def test_every_method_has_a_name() -> None:
    assert tuple(METHODS) == (*SRBS, "kernels", "pattern")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('method = "best"', r"prune\.method must be one of obs, magnitude, .*; got 'best'"),
        ("keep = 9", r"prune\.keep must be an integer in 1\.\.8, got 9"),
        ("sub_row = 12", r"prune\.sub_row must be one of 8, 16; got 12"),
        ("per_tap = 1", r"prune\.per_tap must be true or false, got 1"),
        ("rho = 0", r"prune\.rho must be a number in 1e-06\.\.100, got 0"),
        ("decay = 2", r"prune\.decay must be a number in 0\.\.1, got 2"),
        (
            'method = "kernels"\nper_tap = true',
            r"prune\.per_tap must be false for prune\.method 'kernels', .*, got true; remove it .*",
        ),
        (
            'method = "admm"\nepochs = 1',
            r"prune\.epochs must be at least 2 for prune\.method 'admm', .*, got 1",
        ),
    ],
)
def test_impossible_recipe_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(f"[prune]\n{text}\n")
    with pytest.raises(ConfigError, match=rf"bad\.toml: {message}$"):
        load_config(path)
