# SPDX-License-Identifier: Apache-2.0
"""Small library networks whose BatchNorms have seen data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from quant.models.library import make_model
from quant.network.channels import remove_channels
from quant.network.network import Network
from quant.network.structure import channel_groups

CLASSES = 10


def tiny(name: str = "resnet18", classes: int = CLASSES, edge: int = 32) -> Network:
    """Return a narrow network in evaluation mode whose BatchNorms have seen data."""
    net = make_model(name, classes, width=0.125)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        net(torch.randn(4, 3, 32, 32))
    return Network.of(net.eval(), (3, edge, edge))


def narrow(net: Network, counts: Mapping[str, int]) -> None:
    """Keep the first `counts` channels of every group, in place."""
    for group in channel_groups(net.graph):
        remove_channels(net, group, torch.arange(counts[group.name]))


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 32, 32)
