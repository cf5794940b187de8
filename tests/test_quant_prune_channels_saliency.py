# SPDX-License-Identifier: Apache-2.0
"""Saliency of channels: the true derivative by a gate, dead channels first, budgets reached."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.allocate.layer_cost import CostTerm, total
from quant.data import InputShape
from quant.distill import distillation
from quant.models.chain import ChainNet, chain_spec
from quant.models.library import make_model
from quant.network.channels import ChannelGroup
from quant.network.network import Network
from quant.network.structure import channel_counts, channel_groups
from quant.prune_channels.saliency import (
    counts_within,
    gates,
    keep_strongest,
    saliencies,
    strongest,
)
from winnow.config import DistillConfig, ModelConfig

STEP = 1e-7


@torch.no_grad()
def lively(net: nn.Module) -> Network:
    """Return a float64 network with statistics of data and uneven gains, in evaluation mode."""
    net.double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = 1.0
    net(torch.rand(4, 3, 32, 32, dtype=torch.float64))
    return Network.of(net.eval(), (3, 32, 32))


def net_of(name: str) -> Network:
    torch.manual_seed(0)
    if name == "chain":
        model = ModelConfig(channels=(6, 8), pool_after=(1, 2), exit_after=())
        return lively(ChainNet(chain_spec(model, InputShape(3, 32, 10))))
    return lively(make_model(name, 10, width=0.125))


def batches(count: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.rand(3, 3, 32, 32, generator=generator, dtype=torch.float64),
            torch.randint(0, 10, (3,), generator=generator),
        )
        for _ in range(count)
    ]


def difference(
    net: Network, group: ChannelGroup, channel: int, batch: tuple[Tensor, Tensor]
) -> float:
    """Return the central difference of the cross entropy when one channel is scaled."""
    values = []
    for gain in (1 + STEP, 1 - STEP):
        scaled = copy.deepcopy(net)
        with torch.no_grad():
            for module in gates(scaled, group):
                module.weight[channel] *= gain
                if module.bias is not None:
                    module.bias[channel] *= gain
            values.append(float(F.cross_entropy(scaled(batch[0]), batch[1])))
    return (values[0] - values[1]) / (2 * STEP)


@pytest.mark.parametrize("name", ["chain", "vgg16", "resnet18", "mobilenet_v2"])
def test_saliency_is_the_change_of_the_loss_when_a_channel_fades(name: str) -> None:
    net, samples = net_of(name), batches(2)
    found = saliencies(net, lambda x, labels: F.cross_entropy(net(x), labels), samples)
    assert all(p.grad is None for p in net.parameters())
    for group in (channel_groups(net.graph)[0], channel_groups(net.graph)[-1]):
        channels = range(3)
        want = [sum(abs(difference(net, group, c, batch)) for batch in samples) for c in channels]
        got = found[group.name]
        assert float(got.norm()) == pytest.approx(1)
        # Saliencies are relative to the group: compare them to that of its first channel.
        assert (got[list(channels)] / got[0]).tolist() == pytest.approx(
            [w / want[0] for w in want], rel=2e-3, abs=2e-3
        )


@torch.no_grad()
def kill(net: Network, group: ChannelGroup, channels: Iterable[int]) -> None:
    for channel in channels:
        for module in gates(net, group):
            for value in (module.weight, module.bias):
                if value is not None:
                    value[channel] = 0


@pytest.mark.parametrize("name", ["chain", "vgg16", "mobilenet_v2"])
def test_dead_channels_go_first_and_nothing_changes(name: str) -> None:
    net = net_of(name)
    groups = channel_groups(net.graph)
    dead = {groups[0].name: [1, 4], groups[-1].name: [0, 2, 3]}
    for group in (groups[0], groups[-1]):
        kill(net, group, dead[group.name])
    student = copy.deepcopy(net)
    found = saliencies(student, distillation(student, net, DistillConfig()), batches())
    for group in groups:
        worthless = (found[group.name] == 0).nonzero().flatten().tolist()
        assert set(dead.get(group.name, [])) <= set(worthless)
        if name == "chain":  # its other channels live; elsewhere a ReLU may silence one
            assert worthless == dead[group.name]
    terms = [CostTerm(n, None, n, (1, 1), lambda _, w: w) for n in found]
    limit = total(terms, channel_counts(net)) - 5
    counts = counts_within(terms, {n: found[n] for n in found}, limit, 1)
    if name == "chain":
        assert counts == {groups[0].name: 4, groups[1].name: 5}
    keep_strongest(
        student,
        found,
        channel_counts(net) | {n: found[n].numel() - len(d) for n, d in dead.items()},
    )
    x = batches()[0][0]
    torch.testing.assert_close(student.eval()(x), net(x))


def test_strongest_are_ascending_and_ties_keep_the_first() -> None:
    assert strongest(torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0]), 3).tolist() == [1, 2, 3]


def terms_of(*prices: int) -> list[CostTerm]:
    """Return terms that cost a price per channel of groups "a", "b", ..."""
    return [
        CostTerm(n, None, n, (1, 1), lambda _, written, price=price: price * written)
        for n, price in zip("abc", prices, strict=False)
    ]


def test_the_weakest_channels_of_all_groups_go_until_the_budget_is_met() -> None:
    saliency = {"a": torch.tensor([5.0, 1.0, 4.0]), "b": torch.tensor([2.0, 9.0, 3.0, 8.0])}
    terms = terms_of(10, 1)
    assert counts_within(terms, saliency, 34, 1) == {"a": 3, "b": 4}
    assert counts_within(terms, saliency, 33, 1) == {"a": 2, "b": 4}
    assert counts_within(terms, saliency, 22, 1) == {"a": 2, "b": 2}
    assert counts_within(terms, saliency, 0, 1) == {"a": 1, "b": 1}


def test_groups_are_cut_to_whole_multiples() -> None:
    saliency = {"a": torch.arange(20.0), "b": torch.arange(20.0) + 100, "c": torch.arange(3.0)}
    terms = terms_of(1, 1, 1)
    assert counts_within(terms, saliency, 42, 8) == {"a": 16, "b": 20, "c": 3}
    assert counts_within(terms, saliency, 38, 8) == {"a": 8, "b": 20, "c": 3}
    assert counts_within(terms, saliency, 0, 8) == {"a": 8, "b": 8, "c": 3}
