# SPDX-License-Identifier: Apache-2.0
"""How much a network suffers when one layer gets fewer bits.

Two measures of weights, to compare: the KL divergence between the outputs before and after, and the
curvature of the loss (HAWQ-V2, Dong et al., NeurIPS 2020): half the mean diagonal of the layer's
Hessian times the squared change of its weights. Operands are always measured by divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from quant.allocate.bits import Choice
from quant.layers.winograd_layer import TapLayer, add_bias, tap_sums
from quant.network.calibrate import best_exponents, quantize, quantize_weight
from quant.network.rewrite import tap_layers
from quant.train.objective import hard_loss
from winnow.fixed_point import int_range
from winnow.progress import steps

Table = NDArray[np.float64]
MEASURING = "measuring sensitivities"


@torch.no_grad()
def weight_divergence(
    net: nn.Module, x: Tensor, widths: Sequence[int], *, values: bool = False
) -> Table:
    """Return the mean divergence [tap layers, widths] of rounding one layer's weights.

    It is the KL divergence, or the mean square of the change for a network that gives `values`.
    """
    reference = outputs(net.eval(), x, values=values)
    layers = tap_layers(net)
    table = np.zeros((len(layers), len(widths)))
    for row, layer in enumerate(steps(MEASURING, layers.values())):
        exact = layer.u
        for column, bits in enumerate(widths):
            layer.set_u(quantize_weight(exact, bits))
            table[row, column] = divergence(net, x, reference, values=values)
        layer.set_u(exact)
    return table


@torch.no_grad()
def operand_divergence(
    net: nn.Module, x: Tensor, widths: Sequence[int], *, values: bool = False
) -> Table:
    """Return the same of rounding one layer's operands V."""
    reference = outputs(net.eval(), x, values=values)
    layers = tap_layers(net)
    table = np.zeros((len(layers), len(widths)))
    for row, layer in enumerate(steps(MEASURING, layers.values())):
        for column, bits in enumerate(widths):
            handle = layer.register_forward_hook(_rounding(bits))
            table[row, column] = divergence(net, x, reference, values=values)
            handle.remove()
    return table


def _rounding(bits: int) -> Callable[[TapLayer, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a hook that gives a layer's output for operands of `bits` in place of its own."""
    bounds = int_range(bits, signed=True, narrow=True)

    def hook(layer: TapLayer, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        v = layer.input_transform(inputs[0])
        rounded = quantize(v, best_exponents(v.flatten(1), bounds)[:, None, None], bounds)
        sums = tap_sums(layer.u, rounded, layer.groups)
        return add_bias(layer.output_transform(sums, inputs[0]), layer.bias)

    return hook


def outputs(net: nn.Module, x: Tensor, *, values: bool) -> Tensor:
    """Return the log-probabilities [n, classes] of inputs x, or the `values` [n, k] themselves."""
    found: Tensor = net(x)
    return found if values else F.log_softmax(found, dim=1)


def divergence(net: nn.Module, x: Tensor, reference: Tensor, *, values: bool) -> float:
    """Return how far the outputs of x have moved from `reference`: KL divergence or mean square."""
    changed = outputs(net, x, values=values)
    if values:
        return float(F.mse_loss(changed, reference))
    return float(F.kl_div(changed, reference, reduction="batchmean", log_target=True))


def hessian_sensitivity(
    net: nn.Module, x: Tensor, labels: Tensor, widths: Sequence[int], probes: int = 16
) -> Table:
    """Return the rise of the loss [tap layers, widths] that curvature predicts for fewer bits."""
    net.eval()
    layers = list(tap_layers(net).values())
    traces = hessian_traces(
        lambda: hard_loss(net(x), labels), [layer.weight for layer in layers], probes
    )
    table = np.zeros((len(layers), len(widths)))
    for row, layer in enumerate(layers):
        curvature = max(traces[row], 0.0) / max(1, int(layer.mask.sum()))
        for column, bits in enumerate(widths):
            table[row, column] = 0.5 * curvature * _squared_change(layer, bits)
    return table


@torch.no_grad()
def _squared_change(layer: TapLayer, bits: int) -> float:
    """Return the squared change of `layer.weight` when U is rounded to `bits`."""
    change = (quantize_weight(layer.u, bits) - layer.u) / layer.tap_gain
    return float(change.square().sum())


def hessian_traces(
    loss: Callable[[], Tensor], parameters: Sequence[nn.Parameter], probes: int, seed: int = 0
) -> list[float]:
    """Return the trace of the Hessian of `loss` for each parameter (Hutchinson's estimator).

    A probe is a vector of independent signs; E[v^T H v] is the trace, and blocks between parameters
    vanish in the mean.
    """
    generator = torch.Generator().manual_seed(seed)
    totals = [0.0] * len(parameters)
    gradients = torch.autograd.grad(loss(), parameters, create_graph=True)
    for _ in steps(MEASURING, range(probes)):
        signs = [
            (2.0 * torch.randint(0, 2, p.shape, generator=generator) - 1).to(p) for p in parameters
        ]
        products = torch.autograd.grad(gradients, parameters, signs, retain_graph=True)
        for i, (sign, product) in enumerate(zip(signs, products, strict=True)):
            totals[i] += float((sign * product).sum()) / probes
    return totals


def sensitivities(
    net: nn.Module, x: Tensor, labels: Tensor, choices: Sequence[Choice], measure: str
) -> Table:
    """Return the sensitivity [tap layers, choices] of inputs x [n, c, h, w] with their labels.

    `measure` is "kl" or "hessian", of the weights; that of the operands is added, where there is
    more than one width to choose from.
    """
    values = labels.is_floating_point()
    weights = sorted({choice.weight for choice in choices})
    operands = sorted({choice.operand for choice in choices})
    if measure == "hessian":
        of_weights = hessian_sensitivity(net, x, labels, weights)
    else:
        of_weights = weight_divergence(net, x, weights, values=values)
    of_operands = np.zeros((len(of_weights), len(operands)))
    if len(operands) > 1:
        of_operands = operand_divergence(net, x, operands, values=values)
    columns = [
        of_weights[:, weights.index(choice.weight)] + of_operands[:, operands.index(choice.operand)]
        for choice in choices
    ]
    return np.stack(columns, axis=1)
