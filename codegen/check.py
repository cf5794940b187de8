# SPDX-License-Identifier: Apache-2.0
"""The checker of integer graphs: every rule of `docs/ir.md`, one line per broken rule.

Enters a graph from lowering or from a file; leaves nothing, or raises GraphError naming the node,
what must be and what was. Stages after it trust the graph. What an engine can do is not its
business but that of `codegen/fuse.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from codegen.bounds import worst_case_sums
from codegen.ir import (
    INPUT,
    RAW_BITS,
    Add,
    Concat,
    Convolution,
    Dense,
    Direct,
    GlobalAverage,
    Graph,
    MaxPool,
    Multiply,
    Node,
    TensorType,
    Unrolled,
    Winograd,
    average_shift,
)
from winnow.errors import GraphError
from winnow.fixed_point import int_range, signed_bits
from winnow.srbs import SUB_ROW, max_keep, without_groups
from winnow.winograd import KERNEL, TILE_SIZES

FEATURE_BITS = (2, 8)
Y_BITS = 63
MAX_SHIFT = 62  # the widest shift for which int64 can round a Y_BITS number half to even
MAX_ADD_SHIFT = 32  # between the exponents of a sum: far more than maps of 8 bits can use
AXES = ("rows", "columns")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_graph(graph: Graph) -> None:
    """Raise GraphError unless `graph` keeps every rule of `docs/ir.md`."""
    _check_type("input", graph.input)
    if not graph.nodes:
        raise GraphError("graph: it must have at least one node, got none")
    known = {INPUT: graph.input}
    for node in graph.nodes:
        sources = _check_names(node, known)
        CHECKS[type(node)](node, sources)
        known[node.name] = node.output


def _require(holds: bool, node: Node, rule: str, got: object) -> None:
    if not holds:
        raise GraphError(f"node '{node.name}': {rule}, got {got}")


def _check_names(node: Node, known: Mapping[str, TensorType]) -> tuple[TensorType, ...]:
    """Check the node's name and inputs; return the types it reads."""
    if not _NAME.fullmatch(node.name) or node.name == INPUT:
        raise GraphError(
            f"node '{node.name}': its name must match [a-z][a-z0-9_]* and not be '{INPUT}'"
        )
    if node.name in known:
        raise GraphError(f"node '{node.name}': its name must be unique, got it twice")
    for source in node.inputs:
        rule = f"it must read the input or an earlier node ({', '.join(known)})"
        _require(source in known, node, rule, f"'{source}'")
        rule = f"it must read feature maps of {FEATURE_BITS[0]}..{FEATURE_BITS[1]} bits"
        _require(not known[source].is_raw, node, rule, f"the raw output of '{source}'")
    return tuple(known[source] for source in node.inputs)


def _check_type(where: str, kind: TensorType, *, may_be_raw: bool = False) -> None:
    for key in ("channels", "height", "width", "bits", "exponent"):
        value = getattr(kind, key)
        if type(value) is not int:
            raise GraphError(f"{where}: {key} must be a Python int, got {value!r}")
    for key, value in zip(("channels", "height", "width"), kind.shape, strict=True):
        if value < 1:
            raise GraphError(f"{where}: {key} must be at least 1, got {value}")
    low, high = FEATURE_BITS
    if not (low <= kind.bits <= high or (may_be_raw and kind.is_raw)):
        choices = f"{low}..{high}" + (f" or {RAW_BITS}" if may_be_raw else "")
        raise GraphError(f"{where}: bits must be {choices}, got {kind.bits}")


def _one_source(node: Node, sources: tuple[TensorType, ...]) -> TensorType:
    _require(len(sources) == 1, node, "it must read one map", len(sources))
    return sources[0]


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in shape) or "a scalar"


# --- windows ------------------------------------------------------------------------------------


def _check_window(node: MaxPool | Direct, source: TensorType, called: str) -> None:
    """Raise GraphError unless strides and padding suit the window, or kernel, and the map."""
    _check_ints(node, "stride_rows", "stride_columns", "top", "left", "bottom", "right")
    for what, axis, pixels in zip(AXES, node.window.axes, source.shape[1:], strict=True):
        _require(axis.stride >= 1, node, f"the stride along {what} must be at least 1", axis.stride)
        rule = f"padding along {what} must be 0..{axis.kernel - 1}, less than the {called}"
        for padding in (axis.before, axis.after):
            _require(0 <= padding < axis.kernel, node, rule, padding)
        rule = f"the padded map must hold the {called}'s {axis.kernel} {what}"
        padded = pixels + axis.before + axis.after
        _require(axis.kernel <= padded, node, rule, padded)


# --- max pool -----------------------------------------------------------------------------------


def _check_max_pool(node: MaxPool, sources: tuple[TensorType, ...]) -> None:
    source = _one_source(node, sources)
    _check_ints(node, "rows", "columns")
    for what, axis in zip(AXES, node.window.axes, strict=True):
        _require(axis.kernel >= 1, node, f"its window must have at least 1 of {what}", axis.kernel)
    _check_window(node, source, "window")
    _check_type(f"node '{node.name}': output", node.output)
    height, width = node.window.outputs(*source.shape[1:])
    pooled = replace(source, height=height, width=width)
    _require(node.output == pooled, node, f"the output must be {pooled}", node.output)


# --- sum ----------------------------------------------------------------------------------------


def _check_add(node: Add, sources: tuple[TensorType, ...]) -> None:
    _require(len(sources) == 2, node, "it must read two maps", len(sources))
    shapes = [_text(source.shape) for source in sources]
    rule = "the maps it adds must have one shape"
    _require(shapes[0] == shapes[1], node, rule, " and ".join(shapes))
    _check_type(f"node '{node.name}': output", node.output)
    got = _text(node.output.shape)
    _require(got == shapes[0], node, f"the output must be {shapes[0]}", got)
    exponents = [kind.exponent for kind in (*sources, node.output)]
    apart = max(exponents) - min(exponents)
    rule = f"its exponents must lie at most {MAX_ADD_SHIFT} apart"
    _require(apart <= MAX_ADD_SHIFT, node, rule, apart)


# --- average ------------------------------------------------------------------------------------


def _check_global_average(node: GlobalAverage, sources: tuple[TensorType, ...]) -> None:
    source = _one_source(node, sources)
    _check_type(f"node '{node.name}': output", node.output)
    expected, got = (source.channels, 1, 1), node.output.shape
    _require(got == expected, node, f"the output must be {_text(expected)}", _text(got))
    least = node.output.exponent - average_shift(source, node.output)
    rule = f"the output's exponent must be {least}..{least + MAX_SHIFT}, that of the sum and above"
    shift = node.output.exponent - least
    _require(0 <= shift <= MAX_SHIFT, node, rule, node.output.exponent)


# --- concatenation ------------------------------------------------------------------------------


def _check_concat(node: Concat, sources: tuple[TensorType, ...]) -> None:
    _require(len(sources) >= 2, node, "it must read two maps or more", len(sources))
    first = sources[0]
    alike = {(kind.height, kind.width, kind.signed, kind.exponent) for kind in sources}
    rule = "the maps it joins must have one size, sign and exponent"
    _require(len(alike) == 1, node, rule, " and ".join(map(str, sources)))
    _check_type(f"node '{node.name}': output", node.output)
    channels, bits = sum(kind.channels for kind in sources), max(kind.bits for kind in sources)
    whole = replace(first, channels=channels, bits=bits)
    _require(node.output == whole, node, f"the output must be {whole}", node.output)


# --- multiplications ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """What a multiplication's weights and output map must be like."""

    weight: tuple[int, ...]
    taps: int
    size: tuple[int, int]


def _check_winograd(node: Winograd, sources: tuple[TensorType, ...]) -> None:
    source = _one_source(node, sources)
    _check_ints(node, "m")
    choices = " or ".join(str(m) for m in TILE_SIZES)
    _require(node.m in TILE_SIZES, node, f"m must be {choices}", node.m)
    taps = (node.m + KERNEL - 1) ** 2
    weight = (node.output.channels, _channels_read(node, source), taps)
    _check_multiply(node, source, _Shape(weight, taps, source.shape[1:]))


def _check_direct(node: Direct, sources: tuple[TensorType, ...]) -> None:
    source = _one_source(node, sources)
    rule = "weight must be [oc, ic, kernel rows, kernel columns]"
    _require(node.weight.ndim == 4, node, rule, _text(node.weight.shape))
    _check_window(node, source, "kernel")
    if isinstance(node, Unrolled):
        _require(node.groups == 1, node, "an unrolled convolution must have 1 group", node.groups)
    weight = (node.output.channels, _channels_read(node, source), *node.weight.shape[2:])
    _check_multiply(node, source, _Shape(weight, 1, node.window.outputs(*source.shape[1:])))


def _channels_read(node: Convolution, source: TensorType) -> int:
    """Return how many channels an output channel reads: those of its group."""
    _check_ints(node, "groups")
    counts = source.channels, node.output.channels
    fits = node.groups >= 1 and not any(count % node.groups for count in counts)
    rule = f"groups must divide its {counts[0]} input and {counts[1]} output channels"
    _require(fits, node, rule, node.groups)
    return source.channels // node.groups


def _check_dense(node: Dense, sources: tuple[TensorType, ...]) -> None:
    source = _one_source(node, sources)
    weight = (node.output.channels, source.channels * source.height * source.width)
    _check_multiply(node, source, _Shape(weight, 1, (1, 1)))


def _check_multiply(node: Multiply, source: TensorType, shape: _Shape) -> None:
    _check_fields(node)
    _check_arrays(node, shape)
    _check_weights(node, source)
    _check_output(node, shape)
    _check_exponents(node, source)
    _check_accumulator(node)


def _check_ints(node: Node, *keys: str) -> None:
    for key in keys:
        value = getattr(node, key)
        _require(type(value) is int, node, f"{key} must be a Python int", repr(value))


def _check_fields(node: Multiply) -> None:
    _check_ints(node, "v_bits", "weight_bits", "keep", "acc_exponent")
    low, high = FEATURE_BITS
    for key in ("v_bits", "weight_bits"):
        value = getattr(node, key)
        _require(low <= value <= high, node, f"{key} must be {low}..{high}", value)
    _require(1 <= node.keep <= SUB_ROW, node, f"keep must be 1..{SUB_ROW}", node.keep)


def _check_arrays(node: Multiply, expected: _Shape) -> None:
    """Check dtypes and shapes; the output's type decides the number of output channels."""
    shapes = {
        "weight": expected.weight,
        "bias": expected.weight[:1],
        "v_exponent": (expected.taps,),
        "weight_exponent": (expected.taps,),
    }
    for key, shape in shapes.items():
        array = getattr(node, key)
        _require(array.dtype == np.int64, node, f"{key} must be int64", array.dtype)
        rule = f"{key} must have shape {_text(shape)}"
        _require(array.shape == shape, node, rule, _text(array.shape))


def _check_weights(node: Multiply, source: TensorType) -> None:
    if node.weight.size == 0:
        raise GraphError(f"node '{node.name}': weight must not be empty, got no values")
    low, high = int_range(node.weight_bits, signed=True, narrow=True)
    for value in (int(node.weight.min()), int(node.weight.max())):
        rule = f"weight must be in {low}..{high} for {node.weight_bits} bits"
        _require(low <= value <= high, node, rule, value)
    low, high = int_range(RAW_BITS, signed=True)
    for value in (int(node.bias.min()), int(node.bias.max())):
        _require(low <= value <= high, node, f"bias must be in {low}..{high}", value)
    in_one_row = isinstance(node, Unrolled)
    length, what = (-1, "weights") if in_one_row else (source.channels, "channels")
    used = node.weight != 0
    if isinstance(node, Convolution):
        used = without_groups(used, node.groups)
    most = max_keep(used.reshape(len(used), length, *(() if in_one_row else (-1,))))
    rule = f"a sub-row of {SUB_ROW} {what} must hold at most keep = {node.keep} non-zeros"
    _require(most <= node.keep, node, rule, most)


def _check_output(node: Multiply, shape: _Shape) -> None:
    got = node.output.shape[1:]
    _require(got == shape.size, node, f"the output map must be {_text(shape.size)}", _text(got))
    _check_type(f"node '{node.name}': output", node.output, may_be_raw=True)
    if node.output.is_raw:
        _require(node.output.signed, node, f"a raw output must be s{RAW_BITS}", f"u{RAW_BITS}")
        rule = f"a raw output's exponent must be acc_exponent {node.acc_exponent}"
        _require(node.output.exponent == node.acc_exponent, node, rule, node.output.exponent)


def _check_exponents(node: Multiply, source: TensorType) -> None:
    ev = [int(value) for value in node.v_exponent]
    product = [v + int(u) for v, u in zip(ev, node.weight_exponent, strict=True)]
    ex, e, ey = source.exponent, node.acc_exponent, node.output.exponent
    rule = f"v_exponent must be {ex}..{ex + MAX_SHIFT}, the input's exponent and above"
    for value in (min(ev), max(ev)):
        _require(0 <= value - ex <= MAX_SHIFT, node, rule, value)
    rule = f"v_exponent + weight_exponent must be {e}..{e + MAX_SHIFT}, acc_exponent and above"
    for value in (min(product), max(product)):
        _require(0 <= value - e <= MAX_SHIFT, node, rule, value)
    rule = f"the output's exponent must be {e}..{e + MAX_SHIFT}, acc_exponent and above"
    _require(0 <= ey - e <= MAX_SHIFT, node, rule, ey)


def _check_accumulator(node: Multiply) -> None:
    bits = RAW_BITS if node.output.is_raw else Y_BITS
    needed = signed_bits(worst_case_sums(node)[1])
    rule = f"the worst case of the accumulator must fit {bits} bits"
    _require(needed <= bits, node, rule, f"{needed} bits")


Check: TypeAlias = Callable[[Any, tuple[TensorType, ...]], None]
CHECKS: Mapping[type[Node], Check] = {
    Winograd: _check_winograd,
    Direct: _check_direct,
    Unrolled: _check_direct,
    Dense: _check_dense,
    MaxPool: _check_max_pool,
    Add: _check_add,
    GlobalAverage: _check_global_average,
    Concat: _check_concat,
}
