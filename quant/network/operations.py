# SPDX-License-Identifier: Apache-2.0
"""Operations without weights: what each record computes, and how users write it.

A user may call a module (`nn.ReLU`), a function (`F.relu`) or a method (`x.relu()`); all three
become the same record. A new operation is a record in `quant.network.graph`, a row in `COMPUTE`,
and one in each of `MODULES`, `FUNCTIONS`, `METHODS` that has a form of it.

The readers here get torch's arguments and return a record without name, or raise NetworkError with
what is not known; the place in the user's code is added by `quant.network.from_module`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.network.graph import (
    AdaptiveAvgPool,
    Add,
    AvgPool,
    Concat,
    Dropout,
    Flatten,
    Identity,
    MaxPool,
    Mean,
    Node,
    Pair,
    Relu,
    Shape,
    Sigmoid,
    Softmax,
    num_values,
)
from quant.network.layer_modules import pair
from winnow.errors import NetworkError


class BatchSize:
    """Stands for the number of images in a shape that a user's code reads."""

    def __repr__(self) -> str:
        return "n"


BATCH = BatchSize()


class TracedValue:
    """A result in a user's code: the record that gives it, and its shape."""

    def __init__(self, name: str, shape: Shape) -> None:
        self.name, self.shape = name, shape

    def __repr__(self) -> str:
        return self.name


# --- what a record computes -------------------------------------------------------------------


def _relu(node: Relu, x: Tensor) -> Tensor:
    return F.relu(x) if node.limit is None else F.hardtanh(x, 0.0, node.limit)


def _max_pool(n: MaxPool, x: Tensor) -> Tensor:
    return F.max_pool2d(x, n.kernel, n.stride, n.padding, ceil_mode=n.ceil)


def _avg_pool(n: AvgPool, x: Tensor) -> Tensor:
    return F.avg_pool2d(x, n.kernel, n.stride, n.padding, n.ceil, n.count_padding)


def _dropout(node: Dropout, x: Tensor, training: bool) -> Tensor:
    drop = F.dropout2d if node.channels else F.dropout
    return drop(x, node.p, training)


COMPUTE: Mapping[type[Node], Callable[..., Tensor]] = {
    Relu: lambda node, x, **_: _relu(node, x),
    Add: lambda _, x, y, **__: x + y,
    MaxPool: lambda node, x, **_: _max_pool(node, x),
    AvgPool: lambda node, x, **_: _avg_pool(node, x),
    AdaptiveAvgPool: lambda node, x, **_: F.adaptive_avg_pool2d(x, node.size),
    Mean: lambda node, x, **_: x.mean((2, 3), keepdim=node.keep),
    Flatten: lambda _, x, **__: x.flatten(1),
    Concat: lambda _, *values, **__: torch.cat(values, 1),
    Dropout: lambda node, x, training: _dropout(node, x, training),
    Identity: lambda _, x, **__: x,
    Softmax: lambda node, x, **_: (F.log_softmax if node.log else F.softmax)(x, 1),
    Sigmoid: lambda _, x, **__: x.sigmoid(),
}


def compute(node: Node, inputs: Sequence[Tensor], *, training: bool) -> Tensor:
    """Return the result of a record without weights for inputs [n, ...]."""
    return COMPUTE[type(node)](node, *inputs, training=training)


# --- how users write it -----------------------------------------------------------------------

Draft = tuple[
    type[Node], tuple[TracedValue, ...], dict[str, Any]
]  # record, what it reads, its fields


def _refuse(what: str) -> None:
    raise NetworkError(what)


def _one(kind: type[Node], x: TracedValue, **fields: Any) -> Draft:
    return kind, (x,), fields


def _read_relu(x: TracedValue, inplace: bool = False) -> Draft:  # noqa: ARG001 (torch's argument)
    return _one(Relu, x)


def _read_relu6(x: TracedValue, inplace: bool = False) -> Draft:  # noqa: ARG001 (torch's argument)
    return _one(Relu, x, limit=6.0)


def _read_add(x: TracedValue, y: TracedValue, *, alpha: float = 1) -> Draft:
    if not (isinstance(x, TracedValue) and isinstance(y, TracedValue)) or alpha != 1:
        _refuse("adds something else than two results of layers; scale or shift in a BatchNorm")
    return Add, (x, y), {}


def _read_max_pool(
    x: TracedValue,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Draft:
    if pair(dilation) != (1, 1) or return_indices:
        _refuse("pools with dilation or returns indices; use a plain max pool")
    return _one(MaxPool, x, **_pool(kernel_size, stride, padding), ceil=bool(ceil_mode))


def _read_avg_pool(
    x: TracedValue,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Draft:
    if divisor_override is not None:
        _refuse("divides by a number of its own; leave divisor_override out")
    fields = _pool(kernel_size, stride, padding)
    count = bool(count_include_pad)
    return _one(AvgPool, x, **fields, ceil=bool(ceil_mode), count_padding=count)


def _pool(kernel: Any, stride: Any, padding: Any) -> dict[str, Pair]:
    steps = kernel if stride in (None, [], ()) else stride
    return {"kernel": pair(kernel), "stride": pair(steps), "padding": pair(padding)}


def _read_adaptive(x: TracedValue, output_size: Any) -> Draft:
    edges = output_size if isinstance(output_size, tuple | list) else (output_size,) * 2
    size = tuple(x.shape[1 + i] if edge is None else edge for i, edge in enumerate(edges))
    return _one(AdaptiveAvgPool, x, size=pair(size))


def _read_mean(x: TracedValue, dim: Any = None, keepdim: bool = False) -> Draft:
    axes = dim if isinstance(dim, tuple | list) else (dim,)
    places = {axis % 4 if isinstance(axis, int) else axis for axis in axes}
    if len(x.shape) != 3 or places != {2, 3}:
        _refuse("takes the mean over other axes than rows and columns; use x.mean((2, 3))")
    return _one(Mean, x, keep=bool(keepdim))


def _read_flatten(x: TracedValue, start_dim: int = 0, end_dim: int = -1) -> Draft:
    if start_dim != 1 or end_dim not in (-1, len(x.shape)):
        _refuse("flattens other axes than all but the first; use torch.flatten(x, 1)")
    return _one(Flatten, x)


def _read_view(x: TracedValue, *sizes: Any) -> Draft:
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    count = num_values(x.shape)
    if len(wanted) == 2 and wanted[0] in (BATCH, -1) and wanted[1] in (-1, count):
        if tuple(wanted) != (-1, -1):
            return _one(Flatten, x)
    _refuse(f"reshapes [n, {_listed(x.shape)}] to {list(wanted)}; use torch.flatten(x, 1)")
    raise AssertionError


def _listed(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def _read_concat(tensors: Sequence[TracedValue], dim: int = 0) -> Draft:
    values = tuple(tensors)
    if not all(isinstance(value, TracedValue) for value in values):
        _refuse("joins something else than results of layers")
    if dim not in (1, -len(values[0].shape)):
        _refuse("joins along another axis than the channels; use torch.cat(values, 1)")
    return Concat, values, {}


def _read_dropout(
    x: TracedValue,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,  # noqa: ARG001 (torch's argument)
    channels: bool = False,
) -> Draft:
    if training:
        _refuse("drops values in evaluation too; use F.dropout(x, p, self.training)")
    return _one(Dropout, x, p=float(p), channels=channels)


def _read_dropout2d(
    x: TracedValue, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Draft:
    return _read_dropout(x, p, training, inplace, channels=True)


def _read_identity(x: TracedValue) -> Draft:
    return _one(Identity, x)


def _read_softmax(
    x: TracedValue,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: Any = None,
    log: bool = False,
) -> Draft:
    if dtype is not None:
        _refuse("takes the softmax in another type of number; leave dtype out")
    axes = (1, -len(x.shape)) if len(x.shape) > 1 else (1, -1, None)
    if dim not in axes:
        _refuse("takes the softmax over another axis than the classes; use dim=1")
    return _one(Softmax, x, log=log)


def _read_log_softmax(
    x: TracedValue, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Draft:
    return _read_softmax(x, dim, _stacklevel, dtype, log=True)


def _read_sigmoid(x: TracedValue) -> Draft:
    return _one(Sigmoid, x)


def _read_squeeze(x: TracedValue, *axes: Any) -> Draft:
    wanted = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
    if len(x.shape) == 3 and x.shape[1:] == (1, 1) and {a % 4 for a in wanted} == {2, 3}:
        return _one(Flatten, x)
    _refuse("squeezes other axes than rows and columns of one pixel; use torch.flatten(x, 1)")
    raise AssertionError


Reader = Callable[..., Draft]

FUNCTIONS: Mapping[Any, Reader] = {
    F.relu: _read_relu,
    torch.relu: _read_relu,
    torch.relu_: _read_relu,
    F.relu6: _read_relu6,
    operator.add: _read_add,
    operator.iadd: _read_add,
    torch.add: _read_add,
    F.max_pool2d: _read_max_pool,
    torch.max_pool2d: _read_max_pool,
    F.avg_pool2d: _read_avg_pool,
    F.adaptive_avg_pool2d: _read_adaptive,
    torch.mean: _read_mean,
    torch.flatten: _read_flatten,
    torch.reshape: _read_view,
    torch.cat: _read_concat,
    torch.concat: _read_concat,
    F.dropout: _read_dropout,
    F.dropout2d: _read_dropout2d,
    F.softmax: _read_softmax,
    torch.softmax: _read_softmax,
    F.log_softmax: _read_log_softmax,
    torch.log_softmax: _read_log_softmax,
    F.sigmoid: _read_sigmoid,
    torch.sigmoid: _read_sigmoid,
    torch.squeeze: _read_squeeze,
}
METHODS: Mapping[str, Reader] = {
    "relu": _read_relu,
    "relu_": _read_relu,
    "add": _read_add,
    "add_": _read_add,
    "mean": _read_mean,
    "flatten": _read_flatten,
    "view": _read_view,
    "reshape": _read_view,
    "contiguous": _read_identity,
    "softmax": _read_softmax,
    "log_softmax": _read_log_softmax,
    "sigmoid": _read_sigmoid,
    "squeeze": _read_squeeze,
}
IN_PLACE = {torch.relu_, operator.iadd, "relu_", "add_"}  # write their result over the first input

MODULES: Mapping[type[nn.Module], Callable[[Any, TracedValue], Draft]] = {
    nn.ReLU: lambda _, x: _read_relu(x),
    nn.ReLU6: lambda _, x: _read_relu6(x),
    nn.MaxPool2d: lambda m, x: _read_max_pool(
        x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: lambda m, x: _read_avg_pool(
        x,
        m.kernel_size,
        m.stride,
        m.padding,
        m.ceil_mode,
        m.count_include_pad,
        m.divisor_override,
    ),
    nn.AdaptiveAvgPool2d: lambda m, x: _read_adaptive(x, m.output_size),
    nn.Flatten: lambda m, x: _read_flatten(x, m.start_dim, m.end_dim),
    nn.Dropout: lambda m, x: _read_dropout(x, m.p, training=False),
    nn.Dropout2d: lambda m, x: _read_dropout2d(x, m.p, training=False),
    nn.Identity: lambda _, x: _read_identity(x),
    nn.Softmax: lambda m, x: _read_softmax(x, m.dim),
    nn.LogSoftmax: lambda m, x: _read_log_softmax(x, m.dim),
    nn.Sigmoid: lambda _, x: _read_sigmoid(x),
}
