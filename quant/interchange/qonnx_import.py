# SPDX-License-Identifier: Apache-2.0
"""What the quantizers of a QONNX file say: widths are taken, what the engine has not is refused.

    Quant(conv1.weight, scale, 0, 4) -> weights of conv1 have 4 bits, their values are conv1.weight
    Quant(relu, scale, 0, 8)         -> relu, and maps have 8 bits

QONNX as Brevitas' `export_qonnx` writes it and FINN reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from quant.network.graph import (
    INPUT,
    LAYERS,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    MaxPool,
    Mean,
    NetworkGraph,
    Relu,
    Sigmoid,
    Softmax,
)
from quant.network.layer_graph import PASSING, unfolded
from quant.network.quantization import Quantization, Quantizer
from winnow.errors import NetworkError

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
QUANTIZERS = tuple((domain, kind) for domain in DOMAINS for kind in ("Quant", "IntQuant"))
BITS = range(2, 9)  # of weights and maps of the engine
ROUNDINGS = ("ROUND", "HALF_EVEN")

_INTEGERS = (
    "holds integers; write the file with brevitas.export.export_qonnx, whose Quant nodes keep the "
    "float weights"
)
_REFUSED = {
    "BipolarQuant": "has one bit, -1 or 1; the engine's numbers have 2..8 bits: train it so, with "
    "an integer quantizer",
    "BinaryQuant": "has one bit, -1 or 1; the engine's numbers have 2..8 bits: train it so, with "
    "an integer quantizer",
    "FloatQuant": "rounds to small floats; the engine has integers of 2..8 bits: train it with an "
    "integer quantizer",
    "Trunc": "drops bits of an average; the engine rounds a mean once: use an average without "
    "truncation, with a quantizer behind it",
    "MultiThreshold": "is of a later stage of FINN; give the QONNX file that was its input",
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"), f"(QCDQ) {_INTEGERS}"
    ),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"), _INTEGERS),
}


def refuse_operator(node: onnx.NodeProto) -> None:
    """Raise NetworkError for a quantizer that is none of the engine's, or of other operators."""
    if node.op_type in _REFUSED:
        raise NetworkError(_REFUSED[node.op_type])
    if node.domain not in ("", "ai.onnx"):
        raise NetworkError(
            f"is of the operators '{node.domain}', which are not known; export the network "
            "without it"
        )


def quantizer_of(
    node: onnx.NodeProto, constant: Callable[[onnx.NodeProto, int], NDArray[Any] | None]
) -> Quantizer:
    """Return what a Quant node says; `constant` gives the array of an input.

    Raises NetworkError for numbers that the engine does not have. Widths are checked by use.
    """
    scale, zero, bits = (constant(node, index) for index in (1, 2, 3))
    if scale is None or zero is None or bits is None:
        raise NetworkError("must have a scale, a zero point and a width")
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    rounding = attributes.get("rounding_mode", b"ROUND").decode().upper()
    if rounding not in ROUNDINGS:
        raise NetworkError(
            f"rounds by '{rounding}', the engine to the nearest, half to even (ROUND); train it so"
        )
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise NetworkError("has a scale that is not above 0; calibrate it before the export")
    if zero.any():
        raise NetworkError(
            f"has the zero point {zero.flat[np.flatnonzero(zero)[0]]:g}, the engine none; train it "
            "with a symmetric quantizer"
        )
    if len(np.unique(bits)) != 1 or not float(bits.flat[0]).is_integer():
        raise NetworkError(f"must have one whole number of bits, has {bits.ravel()[:4].tolist()}")
    name = node.name or node.output[0]
    return Quantizer(name, int(bits.flat[0]), bool(attributes.get("signed", 1)))


def quantization_of(
    graph: NetworkGraph,
    file: str,
    weights: Mapping[str, Quantizer],
    results: Sequence[tuple[str, Quantizer]],
) -> Quantization | None:
    """Return the quantizers of a file by their use, None if there are none.

    `results` are those of results, with the record that they read. Raises NetworkError that names
    the node for one that the engine has not.
    """
    used = {name: found for name, found in weights.items() if name in graph.by_name}
    results = [(name, found) for name, found in results if name in {INPUT, *graph.by_name}]
    if not used and not results:
        return None
    for found in used.values():
        _require_bits(file, found, "weights")
        if not found.signed:
            _refuse(file, found, "has weights without a sign; train it with a signed quantizer")
    images, maps, left_out = [], [], []
    for name, found in results:
        if not found.signed and not _never_negative(graph, name):
            _refuse(file, found, "has no sign, so that it is a ReLU too; put a Relu before it")
        if unfolded(graph, name) == INPUT:
            images.append(found)
        elif _is_map(graph, name):
            _require_bits(file, found, "maps")
            maps.append(found)
        else:
            left_out.append(found)
    plain = tuple(n.name for n in graph.nodes if isinstance(n, LAYERS) and n.name not in used)
    return Quantization(file, used, tuple(maps), tuple(images), tuple(left_out), plain)


def _require_bits(file: str, found: Quantizer, what: str) -> None:
    if found.bits not in BITS:
        _refuse(
            file,
            found,
            f"has {found.bits} bits, {what} of the engine have {BITS[0]}..{BITS[-1]}; train it so",
        )


def _refuse(file: str, found: Quantizer, what: str) -> None:
    raise NetworkError(f"'{file}': node '{found.node}' (Quant) {what}")


def _is_map(graph: NetworkGraph, name: str) -> bool:
    """Whether the engine rounds a result: not at the end, nor before a BatchNorm or ReLU."""
    if name == graph.output:
        return False
    readers = graph.readers()[name]
    while readers and all(isinstance(node, PASSING) for node in readers):
        if any(node.name == graph.output for node in readers):
            return False
        readers = [r for node in readers for r in graph.readers()[node.name]]
    return not all(isinstance(node, BatchNorm | Relu | Softmax | Sigmoid) for node in readers)


def _never_negative(graph: NetworkGraph, name: str) -> bool:
    """Whether a result cannot be below 0: of images, a ReLU, and what only picks or averages."""
    if name == INPUT:
        return True
    node = graph.by_name[name]
    if isinstance(node, Relu | Softmax | Sigmoid):
        return True
    passes = isinstance(node, (MaxPool, AvgPool, AdaptiveAvgPool, Mean, Add, Concat, *PASSING))
    return passes and all(_never_negative(graph, source) for source in node.inputs)


def as_identities(model: onnx.ModelProto) -> list[type[OpRun]]:
    """Return operators for ONNX's reference runtime: every quantizer hands on what it reads."""
    kinds = {(node.domain, node.op_type) for node in model.graph.node}
    return [_identity(domain, kind) for domain, kind in sorted(kinds & set(QUANTIZERS))]


def _identity(domain: str, kind: str) -> type[OpRun]:
    def run(_: OpRun, x: NDArray[Any], *__: NDArray[Any], **___: Any) -> tuple[NDArray[Any]]:
        return (x,)

    return type(kind, (OpRun,), {"op_domain": domain, "_run": run})
