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
from torch import Tensor, nn

from quant.layers.bit_widths import BitWidths
from quant.layers.quantizers import (
    AccumulatorBias,
    FeatureQuant,
    Grid,
    OperandQuant,
    SignedFeatureQuant,
    TapWeightQuant,
    grid_of,
    held_by,
    scale_of,
    value_of,
)
from quant.layers.winograd_layer import (
    Dense,
    DirectConv2d,
    TapLayer,
    UnrolledConv2d,
    Window,
    WinogradConv2d,
    add_bias,
    tap_sums,
)


@dataclass(frozen=True)
class LayerGrids:
    """The grids of a layer's quantizers, and factors between them, all powers of two.

    Members:
        output: None if the layer is raw; its sums are then values, else steps of the output.
        to_operand, to_weight, to_bias: from values to steps of the grid, [taps], [taps], [1].
        to_sums: from products of integers to sums, [taps].
        from_bias: from integers of the bias to sums.
        held: what the quantizers held when their scales were read.
    """

    operand: Grid
    weight: Grid
    bias: Grid
    output: Grid | None
    to_operand: Tensor
    to_weight: Tensor
    to_bias: Tensor
    to_sums: Tensor
    from_bias: Tensor
    held: list[Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, layer: QuantTapLayer) -> LayerGrids:
        """Read the grids of a layer."""
        v, u, *y = (scale_of(proxy).detach().flatten() for proxy in layer.scaled())
        bias = layer.accumulator_scale(v, u).view(1)
        step = y[0] if y else torch.ones_like(bias)
        return cls(
            operand=grid_of(layer.input_quant, v),
            weight=grid_of(layer.weight_quant, u),
            bias=grid_of(layer.bias_quant, bias),
            output=grid_of(layer.output_quant, step) if y else None,
            to_operand=v.reciprocal(),
            to_weight=u.reciprocal(),
            to_bias=bias.reciprocal(),
            to_sums=v * u / step,
            from_bias=bias / step,
            held=[held_by(proxy).clone() for proxy in layer.scaled()],
        )

    def fit(self, layer: QuantTapLayer) -> bool:
        """Whether the layer's quantizers still hold what was read."""
        pairs = zip(map(held_by, layer.scaled()), self.held, strict=True)
        return all(
            (now.dtype, now.device) == (then.dtype, then.device) and torch.equal(now, then)
            for now, then in pairs
        )


class QuantTapLayer(QuantWeightBiasInputOutputLayer, TapLayer):
    """A `TapLayer` with Brevitas quantizers; subclasses name the transform."""

    def add_quantizers(self, widths: BitWidths) -> None:
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
        self._grids_read: LayerGrids | None = None
        for name, parameter in self.named_parameters():
            if name.endswith("scaling_impl.value"):
                parameter.requires_grad_(False)

    output_channel_dim = 0

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter; the quantizers keep their scales.

        Brevitas makes the quantizer of a weight anew when the weight is registered again, as at the
        end of a parametrization: its scales would be 1 as before calibration, and trained.
        """
        nn.Module.register_parameter(self, name, param)

    @property
    def is_raw(self) -> bool:
        """Whether the output is the accumulator itself."""
        return self.widths.output is None

    def scaled(self) -> list[nn.Module]:
        """Return the quantizers that have a scale of their own: of V, U and the output."""
        output = [] if self.is_raw else [self.output_quant]
        return [self.input_quant, self.weight_quant, *output]

    def accumulator_scale(self, v_scale: Tensor, u_scale: Tensor) -> Tensor:
        """Return 2^e: the finest product grid, or the output's if that is finer still."""
        finest = (v_scale.flatten() * u_scale.flatten()).amin()
        if self.is_raw:
            return finest
        return torch.minimum(finest, scale_of(self.output_quant).flatten()[0])

    def accumulate(self, v: IntQuantTensor, u: IntQuantTensor, like: Tensor) -> Tensor:
        """Return the accumulators Y [n, oc, ...] of quantized operands and weights."""
        bias = value_of(self.bias_quant(self.bias, v, u))
        sums = tap_sums(u.value, v.value, self.groups)
        return add_bias(self.output_transform(sums, like), bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self._trained(x)
        v = self.input_quant(self.input_transform(x))
        u = self.weight_quant(self.u)
        return value_of(self.output_quant(self.accumulate(v, u, x)))

    def _trained(self, x: Tensor) -> Tensor:
        """Return what the quantizers would, with their gradients, bit for bit but faster.

        V and U stay integers; their scales, powers of two, multiply small tensors instead.
        """
        g = self._grids()
        v = g.operand.integers(self.input_transform(x, g.to_operand))
        u = g.weight.integers(self.u * g.to_weight) * g.to_sums
        bias = g.bias.integers(self.bias * g.to_bias) * g.from_bias
        y = add_bias(self.output_transform(tap_sums(u, v, self.groups), x), bias)
        return y if g.output is None else g.output.integers(y) * g.output.scale

    def _grids(self) -> LayerGrids:
        """Return the grids for training, read again if a quantizer's scale has changed."""
        if self._grids_read is None or not self._grids_read.fit(self):
            self._grids_read = LayerGrids.of(self)
        return self._grids_read

    def inner_forward_impl(self, *_: Tensor) -> Tensor:
        raise NotImplementedError("the layer computes through `accumulate`")

    def max_acc_bit_width(self, *_: Tensor) -> Tensor:
        raise NotImplementedError("codegen.check bounds the accumulator")


class QuantWinogradConv2d(QuantTapLayer, WinogradConv2d):
    """Quantized 3x3 convolution in the Winograd domain."""

    def __init__(
        self, in_channels: int, out_channels: int, m: int, widths: BitWidths, groups: int = 1
    ) -> None:
        WinogradConv2d.__init__(self, in_channels, out_channels, m, groups)
        self.add_quantizers(widths)


class QuantDirectConv2d(QuantTapLayer, DirectConv2d):
    """Quantized convolution without a transform; V is the feature map, rounded to its width."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: Window,
        widths: BitWidths,
        groups: int = 1,
    ) -> None:
        DirectConv2d.__init__(self, in_channels, out_channels, window, groups)
        self.add_quantizers(widths)


class QuantUnrolledConv2d(QuantDirectConv2d, UnrolledConv2d):
    """The same with sub-rows over all values under the kernel."""


class QuantDense(QuantTapLayer, Dense):
    """Quantized fully connected layer; V is the feature map itself, rounded to its width."""

    def __init__(
        self, operands: int, out_channels: int, in_channels: int, widths: BitWidths
    ) -> None:
        Dense.__init__(self, operands, out_channels, in_channels)
        self.add_quantizers(widths)
