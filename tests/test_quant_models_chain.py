# SPDX-License-Identifier: Apache-2.0
"""The chain: its channels, its exits, and what is refused."""

from __future__ import annotations

import pytest
import torch

from quant.data import InputShape
from quant.models.chain import ChainNet, chain_spec
from quant.models.library import network_of
from quant.network.channels import remove_channels
from quant.network.network import backbone
from quant.network.structure import channel_groups
from winnow.config import ModelConfig
from winnow.errors import ConfigError

MODEL = ModelConfig(
    channels=(4, 6, 8), pool_after=(1, 3), exit_after=(1, 2), exit_head="convolutions", hidden=(12,)
)
SHAPE = InputShape(2, 12, 5)


@pytest.mark.parametrize("group", [0, 1, 2])
def test_dead_channels_of_a_chain_leave_no_trace(group: int) -> None:
    net = network_of(MODEL, SHAPE).eval()
    chosen = channel_groups(net.graph)[group]
    (norm,) = chosen.followers
    with torch.no_grad():
        for parameter in (net.get_submodule(norm).weight, net.get_submodule(norm).bias):
            parameter[1::2] = 0
    x = torch.rand(3, 2, 12, 12)
    want, _ = net.with_exits(x)
    remove_channels(net, chosen, torch.arange(0, chosen.channels(net), 2))
    got, _ = net.with_exits(x)
    for (logits, _), (ours, _) in zip(want, got, strict=True):
        torch.testing.assert_close(ours, logits)
    assert net.graph.by_name[chosen.name].shape[0] == chosen.channels(net)


def test_exits_end_at_the_shape_of_the_last_map() -> None:
    spec = ChainNet(chain_spec(MODEL, SHAPE)).spec
    for (_, branch), convs in zip(spec.exits, (1, 1), strict=True):
        assert (branch.channels, branch.size, len(branch.convs)) == (8, (3, 3), convs)
    assert not backbone(network_of(MODEL, SHAPE)).graph.exits


def test_too_many_pools_are_refused() -> None:
    model = ModelConfig(channels=(4, 4), pool_after=(1, 2), exit_after=())
    match = r"^model.pool_after: the map has no pixel left after conv2; pool less often$"
    with pytest.raises(ConfigError, match=match):
        chain_spec(model, InputShape(1, 2, 10))
