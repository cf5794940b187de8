# SPDX-License-Identifier: Apache-2.0
"""The checker of integer graphs: every rule of `docs/ir.md`, one line per broken rule.

Enters a graph from lowering or from a file; leaves nothing, or raises GraphError naming the layer,
what must be and what was. Stages after it trust the graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from codegen.ir import INPUT, Graph, Layer, Op, TensorType
from winnow.errors import GraphError
from winnow.fixed_point import int_range, signed_bits
from winnow.srbs import SUB_ROW, max_keep
from winnow.winograd import KERNEL, TILE_SIZES, winograd

FEATURE_BITS = (2, 8)
RAW_BITS = 32
Y_BITS = 63
MAX_SHIFT = 62  # the widest shift for which int64 can round a Y_BITS number half to even
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_graph(graph: Graph) -> None:
    """Raise GraphError unless `graph` keeps every rule of `docs/ir.md`."""
    _check_feature_type("input", graph.input)
    if not graph.layers:
        raise GraphError("graph: it must have at least one layer, got none")
    known = {INPUT: graph.input}
    for layer in graph.layers:
        source = _check_names(layer, known)
        _check_fields(layer)
        _check_arrays(layer, source)
        _check_weights(layer, source)
        _check_output(layer, source)
        _check_exponents(layer, source)
        _check_accumulator(layer)
        known[layer.name] = layer.output


def worst_case_sums(layer: Layer) -> tuple[int, int]:
    """Return the largest |M| and |Y| any input can cause, from sum |U| and vmax.

    The bound of Y also holds for every value inside the output transform: each shifted sum enters
    some output with a factor of at least one.
    """
    _, vmax = int_range(layer.v_bits, signed=True, narrow=True)
    weight = np.abs(layer.weight.reshape(*layer.weight.shape[:2], -1))
    # Python integers from here on, so that a wide shift cannot wrap while it is being judged.
    sums = weight.sum(axis=1).astype(object) * vmax  # [oc, taps]
    shifted = sums * 2 ** _tap_shifts(layer)
    if layer.op is Op.WINOGRAD:
        shifted = shifted @ np.abs(winograd(layer.m).output_kron).T.astype(object)
    totals = shifted.max(axis=1) + np.abs(layer.bias.astype(object))
    return int(sums.max()), int(totals.max())


def _tap_shifts(layer: Layer) -> np.ndarray[tuple[int, ...], np.dtype[np.object_]]:
    exponents = layer.v_exponent.astype(object) + layer.weight_exponent.astype(object)
    shifts: np.ndarray[tuple[int, ...], np.dtype[np.object_]] = exponents - layer.acc_exponent
    return shifts


def _require(holds: bool, layer: Layer, rule: str, got: object) -> None:
    if not holds:
        raise GraphError(f"layer '{layer.name}': {rule}, got {got}")


def _check_names(layer: Layer, known: Mapping[str, TensorType]) -> TensorType:
    """Check the layer's name and source; return the type it reads."""
    if not _NAME.fullmatch(layer.name) or layer.name == INPUT:
        raise GraphError(
            f"layer '{layer.name}': its name must match [a-z][a-z0-9_]* and not be '{INPUT}'"
        )
    if layer.name in known:
        raise GraphError(f"layer '{layer.name}': its name must be unique, got it twice")
    names = ", ".join(known)
    _require(
        layer.source in known,
        layer,
        f"source must be the input or an earlier layer ({names})",
        f"'{layer.source}'",
    )
    source = known[layer.source]
    rule = f"source must be a feature map of {FEATURE_BITS[0]}..{FEATURE_BITS[1]} bits"
    _require(source.bits <= FEATURE_BITS[1], layer, rule, f"the raw output of '{layer.source}'")
    return source


def _check_feature_type(where: str, kind: TensorType) -> None:
    for key in ("channels", "height", "width", "bits", "exponent"):
        value = getattr(kind, key)
        if type(value) is not int:
            raise GraphError(f"{where}: {key} must be a Python int, got {value!r}")
    for key, value in zip(("channels", "height", "width"), kind.shape, strict=True):
        if value < 1:
            raise GraphError(f"{where}: {key} must be at least 1, got {value}")
    low, high = FEATURE_BITS
    if not low <= kind.bits <= high:
        raise GraphError(f"{where}: bits must be {low}..{high}, got {kind.bits}")


def _check_fields(layer: Layer) -> None:
    for key in ("m", "v_bits", "weight_bits", "keep", "acc_exponent"):
        value = getattr(layer, key)
        _require(type(value) is int, layer, f"{key} must be a Python int", repr(value))
    tiles = TILE_SIZES if layer.op is Op.WINOGRAD else (1,)
    choices = " or ".join(str(m) for m in tiles)
    _require(layer.m in tiles, layer, f"m must be {choices} for {layer.op.value}", layer.m)
    low, high = FEATURE_BITS
    for key in ("v_bits", "weight_bits"):
        bits = getattr(layer, key)
        _require(low <= bits <= high, layer, f"{key} must be {low}..{high}", bits)
    _require(1 <= layer.keep <= SUB_ROW, layer, f"keep must be 1..{SUB_ROW}", layer.keep)
    _require(
        not layer.pool or layer.op is Op.WINOGRAD,
        layer,
        "pool must only be set for winograd",
        layer.op.value,
    )
    _require(
        not layer.raw or layer.op is Op.DENSE,
        layer,
        "raw must only be set for dense",
        layer.op.value,
    )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in shape) or "a scalar"


def _check_arrays(layer: Layer, source: TensorType) -> None:
    """Check dtypes and shapes; `weight` decides the number of output channels."""
    taps = (layer.m + KERNEL - 1) ** 2 if layer.op is Op.WINOGRAD else 1
    out_channels = layer.output.channels
    weight_shape: tuple[int, ...] = {
        Op.WINOGRAD: (out_channels, source.channels, taps),
        Op.POINTWISE: (out_channels, source.channels),
        Op.DENSE: (out_channels, source.channels * source.height * source.width),
    }[layer.op]
    shapes = {
        "weight": weight_shape,
        "bias": (out_channels,),
        "v_exponent": (taps,),
        "weight_exponent": (taps,),
    }
    for key, shape in shapes.items():
        array = getattr(layer, key)
        _require(array.dtype == np.int64, layer, f"{key} must be int64", array.dtype)
        rule = f"{key} must have shape {_text(shape)}"
        _require(array.shape == shape, layer, rule, _text(array.shape))


def _check_weights(layer: Layer, source: TensorType) -> None:
    if layer.weight.size == 0:
        raise GraphError(f"layer '{layer.name}': weight must not be empty, got no values")
    low, high = int_range(layer.weight_bits, signed=True, narrow=True)
    for value in (int(layer.weight.min()), int(layer.weight.max())):
        rule = f"weight must be in {low}..{high} for {layer.weight_bits} bits"
        _require(low <= value <= high, layer, rule, value)
    low, high = int_range(RAW_BITS, signed=True)
    for value in (int(layer.bias.min()), int(layer.bias.max())):
        _require(low <= value <= high, layer, f"bias must be in {low}..{high}", value)
    rows = layer.weight.reshape(layer.weight.shape[0], source.channels, -1)
    most = max_keep(rows)
    rule = f"a sub-row of {SUB_ROW} channels must hold at most keep = {layer.keep} non-zeros"
    _require(most <= layer.keep, layer, rule, most)


def _check_output(layer: Layer, source: TensorType) -> None:
    height, width = source.height, source.width
    if layer.op is Op.DENSE:
        height, width = 1, 1
    if layer.pool:
        rule = "pool must only be set when the map is at least 2x2"
        _require(min(height, width) >= 2, layer, rule, f"{height}x{width}")
        height, width = height // 2, width // 2
    got = (layer.output.height, layer.output.width)
    rule = f"the output map must be {height}x{width}"
    _require(got == (height, width), layer, rule, _text(got))
    if not layer.raw:
        _check_feature_type(f"layer '{layer.name}': output", layer.output)
        return
    is_accumulator = (layer.output.bits, layer.output.signed) == (RAW_BITS, True)
    rule = f"a raw output must be s{RAW_BITS}"
    sign = "s" if layer.output.signed else "u"
    _require(is_accumulator, layer, rule, f"{sign}{layer.output.bits}")
    rule = f"a raw output's exponent must be acc_exponent {layer.acc_exponent}"
    _require(layer.output.exponent == layer.acc_exponent, layer, rule, layer.output.exponent)


def _check_exponents(layer: Layer, source: TensorType) -> None:
    ev = [int(value) for value in layer.v_exponent]
    product = [v + int(u) for v, u in zip(ev, layer.weight_exponent, strict=True)]
    ex, e, ey = source.exponent, layer.acc_exponent, layer.output.exponent
    rule = f"v_exponent must be {ex}..{ex + MAX_SHIFT}, the input's exponent and above"
    for value in (min(ev), max(ev)):
        _require(0 <= value - ex <= MAX_SHIFT, layer, rule, value)
    rule = f"v_exponent + weight_exponent must be {e}..{e + MAX_SHIFT}, acc_exponent and above"
    for value in (min(product), max(product)):
        _require(0 <= value - e <= MAX_SHIFT, layer, rule, value)
    rule = f"the output's exponent must be {e}..{e + MAX_SHIFT}, acc_exponent and above"
    _require(0 <= ey - e <= MAX_SHIFT, layer, rule, ey)


def _check_accumulator(layer: Layer) -> None:
    bits = RAW_BITS if layer.raw else Y_BITS
    needed = signed_bits(worst_case_sums(layer)[1])
    rule = f"the worst case of the accumulator must fit {bits} bits"
    _require(needed <= bits, layer, rule, f"{needed} bits")
