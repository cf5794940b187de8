# SPDX-License-Identifier: Apache-2.0
"""Run an ONNX or QONNX file without torch: ONNX's own reference runtime, and QONNX's `Quant`.

Fed with float64, all of the file is computed in float64, so that power-of-two scales give exact
integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

QONNX_DOMAIN = "qonnx.custom_op.general"

Array = NDArray[Any]

_ROUND: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.rint,  # half to even
    "FLOOR": np.floor,
    "CEIL": np.ceil,
    "ROUND_TO_ZERO": np.trunc,
}


class Quant(OpRun):
    """QONNX's integer quantizer: clamp(round(x / scale + zero_point)), as a float again."""

    op_domain = QONNX_DOMAIN

    def _run(self, *inputs: Array, **attributes: Any) -> tuple[Array]:
        x, scale, zero_point, bits = inputs
        signed, narrow = int(attributes["signed"]), int(attributes["narrow"])
        span = 2.0**bits
        low = -span / 2 + narrow if signed else 0.0
        high = span / 2 - 1 if signed else span - 1 - narrow
        steps = np.clip(_ROUND[attributes["rounding_mode"]](x / scale + zero_point), low, high)
        return (((steps - zero_point) * scale).astype(x.dtype),)


def run_onnx(
    model: onnx.ModelProto, x: Array, operators: Sequence[type[OpRun]] = (Quant,)
) -> Array:
    """Return the output of a model for one input x [n, c, h, w], in the type of `x`.

    `operators` are those that ONNX does not have.
    """
    return trace_onnx(model, x, operators)[model.graph.output[0].name]


def trace_onnx(
    model: onnx.ModelProto, x: Array, operators: Sequence[type[OpRun]] = (Quant,)
) -> dict[str, Array]:
    """Return every tensor of a model by name for one input x [n, c, h, w]."""
    fixed = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in fixed]
    if len(names) != 1:
        raise ValueError(f"the graph must have one input, has {names}")
    runnable = _in_double(model) if x.dtype == np.float64 else model
    results = ReferenceEvaluator(runnable, new_ops=[*operators]).run(
        None, {names[0]: x}, intermediate=True
    )
    return {name: np.asarray(value) for name, value in results.items() if name}


def annotate(model: onnx.ModelProto, results: Mapping[str, Array]) -> None:
    """Write the shape of every tensor into the model, as other tools expect; float64 as float32."""
    outputs = {value.name for value in model.graph.output}
    infos = {}
    for name in (name for node in model.graph.node for name in node.output if name):
        kind = np.dtype(np.float32) if results[name].dtype == np.float64 else results[name].dtype
        element = onnx.helper.np_dtype_to_tensor_dtype(kind)
        infos[name] = onnx.helper.make_tensor_value_info(name, element, results[name].shape)
    for value in model.graph.output:
        value.CopyFrom(infos[value.name])
    del model.graph.value_info[:]
    model.graph.value_info.extend(info for name, info in infos.items() if name not in outputs)


def _in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its float32 constants and casts in float64."""
    double = onnx.ModelProto()
    double.CopyFrom(model)
    constants = list(double.graph.initializer)
    for node in double.graph.node:
        for attribute in node.attribute:
            constants.append(attribute.t)
            if node.op_type == "Cast" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE
    for constant in constants:
        if constant.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(constant).astype(np.float64)
            constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
    return double


def scales(model: onnx.ModelProto) -> list[Array]:
    """Return the scale of every `Quant` node, float32 arrays."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        onnx.numpy_helper.to_array(constants[node.input[1]])
        for node in model.graph.node
        if node.op_type == "Quant"
    ]
