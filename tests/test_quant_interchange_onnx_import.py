# SPDX-License-Identifier: Apache-2.0
"""ONNX files in: equal to the reference runtime and exact after `check`, or refused by node."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from codegen.stages import check
from quant.models.own import read_file
from quant.network.graph import Linear
from quant.network.network import Network
from tests.own import either, good
from tests.test_own_networks import CONFIG
from winnow.config import ModelConfig
from winnow.errors import ArtefactError, NetworkError
from winnow.flow import Build

IMAGE, CLASSES = (1, 16, 16), 10


def exported(module: nn.Module, path: Path, **options: object) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), torch.zeros(1, *IMAGE), str(path), dynamo=False, **options)
    return path


def read(path: Path) -> Network:
    return read_file(path, IMAGE, CLASSES)


@pytest.mark.parametrize(
    "make",
    [good.sequential, good.nested, good.Functional, good.Sized, good.norms_after_dense]
    + [good.no_affine, good.ends_with_softmax, good.LogSoftmax, good.fully_convolutional]
    + [either.Residual, either.Joined, good.global_mean, either.average_pool, either.strided]
    + [good.depthwise_separable, good.grouped, either.overlapping_pool, good.Projected],
)
def test_exported_networks_are_read(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    net = read(exported(make(), tmp_path / "net.onnx"))
    assert net.graph.shape_of(net.graph.output) == (CLASSES,)


def test_file_goes_through_check(tmp_path: Path) -> None:
    exported(good.Functional(), tmp_path / "net.onnx")
    config = replace(CONFIG, model=ModelConfig(name="net.onnx", base=tmp_path))
    assert check.run(Build(config, Path("never")), {}).numbers["layers"] == 4


# --- models made by hand ----------------------------------------------------------------------

RANDOM = np.random.default_rng(0)


def values(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto], arrays: dict[str, NDArray], path: Path, opset: int = 17
) -> Path:
    """Write a model from "x" to "y"."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *IMAGE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    domains = {node.domain for node in nodes if node.domain}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def dense(middle: list[onnx.NodeProto]) -> tuple[list[onnx.NodeProto], dict[str, NDArray]]:
    """Return nodes from x over `middle`, which makes "m" of "f", to y."""
    first = helper.make_node("Flatten", ["x"], ["f"])
    last = helper.make_node("Gemm", ["m", "w"], ["y"], transB=1)
    return [first, *middle, last], {"w": values(10, 256), "k": values(256, 256), "b": values(256)}


def test_product_and_sum_are_one_layer(tmp_path: Path) -> None:
    middle = [
        helper.make_node("MatMul", ["f", "k"], ["p"]),
        helper.make_node("Add", ["b", "p"], ["q"]),
        helper.make_node("Relu", ["q"], ["m"]),
    ]
    nodes = read(model(*dense(middle), tmp_path / "a.onnx")).graph.nodes
    assert [n.bias for n in nodes if isinstance(n, Linear)] == [True, False]


NODE = helper.make_node


def test_normalising_nodes_name_the_keys(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"; to normalise images, set data\.mean and data\.std$"):
        read(model(*dense([NODE("Div", ["x", "b"], ["m"])]), tmp_path / "a.onnx"))


def test_norms_and_dropout_of_training_are_read(tmp_path: Path) -> None:
    nodes = [
        NODE("BatchNormalization", ["x", "a", "b", "c", "d"], ["n"], epsilon=0.1),
        NODE("Constant", [], ["r"], value_float=0.25),
        NODE("Dropout", ["n", "r"], ["p"]),
        NODE("AveragePool", ["p"], ["q"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[4, 4]),
        NODE("Identity", ["w"], ["v"]),
        NODE("Flatten", ["q"], ["f"]),
        NODE("Gemm", ["f", "v", "z"], ["y"]),
    ]
    arrays = {name: values(1) for name in "abc"} | {"d": np.ones(1, np.float32)}
    arrays |= {"w": values(16, 10), "z": values(1, 10)}
    kinds = [type(n).__name__ for n in read(model(nodes, arrays, tmp_path / "a.onnx")).graph.nodes]
    assert kinds == ["BatchNorm", "Dropout", "AvgPool", "Flatten", "Linear"]


REFUSED: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "unknown": ([NODE("Tanh", ["f"], ["m"], name="t")], "node 't' (Tanh) is not known; known are"),
    "other operators": (
        [NODE("Gelu", ["f"], ["m"], domain="com.microsoft")],
        "(Gelu) is of the operators 'com.microsoft', which are not known; export the network",
    ),
    "sum": ([NODE("Add", ["f", "b"], ["m"])], "(Add) adds a constant to something else than"),
    "axis": ([NODE("Softmax", ["f"], ["m"], axis=0)], "must be over the classes (axis 1)"),
    "scaled": ([NODE("Gemm", ["f", "k"], ["m"], alpha=2.0)], "must have alpha and beta 1"),
    "computed": ([NODE("MatMul", ["f", "f"], ["m"])], "computes 'f', which must be a constant"),
    "reshape": (
        [
            NODE("Constant", [], ["s"], value_ints=[-1, 16, 16]),
            NODE("Reshape", ["f", "s"], ["m"]),
        ],
        "(Reshape) reshapes to [-1, 16, 16]; use Flatten",
    ),
    "window of one axis": (
        [NODE("MaxPool", ["x"], ["m"], kernel_shape=[2], strides=[2])],
        "(MaxPool) must pool rows and columns",
    ),
    "stride of 0": (
        [NODE("MaxPool", ["x"], ["m"], kernel_shape=[2, 2], strides=[0, 1])],
        "(MaxPool) has a window (2, 2) and strides (0, 1), not above 0",
    ),
    "gaps": (
        [NODE("MaxPool", ["x"], ["m"], kernel_shape=[2, 2], dilations=[2, 2])],
        "(MaxPool) pools with dilation; use a plain pool",
    ),
    "wide padding": (
        [NODE("MaxPool", ["x"], ["m"], kernel_shape=[3, 3], pads=[2, 1, 2, 1])],
        "(MaxPool) pads (2, 1), must be 0 to half of its window (3, 3), as in torch",
    ),
    "pool over all": (
        [NODE("GlobalMaxPool", ["x"], ["m"])],
        "Sigmoid; use a max pool with a window of that size, such as nn.MaxPool2d(4, 2)",
    ),
    "bias of another size": (
        [NODE("Gemm", ["f", "k", "w"], ["m"])],
        "(Gemm) cannot be read, operands could not be broadcast together",
    ),
    "two pads": (
        [NODE("AveragePool", ["x"], ["m"], kernel_shape=[2, 2], pads=[1, 1])],
        "(AveragePool) cannot be read, not enough values to unpack",
    ),
    "NaN": (
        [
            NODE("Constant", [], ["n"], value_floats=[math.nan] * 256),
            NODE("Gemm", ["f", "k", "n"], ["m"]),
        ],
        "(Gemm) holds NaN or infinity; train the network again",
    ),
    "size": ([NODE("Identity", ["x"], ["m"])], "must read a vector of 256 values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_node_is_refused_by_name(case: str, tmp_path: Path) -> None:
    middle, words = REFUSED[case]
    with pytest.raises(NetworkError) as caught:
        read(model(*dense(middle), tmp_path / "a.onnx"))
    assert str(caught.value).startswith("'a.onnx': node '")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_convolution_padded_on_one_side_is_refused(tmp_path: Path) -> None:
    nodes = [
        NODE("Conv", ["x", "c"], ["p"], pads=[0, 0, 1, 1]),
        NODE("Flatten", ["p"], ["f"]),
        NODE("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    arrays = {"c": values(1, 1, 2, 2), "w": values(10, 256)}
    with pytest.raises(NetworkError, match=r"pads \[0, 0, 1, 1\]; both sides must be padded alike"):
        read(model(nodes, arrays, tmp_path / "a.onnx"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"a\.onnx' is missing; its path is relative to"):
        read(tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(ArtefactError, match=r"a\.onnx' is damaged or no ONNX file \("):
        read(tmp_path / "a.onnx")
    nodes = [NODE("Flatten", ["x"], ["f"]), NODE("MatMul", ["f", "w"], ["y"])]
    path = model(nodes, {"w": values(256, 10)}, tmp_path / "b.onnx", opset=7)
    with pytest.raises(NetworkError, match=r"must have an operator set of 9\.\.\d+, has 7; export"):
        read(path)
    exported(good.sequential(), tmp_path / "c.onnx")
    with pytest.raises(NetworkError, match=r"reads images \[1, 16, 16\] .* those of the data are"):
        read_file(tmp_path / "c.onnx", (3, 16, 16), CLASSES)
