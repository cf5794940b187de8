# SPDX-License-Identifier: Apache-2.0
"""Brevitas' QONNX exporter, taught the bias quantizer of our layers. Written for Brevitas 0.13."""

from __future__ import annotations

from typing import Any

import torch
from brevitas.export.onnx.qonnx.function import BrevitasQuantOp
from brevitas.export.onnx.qonnx.handler import BrevitasBiasQuantProxyHandler
from brevitas.export.onnx.qonnx.manager import QONNXManager
from torch import Tensor

from quant.layers.quantizers import AccumulatorBiasProxy, scale_of

BIAS_BITS = 32


class AccumulatorBiasHandler(BrevitasBiasQuantProxyHandler):
    """Writes the bias as a `Quant` node on the accumulator's grid, a constant of the layer."""

    handled_layer = AccumulatorBiasProxy

    def prepare_for_export(self, module: AccumulatorBiasProxy) -> None:
        """Take the scale from the layer's operand and weight quantizers."""
        layer = module.tracked_module_list[0]
        v_scale, u_scale = (scale_of(proxy) for proxy in (layer.input_quant, layer.weight_quant))
        scale = layer.accumulator_scale(v_scale, u_scale).detach().view(1)
        self.constants = (scale, torch.zeros_like(scale), torch.tensor(float(BIAS_BITS)))

    def symbolic_execution(self, x: Tensor, *_: Any) -> tuple[Tensor, ...]:
        """Return (quantized bias, scale, zero point, bits)."""
        narrow, signed, rounding = False, True, "ROUND"
        quantized = self.export_op(BrevitasQuantOp, x, *self.constants, narrow, signed, rounding)
        return (quantized, *self.constants)


class AccumulatorQonnxManager(QONNXManager):
    """Brevitas' exporter with the handler above."""

    handlers = (*QONNXManager.handlers, AccumulatorBiasHandler)
