# SPDX-License-Identifier: Apache-2.0
"""Float networks from ONNX files: one row of `READERS` per operator, weights taken as they are.

    Conv(x, "conv1.weight", "conv1.bias") -> conv1 = Conv(.input)

Enters a file, leaves a `Network`. What no row reads is refused by operator and node. The caller
compares what the network computes with what ONNX's reference runtime does. Of a QONNX file it is
the float network, every quantizer an identity, and what they say of widths its `quantization`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from quant.interchange.onnx_run import run_onnx
from quant.interchange.qonnx_import import (
    QUANTIZERS,
    as_identities,
    quantization_of,
    quantizer_of,
    refuse_operator,
)
from quant.network.from_module import first_line
from quant.network.graph import (
    INPUT,
    Add,
    AvgPool,
    Concat,
    Dropout,
    Flatten,
    Identity,
    MaxPool,
    Mean,
    NetworkGraph,
    Node,
    Relu,
    Shape,
    Sigmoid,
    Softmax,
    num_values,
)
from quant.network.layer_modules import layer_node
from quant.network.network import Network
from quant.network.quantization import Quantizer
from quant.network.remedies import remedy_for
from winnow.errors import ArtefactError, NetworkError, shown_text

OPSETS = range(9, onnx.defs.onnx_opset_version() + 1)
# Of arrays and attributes that do not fit a node; onnx.checker looks at neither.
MALFORMED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
Array = NDArray[Any]


def load_onnx(path: Path) -> onnx.ModelProto:
    """Return the model of a file; ArtefactError if it is missing or damaged."""
    if not path.is_file():
        raise ArtefactError(
            f"model.name: the file '{path}' is missing; its path is relative to the configuration "
            "file"
        )
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # of protobuf, of the checker, of files beside it
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ArtefactError(
            f"'{path}' is damaged or no ONNX file ({type(error).__name__}: "
            f"{shown_text(reason, 120)}); export it again"
        ) from error
    return model


def read_onnx(model: onnx.ModelProto, name: str, image: Shape) -> Network:
    """Return the network of a float or QONNX model for images of `image` (c, h, w).

    `name` is the file's, for messages. Raises NetworkError that names the node with what to do.
    """
    found = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if found.get("ai.onnx") not in OPSETS:
        raise NetworkError(
            f"'{name}' must have an operator set of {OPSETS[0]}..{OPSETS[-1]}, has "
            f"{found.get('ai.onnx')}; export it again with opset_version=17"
        )
    return _Reader(model, name, image).read()


def run_images(model: onnx.ModelProto, x: Array) -> Array:
    """Return what ONNX's reference runtime computes for images x [n, c, h, w], in their type.

    Quantizers of QONNX hand on what they read, for scales and widths are none of a float network's.
    A model may fix how many images it takes at once; each image is computed by itself.
    """
    fixed = {tensor.name for tensor in model.graph.initializer}
    (entry,) = (value for value in model.graph.input if value.name not in fixed)
    batch = entry.type.tensor_type.shape.dim[0].dim_value or 1
    rows = [
        run_onnx(model, np.repeat(image[None], batch, axis=0), as_identities(model))[:1]
        for image in x
    ]
    return np.concatenate(rows)


class _Reader:
    """Turns nodes into records; `results` maps a tensor to its record, `constants` to its array."""

    def __init__(self, model: onnx.ModelProto, name: str, image: Shape) -> None:
        self.graph, self.file, self.image = model.graph, name, image
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.results: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {INPUT: image}
        self.nodes: list[Node] = []
        self.layers: dict[str, nn.Module] = {}
        self.origin: dict[str, str] = {}  # a constant -> the initializer that it was
        self.of_constants: dict[str, Quantizer] = {}  # quantizers by the constant they make
        self.of_layers: dict[str, Quantizer] = {}  # by the layer whose weights they quantize
        self.of_results: list[tuple[str, Quantizer]] = []  # by the record whose result they read
        self.reads = Counter(tensor for node in model.graph.node for tensor in node.input)
        self.reads.update(value.name for value in model.graph.output)
        self.batch = 1

    def read(self) -> Network:
        entries = [value for value in self.graph.input if value.name not in self.constants]
        if len(entries) != 1 or len(self.graph.output) != 1:
            raise NetworkError(
                f"'{self.file}' must have one input and one output, has {len(entries)} and "
                f"{len(self.graph.output)}"
            )
        self._enter(entries[0])
        node = None
        try:
            for node in self.graph.node:
                self._step(node)
        except NetworkError as error:
            raise NetworkError(f"{self._place(node)} {error}") from error
        except MALFORMED as error:
            raise NetworkError(
                f"{self._place(node)} cannot be read, {first_line(error)}; export the network again"
            ) from error
        last = self.graph.output[0].name
        if last not in self.results:
            raise NetworkError(f"'{self.file}' gives a constant, not a result of its images")
        graph = NetworkGraph(self.image, tuple(self.nodes), self.results[last])
        used = NetworkGraph.of(self.image, graph.needed([graph.output]), graph.output)
        network = Network(used, {n: m for n, m in self.layers.items() if n in used.by_name})
        network.quantization = quantization_of(used, self.file, self.of_layers, self.of_results)
        return network

    def _place(self, node: onnx.NodeProto | None) -> str:
        assert node is not None
        return f"'{self.file}': node '{node.name or node.output[0]}' ({node.op_type})"

    def _enter(self, entry: onnx.ValueInfoProto) -> None:
        sizes = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        wanted = tuple(size or own for size, own in zip(sizes[1:], self.image, strict=False))
        if len(sizes) != 4 or wanted != self.image:
            raise NetworkError(
                f"'{self.file}' reads images {sizes[1:]} (channels, rows, columns), those of the "
                f"data are {list(self.image)}; choose other data with data.source, or export it "
                "for these"
            )
        self.batch = sizes[0] or 1
        self.results[entry.name] = INPUT

    def _step(self, node: onnx.NodeProto) -> None:
        if (node.domain, node.op_type) in QUANTIZERS:
            self._quantize(node)
            return
        refuse_operator(node)
        if node.op_type == "Constant":
            self.constants[node.output[0]] = _constant(node)
            return
        if node.op_type in ("Identity", "Transpose") and node.input[0] in self.constants:
            self._fold(node)
            return
        reader = READERS.get(node.op_type)
        if reader is None:
            of_images = any(self.results.get(name) == INPUT for name in node.input)
            hint = remedy_for(node.op_type, reads_images=of_images)
            raise NetworkError(f"is not known; known are {', '.join(READERS)}{hint}")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        reader(self, node, attributes)

    def _fold(self, node: onnx.NodeProto) -> None:
        """Take a constant that is handed on, or transposed, for one of its own."""
        source, made = node.input[0], node.output[0]
        array = self.constants[source]
        if node.op_type == "Transpose":
            axes = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), None)
            array = array.transpose(axes)
        self.constants[made] = array
        self.origin[made] = self.origin.get(source, source)
        if source in self.of_constants:
            self.of_constants[made] = self.of_constants[source]

    def _quantize(self, node: onnx.NodeProto) -> None:
        """Hand on what a quantizer reads, and note what it says of its width."""
        source, made = node.input[0], node.output[0]
        found = quantizer_of(node, self.constant)
        if source in self.constants:
            self.constants[made] = self.constants[source]
            self.origin[made] = self.origin.get(source, source)
            self.of_constants[made] = found
        else:
            self.results[made] = self.source(node)
            self.of_results.append((self.results[made], found))

    # --- what the readers ask -----------------------------------------------------------------

    def source(self, node: onnx.NodeProto, index: int = 0) -> str:
        """Return the record that an input of a node is the result of."""
        name = node.input[index]
        _require(name in self.results, f"reads '{name}', which is no result of the images")
        return self.results[name]

    def constant(self, node: onnx.NodeProto, index: int) -> Array | None:
        """Return the array of an input; None if there is no such input."""
        if index >= len(node.input) or not node.input[index]:
            return None
        name = node.input[index]
        _require(name in self.constants, f"computes '{name}', which must be a constant")
        return np.asarray(self.constants[name])

    def add(self, node: onnx.NodeProto, record: Node) -> None:
        """Add a record; its shape is checked against what it reads."""
        self.shapes[record.name] = record.result_shape([self.shapes[n] for n in record.inputs])
        self.nodes.append(record)
        self.results[node.output[0]] = record.name

    def layer(self, node: onnx.NodeProto, module: nn.Module) -> None:
        """Add a layer, called as its weights are."""
        given = next((n for n in node.input[1:] if n), node.output[0])
        named = self.origin.get(given, given)
        tensors = [self.origin.get(tensor, tensor) for tensor in node.input[1:]]
        stems = [n.rpartition(".")[0] for n in tensors if n.endswith((".weight", ".bias"))]
        stem = stems[0] if stems else node.name or named
        name = self.free(stem)
        made = layer_node(module, name, (self.source(node),))
        assert made is not None  # of a kind with a record
        self.layers[name] = module
        if given in self.of_constants and not isinstance(module, nn.modules.batchnorm._BatchNorm):
            self.of_layers[name] = self.of_constants[given]
        self.add(node, made)

    def free(self, name: str) -> str:
        """Return a name for a record, of letters, digits and _, that is not taken."""
        plain = re.sub(r"\W+", "_", name).strip("_") or "node"
        found, number = plain, 1
        while found in self.shapes:
            number += 1
            found = f"{plain}_{number}"
        return found

    def plain(self, node: onnx.NodeProto, kind: type[Node], **fields: Any) -> None:
        """Add a record without weights that reads all inputs of a node."""
        inputs = tuple(self.source(node, i) for i in range(len(node.input)))
        self.add(node, kind(self.free(node.name or node.output[0]), inputs, **fields))

    def first(self, node: onnx.NodeProto, kind: type[Node], **fields: Any) -> None:
        """Add a record without weights that reads the first input of a node."""
        self.add(node, kind(self.free(node.name or node.output[0]), (self.source(node),), **fields))


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise NetworkError(what)


def _constant(node: onnx.NodeProto) -> Array:
    (attribute,) = node.attribute
    value = onnx.helper.get_attribute_value(attribute)
    return numpy_helper.to_array(value) if attribute.name == "value" else np.asarray(value)


def _tensor(array: Array) -> torch.Tensor:
    _require(bool(np.isfinite(array).all()), "holds NaN or infinity; train the network again")
    return torch.tensor(np.asarray(array, np.float32))


def _weights(module: nn.Module, weight: Array, bias: Array | None) -> nn.Module:
    module.weight.data.copy_(_tensor(weight))
    if bias is not None:
        module.bias.data.copy_(_tensor(bias))
    return module


def _padding(attributes: Mapping[str, Any]) -> tuple[int, int]:
    automatic = attributes.get("auto_pad", b"NOTSET").decode()
    _require(automatic in ("NOTSET", "VALID"), f"pads '{automatic}'; export it with plain pads")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    _require(
        (top, left) == (bottom, right),
        f"pads {[top, left, bottom, right]}; both sides must be padded alike",
    )
    return top, left


def _conv(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    weight, bias = reader.constant(node, 1), reader.constant(node, 2)
    assert weight is not None  # onnx.checker
    _require(weight.ndim == 4, "must be a convolution over rows and columns")
    groups = attributes.get("group", 1)
    module = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2:],
        tuple(attributes.get("strides", (1, 1))),
        _padding(attributes),
        tuple(attributes.get("dilations", (1, 1))),
        groups,
        bias is not None,
    )
    reader.layer(node, _weights(module, weight, bias))


def _gemm(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    weight, bias = reader.constant(node, 1), reader.constant(node, 2)
    assert weight is not None  # onnx.checker
    plain = (attributes.get("alpha", 1.0), attributes.get("beta", 1.0), attributes.get("transA", 0))
    _require(plain == (1.0, 1.0, 0), "must have alpha and beta 1 and no transA")
    weight = weight if attributes.get("transB", 0) else weight.T
    module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    values = None if bias is None else np.broadcast_to(bias, (1, len(weight))).reshape(-1)
    reader.layer(node, _weights(module, weight, values))


def _matmul(reader: _Reader, node: onnx.NodeProto, _: Mapping[str, Any]) -> None:
    weight = reader.constant(node, 1)
    assert weight is not None  # onnx.checker
    _require(weight.ndim == 2, "must multiply by a matrix")
    module = nn.Linear(weight.shape[0], weight.shape[1], bias=False)
    reader.layer(node, _weights(module, weight.T, None))


def _add(reader: _Reader, node: onnx.NodeProto, _: Mapping[str, Any]) -> None:
    """Read a sum of two results, or the bias of the matrix product before it."""
    for index in (0, 1):
        if node.input[index] in reader.constants:
            _add_bias(reader, node, index)
            return
    reader.plain(node, Add)


def _add_bias(reader: _Reader, node: onnx.NodeProto, index: int) -> None:
    name = reader.source(node, 1 - index)
    module, bias = reader.layers.get(name), reader.constant(node, index)
    is_bias = isinstance(module, nn.Linear) and module.bias is None and bias is not None
    alone = reader.reads[node.input[1 - index]] == 1
    _require(is_bias and alone, "adds a constant to something else than the product of MatMul")
    assert isinstance(module, nn.Linear)
    assert bias is not None
    _require(bias.size == module.out_features, f"must add {module.out_features} values")
    module.bias = nn.Parameter(_tensor(bias.reshape(-1)))
    made = layer_node(module, name, reader.nodes[-1].inputs)
    _require(reader.nodes[-1].name == name and made is not None, "must follow its MatMul directly")
    assert made is not None
    reader.nodes[-1] = made
    reader.results[node.output[0]] = name


def _norm(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    scale, shift, mean, variance = (reader.constant(node, i) for i in range(1, 5))
    _require(not attributes.get("training_mode", 0), "is in training mode; export with eval()")
    assert scale is not None  # onnx.checker; and so are the others
    is_map = len(reader.shapes[reader.source(node)]) == 3
    kind = nn.BatchNorm2d if is_map else nn.BatchNorm1d
    momentum = 1 - attributes.get("momentum", 0.9)
    module = _weights(kind(len(scale), attributes.get("epsilon", 1e-5), momentum), scale, shift)
    module.running_mean.copy_(_tensor(np.asarray(mean)))
    module.running_var.copy_(_tensor(np.asarray(variance)))
    reader.layer(node, module)


def _pool(attributes: Mapping[str, Any]) -> dict[str, Any]:
    kernel = tuple(attributes["kernel_shape"])
    stride, padding = tuple(attributes.get("strides", (1, 1))), _padding(attributes)
    _require(len(kernel) == len(stride) == 2, "must pool rows and columns")
    _require(min(*kernel, *stride) > 0, f"has a window {kernel} and strides {stride}, not above 0")
    _require(set(attributes.get("dilations", (1,))) == {1}, "pools with dilation; use a plain pool")
    fits = all(0 <= 2 * side <= edge for side, edge in zip(padding, kernel, strict=True))
    _require(fits, f"pads {padding}, must be 0 to half of its window {kernel}, as in torch")
    return {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "ceil": bool(attributes.get("ceil_mode", 0)),
    }


def _max_pool(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    reader.first(node, MaxPool, **_pool(attributes))


def _avg_pool(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    counted = bool(attributes.get("count_include_pad", 0))
    reader.first(node, AvgPool, **_pool(attributes), count_padding=counted)


def _mean(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    axes = attributes.get("axes", reader.constant(node, 1))
    wanted = axes is not None and {int(axis) % 4 for axis in axes} == {2, 3}
    _require(wanted, "must take the mean over rows and columns")
    reader.first(node, Mean, keep=bool(attributes.get("keepdims", 1)))


def _flatten(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    _require(attributes.get("axis", 1) == 1, "must flatten all axes but the first")
    reader.first(node, Flatten)


def _reshape(reader: _Reader, node: onnx.NodeProto, _: Mapping[str, Any]) -> None:
    sizes = [int(size) for size in np.asarray(reader.constant(node, 1))]
    count = num_values(reader.shapes[reader.source(node)])
    rows = (0, -1, reader.batch)
    is_flat = len(sizes) == 2 and sizes[0] in rows and sizes[1] in (-1, count)
    _require(is_flat and sizes != [-1, -1], f"reshapes to {sizes}; use Flatten")
    reader.first(node, Flatten)


def _concat(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    _require(attributes["axis"] == 1, "must join channels (axis 1)")
    reader.plain(node, Concat)


def _softmax(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    rank = len(reader.shapes[reader.source(node)]) + 1
    _require(attributes.get("axis", -1) % rank == 1, "must be over the classes (axis 1)")
    reader.first(node, Softmax, log=node.op_type == "LogSoftmax")


def _dropout(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    ratio, training = reader.constant(node, 1), reader.constant(node, 2)
    _require(training is None or not training.any(), "drops values in evaluation too")
    reader.first(node, Dropout, p=float(attributes.get("ratio", 0.5 if ratio is None else ratio)))


def _simple(kind: type[Node], **fields: Any) -> Callable[..., None]:
    return lambda reader, node, _: reader.first(node, kind, **fields)


READERS: Mapping[str, Callable[[_Reader, onnx.NodeProto, Mapping[str, Any]], None]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _norm,
    "Relu": _simple(Relu),
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "GlobalAveragePool": _simple(Mean, keep=True),
    "ReduceMean": _mean,
    "Add": _add,
    "Concat": _concat,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Dropout": _dropout,
    "Identity": _simple(Identity),
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Sigmoid": _simple(Sigmoid),
}
