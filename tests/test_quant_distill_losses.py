# SPDX-License-Identifier: Apache-2.0
"""Distillation losses: KL is zero for equals, and every loss term reaches what it should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from quant.data import InputShape
from quant.distill import distillation, self_distillation
from quant.distill.features import attention, attention_distance
from quant.models.library import make_model, network_of
from quant.network.network import Network, backbone, exit_network
from quant.network.rewrite import fold_norms, to_winograd
from quant.network.structure import block_ends
from quant.train.objective import soft_cross_entropy, temperature_at
from winnow.config import Config, DistillConfig, ModelConfig

CONFIG = Config(model=ModelConfig(channels=(4, 8, 8), pool_after=(1, 2), exit_after=(1, 2)))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 1, 16, 16, generator=generator), torch.arange(6)


def spatial_net() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network_of(CONFIG.model, InputShape(1, 16, 10))


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
    assert [name for name, _ in net.graph.exits] == ["conv1", "conv2"]
    assert all(float(p.grad.abs().sum()) > 0 for p in net.parameters())


def test_hint_pulls_the_exit_and_not_the_deepest_map() -> None:
    net = spatial_net()
    only_hint = DistillConfig(hint=1.0)
    without = self_distillation(net, DistillConfig(hint=0.0))(*batch())
    with_hint = self_distillation(net, only_hint)(*batch())
    assert float(with_hint.detach()) > float(without.detach())
    (with_hint - without).backward()
    assert float(net.conv3.weight.grad.abs().sum()) < 1e-4
    assert float(net.get_submodule("exits.conv1.exit1_conv").weight.grad.abs().sum()) > 1e-4


def test_an_exit_without_a_bottleneck_has_no_hint() -> None:
    model = replace(CONFIG.model, exit_head="average")
    net = network_of(model, InputShape(1, 16, 10))
    losses = [self_distillation(net, DistillConfig(hint=h))(*batch()) for h in (0.0, 1.0)]
    assert torch.equal(*losses)


def test_teacher_is_left_alone() -> None:
    teacher = spatial_net()
    student = to_winograd(backbone(teacher), 2)
    distillation(student, teacher, DistillConfig())(*batch()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher.training


def test_exit_network_gives_the_logits_of_its_exit() -> None:
    net = spatial_net().eval()
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.running_mean)
    (_, *shallow), _ = net.with_exits(batch()[0])
    for number, (logits, _) in zip(CONFIG.model.exit_after, shallow, strict=True):
        assert torch.equal(exit_network(net, f"conv{number}").eval()(batch()[0]), logits)


def test_winograd_net_is_the_spatial_net_before_and_after_folding() -> None:
    net = spatial_net()
    for _ in range(3):
        net(batch()[0])  # moves the running statistics
    net.eval()
    want = net(batch()[0]).detach()
    ours = to_winograd(backbone(net), 4).eval()
    torch.testing.assert_close(ours(batch()[0]).detach(), want, rtol=0, atol=1e-4)
    folded = fold_norms(ours).eval()
    torch.testing.assert_close(folded(batch()[0]).detach(), want, rtol=0, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())


def test_temperature_goes_from_the_first_to_the_last_epoch() -> None:
    linear = DistillConfig(temperature=4.0, temperature_end=2.0, schedule="linear")
    assert [temperature_at(linear, epoch, 5) for epoch in range(5)] == [4.0, 3.5, 3.0, 2.5, 2.0]
    cosine = [temperature_at(replace(linear, schedule="cosine"), e, 5) for e in range(5)]
    assert cosine == pytest.approx([4.0, 3 + 0.5**0.5, 3.0, 3 - 0.5**0.5, 2.0])
    constant = replace(linear, schedule="constant")
    assert {temperature_at(constant, epoch, 5) for epoch in range(5)} == {4.0}
    assert temperature_at(linear, 0, 1) == 4.0


def test_losses_use_the_temperature_of_the_epoch() -> None:
    net, teacher = spatial_net(), spatial_net()
    with torch.no_grad():
        teacher.fc.bias += torch.arange(10.0)
    config = DistillConfig(
        temperature=4.0, temperature_end=1.0, schedule="linear", soft=1.0, hint=0.0
    )
    x, labels = batch()
    net.eval()
    for make in (distillation, lambda n, t, c: self_distillation(backbone(n).eval(), c, t)):
        loss = make(net, teacher, config)
        for epoch, temperature in enumerate((4.0, 2.5, 1.0)):
            loss.begin_epoch(epoch, 3)
            want = soft_cross_entropy(net(x), teacher(x), temperature)
            assert float(loss(x, labels).detach()) == pytest.approx(float(want.detach()), rel=1e-5)


def test_self_distillation_trains_networks_without_exits() -> None:
    torch.manual_seed(0)
    net = Network.of(make_model("resnet18", 10, edge=16, width=0.125).eval(), (3, 16, 16))
    x, labels = torch.rand(4, 3, 16, 16), torch.arange(4)
    loss = self_distillation(net, DistillConfig())(x, labels)
    assert torch.equal(loss, F.cross_entropy(net(x), labels))


def test_attention_is_the_scaled_energy_of_channels() -> None:
    x = torch.tensor([[[[3.0, 0.0]], [[4.0, -7.0]]], [[[1.0, 2.0]], [[0.0, 0.0]]]])
    want = torch.tensor([[[1.0, 0.0]], [[1 / 17**0.5, 4 / 17**0.5]]])
    torch.testing.assert_close(attention(x), want)
    assert float(attention_distance(x, 5 * x)) == 0
    other = torch.tensor([[[[0.0, 9.0]]], [[[1.0, 2.0]]]])  # orthogonal in the first image
    assert float(attention_distance(x[:1], other[:1])) == pytest.approx(2.0)
    assert float(attention_distance(x, other)) == pytest.approx(1.0)


def test_attention_compares_maps_of_other_widths_and_sizes() -> None:
    small = torch.rand(2, 3, 2, 2)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert float(attention_distance(small, large.repeat(1, 2, 1, 1))) < 1e-10


def test_feature_loss_reaches_the_student_up_to_its_last_block_only() -> None:
    student, teacher = backbone(spatial_net()), spatial_net()
    torch.manual_seed(1)
    torch.nn.init.normal_(teacher.conv2.weight)
    x, labels = batch()
    plain, attended = (
        distillation(student, teacher, DistillConfig(feature=f))(x, labels) for f in (0.0, 10.0)
    )
    assert float((attended - plain).detach()) > 0.01
    (attended - plain).backward()
    assert float(student.conv1.weight.grad.abs().sum()) > 1e-4
    assert float(student.fc.weight.grad.abs().sum()) < 1e-4


def test_maps_are_those_of_the_blocks() -> None:
    net = spatial_net().eval()
    x = batch()[0]
    logits, *maps = net.run(x, [net.graph.output, *block_ends(net.graph)])
    assert torch.equal(logits, net(x))
    assert [tuple(m.shape) for m in maps] == [(6, 4, 16, 16), (6, 8, 8, 8), (6, 8, 4, 4)]
    want = net.conv1_norm(net.conv1(x))
    assert torch.equal(maps[0], want)
