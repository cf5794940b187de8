# SPDX-License-Identifier: Apache-2.0
"""Brevitas quantizers of the integer contract (`docs/numerics.md`).

Every scale is a power of two that calibration chooses and training leaves alone: a parameter in
the log2 domain instead of Brevitas' running statistics, which are no powers of two until their
collection ends and would change the lane operand's scale under the `ev >= ex` rule. Rounding is
half to even. Written for Brevitas 0.13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from brevitas.core.function_wrapper import TensorClampSte
from brevitas.inject import ExtendedInjector
from brevitas.inject.enum import ScalingImplType
from brevitas.proxy.parameter_quant import BiasQuantProxyFromInjector
from brevitas.quant.base import IntQuant, NarrowIntQuant, PerTensorPoTScaling8bit, UintQuant
from brevitas.quant.scaled_int import Int32Bias
from brevitas.quant.solver.act import ActQuantSolver
from brevitas.quant.solver.weight import WeightQuantSolver
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn


class Clamp(nn.Module):
    """Clamp to tensor bounds; what is cut off has no gradient.

    The same as Brevitas' TensorClamp, in one kernel instead of four.
    """

    def __init__(self) -> None:  # Brevitas' injector wants one that names its arguments
        super().__init__()

    def forward(self, x: Tensor, min_val: Tensor, max_val: Tensor) -> Tensor:
        """Return x clamped to min_val..max_val."""
        return torch.clamp(x, min_val, max_val)


class FixedPowerOfTwo(ExtendedInjector):
    """Scale held as a parameter; `scaling_shape` says how many there are."""

    tensor_clamp_impl = Clamp

    scaling_impl_type = ScalingImplType.PARAMETER
    scaling_init = 1.0
    scaling_shape = ()


class OperandQuant(NarrowIntQuant, FixedPowerOfTwo, PerTensorPoTScaling8bit, ActQuantSolver):
    """Lane operand V: signed, narrow, one scale per tap [taps, 1, 1]."""


class FeatureQuant(UintQuant, FixedPowerOfTwo, PerTensorPoTScaling8bit, ActQuantSolver):
    """Feature map after ReLU: unsigned; its lower clamp is the ReLU."""


class SignedFeatureQuant(IntQuant, FixedPowerOfTwo, PerTensorPoTScaling8bit, ActQuantSolver):
    """Feature map without ReLU: signed, full range."""


class TapWeightQuant(NarrowIntQuant, FixedPowerOfTwo, PerTensorPoTScaling8bit, WeightQuantSolver):
    """Weights U [oc, k, taps]: signed, narrow, one scale per tap [1, 1, taps].

    Clamped weights keep their gradient: the scale does not follow them.
    """

    tensor_clamp_impl = TensorClampSte


class AccumulatorBiasProxy(BiasQuantProxyFromInjector):
    """Puts the bias on the accumulator's grid, which only the layer knows."""

    def compute_bias_scale(self, input: Any, weight: Any) -> Tensor:  # noqa: A002 (Brevitas' name)
        layer = self.tracked_module_list[0]
        return layer.accumulator_scale(input.scale, weight.scale).view(1)


class AccumulatorBias(Int32Bias):
    """int32 bias on the grid 2^e of the accumulator."""

    proxy_class = AccumulatorBiasProxy


def _tensor_quant(proxy: nn.Module) -> nn.Module:
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    return proxy.tensor_quant if fused is None else fused.tensor_quant


def scale_of(proxy: nn.Module) -> Tensor:
    """Return the scale of a weight or activation quantizer, in its broadcast shape."""
    quant = _tensor_quant(proxy)
    threshold = quant.int_scaling_impl(quant.msb_clamp_bit_width_impl())
    return quant.scaling_impl(quant.scaling_impl.value, threshold)


def bits_of(proxy: nn.Module) -> int:
    """Return the width of a quantizer in bits."""
    return int(_tensor_quant(proxy).msb_clamp_bit_width_impl())


def exponents(scale: Tensor) -> Tensor:
    """Return int64 log2 of `scale`, same shape; ValueError unless all are powers of two."""
    mantissa, exponent = torch.frexp(scale.detach())
    if not bool((mantissa == 0.5).all()):
        wrong = scale[mantissa != 0.5].flatten()[0].item()
        raise ValueError(f"scale {wrong:g} is not a power of two")
    return exponent.to(torch.int64) - 1


@torch.no_grad()
def set_exponents(proxy: nn.Module, values: Tensor) -> None:
    """Set a quantizer's scale(s) to 2^values; `values` has as many entries as there are scales."""
    quant = _tensor_quant(proxy)
    threshold = quant.int_scaling_impl(quant.msb_clamp_bit_width_impl())
    parameter = quant.scaling_impl.value
    log2_threshold = int(math.log2(float(threshold)))
    parameter.copy_((values + log2_threshold).view_as(parameter))
    assert torch.equal(exponents(scale_of(proxy)).flatten(), values.flatten())


def value_of(x: Tensor | IntQuantTensor) -> Tensor:
    """Return the plain tensor of a Brevitas tensor."""
    return x.value if isinstance(x, IntQuantTensor) else x


@dataclass(frozen=True)
class Grid:
    """What a quantizer rounds to, for training: `scale` times the integers `low`..`high`.

    `saturated_learn` says whether values that are clamped keep their gradient.
    """

    scale: Tensor
    low: float
    high: float
    saturated_learn: bool

    def integers(self, x: Tensor) -> Tensor:
        """Return x, in steps of the grid, as integers; values and gradient are Brevitas' own."""
        rounded: Tensor = _RoundClamp.apply(x, self.low, self.high, self.saturated_learn)
        return rounded


def grid_of(proxy: nn.Module, scale: Tensor) -> Grid:
    """Return the grid of a quantizer at `scale`; ValueError unless it is a power of two.

    Then multiplying by the inverse is dividing, exactly.
    """
    exponents(scale)
    quant = _tensor_quant(proxy)
    bits, integer = quant.msb_clamp_bit_width_impl(), quant.int_quant
    low, high = float(integer.min_int(bits)), float(integer.max_int(bits))
    return Grid(scale, low, high, isinstance(integer.tensor_clamp_impl, TensorClampSte))


def held_by(proxy: nn.Module) -> Tensor:
    """Return the parameter that a weight or activation quantizer makes its scale from."""
    parameter: Tensor = _tensor_quant(proxy).scaling_impl.value
    return parameter.detach()


class _RoundClamp(torch.autograd.Function):
    """Round half to even and clamp: what Brevitas does in seven passes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float, clamped_learn: bool) -> Tensor:
        rounded = x.round()
        ctx.bounds = None if clamped_learn else (low - 0.5, high + 0.5)  # open ends
        if clamped_learn:
            return rounded.clamp_(low, high)
        ctx.save_for_backward(rounded)
        return rounded.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.bounds is not None:
            grad = torch.ops.aten.hardtanh_backward(grad, ctx.saved_tensors[0], *ctx.bounds)
        return grad, None, None, None
