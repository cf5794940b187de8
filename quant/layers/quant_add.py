# SPDX-License-Identifier: Apache-2.0
"""The quantized sum of two maps: what the integer graph calls `add`.

In float64 the maps are exact multiples of their scales, so their sum is exact; it is rounded once,
to a power-of-two grid of its own. Plain tensors are added: Brevitas refuses to add its own ones
when their scales differ.
"""

from __future__ import annotations

from brevitas.nn import QuantIdentity
from torch import Tensor, nn

from quant.layers.quantizers import FeatureQuant, SignedFeatureQuant, value_of


class QuantAdd(nn.Module):
    """Sum of two maps [n, c, h, w] in `bits` bits: unsigned with `relu`, which clamps at 0."""

    def __init__(self, bits: int, *, relu: bool) -> None:
        super().__init__()
        quantizer = FeatureQuant if relu else SignedFeatureQuant
        identity = QuantIdentity(act_quant=quantizer, bit_width=bits, return_quant_tensor=False)
        self.bits, self.relu = bits, relu
        self.output_quant = identity.act_quant
        for parameter in self.parameters():  # calibration sets the scale, training leaves it alone
            parameter.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return value_of(self.output_quant(x + y))
