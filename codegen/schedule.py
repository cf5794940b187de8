# SPDX-License-Identifier: Apache-2.0
"""Fit a graph to an engine: memory map, strips, descriptors, and the proof of its word lengths.

Graph + EngineConfig -> Schedule. Addresses are in words of the port that uses them: 8 bytes for
features, one beat for weights. Every layer has memory of its own, so that after a run the maps of
all layers can be read.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from codegen.abi import (
    MAX_ADD_SHIFT,
    MAX_AVERAGE_PIXELS,
    MAX_AVERAGE_SHIFT,
    MAX_LAYERS,
    MAX_SUM_SHIFT,
    MAX_V_SHIFT,
    MAX_Y_SHIFT,
)
from codegen.bounds import worst_case_sums
from codegen.descriptor import layer_fields
from codegen.fuse import EngineLayer, fuse
from codegen.ir import INPUT, Graph, Node, TensorType, average_shift
from codegen.join import NOTHING, Joined, joined
from codegen.layout import RAW_BYTES, num_words, pack_input, unrolled_type
from codegen.pack import Bytes, LaneWeights, lane_weights, layer_shape, pack_weights
from codegen.split import split
from winnow.blocking import (
    AVERAGE_WINDOW,
    Blocking,
    LayerShape,
    Op,
    group_width,
    num_channel_groups,
)
from winnow.cycles import LayerCycles, best_blocking, blocking_cycles
from winnow.engine import EngineConfig
from winnow.errors import ScheduleError
from winnow.fixed_point import IntArray, int_range, signed_bits
from winnow.progress import steps
from winnow.srbs import SUB_ROW
from winnow.window import Axis, Window
from winnow.winograd import KERNEL

Values = dict[str, int | tuple[int, ...]]


@dataclass(frozen=True)
class Region:
    """A feature map in memory: first word and its type."""

    base: int
    tensor: TensorType

    @property
    def words(self) -> int:
        return num_words(self.tensor)


@dataclass(frozen=True)
class InputRegion(Region):
    """The images in memory: `tensor` is the type of one, `window` what it is unrolled by, if so."""

    window: Window | None = None

    @property
    def words(self) -> int:
        return num_words(self.stored)

    @property
    def stored(self) -> TensorType:
        """Type of the map that the host writes."""
        return self.tensor if self.window is None else unrolled_type(self.tensor, self.window)

    def pack(self, images: IntArray) -> Bytes:
        """Return integer images [n, c, h, w] as memory holds them, [n, bytes]; GraphError."""
        return pack_input(self.tensor, self.window, images)


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """One scheduled layer.

    Members: `values` are the descriptor's fields by name; `weight_base` and `packed` (bytes
    [blocks, beats, bytes of a beat]) its weights.
    """

    name: str
    shape: LayerShape
    blocking: Blocking
    cycles: LayerCycles
    source: Region
    result: Region
    weight_base: int
    packed: Bytes
    values: Values

    @property
    def op_name(self) -> str:
        """What tables call the layer's op: "unrolled" if it reads images that the host unrolls."""
        is_unrolled = isinstance(self.source, InputRegion) and self.source.window is not None
        return "unrolled" if is_unrolled else str(self.shape.op)


@dataclass(frozen=True, eq=False)
class Schedule:
    """A whole network on an engine."""

    engine: EngineConfig
    input: InputRegion
    layers: tuple[LayerPlan, ...]

    @property
    def feature_words(self) -> int:
        """Words of feature memory: the input's and all layers' maps.

        The rows that a layer without weights adds are planned from word 0 on, and must lie within
        it.
        """
        words = [plan.result.base + plan.result.words for plan in self.layers]
        pools = [plan.shape for plan in self.layers if plan.shape.maximum]
        words += [_planes(x) * math.prod(x.output_size) for x in pools]
        return max(words)

    @property
    def weight_beats(self) -> int:
        return sum(plan.packed.shape[0] * plan.packed.shape[1] for plan in self.layers)

    @property
    def total_cycles(self) -> int:
        """Modelled cycles of the network."""
        return sum(plan.cycles.total for plan in self.layers)


def schedule(graph: Graph, engine: EngineConfig) -> Schedule:
    """Fuse and schedule a checked graph.

    Raises ScheduleError naming the node or layer that the engine cannot do or does not hold.
    """
    return schedule_layers(graph.input, split(fuse(graph), graph), engine, joined(graph))


def schedule_layers(
    entry: TensorType,
    layers: tuple[EngineLayer, ...],
    engine: EngineConfig,
    side_by_side: Joined = NOTHING,
) -> Schedule:
    """Schedule layers that read a map of type `entry` or each other's, joined or not."""
    if len(layers) > MAX_LAYERS:
        raise ScheduleError(
            f"graph: a program holds at most {MAX_LAYERS} layers, got {len(layers)}"
        )
    unrolled = next((layer.unrolled for layer in layers if layer.unrolled is not None), None)
    images = InputRegion(0, entry, unrolled)
    regions, weight_base = _place(images, layers, side_by_side), 0
    plans = []
    for layer in steps("scheduling and packing", layers):
        result = _written(layer, regions[layer.last.name])
        read = _read(layer, regions)
        plan = _plan_layer(engine, layer, read, result, weight_base)
        weight_base += plan.packed.shape[0] * plan.packed.shape[1]
        plans.append(plan)
    return Schedule(engine, images, tuple(plans))


def _place(
    images: Region, layers: tuple[EngineLayer, ...], side_by_side: Joined
) -> dict[str, Region]:
    """Return where maps lie, by node: one after another as layers run, joined ones together."""
    types = {x.last.name: x.output if x.part is None else x.part.map for x in layers}
    rows = {name: row for row in side_by_side.rows for name in row}
    regions, words = {INPUT: images}, images.words
    for name in types:
        for part in rows.get(name, (name,)):
            if part not in regions:
                regions[part] = Region(words, types[part])
                words += regions[part].words
    for name, (first, kind) in side_by_side.maps.items():
        regions[name] = Region(regions[first].base, kind)
    return regions


@dataclass(frozen=True)
class _Read:
    """The maps that a layer reads: what it multiplies, and what it adds, if anything."""

    source: Region
    shortcut: Region | None


def _read(layer: EngineLayer, regions: Mapping[str, Region]) -> _Read:
    source, shortcut = regions[layer.source], regions.get(layer.shortcut_source or "")
    if layer.part is not None:
        source = _part_of(source, layer.part.first_read, layer.input)
    if layer.part is not None and shortcut is not None and layer.shortcut is not None:
        shortcut = _part_of(shortcut, layer.part.first_written, layer.shortcut)
    return _Read(source, shortcut)


def _written(layer: EngineLayer, region: Region) -> Region:
    """Return where a layer writes: all of a map, or its part of it."""
    if layer.part is None:
        return region
    return _part_of(region, layer.part.first_written, layer.output)


def _part_of(region: Region, first: int, tensor: TensorType) -> Region:
    """Return some channels of a map, from `first` on, a multiple of 8."""
    words = first // SUB_ROW * tensor.height * tensor.width
    return Region(region.base + words, tensor)


def _plan_layer(
    engine: EngineConfig, layer: EngineLayer, read: _Read, result: Region, weight_base: int
) -> LayerPlan:
    if layer.m not in (None, engine.m):
        raise ScheduleError(
            f"layer '{layer.name}' uses F({layer.m},3), the engine is F({engine.m},3); set "
            f"engine.m = {layer.m} or quantize again"
        )
    weights = lane_weights(engine, layer)
    shape = layer_shape(layer, weights)
    blocking = best_blocking(engine, shape, layer.name)
    _check_word_lengths(engine, layer, weights)
    packed = pack_weights(engine, layer, weights)
    values = {
        **_loop_values(engine, shape, blocking),
        **_feature_values(engine, shape, blocking, read.source),
        **_window_values(shape, blocking),
        **_result_values(engine, shape, blocking, replace(result, tensor=layer.mapped.output)),
        **_number_values(engine, layer),
        **_add_values(layer, read.shortcut),
        **_average_values(layer),
        "weight_base": weight_base,
        "strip_beats": packed.shape[0] * packed.shape[1],
        "weight_checksum": zlib.crc32(packed.tobytes()),
    }
    _check_fields(engine, layer.name, values)
    cycles = blocking_cycles(engine, shape, blocking)
    return LayerPlan(
        layer.name, shape, blocking, cycles, read.source, result, weight_base, packed, values
    )


def _check_fields(engine: EngineConfig, name: str, values: Values) -> None:
    """Raise ScheduleError when a size exceeds its field of the descriptor."""
    for field in layer_fields(engine):
        value, limit = values[field.name], field.bounds[1]
        if isinstance(value, int) and value > limit:
            raise ScheduleError(
                f"layer '{name}': {field.name} ({field.doc}) must be at most {limit}, got {value}; "
                f"use a smaller map"
            )


def _loop_values(engine: EngineConfig, shape: LayerShape, blocking: Blocking) -> Values:
    strips = list(blocking.strips())
    columns = -(-blocking.groups // blocking.strip_groups)
    full = strips[0].num_groups
    return {
        "op": shape.op.value,
        "wide_weights": int(shape.wide_weights),
        "keep": blocking.keep,
        "sub_rows": blocking.sub_rows,
        "part_steps": blocking.part_steps,
        "one_tile": int(group_width(engine, shape) < engine.pt),
        "blocks": blocking.blocks,
        "channel_groups": 1 if shape.average else num_channel_groups(shape.out_channels),
        "strips_down": len(strips) // columns,
        "strips_across": columns,
        "groups_full": full,
        "groups_last_column": strips[columns - 1].num_groups,
        "groups_last_row": strips[-columns].num_groups,
        "groups_last_both": strips[-1].num_groups,
    }


@dataclass(frozen=True)
class _Axis:
    """The strips along one axis of a map: how many, pixels of a full one and of the map."""

    count: int
    span: int
    pixels: int

    @property
    def before_last(self) -> int:
        """Pixels in front of the last strip."""
        return (self.count - 1) * self.span

    @property
    def last(self) -> int:
        """Pixels of the last strip, without its border."""
        return self.pixels - self.before_last

    def back(self, axis: Axis) -> int:
        """Return the input pixels from where the first strip reads to where the last one does."""
        return self.before_last * axis.stride - axis.before if self.count > 1 else 0

    def read(self, what: str, axis: Axis, pixels: int) -> Values:
        """Return how many of the input's `pixels` a strip reads, by its place."""
        begin = self.back(axis)
        reached = self.before_last * axis.stride - axis.before + axis.reach(self.last)
        return {
            f"{what}_first": axis.reach(self.span) - axis.before,
            f"{what}_middle": axis.reach(self.span),
            f"{what}_last": min(reached, pixels) - begin,
        }


def _axes(blocking: Blocking, tile: tuple[int, int], size: tuple[int, int]) -> tuple[_Axis, _Axis]:
    """Return the axes (down, across) of a map of `size` pixels, in groups of `tile` pixels."""
    down, across = -(-blocking.rows // blocking.strip_rows), blocking.groups
    across = -(-across // blocking.strip_groups)
    return (
        _Axis(down, blocking.strip_rows * tile[0], size[0]),
        _Axis(across, blocking.strip_groups * tile[1], size[1]),
    )


def _feature_values(
    engine: EngineConfig, shape: LayerShape, blocking: Blocking, source: Region
) -> Values:
    values: Values = {
        "in_signed": int(source.tensor.signed),
        "feature_base": source.base,
        "row_words": shape.width,
        "plane_words": shape.height * shape.width,
    }
    if shape.average:
        return values | _average_reads(blocking)
    if shape.gathers:
        return values | _strip_reads(shape, blocking, (1, 1), shape.window)
    if shape.op is Op.WINOGRAD:
        tile = (engine.m, group_width(engine, shape) * engine.m)
        border = Axis(KERNEL, before=1, after=1)
        return values | _strip_reads(shape, blocking, tile, Window(border, border))
    return values | _linear_feature_values(engine, shape, blocking, source)


def _strip_reads(
    shape: LayerShape, blocking: Blocking, tile: tuple[int, int], window: Window
) -> Values:
    """What strips of `tile` pixels in a unit read: their own pixels and those around them."""
    down, across = _axes(blocking, tile, window.outputs(shape.height, shape.width))
    last = list(blocking.strips())[-1]
    rows, columns = window.rows, window.columns
    back = across.back(columns)
    return {
        "rows_full": rows.reach(down.span),
        "rows_last": rows.reach(last.rows * tile[0]),
        "columns_full": columns.reach(across.span),
        "columns_last": columns.reach(last.groups * tile[1]),
        **down.read("read_rows", rows, shape.height),
        **across.read("read_words", columns, shape.width),
        "read_right_first": _offset(across.span * columns.stride - columns.before),
        "read_right": across.span * columns.stride,
        "read_down_first": _offset((down.span * rows.stride - rows.before) * shape.width - back),
        "read_down": _offset(down.span * rows.stride * shape.width - back),
    }


def _average_reads(blocking: Blocking) -> Values:
    """What the strips of an average read: pixels of a group of channels, the rows of the map.

    Below them lies a row of zeros.
    """
    down, across = _axes(blocking, (1, 1), (blocking.rows, blocking.groups))
    rows, columns = AVERAGE_WINDOW.rows, AVERAGE_WINDOW.columns
    values: Values = {
        "rows_full": rows.kernel,
        "rows_last": rows.kernel,
        "columns_full": across.span,
        "columns_last": across.last,
        **across.read("read_words", columns, across.pixels),
    }
    values |= dict.fromkeys(("read_rows_first", "read_rows_middle", "read_rows_last"), 1)
    values |= dict.fromkeys(("read_right_first", "read_right"), across.span)
    to_next = down.span * across.pixels - across.before_last
    return values | dict.fromkeys(("read_down_first", "read_down"), to_next)


def _window_values(shape: LayerShape, blocking: Blocking) -> Values:
    """How pixels are gathered from a plane on chip; a plane has rows of `pitch` words."""
    rows, columns = shape.window.rows, shape.window.columns
    pitch = columns.reach(blocking.strip_groups) if shape.gathers else 0
    gathers = int(shape.gathers)
    return {
        "gathers": gathers,
        "planes": _planes(shape) if gathers else blocking.sub_rows,
        "kernel_rows": rows.kernel,
        "kernel_columns": columns.kernel,
        "pad_top": rows.before,
        "pad_left": columns.before,
        "stride_columns": columns.stride,
        "pitch": pitch,
        "row_step": pitch * rows.stride,
    }


def _planes(shape: LayerShape) -> int:
    """Groups of 8 channels of a strip."""
    return 1 if shape.average else num_channel_groups(shape.in_channels)


def _offset(words: int) -> int:
    """Return a distance of addresses, which may be negative, modulo 2^32."""
    return words % (1 << 32)


def _linear_feature_values(
    engine: EngineConfig, shape: LayerShape, blocking: Blocking, source: Region
) -> Values:
    """One row of words per strip and sub-row; a dense layer is a single strip."""
    lanes, last = engine.num_lanes, list(blocking.strips())[-1]
    width = group_width(engine, shape)
    if shape.op is Op.DENSE:
        full, tail = lanes, source.words - (blocking.sub_rows - 1) * lanes
    else:
        full = blocking.strip_groups * width * engine.linear_pixels
        tail = shape.height * shape.width - (len(list(blocking.strips())) - 1) * full
    values: Values = {
        "rows_full": 1,
        "rows_last": 1,
        "columns_full": blocking.strip_groups * width * lanes,
        "columns_last": last.groups * width * lanes,
        "read_words_last": tail,
    }
    values |= dict.fromkeys(("read_rows_first", "read_rows_middle", "read_rows_last"), 1)
    values |= dict.fromkeys(("read_words_first", "read_words_middle"), full)
    values |= dict.fromkeys(("read_right_first", "read_right"), full)
    values |= dict.fromkeys(("read_down_first", "read_down"), 0)
    return values | ({"plane_words": lanes} if shape.op is Op.DENSE else {})


def _result_values(
    engine: EngineConfig, shape: LayerShape, blocking: Blocking, result: Region
) -> Values:
    tensor = result.tensor
    edge = engine.m // 2 if shape.pool else engine.m
    width = group_width(engine, shape)
    size = (tensor.height, tensor.width)
    if shape.gathers:
        tile, size = (1, 1), shape.output_size
    elif shape.op is Op.DIRECT:
        tile, size = (1, width * engine.linear_pixels), (1, shape.height * shape.width)
    elif shape.op is Op.DENSE:
        words = RAW_BYTES if tensor.is_raw else 1
        tile, size = (1, words), (1, words)
    else:
        tile = (edge, width * edge)
    down, across = _axes(blocking, tile, size)
    plane = size[0] * size[1]
    return {
        "pool": int(shape.pool),
        "raw": int(tensor.is_raw),
        "skip_last_row": int(down.last == 0),
        "skip_last_column": int(across.last == 0),
        "result_base": result.base,
        "out_row_words": tensor.width,
        "out_plane_words": plane,
        "write_right": 0 if shape.average else across.span,
        "write_down": 1 if shape.average else _offset(down.span * size[1] - across.before_last),
        "write_rows_full": down.span,
        "write_rows_last": max(1, down.last),
        "write_words_full": across.span,
        "write_words_last": max(1, across.last),
        "tiles_full": blocking.strip_groups * width,
        "tiles_last": list(blocking.strips())[-1].groups * width,
    }


def _number_values(engine: EngineConfig, layer: EngineLayer) -> Values:
    """Shifts and bounds; raises ScheduleError when a shift is beyond the engine's range."""
    node, output = layer.multiply, layer.multiply.output
    v_shift = np.broadcast_to(node.v_exponent - layer.input.exponent, engine.num_lanes)
    sums = node.v_exponent + node.weight_exponent - node.acc_exponent
    sum_shift = np.broadcast_to(sums, engine.num_lanes)
    y_shift = 0 if output.is_raw else output.exponent - node.acc_exponent
    limits = (
        ("V shift", int(v_shift.max()), MAX_V_SHIFT),
        ("sum shift", int(sum_shift.max()), MAX_SUM_SHIFT),
        ("output shift", y_shift, MAX_Y_SHIFT),
    )
    for what, value, limit in limits:
        if value > limit:
            raise ScheduleError(
                f"layer '{layer.name}': {what} must be at most {limit}, got {value}; its exponents "
                f"are too far apart, calibrate the layer again"
            )
    low, high = (0, 0) if output.is_raw else output.bounds
    return {
        "v_limit": int_range(node.v_bits, signed=True, narrow=True)[1],
        "y_shift": y_shift,
        "low": low,
        "high": high,
        "v_shift": tuple(int(s) for s in v_shift),
        "sum_shift": tuple(int(s) for s in sum_shift),
    }


def _add_values(layer: EngineLayer, shortcut: Region | None) -> Values:
    """What is added and on which grid; ScheduleError when the grids are too far apart.

    A max pool adds its maxima to zero; they come from no memory, so its rows may be any.
    """
    shifts = dict.fromkeys(("own_shift", "shortcut_shift", "add_shift"), 0)
    if not layer.has_weights:
        return {
            "maximum": 1,
            "shortcut_base": 0,
            "no_add": 0,
            "shortcut_signed": int(layer.mapped.output.signed),
            **shifts,
            **_add_bounds(layer.mapped),
        }
    if layer.add is None or shortcut is None:
        idle = {"shortcut_base": 0, "no_add": 1, "shortcut_signed": 0, "add_low": 0, "add_high": 0}
        return {"maximum": 0, **idle, **shifts}
    kinds = layer.multiply.output, shortcut.tensor, layer.add.output
    own, other, total = (kind.exponent for kind in kinds)
    finest = min(own, other, total)
    apart = max(own, other, total) - finest
    if apart > MAX_ADD_SHIFT:
        raise ScheduleError(
            f"node '{layer.add.name}': its exponents must lie at most {MAX_ADD_SHIFT} apart, got "
            f"{apart} ({own} + {other} -> {total}); calibrate the layers again"
        )
    return {
        "maximum": 0,
        "shortcut_base": shortcut.base,
        "no_add": 0,
        "shortcut_signed": int(shortcut.tensor.signed),
        "own_shift": own - finest,
        "shortcut_shift": other - finest,
        "add_shift": total - finest,
        **_add_bounds(layer.add),
    }


def _add_bounds(node: Node) -> Values:
    low, high = node.output.bounds
    return {"add_low": low, "add_high": high}


def _average_values(layer: EngineLayer) -> Values:
    """The average over the map; ScheduleError when its sum is too long."""
    if layer.average is None:
        names = ("average", "average_signed", "average_shift", "average_low", "average_high")
        return dict.fromkeys(names, 0)
    source, output = layer.mapped.output, layer.average.output
    shift = average_shift(source, output)
    limits = (
        ("number of pixels", source.height * source.width, MAX_AVERAGE_PIXELS),
        ("shift", shift, MAX_AVERAGE_SHIFT),
    )
    for what, value, limit in limits:
        if value > limit:
            raise ScheduleError(
                f"node '{layer.average.name}': the {what} of an average must be at most {limit}, "
                f"got {value}; use a smaller map or calibrate again"
            )
    low, high = output.bounds
    return {
        "average": 1,
        "average_signed": int(source.signed),
        "average_shift": shift,
        "average_low": low,
        "average_high": high,
    }


def _check_word_lengths(engine: EngineConfig, layer: EngineLayer, weights: LaneWeights) -> None:
    """Prove that no sum can leave `acc_bits` and no accumulator `y_bits`."""
    node = layer.multiply
    sums = worst_case_sums(node, weights[: len(node.bias)])
    bounds = zip(("acc_bits", "y_bits"), sums, strict=True)
    for key, bound in bounds:
        needed, bits = signed_bits(bound), int(getattr(engine, key))
        if needed > bits:
            raise ScheduleError(
                f"layer '{layer.name}': its largest sum needs {needed} bits, engine.{key} is "
                f"{bits}; raise engine.{key}, or use fewer channels, kept weights or bits"
            )
