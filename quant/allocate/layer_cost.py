# SPDX-License-Identifier: Apache-2.0
"""What every layer of an fp32 network costs, at its own channel counts and at smaller ones.

Three kinds: multiply-accumulates ("flops"), trained parameters ("parameters"), and modelled cycles
of the engine at the configured sparsity and 8-bit weights ("cycles"; layers that the engine cannot
run count 0). A cost depends on the channels a layer reads and writes, so removing channels needs no
new network to be priced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

from torch import nn

from quant.allocate.flops import layer_flops
from quant.allocate.sizes import layer_keeps, layer_shapes, pool_shapes
from quant.layers.winograd_layer import TapLayer
from quant.network.channels import ChannelGroup
from quant.network.graph import NetworkGraph
from quant.network.network import Network
from quant.network.rewrite import tap_layers, to_winograd
from quant.network.structure import channel_groups
from winnow.blocking import LayerShape
from winnow.config import Config
from winnow.cycles import layer_cycles

WEIGHT_BITS = 8
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

Price = Callable[[int, int], int]  # channels read, channels written -> cost


@dataclass(frozen=True)
class CostTerm:
    """A layer or BatchNorm: the groups whose channels it reads and writes, or None, and its cost.

    `channels` are those it reads and writes now, for where there is no group.
    """

    name: str
    reads: str | None
    writes: str | None
    channels: tuple[int, int]
    price: Price

    def cost(self, counts: Mapping[str, int]) -> int:
        """Return the cost with `counts` channels in the groups."""
        read, written = self.channels
        read = read if self.reads is None else counts[self.reads]
        written = written if self.writes is None else counts[self.writes]
        return self.price(read, written)


def total(terms: Iterable[CostTerm], counts: Mapping[str, int]) -> int:
    """Return the cost of all terms with `counts` channels in the groups."""
    return sum(term.cost(counts) for term in terms)


def cost_terms(net: Network, config: Config) -> list[CostTerm]:
    """Return the terms of a network whose cost `config.prune_channels.budget` counts."""
    prices = PRICES[config.prune_channels.budget](net, config)
    groups = channel_groups(net.graph)
    reads, writes = _readers(groups), _writers(groups)
    return [
        CostTerm(name, reads.get(name), writes.get(name), _channels(net.get_submodule(name)), price)
        for name, price in prices.items()
    ]


def layer_costs(net: Network, config: Config) -> dict[str, int]:
    """Return the modelled engine cycles of every layer, lone pool and average by name."""
    prices = _cycles(net, config)
    layers = {name: price(*_channels(net.get_submodule(name))) for name, price in prices.items()}
    return layers | pool_costs(net.graph, config)


def pool_costs(graph: NetworkGraph, config: Config) -> dict[str, int]:
    """Return the modelled engine cycles of lone max pools and of averages."""
    shapes = pool_shapes(graph)
    return {name: int(layer_cycles(config.engine, s, name).total) for name, s in shapes.items()}


def _readers(groups: Iterable[ChannelGroup]) -> dict[str, str]:
    return {name: group.name for group in groups for name in (*group.consumers, *group.followers)}


def _writers(groups: Iterable[ChannelGroup]) -> dict[str, str]:
    return {name: group.name for group in groups for name in (*group.producers, *group.followers)}


def _channels(module: nn.Module) -> tuple[int, int]:
    """Return the channels a module reads and writes; a linear one reads operands."""
    if isinstance(module, NORMS):
        return module.num_features, module.num_features
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.in_channels, module.out_channels


def _flops(net: Network, _: Config) -> dict[str, Price]:
    prices: dict[str, Price] = {}
    positions = _positions(net)
    for name, macs in layer_flops(net, net.graph.input).items():
        module = net.get_submodule(name)
        read, written = _channels(module)
        if _is_depthwise(module):
            prices[name] = partial(_one_to_one, macs // written)
        else:
            per_read = positions.get(name, 1)
            prices[name] = partial(_all_to_all, macs // (read * written) * per_read)
    return prices


def _parameters(net: Network, _: Config) -> dict[str, Price]:
    prices: dict[str, Price] = {}
    positions = _positions(net)
    for name, module in net.named_modules():
        if isinstance(module, NORMS):
            prices[name] = partial(_one_to_one, 2)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            bias = int(module.bias is not None)
            window = module.weight[0, 0].numel() * positions.get(name, 1)
            if _is_depthwise(module):
                prices[name] = partial(_one_to_one, window + bias)
            else:
                prices[name] = partial(_all_to_all, window, bias=bias)
    return prices


def _cycles(net: Network, config: Config) -> dict[str, Price]:
    tapped = to_winograd(net, config.engine.m, unroll=config.prune.unrolls)
    layers = tap_layers(tapped)
    shapes = layer_shapes(tapped, layer_keeps(config, tapped), dict.fromkeys(layers, WEIGHT_BITS))
    return {
        name: _cycle_price(config, name, found, _values_per_channel(layers[name]))
        for name, found in shapes.items()
    }


def _values_per_channel(layer: TapLayer) -> int:
    """Return how many values of every channel a layer reads at a pixel."""
    return layer.row_length * layer.groups // layer.in_channels


def _cycle_price(config: Config, name: str, shape: LayerShape, per_channel: int) -> Price:
    """Return the price of a layer that reads `per_channel` values of every channel at a pixel."""

    @cache
    def price(read: int, written: int) -> int:
        # The classifier has operands for channels; a layer without groups keeps its own.
        values = read * per_channel
        is_depthwise = shape.groups == shape.in_channels
        narrowed = replace(
            shape,
            groups=read if is_depthwise else shape.groups,
            in_channels=min(values, shape.in_channels),
            out_channels=written,
            keep=min(shape.keep, values),
        )
        return int(layer_cycles(config.engine, narrowed, name).total)

    return price


def _all_to_all(each: int, read: int, written: int, bias: int = 0) -> int:
    return each * read * written + bias * written


def _one_to_one(each: int, read: int, written: int) -> int:  # noqa: ARG001 (reads what it writes)
    return each * written


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1


def _positions(net: Network) -> dict[str, int]:
    """Return the operands per channel of the linear layers that read a group."""
    return {name: g.positions for g in channel_groups(net.graph) for name in g.consumers}


PRICES = {"flops": _flops, "parameters": _parameters, "cycles": _cycles}
