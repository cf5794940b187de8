# SPDX-License-Identifier: Apache-2.0
"""Distillation losses: KL is zero for equals, and every loss term reaches what it should."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from quant.convert import fold_norms, to_winograd
from quant.distill import distillation, self_distillation, soft_cross_entropy
from quant.models.chain import ChainNet, InputShape, chain_spec, exit_network, trunk
from quant.sites import find_sites
from winnow.config import Config, DistillConfig, ModelConfig

CONFIG = Config(model=ModelConfig(channels=(4, 8, 8), pool_after=(1, 2), exit_after=(1, 2)))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 1, 16, 16, generator=generator), torch.arange(6)


def spatial_net() -> ChainNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ChainNet(chain_spec(CONFIG.model, InputShape(1, 16, 10)))


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
    assert float(net.conv3.weight.grad.abs().sum()) < 1e-4
    assert float(net.exits["conv1"].exit1_conv1.weight.grad.abs().sum()) > 1e-4


def test_teacher_is_left_alone() -> None:
    teacher = spatial_net()
    sites = find_sites(teacher, (1, 16, 16))
    student = to_winograd(trunk(teacher), 2, sites)
    distillation(student, teacher, DistillConfig())(*batch()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher.training


def test_exit_network_gives_the_logits_of_its_exit() -> None:
    net = spatial_net().eval()
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.running_mean)
    _, _, shallow = net.with_exits(batch()[0])
    for number, (logits, _) in zip(CONFIG.model.exit_after, shallow, strict=True):
        assert torch.equal(exit_network(net, number).eval()(batch()[0]), logits)


def test_winograd_net_is_the_spatial_net_before_and_after_folding() -> None:
    net = spatial_net()
    for _ in range(3):
        net(batch()[0])  # moves the running statistics
    net.eval()
    want = net(batch()[0]).detach()
    sites = find_sites(net, (1, 16, 16))
    ours = to_winograd(trunk(net), 4, sites).eval()
    torch.testing.assert_close(ours(batch()[0]).detach(), want, rtol=0, atol=1e-4)
    fold_norms(ours, sites)
    torch.testing.assert_close(ours(batch()[0]).detach(), want, rtol=0, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in ours.modules())
