# SPDX-License-Identifier: Apache-2.0
"""The quantized sum of two maps and average over one: `add` and `global_average` of the graph.

In float64 the maps are exact multiples of their scales, so their sum is exact; it is rounded once,
to a power-of-two grid of its own. Plain tensors are added: Brevitas refuses to add its own ones
when their scales differ.
"""

from __future__ import annotations

from brevitas.nn import QuantIdentity
from torch import Tensor, nn

from quant.layers.quantizers import FeatureQuant, SignedFeatureQuant, value_of


def _fixed_quantizer(bits: int, *, signed: bool) -> nn.Module:
    """Return an activation quantizer whose scale calibration sets and training leaves alone."""
    quantizer = SignedFeatureQuant if signed else FeatureQuant
    made = QuantIdentity(act_quant=quantizer, bit_width=bits, return_quant_tensor=False).act_quant
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    return made


class QuantAdd(nn.Module):
    """Sum of two maps [n, c, h, w] in `bits` bits: unsigned with `relu`, which clamps at 0."""

    def __init__(self, bits: int, *, relu: bool) -> None:
        super().__init__()
        self.bits, self.relu = bits, relu
        self.output_quant = _fixed_quantizer(bits, signed=not relu)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return value_of(self.output_quant(x + y))


class QuantAverage(nn.Module):
    """Sum over the pixels of a map over 2^log2_pixels, the least power not below their number.

    The mean times h w / 2^log2_pixels: the layer behind it holds the inverse of that factor. Input
    [n, c, h, w], output [n, c, 1, 1], or with `flat` [n, c]; unsigned with `relu`.
    """

    def __init__(self, bits: int, *, relu: bool, flat: bool, log2_pixels: int) -> None:
        super().__init__()
        self.bits, self.relu, self.flat, self.log2_pixels = bits, relu, flat, log2_pixels
        self.output_quant = _fixed_quantizer(bits, signed=not relu)

    def total(self, x: Tensor) -> Tensor:
        """Return the sum over 2^log2_pixels, not rounded."""
        return x.sum((2, 3), keepdim=not self.flat) * 2.0**-self.log2_pixels

    def forward(self, x: Tensor) -> Tensor:
        return value_of(self.output_quant(self.total(x)))


def share_of_mean(height: int, width: int) -> float:
    """Return an average over so many pixels as a part of their mean: h w / 2^k, above 1/2."""
    return height * width / 2.0 ** log2_pixels(height, width)


def log2_pixels(height: int, width: int) -> int:
    """Return k: 2^k is the least power of two not below the number of pixels."""
    return (height * width - 1).bit_length()
