# SPDX-License-Identifier: Apache-2.0
"""Records with weights and the modules that hold them: from one to the other and back.

A new kind of layer is one row of `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from quant.layers.quant_add import QuantAdd, QuantAverage
from quant.layers.quant_layer import (
    QuantDense,
    QuantDirectConv2d,
    QuantUnrolledConv2d,
    QuantWinogradConv2d,
)
from quant.layers.winograd_layer import (
    Dense,
    DirectConv2d,
    UnrolledConv2d,
    Window,
    WinogradConv2d,
)
from quant.network import graph
from quant.network.graph import BatchNorm, Conv, Direct, Linear, Node, Pair, Unrolled, Winograd
from winnow.errors import NetworkError


@dataclass(frozen=True)
class Kind:
    """One kind of layer: its record, what a module says of it, and the module of a record."""

    record: type[Node]
    read: Callable[[Any], dict[str, Any]]
    make: Callable[[Any], nn.Module]


def pair(value: Any) -> Pair:
    """Return a size of torch, one number, one in a list or two, as (rows, columns)."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    rows, columns = values * 2 if len(values) == 1 else values
    return int(rows), int(columns)


def layer_node(module: nn.Module, name: str, inputs: tuple[str, ...]) -> Node | None:
    """Return the record of a module with weights; None if its kind is unknown.

    Raises NetworkError for an option that the flow does not know.
    """
    kind = KINDS.get(plain_type(module))
    if kind is None:
        return None
    try:
        return kind.record(name, inputs, **kind.read(module))
    except NetworkError as error:
        raise NetworkError(f"'{name}' ({type(module).__name__}) {error}") from error


def plain_type(module: nn.Module) -> type[nn.Module]:
    """Return the kind in `KINDS` that a module computes as, else its own type.

    A subclass computes as its base unless it has methods of its own that take part in that.
    """
    own = type(module)
    for kind in own.__mro__:
        if kind in KINDS:
            return kind
        if _COMPUTING & vars(kind).keys():
            break
    return own


_COMPUTING = {"forward", "_conv_forward", "__call__", "_call_impl", "__getattr__", "weight", "bias"}


def layer_module(node: Node) -> nn.Module:
    """Return a module for a record, with fresh weights."""
    is_quantized = getattr(node, "widths", None) is not None
    is_flat = isinstance(node, BatchNorm) and len(node.shape) == 1
    return _BY_RECORD[type(node), is_quantized or is_flat].make(node)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise NetworkError(what)


def _conv(module: nn.Conv2d) -> dict[str, Any]:
    _require(module.padding_mode == "zeros", f"pads with '{module.padding_mode}', must be 'zeros'")
    return {
        "in_channels": module.in_channels,
        "out_channels": module.out_channels,
        "kernel": pair(module.kernel_size),
        "stride": pair(module.stride),
        "padding": _padding(module),
        "dilation": pair(module.dilation),
        "groups": module.groups,
        "bias": module.bias is not None,
    }


def _padding(module: nn.Conv2d) -> Pair:
    """Return the padding in pixels, also of "same" and "valid"."""
    if not isinstance(module.padding, str):
        return pair(module.padding)
    if module.padding == "valid":
        return 0, 0
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    _require(not any(r % 2 for r in reach), "pads 'same' for an even kernel; use an odd one")
    return reach[0] // 2, reach[1] // 2


def _make_conv(n: Conv) -> nn.Module:
    return nn.Conv2d(
        n.in_channels, n.out_channels, n.kernel, n.stride, n.padding, n.dilation, n.groups, n.bias
    )


def _linear(module: nn.Linear) -> dict[str, Any]:
    return {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "bias": module.bias is not None,
    }


def _norm(module: nn.BatchNorm2d) -> dict[str, Any]:
    has_statistics = module.running_mean is not None and module.running_var is not None
    _require(
        has_statistics and module.track_running_stats,
        "takes the statistics of the batch in evaluation too; leave track_running_stats at True",
    )
    return {
        "channels": module.num_features,
        "eps": module.eps,
        "momentum": module.momentum,
        "affine": module.weight is not None,
        "bias": module.bias is not None,
    }


def _make_norm(kind: type[nn.Module], n: BatchNorm) -> nn.Module:
    return kind(n.channels, n.eps, n.momentum, n.affine, bias=n.bias)


def _winograd(module: WinogradConv2d) -> dict[str, Any]:
    return {**_channels(module), "m": module.m, "groups": module.groups}


def _direct(module: DirectConv2d) -> dict[str, Any]:
    w = module.window
    fields = {"kernel": w.kernel, "stride": w.stride, "padding": w.padding}
    return {**_channels(module), **fields, "groups": module.groups}


def _window(n: Direct) -> Window:
    return Window(n.kernel, n.stride, n.padding)


def _dense(module: Dense) -> dict[str, Any]:
    return {**_channels(module), "operands": int(module.weight.shape[1])}


def _channels(module: Any) -> dict[str, Any]:
    widths = {"widths": module.widths} if hasattr(module, "widths") else {}
    return {"in_channels": module.in_channels, "out_channels": module.out_channels, **widths}


def _sum(module: QuantAdd | QuantAverage) -> dict[str, Any]:
    return {"bits": module.bits, "relu": module.relu}


KINDS: Mapping[type[nn.Module], Kind] = {
    nn.Conv2d: Kind(Conv, _conv, _make_conv),
    nn.Linear: Kind(
        Linear, _linear, lambda n: nn.Linear(n.in_features, n.out_features, bias=n.bias)
    ),
    nn.BatchNorm2d: Kind(BatchNorm, _norm, partial(_make_norm, nn.BatchNorm2d)),
    nn.BatchNorm1d: Kind(BatchNorm, _norm, partial(_make_norm, nn.BatchNorm1d)),
    WinogradConv2d: Kind(
        Winograd, _winograd, lambda n: WinogradConv2d(n.in_channels, n.out_channels, n.m, n.groups)
    ),
    DirectConv2d: Kind(
        Direct,
        _direct,
        lambda n: DirectConv2d(n.in_channels, n.out_channels, _window(n), n.groups),
    ),
    UnrolledConv2d: Kind(
        Unrolled, _direct, lambda n: UnrolledConv2d(n.in_channels, n.out_channels, _window(n))
    ),
    Dense: Kind(graph.Dense, _dense, lambda n: Dense(n.operands, n.out_channels, n.in_channels)),
    QuantWinogradConv2d: Kind(
        Winograd,
        _winograd,
        lambda n: QuantWinogradConv2d(n.in_channels, n.out_channels, n.m, n.widths, n.groups),
    ),
    QuantDirectConv2d: Kind(
        Direct,
        _direct,
        lambda n: QuantDirectConv2d(n.in_channels, n.out_channels, _window(n), n.widths, n.groups),
    ),
    QuantUnrolledConv2d: Kind(
        Unrolled,
        _direct,
        lambda n: QuantUnrolledConv2d(n.in_channels, n.out_channels, _window(n), n.widths),
    ),
    QuantDense: Kind(
        graph.Dense,
        _dense,
        lambda n: QuantDense(n.operands, n.out_channels, n.in_channels, n.widths),
    ),
    QuantAverage: Kind(
        graph.QuantAverage,
        lambda module: {
            **_sum(module),
            "flat": module.flat,
            "log2_pixels": module.log2_pixels,
        },
        lambda n: QuantAverage(n.bits, relu=n.relu, flat=n.flat, log2_pixels=n.log2_pixels),
    ),
    QuantAdd: Kind(graph.QuantAdd, _sum, lambda n: QuantAdd(n.bits, relu=n.relu)),
}
_SPECIAL = (
    *(QuantWinogradConv2d, QuantDirectConv2d, QuantUnrolledConv2d, QuantDense),
    nn.BatchNorm1d,
)
_BY_RECORD = {(kind.record, module in _SPECIAL): kind for module, kind in KINDS.items()}
