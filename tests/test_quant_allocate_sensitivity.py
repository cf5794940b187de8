# SPDX-License-Identifier: Apache-2.0
"""Sensitivities: curvature against a quadratic whose Hessian is known, divergence by its order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from quant.allocate.bits import Choice
from quant.allocate.sensitivity import (
    hessian_sensitivity,
    hessian_traces,
    operand_divergence,
    sensitivities,
    weight_divergence,
)
from quant.data import InputShape
from quant.models.library import network_of
from quant.network.calibrate import quantize_weight
from quant.network.network import Network, backbone, last_map
from quant.network.rewrite import tap_layers, to_winograd
from winnow.config import ModelConfig

MODEL = ModelConfig(channels=(4, 8), pool_after=(1,), exit_after=(1,))


@pytest.fixture
def net() -> Network:
    made = to_winograd(backbone(network_of(MODEL, InputShape(1, 16, 10))), 2)
    generator = torch.Generator().manual_seed(0)
    for layer in tap_layers(made).values():
        nn.init.normal_(layer.weight, std=0.3, generator=generator)
    return made


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(16, 1, 16, 16, generator=generator), torch.arange(16) % 10


def test_trace_of_a_diagonal_quadratic_is_exact_with_one_probe() -> None:
    w, b = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(2, 3))
    curve = torch.tensor([1.0, 2.0, 3.0, 4.0, -5.0])
    traces = hessian_traces(
        lambda: 0.5 * (curve * w * w).sum() + 3 * (b * b).sum(), [w, b], probes=1
    )
    assert traces == pytest.approx([5.0, 36.0])


def test_trace_of_a_dense_quadratic_is_estimated() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix = root @ root.t()
    w = nn.Parameter(torch.ones(12, dtype=torch.float64))
    (trace,) = hessian_traces(lambda: 0.5 * w @ matrix @ w, [w], probes=2000)
    assert trace == pytest.approx(float(matrix.trace()), rel=0.03)


@pytest.mark.parametrize("measure", ["kl", "hessian"])
def test_fewer_bits_hurt_more_and_the_net_stays(net: nn.Module, measure: str) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    choices = (Choice(2, 8), Choice(4, 8), Choice(8, 8))
    table = sensitivities(net, *inputs(), choices, measure)
    assert table.shape == (3, 3)
    assert (np.diff(table, axis=1) < 0).all()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_narrow_operands_hurt_more(net: nn.Module) -> None:
    x, _ = inputs()
    before = net.eval()(x)
    table = operand_divergence(net, x, (2, 4, 8))
    assert (np.diff(table, axis=1) < 0).all()
    assert torch.equal(net(x), before)


def test_pairs_add_up(net: nn.Module) -> None:
    x, labels = inputs()
    choices = (Choice(4, 6), Choice(4, 8), Choice(8, 6), Choice(8, 8))
    table = sensitivities(net, x, labels, choices, "kl")
    weights, operands = weight_divergence(net, x, (4, 8)), operand_divergence(net, x, (6, 8))
    np.testing.assert_allclose(table[:, 0], weights[:, 0] + operands[:, 0])
    np.testing.assert_allclose(table[:, 3], weights[:, 1] + operands[:, 1])


def test_curvature_is_half_the_mean_diagonal_times_the_squared_change(net: nn.Module) -> None:
    """For the classifier the Hessian of cross entropy is known: mean of x x^T o (p - p^2)."""
    x, labels = inputs()
    net.eval()
    features = net.run(x, [last_map(net.graph, net.graph.output)])[0].flatten(1)  # n, k
    p = torch.softmax(net(x), 1)
    trace = float(((p - p * p).sum(1) * features.square().sum(1)).mean().detach())
    layer = net.get_submodule("fc")
    (estimate,) = hessian_traces(
        lambda: nn.functional.cross_entropy(net(x), labels), [layer.weight], probes=400
    )
    assert estimate == pytest.approx(trace, rel=0.05)
    table = hessian_sensitivity(net, x, labels, (4,), probes=400)
    change = float((quantize_weight(layer.u, 4) - layer.u).detach().square().sum())
    want = 0.5 * trace / layer.weight.numel() * change
    assert table[2, 0] == pytest.approx(want, rel=0.15)  # other layers add noise
