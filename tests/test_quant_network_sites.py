# SPDX-License-Identifier: Apache-2.0
"""Sites: which layer reads which, and what follows it, in chains, residual nets and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quant.models.chain import ChainNet, InputShape, backbone, chain_spec
from quant.models.library import make_model
from quant.network.channels import remove_channels
from quant.network.sites import find_sites, trace, visit_layers
from winnow.config import ModelConfig
from winnow.errors import ConfigError

MODEL = ModelConfig(channels=(4, 6, 8), pool_after=(1, 3), exit_after=(1, 2), hidden=(12,))


def chain() -> ChainNet:
    return ChainNet(chain_spec(MODEL, InputShape(2, 12, 5)))


def test_chain() -> None:
    sites = find_sites(chain(), (2, 12, 12))
    found = [
        (s.name, s.source, s.in_channels, s.height, s.norm, s.relu, s.pool) for s in sites.values()
    ]
    assert found == [
        ("conv1", "input", 2, 12, "conv1_norm", True, True),
        ("conv2", "conv1", 4, 6, "conv2_norm", True, False),
        ("conv3", "conv2", 6, 6, "conv3_norm", True, True),
        ("fc1", "conv3", 8, 3, None, True, False),
        ("fc", "fc1", 12, 1, None, False, False),
    ]


def test_results_are_taken_after_what_follows() -> None:
    net = chain().eval()
    x = torch.rand(3, 2, 12, 12)
    results = trace(net, x).results
    assert torch.equal(results["conv3"], net.features(x))
    assert torch.equal(results["fc"], net(x))


def test_map_in_another_memory_layout_is_followed() -> None:
    net = chain().eval()
    for module in net.modules():  # as Winograd layers leave their maps; flattening must copy them
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda *call: call[2].to(memory_format=torch.channels_last)
            )
    assert find_sites(net, (2, 12, 12))["fc1"].source == "conv3"


@pytest.mark.parametrize("inplace", [False, True])
def test_a_sum_belongs_to_no_layer(inplace: bool) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
            self.relu = nn.ReLU(inplace)

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.a(x))
            z = self.b(y)
            z += y
            return self.c(self.relu(z))

    sites = find_sites(Sum(), (2, 6, 6))
    assert [(s.source, s.relu) for s in sites.values()] == [
        ("input", True),
        ("a", False),
        (None, False),
    ]


def test_residual_network() -> None:
    sites = find_sites(make_model("resnet18", 10, width=0.125), (3, 32, 32))
    assert len(sites) == 21  # 17 convolutions, 3 projections, the classifier
    assert sites["layer1.0.conv1"].source == "conv1"
    assert sites["layer1.0.conv2"].source == "layer1.0.conv1"
    assert sites["layer1.1.conv1"].source is None
    assert [s.relu for s in sites.values()].count(True) == 9  # the stem and the blocks' first


def test_other_pools_are_not_the_engines() -> None:
    for pool in (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2)):
        net = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), pool, nn.Conv2d(2, 2, 1))
        first, second = find_sites(net, (2, 7, 7)).values()
        assert not first.pool
        assert second.source is None


def test_layers_are_visited_with_what_earlier_visits_left() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    seen = []

    def double(layer: nn.Module, x: Tensor) -> None:
        seen.append(x.clone())
        with torch.no_grad():
            layer.weight.copy_(2 * torch.eye(2))
            layer.bias.zero_()

    visit_layers(net, list(net), torch.ones(1, 2), double)
    assert [x.tolist() for x in seen] == [[[1, 1]], [[2, 2]]]
    assert net.training


@pytest.mark.parametrize("group", [0, 1, 2])
def test_dead_channels_of_a_chain_leave_no_trace(group: int) -> None:
    net = chain().eval()
    chosen = net.channel_groups()[group]
    (norm,) = chosen.followers
    with torch.no_grad():
        for parameter in (net.get_submodule(norm).weight, net.get_submodule(norm).bias):
            parameter[1::2] = 0
    x = torch.rand(3, 2, 12, 12)
    logits, _, shallow = net.with_exits(x)
    remove_channels(net, chosen, torch.arange(0, chosen.channels(net), 2))
    ours, _, ours_shallow = net.with_exits(x)
    torch.testing.assert_close(ours, logits)
    for (want, _), (got, _) in zip(shallow, ours_shallow, strict=True):
        torch.testing.assert_close(got, want)


def test_exits_end_at_the_shape_of_the_last_map() -> None:
    for (_, branch), convs in zip(chain().spec.exits, (1, 1), strict=True):
        assert (branch.channels, branch.edge, len(branch.convs)) == (8, 3, convs)
    assert not backbone(chain()).exits


def test_too_many_pools_are_refused() -> None:
    model = ModelConfig(channels=(4, 4), pool_after=(1, 2), exit_after=())
    match = r"^model.pool_after: the map has no pixel left after conv2; pool less often$"
    with pytest.raises(ConfigError, match=match):
        chain_spec(model, InputShape(1, 2, 10))
