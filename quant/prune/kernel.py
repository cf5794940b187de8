# SPDX-License-Identifier: Apache-2.0
"""Winograd layers trained through the 3x3 kernel that they come from.

U = G g G^T has 16 (36) numbers for 9 of the kernel g. Trained freely, U leaves the plane of those
that have a kernel, and zeros in g are lost. While `through_kernel` holds, g is the parameter.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quant.layers.winograd_layer import WinogradConv2d
from winnow.winograd import winograd


class ThroughKernel(nn.Module):
    """Parametrization of a Winograd layer's weight by g [oc, ic, 9] times `pattern`."""

    def __init__(self, layer: WinogradConv2d) -> None:
        super().__init__()
        g = winograd(layer.m).g
        kron = np.kron(g, g)  # taps, 9
        gain = layer.tap_gain
        weights = torch.tensor(kron).to(gain.device) / gain.double()[:, None]
        self.register_buffer("lift", weights.to(gain.dtype), persistent=False)
        self.register_buffer("fall", torch.linalg.pinv(weights), persistent=False)
        pattern = torch.ones(*layer.weight.shape[:2], kron.shape[1])
        self.register_buffer("pattern", pattern.to(gain))

    def forward(self, kernel: Tensor) -> Tensor:
        # Half precision here would move every weight of the network.
        with torch.autocast(kernel.device.type, enabled=False):
            return torch.einsum("oik,tk->oit", kernel * self.pattern, self.lift)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the kernel of a weight [oc, ic, taps], the nearest one if it has none."""
        return torch.einsum("oit,kt->oik", weight.double(), self.fall).to(weight)


def through_kernel(layer: WinogradConv2d) -> ThroughKernel:
    """Make the 3x3 kernel the parameter of a layer, until `release`."""
    made = ThroughKernel(layer)
    parametrize.register_parametrization(layer, "weight", made)
    return made


def kernel_of(layer: WinogradConv2d) -> nn.Parameter:
    """Return the trained kernel [oc, ic, 9] of a layer that `through_kernel` holds."""
    kernel: nn.Parameter = layer.parametrizations.weight.original
    return kernel


@torch.no_grad()
def nearest_kernel(layer: WinogradConv2d) -> Tensor:
    """Return the kernel [oc, ic, 3, 3] of a layer, the nearest one if it has none."""
    kernel = ThroughKernel(layer).right_inverse(layer.weight)
    return kernel.unflatten(2, (3, 3)).contiguous()


def release(layer: WinogradConv2d) -> None:
    """Make the weight the parameter again, with its present value."""
    parametrize.remove_parametrizations(layer, "weight")


def hold_pattern(layer: WinogradConv2d, keep: int) -> None:
    """Train a pattern-pruned layer through its kernels, whose `keep` largest weights may change."""
    made = through_kernel(layer)
    size = kernel_of(layer).detach().abs()
    kept = size.argsort(dim=2, descending=True, stable=True)[:, :, :keep]
    made.pattern.zero_().scatter_(2, kept, 1.0)
