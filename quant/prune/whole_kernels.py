# SPDX-License-Identifier: Apache-2.0
"""SRBS whose zeros are whole kernels: all taps of a kernel keep the same input channels.

Of every 8 input channels an output channel keeps the `keep` kernels of largest norm. What stays of
a layer is a convolution: it treats all pixels of a tile alike, where taps that choose for
themselves leave something different at every pixel (docs/compression.md). So it trains as the
masked spatial convolution that it is, and goes to the Winograd domain when pruning is over. Fully
connected layers have no kernels and keep the largest weights at each pixel.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.layers.winograd_layer import DirectConv2d, WinogradConv2d
from quant.network.rewrite import tap_layers
from quant.prune.gradual import Gradual
from quant.prune.kernel import nearest_kernel
from quant.prune.target import PruningTask, Target, best_mask


class MaskedConv2d(nn.Module):
    """The 3x3 convolution of a Winograd layer; `mask` [oc, ic] says which kernels it has."""

    mask: Tensor

    def __init__(self, layer: WinogradConv2d) -> None:
        super().__init__()
        self.groups = layer.groups
        self.weight = nn.Parameter(nearest_kernel(layer))
        self.bias = nn.Parameter(layer.bias.detach().clone())
        self.register_buffer("mask", torch.ones_like(self.weight[:, :, 0, 0]))

    @property
    def kernel(self) -> Tensor:
        """The kernels [oc, ic, 3, 3]."""
        return self.weight * self.mask[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, self.bias, padding=1, groups=self.groups)


class WholeKernels(Gradual):
    """Gradual pruning of kernels by norm; what is dropped stays dropped.

    Until `release` all Winograd layers of the network are spatial, dense ones too: that is faster.
    """

    def __init__(self, task: PruningTask) -> None:
        super().__init__(task)
        self.layers = {
            name: layer
            for name, layer in tap_layers(task.net).items()
            if isinstance(layer, WinogradConv2d)
        }
        self.convs = {name: MaskedConv2d(layer) for name, layer in self.layers.items()}
        for name, conv in self.convs.items():
            task.net.set_submodule(name, conv)

    @torch.no_grad()
    def step(self, number: int) -> None:
        for target in self.task.targets:
            keep, layer = target.keeps_at(number, self.task.config.steps), target.layer
            if target.name in self.convs:
                conv = self.convs[target.name]
                conv.mask.copy_(_largest(conv.kernel.flatten(2), target, int(keep[0])))
            elif isinstance(layer, DirectConv2d):
                mask = _largest(layer.by_channel(layer.u), target, int(keep[0]))
                places = layer.by_channel(layer.mask).shape[2]
                layer.mask.copy_(mask[:, :, None].expand(-1, -1, places).reshape_as(layer.mask))
            else:
                layer.mask.copy_(target.mask(layer.u, keep))

    @torch.no_grad()
    def release(self) -> None:
        for name, conv in self.convs.items():
            layer = self.layers[name]
            layer.mask.copy_(conv.mask[:, :, None].expand_as(layer.mask))
            layer.load_spatial(conv.weight)
            layer.bias.copy_(conv.bias)
            self.task.net.set_submodule(name, layer)


def _largest(kernels: Tensor, target: Target, keep: int) -> Tensor:
    """Return the mask [oc, ic] of the kernels [oc, ic, places] of largest norm in each sub-row."""
    norm = kernels.norm(dim=2, keepdim=True)
    return best_mask(norm, np.array([keep]), target.sub_row)[:, :, 0]
