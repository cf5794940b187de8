# SPDX-License-Identifier: Apache-2.0
"""Distillation losses: KL is zero for equals, and every loss term reaches what it should."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from quant.distill import distillation, self_distillation, soft_cross_entropy
from quant.model import SpatialNet, WinogradNet, folded_net, net_spec
from winnow.config import Config, DistillConfig, ModelConfig

CONFIG = Config(model=ModelConfig(channels=(4, 8, 8), pool_after=(1, 2), exit_after=(1, 2)))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 1, 16, 16, generator=generator), torch.arange(6)


def spatial_net() -> SpatialNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SpatialNet(net_spec(CONFIG), CONFIG.model.exit_after)


def test_soft_cross_entropy_is_zero_for_equals_and_positive_otherwise() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert abs(float(soft_cross_entropy(logits, logits, 3.0))) < 1e-6
    assert float(soft_cross_entropy(logits, logits.flip(1), 3.0)) > 0.1


def test_soft_cross_entropy_is_the_divergence_from_teacher_to_student() -> None:
    student, teacher = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, -1.0]])
    p, q = F.softmax(teacher / 2, 1), F.softmax(student / 2, 1)
    want = 4 * float((p * (p / q).log()).sum())
    assert abs(float(soft_cross_entropy(student, teacher, 2.0)) - want) < 1e-5


def test_every_exit_learns() -> None:
    net = spatial_net()
    self_distillation(net, DistillConfig())(*batch()).backward()
    assert set(net.exits) == {"conv1", "conv2"}
    assert all(float(p.grad.abs().sum()) > 0 for p in net.parameters())


def test_hint_pulls_the_exit_and_not_the_deepest_map() -> None:
    net = spatial_net()
    only_hint = DistillConfig(hint=1.0)
    without = self_distillation(net, DistillConfig(hint=0.0))(*batch())
    with_hint = self_distillation(net, only_hint)(*batch())
    assert float(with_hint.detach()) > float(without.detach())
    (with_hint - without).backward()
    assert float(net.convs["conv3"].weight.grad.abs().sum()) < 1e-4
    assert float(net.bottlenecks["conv1"][0].weight.grad.abs().sum()) > 1e-4


def test_teacher_is_left_alone() -> None:
    teacher, student = spatial_net(), WinogradNet(net_spec(CONFIG), 2)
    student.load_spatial(teacher)
    distillation(student, teacher, DistillConfig())(*batch()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher.training


def test_winograd_net_is_the_spatial_net_before_and_after_folding() -> None:
    net = spatial_net()
    for _ in range(3):
        net(batch()[0])  # moves the running statistics
    net.eval()
    want = net(batch()[0]).detach()
    ours = WinogradNet(net_spec(CONFIG), 4).eval()
    ours.load_spatial(net)
    torch.testing.assert_close(ours(batch()[0]).detach(), want, rtol=0, atol=1e-4)
    ours.fold()
    torch.testing.assert_close(ours(batch()[0]).detach(), want, rtol=0, atol=1e-4)
    assert ours.state_dict().keys() == folded_net(net_spec(CONFIG), 4).state_dict().keys()
