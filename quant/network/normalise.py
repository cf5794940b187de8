# SPDX-License-Identifier: Apache-2.0
"""From a network of normalised images to one of bytes, with the same result.

    conv = Conv(input) 3 -> 8 of (p / 255 - mean) / std
    -> conv = Conv(input) 4 -> 8 of p / 256 and a fourth channel of 255 / 256

The weights take std, those of the added channel -sum(mean / std * weight) over the others. A bias
would do the same but at a zero-padded border, where the normalised image is 0 and the mean must not
be subtracted: there the added channel is 0 too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from quant.data.samples import CONSTANT, INPUT_BITS
from quant.network.graph import INPUT, Conv, Flatten, Identity, Linear, NetworkGraph, Node
from quant.network.layer_modules import layer_module
from quant.network.network import Network
from quant.network.same import random_images, require_same, result
from winnow.config import DataConfig
from winnow.errors import ConfigError, NetworkError

LEVELS = 2**INPUT_BITS  # a network of bytes reads pixel / 256


@dataclass(frozen=True)
class Normal:
    """Mean and standard deviation of every channel, of pixels from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, data: DataConfig, channels: int) -> Normal:
        """Return data.mean and data.std for images of `channels`; ConfigError if they misfit."""
        values = []
        for key, found, default in (("mean", data.mean, 0.0), ("std", data.std, 1.0)):
            if len(found) not in (0, 1, channels):
                count = "1 value" if channels == 1 else f"1 or {channels} values"
                raise ConfigError(
                    f"data.{key} must have {count} for images of {channels} channels, got "
                    f"{len(found)}"
                )
            values.append(found if len(found) == channels else (found or (default,)) * channels)
        return cls(*values)

    @property
    def has_constant(self) -> bool:
        """Whether a mean must be subtracted."""
        return any(self.mean)

    def normalised(self, x: Tensor) -> Tensor:
        """Return (p / 255 - mean) / std of inputs x = p / 256, [n, c, h, w]."""
        mean, std = (torch.tensor(v).to(x).view(-1, 1, 1) for v in (self.mean, self.std))
        return (x * (LEVELS / CONSTANT) - mean) / std

    def given(self, x: Tensor) -> Tensor:
        """Return inputs x = p / 256 with the constant channel, if there is one."""
        if not self.has_constant:
            return x
        return torch.cat([x, torch.full_like(x[:, :1], CONSTANT / LEVELS)], 1)


def on_bytes(net: Network, normal: Normal) -> Network:
    """Return a copy that gives for bytes what `net` gives for normalised images.

    Raises NetworkError if another operation than a convolution or a fully connected layer reads the
    images.
    """
    graph = net.graph
    images, nodes, made = {INPUT}, [], {}
    for node in graph.nodes:
        reads = images & set(node.inputs)
        if reads and isinstance(node, Flatten | Identity):
            images.add(node.name)
        elif reads:
            layer = net.get_submodule(node.name) if isinstance(node, Conv | Linear) else None
            node, made[node.name] = _layer(node, layer, normal)
        nodes.append(node)
    channels, *edges = graph.input
    shape = (channels + normal.has_constant, *edges)
    whole = NetworkGraph.of(shape, nodes, graph.output, graph.exits)
    found = Network(whole, {**net.layers(), **made}).train(net.training)
    found.on_host, found.quantization = net.on_host, net.quantization
    x = random_images(graph.input)
    want, got = result(net, normal.normalised(x)), result(found, normal.given(x))
    require_same(want, got, "the network with data.mean and data.std in its weights")
    return found


@torch.no_grad()
def _layer(node: Node, layer: nn.Module | None, normal: Normal) -> tuple[Node, nn.Module]:
    """Return the record and module of a layer that reads bytes."""
    if layer is None or not isinstance(node, Conv | Linear) or getattr(node, "groups", 1) != 1:
        groups = " in groups" if isinstance(node, Conv) else ""
        raise NetworkError(
            f"'{node.name}' ({type(node).__name__}{groups}) reads the images; with data.mean or "
            "data.std only convolutions and fully connected layers may: remove both, and prepare "
            "the data so"
        )
    weight = layer.weight.double()
    by_channel = weight.reshape(len(weight), len(normal.mean), -1)
    mean, std = (torch.tensor(v).to(weight).view(1, -1, 1) for v in (normal.mean, normal.std))
    by_channel = by_channel * (LEVELS / CONSTANT) / std
    if normal.has_constant:
        by_channel = torch.cat([by_channel, -(by_channel * mean).sum(1, keepdim=True)], 1)
    wide: Conv | Linear
    if isinstance(node, Conv):
        wide = replace(node, in_channels=by_channel.shape[1])
    else:
        wide = replace(node, in_features=by_channel.shape[1] * by_channel.shape[2])
    made = layer_module(wide).to(layer.weight)
    made.weight.copy_(by_channel.reshape(made.weight.shape))
    if layer.bias is not None:
        made.bias.copy_(layer.bias)
    return wide, made
