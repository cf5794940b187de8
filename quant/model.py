# SPDX-License-Identifier: Apache-2.0
"""The three forms of one network: spatial fp32, Winograd domain, quantized.

All are the VGG-style chain of `ModelConfig`: 3x3 convolutions `conv1`.. with BatchNorm, ReLU and
2x2 max pools, then `fc` over the map flattened in (c, h, w) order. Inputs are [n, 1, h, w] on the
2^-8 grid, outputs logits [n, classes].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.data import NUM_CLASSES
from quant.quant_layer import QuantDense, QuantWinogradConv2d, Widths
from quant.winograd_layer import Dense, TapLayer, WinogradConv2d
from winnow.blocking import DENSE, WINOGRAD, LayerShape
from winnow.config import Config, QuantizeConfig
from winnow.errors import ConfigError
from winnow.srbs import SUB_ROW, max_keep

FC = "fc"


@dataclass(frozen=True)
class ConvSpec:
    """One convolution: name, channels, edge of its input map, and whether a pool follows."""

    name: str
    in_channels: int
    out_channels: int
    edge: int
    pool: bool


@dataclass(frozen=True)
class NetSpec:
    """The chain of convolutions and the map the fully connected layer flattens."""

    convs: tuple[ConvSpec, ...]
    channels: int
    edge: int

    @property
    def operands(self) -> int:
        return self.channels * self.edge**2

    @property
    def pools(self) -> dict[str, bool]:
        """Name of every layer -> whether a 2x2 max pool follows."""
        return {conv.name: conv.pool for conv in self.convs} | {FC: False}

    @property
    def in_channels(self) -> dict[str, int]:
        """Name of every layer -> channels of the map it reads."""
        return {conv.name: conv.in_channels for conv in self.convs} | {FC: self.channels}


def net_spec(config: Config) -> NetSpec:
    """Return the network of a configuration; raises ConfigError if a pool has nothing to pool."""
    convs = []
    channels, edge = 1, config.data.image_size
    for number, out_channels in enumerate(config.model.channels, start=1):
        pool = number in config.model.pool_after
        convs.append(ConvSpec(f"conv{number}", channels, out_channels, edge, pool))
        channels, edge = out_channels, edge // 2 if pool else edge
        if edge == 0:
            raise ConfigError(
                f"model.pool_after: the map has no pixel left after conv{number}; pool less often"
            )
    return NetSpec(tuple(convs), channels, edge)


def layer_keeps(config: Config) -> dict[str, int]:
    """Return the non-zeros per sub-row that pruning leaves each layer."""
    keeps = {}
    for number, (name, channels) in enumerate(net_spec(config).in_channels.items(), start=1):
        keep = SUB_ROW if number <= config.prune.skip else config.prune.keep
        keeps[name] = min(keep, channels)
    return keeps


def layer_shapes(config: Config, bits: Mapping[str, int]) -> dict[str, LayerShape]:
    """Return the cycle model's description of every layer at the given weight widths."""
    spec, keeps = net_spec(config), layer_keeps(config)
    shapes = {
        conv.name: LayerShape(
            WINOGRAD,
            conv.in_channels,
            conv.out_channels,
            conv.edge,
            conv.edge,
            keeps[conv.name],
            bits[conv.name],
            conv.pool,
        )
        for conv in spec.convs
    }
    shapes[FC] = LayerShape(
        DENSE, spec.channels, NUM_CLASSES, spec.edge, spec.edge, keeps[FC], bits[FC]
    )
    return shapes


class SpatialNet(nn.Module):
    """fp32 network with the shallow exits of Be Your Own Teacher (Zhang et al., ICCV 2019).

    An exit is a bottleneck that brings an early map to the shape of the last one, and a
    classifier. Exits exist for training only; one after the last convolution would be the network
    itself and is left out.
    """

    def __init__(self, spec: NetSpec, exit_after: tuple[int, ...]) -> None:
        super().__init__()
        self.spec = spec
        self.convs = nn.ModuleDict(
            {
                c.name: nn.Conv2d(c.in_channels, c.out_channels, 3, padding=1, bias=False)
                for c in spec.convs
            }
        )
        self.norms = nn.ModuleDict({c.name: nn.BatchNorm2d(c.out_channels) for c in spec.convs})
        self.fc = nn.Linear(spec.operands, NUM_CLASSES)
        exits = [spec.convs[i - 1] for i in exit_after if i < len(spec.convs)]
        self.bottlenecks = nn.ModuleDict({c.name: _bottleneck(c, spec) for c in exits})
        self.exits = nn.ModuleDict({c.name: nn.Linear(spec.operands, NUM_CLASSES) for c in exits})

    def forward(self, x: Tensor) -> Tensor:
        return self.with_exits(x)[0]

    def with_exits(self, x: Tensor) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Return logits, the last map [n, c, h, w], and (logits, map) of every exit."""
        shallow = []
        for conv in self.spec.convs:
            x = F.relu(self.norms[conv.name](self.convs[conv.name](x)))
            x = F.max_pool2d(x, 2) if conv.pool else x
            if self.training and conv.name in self.exits:
                feature = self.bottlenecks[conv.name](x)
                shallow.append((self.exits[conv.name](feature.flatten(1)), feature))
        return self.fc(x.flatten(1)), x, shallow


def _bottleneck(conv: ConvSpec, spec: NetSpec) -> nn.Module:
    """1x1 reduce, 3x3, 1x1 expand, then pooled to the last map's size."""
    middle = max(spec.channels // 4, 4)
    return nn.Sequential(
        nn.Conv2d(conv.out_channels, middle, 1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, padding=1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(spec.edge),
        nn.Conv2d(middle, spec.channels, 1, bias=False),
        nn.BatchNorm2d(spec.channels),
        nn.ReLU(),
    )


class WinogradNet(nn.Module):
    """The network with weights U in the Winograd domain; BatchNorm stays until `fold`."""

    def __init__(self, spec: NetSpec, m: int) -> None:
        super().__init__()
        self.spec = spec
        layers: dict[str, TapLayer] = {
            c.name: WinogradConv2d(c.in_channels, c.out_channels, m) for c in spec.convs
        }
        layers[FC] = Dense(spec.operands, NUM_CLASSES)
        self.layers = nn.ModuleDict(layers)
        self.norms = nn.ModuleDict({c.name: nn.BatchNorm2d(c.out_channels) for c in spec.convs})

    @torch.no_grad()
    def load_spatial(self, net: SpatialNet) -> None:
        """Take over a spatial network: U = G g G^T, BatchNorm and classifier as they are."""
        for conv in self.spec.convs:
            self.layers[conv.name].load_spatial(net.convs[conv.name].weight)
        self.norms.load_state_dict(net.norms.state_dict())
        self.layers[FC].set_u(net.fc.weight[:, :, None])
        self.layers[FC].bias.copy_(net.fc.bias)

    @torch.no_grad()
    def keeps(self) -> dict[str, int]:
        """Return the most non-zeros that any sub-row of each layer holds."""
        return {
            name: max_keep(layer.by_channel(layer.u, self.spec.in_channels[name]).cpu().numpy())
            for name, layer in self.layers.items()
        }

    @torch.no_grad()
    def fold(self) -> None:
        """Fold every BatchNorm into U and the bias; afterwards the norms are the identity."""
        for name, norm in self.norms.items():
            if isinstance(norm, nn.Identity):
                continue
            layer = self.layers[name]
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            layer.weight.mul_(gain[:, None, None])
            layer.bias.copy_((layer.bias - norm.running_mean) * gain + norm.bias)
            self.norms[name] = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.spec.convs:
            x = F.relu(self.norms[conv.name](self.layers[conv.name](x)))
            x = F.max_pool2d(x, 2) if conv.pool else x
        return self.layers[FC](x).flatten(1)


def folded_net(spec: NetSpec, m: int) -> WinogradNet:
    """Return a Winograd network without BatchNorm, as pruning saves it."""
    net = WinogradNet(spec, m)
    net.norms = nn.ModuleDict({name: nn.Identity() for name in net.norms})
    return net


class QuantNet(nn.Module):
    """The network of Brevitas layers that lowering turns into the integer graph."""

    def __init__(
        self, spec: NetSpec, m: int, bits: Mapping[str, int], quantize: QuantizeConfig
    ) -> None:
        super().__init__()
        self.spec = spec
        v_bits, out_bits = quantize.v_bits, quantize.activation_bits
        layers: dict[str, nn.Module] = {
            c.name: QuantWinogradConv2d(
                c.in_channels, c.out_channels, m, Widths(bits[c.name], v_bits, out_bits)
            )
            for c in spec.convs
        }
        layers[FC] = QuantDense(spec.operands, NUM_CLASSES, Widths(bits[FC], v_bits, None))
        self.layers = nn.ModuleDict(layers)

    @torch.no_grad()
    def load_folded(self, net: WinogradNet) -> None:
        """Take over weights, masks and biases of a folded Winograd network."""
        for name, layer in self.layers.items():
            for key in ("weight", "bias", "mask"):
                getattr(layer, key).copy_(getattr(net.layers[name], key))

    def trace(self, x: Tensor) -> dict[str, Tensor]:
        """Return every layer's output after its pool, [n, c, h, w], in order."""
        maps = {}
        for name, pool in self.spec.pools.items():
            x = self.layers[name](x)
            x = F.max_pool2d(x, 2) if pool else x
            maps[name] = x
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x)[FC].flatten(1)
