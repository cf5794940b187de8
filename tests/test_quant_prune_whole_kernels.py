# SPDX-License-Identifier: Apache-2.0
"""Whole kernels: the largest stay, all taps share them, and what trains is what stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.build import load_pruned, load_quantized
from quant.layers.quant_layer import QuantWinogradConv2d
from quant.layers.winograd_layer import Dense, DirectConv2d, TapLayer, Window, WinogradConv2d
from quant.network.rewrite import tap_layers
from quant.prune.methods import new_pruner
from quant.prune.target import Pruner
from quant.prune.whole_kernels import MaskedConv2d
from tests.test_quant_stages import TINY, build_at, run_all
from winnow.config import PruneConfig
from winnow.srbs import to_sub_rows

STRIDED = Window((3, 3), (2, 2), (1, 1))


def kernels_of_norms(norms: Tensor, seed: int) -> Tensor:
    """Random kernels [oc, ic, 3, 3] with the given norms [oc, ic]."""
    generator = torch.Generator().manual_seed(seed)
    kernels = torch.randn(*norms.shape, 3, 3, generator=generator)
    return kernels * (norms / kernels.flatten(2).norm(dim=2))[:, :, None, None]


def pruned(layer: TapLayer, **settings: object) -> tuple[nn.Sequential, Pruner]:
    """A network of one layer after all pruning steps, before `release`."""
    config = PruneConfig(method="kernels", **{"epochs": 4, "steps": 2} | settings)  # type: ignore[arg-type]
    net = nn.Sequential(layer)
    pruner = new_pruner(config, net, {"0": layer}, torch.zeros(1, layer.in_channels, 8, 8))
    for epoch in range(config.epochs):
        pruner.begin_epoch(epoch)
    return net, pruner


@pytest.mark.parametrize("m", [2, 4, 0])
@pytest.mark.parametrize(("keep", "sub_row"), [(1, 8), (3, 8), (1, 16)])
def test_kernels_of_largest_norm_stay(m: int, keep: int, sub_row: int) -> None:
    channels, kept = 32, keep * sub_row // 8
    generator = torch.Generator().manual_seed(keep)
    norms = torch.rand(6, channels, generator=generator) + 0.1
    kernels = kernels_of_norms(norms, seed=m)
    layer: TapLayer = WinogradConv2d(channels, 6, m) if m else DirectConv2d(channels, 6, STRIDED)
    layer.load_spatial(kernels)
    net, pruner = pruned(layer, keep=keep, sub_row=sub_row)
    pruner.release()
    assert net[0] is layer
    stays = np.zeros((6, channels), bool)
    for row in range(6):
        for start in range(0, channels, sub_row):
            best = sorted(range(start, start + sub_row), key=lambda c: -float(norms[row, c]))
            stays[row, best[:kept]] = True
    mask = layer.by_channel(layer.mask).numpy()
    np.testing.assert_array_equal(mask, np.broadcast_to(stays[:, :, None], mask.shape))
    x = torch.randn(2, channels, 8, 8, generator=generator)
    masked = kernels * torch.from_numpy(stays)[:, :, None, None]
    want = F.conv2d(x, masked, padding=1, stride=1 if m else 2)
    torch.testing.assert_close(layer(x), want, atol=1e-4, rtol=1e-4)


def test_last_sub_row_may_be_short() -> None:
    layer = WinogradConv2d(13, 6, 2)
    layer.load_spatial(torch.randn(6, 13, 3, 3, generator=torch.Generator().manual_seed(0)))
    _, pruner = pruned(layer, keep=2)
    pruner.release()
    held = (to_sub_rows(layer.u.detach().numpy()) != 0).sum(axis=2)  # oc, sub_rows, taps
    assert (held == 2).all()


def test_fully_connected_layer_keeps_the_largest_at_every_pixel() -> None:
    layer = Dense(8 * 2, 1, 8)
    weights = torch.tensor([[9.0, 1], [1, 9], [2, 2], [3, 3], [4, 4], [5, 5], [6, 6], [7, 7]])
    layer.set_u(weights.flatten()[None, :, None])
    _, pruner = pruned(layer, keep=2)
    pruner.release()
    left = layer.u.detach().view(8, 2)
    assert left[:, 0].tolist() == [9, 0, 0, 0, 0, 0, 0, 7]
    assert left[:, 1].tolist() == [0, 9, 0, 0, 0, 0, 0, 7]


@pytest.mark.parametrize("m", [2, 4])
def test_what_was_trained_is_what_stays(m: int) -> None:
    torch.manual_seed(m)
    layer = WinogradConv2d(16, 6, m)
    layer.load_spatial(torch.randn(6, 16, 3, 3))
    net, pruner = pruned(layer, keep=2)
    conv = net[0]
    assert isinstance(conv, MaskedConv2d)
    dropped = conv.weight.detach()[conv.mask == 0].clone()
    x, aim = torch.randn(8, 16, 8, 8), torch.randn(8, 6, 8, 8)
    before = float((net(x) - aim).detach().square().mean())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        (net(x) - aim).square().mean().backward()
        optimizer.step()
    trained = net(x).detach()
    assert float((trained - aim).square().mean()) < 0.9 * before
    assert torch.equal(conv.weight.detach()[conv.mask == 0], dropped), "no gradient without kernel"
    pruner.release()
    torch.testing.assert_close(net(x).detach(), trained, atol=1e-4, rtol=1e-4)


def test_dropped_kernels_never_come_back() -> None:
    layer = WinogradConv2d(8, 4, 2)
    layer.load_spatial(torch.randn(4, 8, 3, 3, generator=torch.Generator().manual_seed(1)))
    net = nn.Sequential(layer)
    config = PruneConfig(method="kernels", keep=1, epochs=8, steps=4)
    pruner = new_pruner(config, net, {"0": layer}, torch.zeros(1, 8, 8, 8))
    conv, counts, mask = net[0], [], torch.ones(4, 8)
    assert isinstance(conv, MaskedConv2d)
    for epoch in range(4):
        pruner.begin_epoch(epoch)
        assert (conv.mask <= mask).all()
        mask = conv.mask.clone()
        counts.append(int(mask.sum()) // 4)
        with torch.no_grad():  # as large as they may get, what is dropped stays dropped
            conv.weight[conv.mask == 0] = 100.0
    assert counts == [6, 4, 3, 1]


@pytest.mark.parametrize("m", [2, 4])
def test_quantized_layers_are_still_convolutions(m: int, tmp_path: Path) -> None:
    """U of 3x3 kernels has rank 9; freely trained taps would not keep it."""
    prune = PruneConfig(method="kernels", keep=1, skip=1, epochs=2, steps=1)
    model = replace(TINY.model, channels=(16, 16))
    config = replace(TINY, model=model, prune=prune, engine=replace(TINY.engine, m=m))
    run_all(build_at(tmp_path, config))
    build = build_at(tmp_path, config)
    before, after = (tap_layers(net) for net in (load_pruned(build), load_quantized(build)))
    for name in ("conv1", "conv2"):
        was, now = before[name], after[name]
        assert type(now) is QuantWinogradConv2d
        assert torch.linalg.matrix_rank(now.u.detach().double().flatten(0, 1), rtol=1e-5) == 9
        assert torch.equal(was.mask, now.mask)
        assert ((now.u != 0) <= (now.mask != 0)).all()
        assert (was.u - now.u).abs().max() > 1e-4
