# SPDX-License-Identifier: Apache-2.0
"""Whether two forms of a network compute the same numbers, on random images in float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from quant.network.graph import Shape
from quant.network.network import Network
from winnow.errors import NetworkError

TOLERANCE = 1e-4  # of the largest output
IMAGES = 3


def random_images(shape: Shape) -> Tensor:
    """Return float64 images [n, c, h, w] of all values that images have, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, *shape), generator=generator)
    return pixels.double() / 256


def require_same(want: Tensor, got: Tensor, what: str) -> None:
    """Raise NetworkError, which says `what` got, unless two results are equal but for rounding."""
    if got.shape != want.shape:
        raise NetworkError(
            f"{what} gives results {list(got.shape)}, the network that was given {list(want.shape)}"
        )
    off = float((want - got).abs().max() / want.abs().max().clamp(min=1e-30))
    if not off <= TOLERANCE:
        raise NetworkError(
            f"{what} differs from the network that was given by {off:.2g} of its largest output, "
            f"at most {TOLERANCE:g} is rounding; please report this network"
        )


@torch.no_grad()
def result(net: Network, x: Tensor) -> Tensor:
    """Return what a network computes in evaluation, in float64; the network stays as it is."""
    found: Tensor = copy.deepcopy(net).double().eval()(x)
    return found


@torch.no_grad()
def with_statistics(net: Network) -> Network:
    """Return a copy whose BatchNorms and biases are not those of fresh ones, which hide mistakes.

    Fresh ones change nothing: mean and bias 0, variance and weight 1.
    """
    net = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    for layer in net.layers().values():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            if layer.weight is not None:
                layer.weight.uniform_(0.5, 1.5, generator=generator)
        if layer.bias is not None:
            layer.bias.add_(torch.rand(layer.bias.shape, generator=generator) * 0.2 - 0.1)
    return net
