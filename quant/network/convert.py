# SPDX-License-Identifier: Apache-2.0
"""From one form of a network to the next: spatial -> Winograd domain -> folded -> quantized.

A conversion replaces layers in a copy and leaves everything between them alone, so it works on any
network, the chain of a configuration and the models of the library alike.

    Conv2d 3x3, stride 1 -> WinogradConv2d     other Conv2d -> DirectConv2d     Linear -> Dense
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from quant.layers.bit_widths import BitWidths
from quant.layers.quant_layer import (
    QuantDense,
    QuantDirectConv2d,
    QuantTapLayer,
    QuantWinogradConv2d,
)
from quant.layers.winograd_layer import Dense, DirectConv2d, TapLayer, Window, WinogradConv2d
from quant.network.sites import Site

KERNEL, PADDING = (3, 3), (1, 1)


def tap_layers(net: nn.Module) -> dict[str, TapLayer]:
    """Return the layers that multiply in taps, by dotted path."""
    return {name: m for name, m in net.named_modules() if isinstance(m, TapLayer)}


def to_winograd(net: nn.Module, m: int, sites: Mapping[str, Site]) -> nn.Module:
    """Return a copy of a network whose 3x3 convolutions of stride 1 are F(m, 3).

    Convolutions in groups (depth-wise ones) and layers that never run stay as they are.
    """
    net = copy.deepcopy(net)
    for name, site in sites.items():
        module = net.get_submodule(name)
        layer = _tap_layer(module, m, site.in_channels)
        if layer is not None:
            layer.load_spatial(module.weight.detach())
            if module.bias is not None:
                layer.bias.data.copy_(module.bias.detach())
            net.set_submodule(name, layer.to(module.weight))
    return net


def _tap_layer(
    module: nn.Module, m: int, channels: int
) -> WinogradConv2d | DirectConv2d | Dense | None:
    """Return the layer that stands in for a module, without weights; None if there is none."""
    if isinstance(module, nn.Linear):
        return Dense(module.in_features, module.out_features, channels)
    if not isinstance(module, nn.Conv2d) or module.groups != 1:
        return None
    is_engine = (module.kernel_size, module.padding) == (KERNEL, PADDING)
    if is_engine and module.stride == module.dilation == (1, 1):
        return WinogradConv2d(module.in_channels, module.out_channels, m)
    if module.dilation != (1, 1):
        return None
    window = Window(module.kernel_size, module.stride, module.padding)
    return DirectConv2d(module.in_channels, module.out_channels, window)


@torch.no_grad()
def fold_norms(net: nn.Module, sites: Mapping[str, Site]) -> None:
    """Fold every BatchNorm that follows a tap layer into U and the bias, in place."""
    layers = tap_layers(net)
    for name, layer in layers.items():
        norm_name = sites[name].norm
        if norm_name is None:
            continue
        norm = net.get_submodule(norm_name)
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        layer.weight.mul_(gain[:, None, None])
        layer.bias.copy_((layer.bias - norm.running_mean) * gain + norm.bias)
        net.set_submodule(norm_name, nn.Identity())


@torch.no_grad()
def to_quantized(net: nn.Module, widths: Mapping[str, BitWidths]) -> nn.Module:
    """Return a copy of a folded network with Brevitas layers; weights, masks, biases taken over.

    `widths` has an entry for every tap layer. Scales are 1 until `quant.network.calibrate`.
    """
    net = copy.deepcopy(net)
    for name, layer in tap_layers(net).items():
        made = _quantized(layer, widths[name])
        for key in ("weight", "bias", "mask"):
            getattr(made, key).copy_(getattr(layer, key))
        net.set_submodule(name, made.to(layer.weight))
    return net


def _quantized(layer: TapLayer, widths: BitWidths) -> QuantTapLayer:
    if isinstance(layer, WinogradConv2d):
        return QuantWinogradConv2d(layer.in_channels, layer.out_channels, layer.m, widths)
    if isinstance(layer, DirectConv2d):
        return QuantDirectConv2d(layer.in_channels, layer.out_channels, layer.window, widths)
    operands = layer.weight.shape[1]
    return QuantDense(operands, layer.out_channels, layer.in_channels, widths)
