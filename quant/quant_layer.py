# SPDX-License-Identifier: Apache-2.0
"""Brevitas layers that compute what the engine computes: quantized V, U, bias and output.

In float64 the outputs are exact multiples of their scale, equal bit for bit to the integer graph;
in float32 they train. `input_quant` acts on the operands V *after* the input transform, because
that is what the engine multiplies; the layer's input is already on the grid of the layer before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor

from quant.quantizers import (
    AccumulatorBias,
    FeatureQuant,
    OperandQuant,
    SignedFeatureQuant,
    TapWeightQuant,
    scale_of,
    value_of,
)
from quant.winograd_layer import (
    Dense,
    DirectConv2d,
    TapLayer,
    Window,
    WinogradConv2d,
    add_bias,
    tap_sums,
)


@dataclass(frozen=True)
class Widths:
    """Bits of a layer's numbers; `output` is None for raw accumulators, `relu` picks unsigned."""

    weight: int
    operand: int
    output: int | None
    relu: bool = True


class QuantTapLayer(QuantWeightBiasInputOutputLayer, TapLayer):
    """A `TapLayer` with Brevitas quantizers; subclasses name the transform."""

    def add_quantizers(self, widths: Widths) -> None:
        """Attach the quantizers; their scales are 1 until calibration sets them."""
        taps = len(self.tap_gain)
        output_quant = None
        if widths.output is not None:
            output_quant = FeatureQuant if widths.relu else SignedFeatureQuant
        QuantWeightBiasInputOutputLayer.__init__(
            self,
            weight_quant=TapWeightQuant,
            bias_quant=AccumulatorBias,
            input_quant=OperandQuant,
            output_quant=output_quant,
            return_quant_tensor=False,
            weight_bit_width=widths.weight,
            weight_scaling_shape=(1, 1, taps),
            input_bit_width=widths.operand,
            input_scaling_shape=(taps, 1, 1),
            output_bit_width=widths.output,
        )
        self.widths = widths
        for name, parameter in self.named_parameters():
            if name.endswith("scaling_impl.value"):
                parameter.requires_grad_(False)

    output_channel_dim = 0

    @property
    def is_raw(self) -> bool:
        """Whether the output is the accumulator itself."""
        return self.widths.output is None

    def accumulator_scale(self, v: IntQuantTensor, u: IntQuantTensor) -> Tensor:
        """Return 2^e: the finest product grid, or the output's if that is finer still."""
        finest = (v.scale.flatten() * u.scale.flatten()).amin()
        if self.is_raw:
            return finest
        return torch.minimum(finest, scale_of(self.output_quant).flatten()[0])

    def accumulate(self, v: IntQuantTensor, u: IntQuantTensor, like: Tensor) -> Tensor:
        """Return the accumulators Y [n, oc, ...] of quantized operands and weights."""
        bias = value_of(self.bias_quant(self.bias, v, u))
        return add_bias(self.drop(tap_sums(u.value, v.value), like), bias)

    def forward(self, x: Tensor) -> Tensor:
        v = self.input_quant(self.lift(x))
        u = self.weight_quant(self.u)
        return value_of(self.output_quant(self.accumulate(v, u, x)))

    def inner_forward_impl(self, *_: Tensor) -> Tensor:
        raise NotImplementedError("the layer computes through `accumulate`")

    def max_acc_bit_width(self, *_: Tensor) -> Tensor:
        raise NotImplementedError("codegen.check bounds the accumulator")


class QuantWinogradConv2d(QuantTapLayer, WinogradConv2d):
    """Quantized 3x3 convolution in the Winograd domain."""

    def __init__(self, in_channels: int, out_channels: int, m: int, widths: Widths) -> None:
        WinogradConv2d.__init__(self, in_channels, out_channels, m)
        self.add_quantizers(widths)


class QuantDirectConv2d(QuantTapLayer, DirectConv2d):
    """Quantized convolution without a transform; V is the feature map, rounded to its width."""

    def __init__(self, in_channels: int, out_channels: int, window: Window, widths: Widths) -> None:
        DirectConv2d.__init__(self, in_channels, out_channels, window)
        self.add_quantizers(widths)


class QuantDense(QuantTapLayer, Dense):
    """Quantized fully connected layer; V is the feature map itself, rounded to its width."""

    def __init__(self, operands: int, out_channels: int, in_channels: int, widths: Widths) -> None:
        Dense.__init__(self, operands, out_channels, in_channels)
        self.add_quantizers(widths)
