# SPDX-License-Identifier: Apache-2.0
"""The one case list that climbs every rung of the ladder: random graphs that use their ranges.

Interpreter, host-compiled C++ and RTL run the same cases. A case follows from its seed alone.
Exponents are chosen from the root mean square of each stage, so that V and outputs fill their
ranges, saturate now and then, and meet rounding ties.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.abi import MAX_ADD_SHIFT
from codegen.ir import (
    INPUT,
    Add,
    Concat,
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
from winnow.fixed_point import IntArray, int_range
from winnow.srbs import SUB_ROW, num_sub_rows, srbs_mask
from winnow.window import MAX_KERNEL, Axis, Window
from winnow.winograd import winograd

SUM_LIMIT, ACCUMULATOR_LIMIT = 2**23, 2**39  # acc_bits 24 and y_bits 40, the engine's defaults
_FULL_SUM = SUM_LIMIT // 127**2  # the most products of 8-bit operands a sum may hold
_MAX_SPREAD = 5
_OPS: dict[str, type[Multiply]] = {"winograd": Winograd, "direct": Direct, "dense": Dense}
_MAX_CHANNELS = 40
_MAX_TAP_SHIFT = {1: 5, 2: 14, 4: 10}  # per m: keeps a full F(m, 3) accumulator below its limit


@dataclass(frozen=True)
class _Place:
    """Where a random layer sits: its name, its source and the type it reads."""

    name: str
    source: str
    input: TensorType


def random_layer_graph(seed: int, engine_m: int) -> Graph:
    """Return a graph of one random layer for an engine of F(engine_m, 3)."""
    rng = np.random.default_rng([seed, engine_m, 1])
    op = _OPS[str(rng.choice(["winograd"] * 14 + ["direct", "dense"] * 3))]
    raw = op is Dense and bool(rng.integers(2))
    place = _Place("layer", INPUT, _random_input(rng, op))
    return Graph(place.input, _random_layer(rng, place, op, engine_m, raw=raw))


def random_map_graph(seed: int, engine_m: int, size: tuple[int, int], *, pool: bool) -> Graph:
    """Return a graph of one random Winograd layer on a map of (height, width) pixels."""
    rng = np.random.default_rng([seed, engine_m, 4])
    place = _Place("layer", INPUT, _random_feature(rng, _MAX_CHANNELS, *size))
    return Graph(place.input, _random_layer(rng, place, Winograd, engine_m, raw=False, pool=pool))


def random_direct_graph(seed: int, engine_m: int) -> Graph:
    """Return a graph of one random direct layer, often on a map that falls into many strips."""
    rng = np.random.default_rng([seed, engine_m, 5])
    height, width = rng.integers(1, 25, size=2).tolist()
    place = _Place("layer", INPUT, _random_feature(rng, int(rng.integers(1, 25)), height, width))
    return Graph(place.input, _random_layer(rng, place, Direct, engine_m, raw=False))


def random_unrolled_graph(seed: int, engine_m: int) -> Graph:
    """Return a graph of a random unrolled layer, of 1..8 channels, and half the time another."""
    rng = np.random.default_rng([seed, engine_m, 9])
    height, width = rng.integers(1, 25, size=2).tolist()
    kind = _random_feature(rng, int(rng.integers(1, 9)), height, width)
    window = _random_window(rng, kind)
    under, size = kind.channels * window.positions, window.outputs(height, width)
    flat = replace(kind, channels=under, height=size[0], width=size[1])
    place = _Place("stem", INPUT, flat)
    (plain,) = _random_layer(rng, place, Direct, engine_m, raw=False, window=Window())
    assert isinstance(plain, Direct)
    kernels = (-1, kind.channels, window.rows.kernel, window.columns.kernel)
    given = {field.name: getattr(plain, field.name) for field in fields(Multiply)}
    given["weight"] = plain.weight.reshape(kernels)
    nodes: tuple[Node, ...] = (Unrolled(**given, **_window_fields(window)),)
    if rng.integers(2):
        behind = _Place("next", "stem", plain.output)
        nodes += _random_layer(rng, behind, Winograd, engine_m, raw=False)
    return Graph(kind, nodes)


def random_deep_graph(seed: int, engine_m: int, v_words: int) -> Graph:
    """Return a graph of one random layer of v_words + 1 to 2 v_words sub-rows per lane.

    It is dense only if so many products of all lanes have a sum that is not too large.
    """
    rng = np.random.default_rng([seed, engine_m, 10])
    lanes = (engine_m + 2) ** 2
    ops = (Winograd, Direct, Direct, Dense)[: 4 if 2 * v_words * lanes <= _FULL_SUM else 3]
    op = ops[int(rng.integers(len(ops)))]
    shared = lanes if op is Dense else 1  # how many lanes the sub-rows are dealt to
    while True:
        height, width = rng.integers(1, 9, size=2).tolist()
        kind = _random_feature(rng, 1, height, width)
        window = _random_window(rng, kind) if op is Direct else Window()
        words = height * width if op is Dense else window.positions  # of 8 channels
        least, most = -(-(v_words * shared + 1) // words), 2 * v_words * shared // words
        if least <= most:
            break
    channels = SUB_ROW * int(rng.integers(least, most + 1)) - int(rng.integers(SUB_ROW))
    place = _Place("layer", INPUT, replace(kind, channels=channels))
    return Graph(place.input, _random_layer(rng, place, op, engine_m, raw=False, window=window))


def random_chain_graph(seed: int, engine_m: int) -> Graph:
    """Return a graph of 2..4 random layers: a pooled winograd first, a raw dense last."""
    rng = np.random.default_rng([seed, engine_m, 2])
    height, width = rng.integers(4, 13, size=2).tolist()
    kind = _random_feature(rng, int(rng.integers(1, 17)), height, width)
    middle: list[type[Multiply]] = [Direct, Winograd]
    middle = middle[: int(rng.integers(3))]
    if rng.integers(2):
        middle.reverse()
    ops = [Winograd, *middle, Dense]
    graph = Graph(kind, ())
    for number, op in enumerate(ops):
        source = _random_source(rng, graph, is_last=number == len(ops) - 1)
        place = _Place(f"{op.__name__.lower()}_{number}", source, graph.type_of(source))
        nodes = _random_layer(rng, place, op, engine_m, raw=op is Dense, pool=number == 0)
        graph = Graph(kind, (*graph.nodes, *nodes))
    return graph


def random_residual_graph(seed: int, engine_m: int, size: tuple[int, int] | None = None) -> Graph:
    """Return a graph of one to three residual blocks on maps of (height, width) pixels.

    A block is a convolution or two and the sum of their map and an earlier one, in either order.
    """
    rng = np.random.default_rng([seed, engine_m, 5])
    while True:
        height, width = size or rng.integers(1, 13, size=2).tolist()
        kind = _random_feature(rng, int(rng.integers(1, 21)), height, width)
        graph = Graph(kind, ())
        for number in range(int(rng.integers(1, 4))):
            graph = Graph(kind, (*graph.nodes, *_random_block(rng, graph, number, engine_m)))
        if all(_spread(graph, node) <= MAX_ADD_SHIFT for node in graph.nodes):
            return graph


def random_projection_graph(seed: int, engine_m: int) -> Graph:
    """Return a graph of two direct layers of one window and the sum of their maps."""
    rng = np.random.default_rng([seed, engine_m, 7])
    while True:
        height, width = rng.integers(1, 17, size=2).tolist()
        kind = _random_feature(rng, int(rng.integers(1, 21)), height, width)
        window, channels = _random_window(rng, kind), int(rng.integers(1, 25))
        a, b = (
            _random_layer(
                rng,
                _Place(name, INPUT, kind),
                Direct,
                engine_m,
                raw=False,
                channels=channels,
                window=window,
            )[0]
            for name in ("main", "side")
        )
        total = Add(
            name="sum", inputs=(a.name, b.name), output=_random_sum(rng, a.output, b.output)
        )
        graph = Graph(kind, (a, b, total))
        if _spread(graph, total) <= MAX_ADD_SHIFT:
            return graph


def random_average_graph(seed: int, engine_m: int) -> Graph:
    """Return a graph whose last map, of a layer, a pool, a sum or an average, or input is averaged.

    A third of the inputs and of the maps of a pool are large.
    """
    rng = np.random.default_rng([seed, engine_m, 6])
    size, pool = rng.integers(2, 13, size=2).tolist(), bool(rng.integers(2))
    large = rng.integers(1, 41, size=2).tolist() if rng.random() < 0.3 else size
    kind = _random_feature(rng, int(rng.integers(1, 33)), *large)
    graph = (
        lambda: random_residual_graph(seed, engine_m),
        lambda: random_map_graph(seed, engine_m, (size[0], size[1]), pool=pool),
        lambda: random_direct_graph(seed, engine_m),
        lambda: random_projection_graph(seed, engine_m),
        lambda: Graph(kind, ()),
        lambda: Graph(kind, (_random_pool(rng, "pool", INPUT, kind),)),
    )[int(rng.integers(6))]()
    graph = _with_average(rng, graph, "average")
    return _with_average(rng, graph, "again") if rng.random() < 0.1 else graph


def _with_average(rng: np.random.Generator, graph: Graph, name: str) -> Graph:
    """Average the last map of a graph, or its input if it has no node."""
    source = graph.nodes[-1].name if graph.nodes else INPUT
    kind = graph.type_of(source)
    output = _random_feature(rng, kind.channels, 1, 1)
    exact = average_shift(kind, replace(output, exponent=0))
    # The mean of uniform values lies near the middle of their range.
    spread = np.array(0.3 * kind.bounds[1] * kind.height * kind.width)
    shift = max(0, int(_fitting_shift(rng, spread, output.bounds[1])))
    output = replace(output, exponent=shift - exact)
    average = GlobalAverage(name=name, inputs=(source,), output=output)
    return replace(graph, nodes=(*graph.nodes, average))


def random_pool_graph(seed: int, engine_m: int) -> Graph:
    """Return a graph of max pools of the input, a layer, another pool, a sum or joined maps."""
    rng = np.random.default_rng([seed, engine_m, 9])
    height, width = rng.integers(1, 21, size=2).tolist()
    kind = _random_feature(rng, int(rng.integers(1, 25)), height, width)
    if rng.random() < 0.4:
        graph = Graph(kind, (_random_pool(rng, "pool", INPUT, kind),))
    else:
        makers = (random_direct_graph, random_residual_graph, random_concat_graph)
        graph = makers[int(rng.integers(3))](seed, engine_m)
        if isinstance(graph.nodes[-1], Concat) or rng.random() < 0.3:
            graph = replace(graph, nodes=graph.nodes[:1])
        source = graph.nodes[-1]
        pool = _random_pool(rng, "pool", source.name, source.output)
        graph = replace(graph, nodes=(*graph.nodes, pool))
    if rng.random() < 0.3:
        again = _random_pool(rng, "again", "pool", graph.type_of("pool"))
        graph = replace(graph, nodes=(*graph.nodes, again))
    if rng.random() < 0.3:
        op = Winograd if rng.integers(2) else Direct
        source = graph.nodes[-1]
        place = _Place("behind", source.name, source.output)
        layer = _random_layer(rng, place, op, engine_m, raw=False, window=Window())
        graph = replace(graph, nodes=(*graph.nodes, *layer))
    return graph


def _random_pool(rng: np.random.Generator, name: str, source: str, kind: TensorType) -> MaxPool:
    """Return a max pool of a window up to 7x7, half of them 2x2 or 3x3, that fits a map."""
    while True:
        edges = rng.choice([2, 3, 2, 3, 1, 4, 5, 6, 7], size=2).tolist()
        strides = rng.integers(1, 3, size=2).tolist()
        if rng.random() < 0.7:
            edges[1], strides[1] = edges[0], strides[0]
        sides = [int(rng.integers(0, edge)) for edge in edges for _ in range(2)]
        if rng.random() < 0.6:
            sides = [edge // 2 for edge in edges for _ in range(2)]
        window = Window(
            Axis(edges[0], strides[0], *sides[:2]), Axis(edges[1], strides[1], *sides[2:])
        )
        height, width = window.outputs(kind.height, kind.width)
        if window.positions > 1 and min(height, width) >= 1:
            return max_pool_of(name, source, kind, window)


def max_pool_of(name: str, source: str, kind: TensorType, window: Window) -> MaxPool:
    """Return the max pool of a map under a window."""
    height, width = window.outputs(kind.height, kind.width)
    return MaxPool(
        name=name,
        inputs=(source,),
        output=replace(kind, height=height, width=width),
        rows=window.rows.kernel,
        columns=window.columns.kernel,
        **_window_fields(window),
    )


def random_concat_graph(seed: int, engine_m: int) -> Graph:
    """Return a graph in which maps are joined, and joined again with a map made of them."""
    rng = np.random.default_rng([seed, engine_m, 8])
    while True:
        height, width = rng.integers(1, 13, size=2).tolist()
        kind = _random_feature(rng, int(rng.integers(1, 17)), height, width)
        graph = Graph(kind, ())
        for name in "ab":
            graph = _with_layer(rng, graph, name, INPUT, engine_m)
        graph = _with_concat(graph, "ab", ("a", "b"))
        graph = _with_layer(rng, graph, "c", "ab", engine_m)
        graph = _with_concat(graph, "abc", ("ab", "c"))
        graph = _with_layer(rng, graph, "d", "abc", engine_m)
        if rng.integers(2):
            a, b = graph.nodes[-1].output, graph.type_of("abc")
            total = Add(name="sum", inputs=("abc", "d"), output=_random_sum(rng, a, b))
            graph = Graph(kind, (*graph.nodes, total))
        multiplied = [node for node in graph.nodes if isinstance(node, Multiply)]
        fits = all(node.output.exponent >= node.acc_exponent for node in multiplied)
        if fits and all(_spread(graph, node) <= MAX_ADD_SHIFT for node in graph.nodes):
            return graph


def _with_layer(
    rng: np.random.Generator, graph: Graph, name: str, source: str, engine_m: int
) -> Graph:
    """Add a layer that keeps the size; "d" has the channels that it reads, others are joined."""
    op = Winograd if rng.integers(2) else Direct
    place = _Place(name, source, graph.type_of(source))
    channels = graph.type_of(source).channels if name == "d" else 8 * int(rng.integers(1, 3))
    if name == "c":
        channels = int(rng.integers(1, 17))
    (node,) = _random_layer(
        rng, place, op, engine_m, raw=False, pool=False, channels=channels, window=Window()
    )
    return Graph(graph.input, (*graph.nodes, node))


def _with_concat(graph: Graph, name: str, sources: tuple[str, ...]) -> Graph:
    """Join maps, all on the grid and with the sign of the first one."""
    kinds = [graph.type_of(source) for source in sources]
    alike = {"exponent": kinds[0].exponent, "signed": kinds[0].signed}
    nodes = [
        replace(node, output=replace(node.output, **alike)) if node.name in sources else node
        for node in graph.nodes
    ]
    channels, bits = sum(kind.channels for kind in kinds), max(kind.bits for kind in kinds)
    output = replace(kinds[0], channels=channels, bits=bits)
    return Graph(graph.input, (*nodes, Concat(name=name, inputs=sources, output=output)))


def _random_block(rng: np.random.Generator, graph: Graph, number: int, engine_m: int) -> list[Node]:
    sums = [node.name for node in graph.nodes if isinstance(node, Add)]
    source = str(rng.choice([INPUT, *sums]))
    shortcut = str(rng.choice([INPUT, *sums]))
    nodes: list[Node] = []
    for part in "ab"[int(rng.integers(2)) :]:
        op = Winograd if rng.random() < 0.6 else Direct
        place = _Place(
            f"conv{number}{part}",
            source,
            Graph(graph.input, (*graph.nodes, *nodes)).type_of(source),
        )
        channels = graph.type_of(shortcut).channels if part == "b" else None
        nodes += _random_layer(
            rng, place, op, engine_m, raw=False, pool=False, channels=channels, window=Window()
        )
        source = nodes[-1].name
    inputs = (source, shortcut) if rng.integers(2) else (shortcut, source)
    a, b = nodes[-1].output, graph.type_of(shortcut)
    return [*nodes, Add(name=f"sum{number}", inputs=inputs, output=_random_sum(rng, a, b))]


def _random_sum(rng: np.random.Generator, a: TensorType, b: TensorType) -> TensorType:
    """Return the type of a sum: fine enough to saturate now and then, coarse enough for ties."""
    output = _random_feature(rng, *a.shape)
    e = min(a.exponent, b.exponent)
    rms = np.hypot(*(0.4 * kind.bounds[1] * 2.0 ** (kind.exponent - e) for kind in (a, b)))
    shift = int(_fitting_shift(rng, np.array(2.5 * rms), output.bounds[1]))
    return replace(output, exponent=e + shift)


def _spread(graph: Graph, node: Node) -> int:
    """Return how far apart the exponents of a sum are; 0 for other nodes."""
    if not isinstance(node, Add):
        return 0
    exponents = [node.output.exponent, *(graph.type_of(name).exponent for name in node.inputs)]
    return max(exponents) - min(exponents)


def random_images(graph: Graph, seed: int, count: int) -> IntArray:
    """Return [count, c, h, w] images: mostly uniform, some of extremes only, some constant."""
    rng = np.random.default_rng([seed, 3])
    low, high = graph.input.bounds
    images = []
    for _ in range(count):
        style = rng.choice(["uniform", "extreme", "constant"], p=[0.7, 0.2, 0.1])
        if style == "uniform":
            images.append(rng.integers(low, high + 1, size=graph.input.shape))
        elif style == "extreme":
            images.append(rng.choice([low, high], size=graph.input.shape))
        else:
            images.append(np.full(graph.input.shape, rng.integers(low, high + 1)))
    return np.array(images, dtype=np.int64).reshape(count, *graph.input.shape)


def _random_source(rng: np.random.Generator, graph: Graph, *, is_last: bool) -> str:
    """Return the newest node; half the time, within the chain, any node that is not pooled."""
    pooled = {node.inputs[0] for node in graph.nodes if isinstance(node, MaxPool)}
    names = [INPUT, *(node.name for node in graph.nodes if node.name not in pooled)]
    return names[-1] if is_last or rng.random() < 0.5 else str(rng.choice(names))


def _random_feature(rng: np.random.Generator, channels: int, height: int, width: int) -> TensorType:
    bits, signed = int(rng.integers(2, 9)), bool(rng.integers(2))
    if rng.random() < 0.5:
        bits = 8
    return TensorType(channels, height, width, bits, signed, int(rng.integers(-9, 3)))


def _random_input(rng: np.random.Generator, op: type[Multiply]) -> TensorType:
    if op is Dense:
        height, width = rng.integers(1, 7, size=2).tolist()
    elif rng.random() < 0.15:
        height, width = rng.integers(13, 35, size=2).tolist()
        height = 34 if rng.random() < 0.3 else height
    else:
        height, width = rng.integers(1, 13, size=2).tolist()
    channels = int(rng.integers(1, _MAX_CHANNELS + 1))
    while num_sub_rows(channels) * height * width > _FULL_SUM and op is Dense:
        channels -= 1
    return _random_feature(rng, channels, height, width)


def _random_weight(
    rng: np.random.Generator, shape: tuple[int, int, int], bits: int, keep: int
) -> IntArray:
    """Return [oc, ic, taps] weights: uniform, or mostly extreme, under a random SRBS mask."""
    low, high = int_range(bits, signed=True, narrow=True)
    weight = rng.integers(low, high + 1, size=shape)
    if rng.random() < 0.2:
        weight = rng.choice([low, high], size=shape)
    return np.where(srbs_mask(rng.random(shape), keep), weight, 0)


def _fitting_shift(
    rng: np.random.Generator, largest: NDArray[np.float64], top: int
) -> NDArray[np.float64]:
    """Return the shifts that bring `largest` to `top`, off by up to one bit."""
    shift: NDArray[np.float64] = np.round(np.log2(np.maximum(largest, 1) / top))
    return shift + rng.integers(-1, 2)


def _random_layer(
    rng: np.random.Generator,
    place: _Place,
    op: type[Multiply],
    engine_m: int,
    *,
    raw: bool,
    pool: bool | None = None,
    channels: int | None = None,
    window: Window | None = None,
) -> tuple[Node, ...]:
    """Return a random layer, one node or two; None leaves pooling, channels, window to chance."""
    kind, m = place.input, engine_m if op is Winograd else 1
    if window is None:
        window = _random_window(rng, kind) if op is Direct else Window()
    pixels = kind.height * kind.width if op is Dense else window.positions
    v_bits, weight_bits = (int(bits) for bits in rng.choice([8, 8, 8, *range(2, 8)], size=2))
    most = min(SUB_ROW, _FULL_SUM // (num_sub_rows(kind.channels) * pixels))
    keep = int(rng.integers(1, most + 1))
    out_channels = int(rng.integers(1, (16 if kind.height * kind.width > 64 else 40) + 1))
    out_channels = channels or out_channels
    taps = (m + 2) ** 2 if op is Winograd else 1
    weight = _random_weight(rng, (out_channels, kind.channels, taps * pixels), weight_bits, keep)

    v_shift, v_rms = _random_operand(rng, kind, m, v_bits)
    sum_rms = v_rms * np.sqrt((weight.reshape(out_channels, -1, taps) ** 2).sum(axis=1).mean(0))
    ev = kind.exponent + v_shift
    eu, e = _random_grid(rng, ev, m)
    y_rms = _accumulator_rms(sum_rms * 2.0 ** (ev + eu - e), m)
    bias_top = int(2 * y_rms) + 1
    size = (1, 1) if op is Dense else window.outputs(kind.height, kind.width)
    output, has_pool = _random_output(rng, (out_channels, *size), op, pool=pool)
    ey = e + max(0, int(_fitting_shift(rng, np.array(2.5 * y_rms), output.bounds[1])))
    layer = op(
        name=place.name,
        inputs=(place.source,),
        weight=_shaped(weight, op, window),
        bias=rng.integers(-bias_top, bias_top + 1, size=out_channels),
        v_exponent=ev,
        weight_exponent=eu,
        v_bits=v_bits,
        weight_bits=weight_bits,
        keep=keep,
        acc_exponent=e,
        output=replace(output, bits=32, signed=True, exponent=e)
        if raw
        else replace(output, exponent=ey),
        **({"m": m} if op is Winograd else _window_fields(window) if op is Direct else {}),
    )
    return (layer, pool_of(layer)) if has_pool else (layer,)


def _random_window(rng: np.random.Generator, kind: TensorType) -> Window:
    """Return a kernel up to 7x7 that fits a map: a third 1x1, most others square."""
    if rng.random() < 0.35:
        return Window()
    kernel = int(rng.choice([1, 2, 3, 3, 3, 4, 5, 6, 7]))
    stride = int(rng.integers(1, 3))
    square = rng.random() < 0.6
    axes = []
    for pixels in (kind.height, kind.width):
        if not square:
            kernel, stride = int(rng.integers(1, MAX_KERNEL + 1)), int(rng.integers(1, 3))
        before, after = rng.integers(0, kernel, size=2).tolist()
        if rng.random() < 0.6:
            before = after = kernel // 2 if kernel > 1 else 0
        axes.append(Axis(min(kernel, pixels + before + after), stride, before, after))
    axes = [replace(x, before=min(x.before, x.kernel - 1)) for x in axes]
    axes = [replace(x, after=min(x.after, x.kernel - 1)) for x in axes]
    sizes = zip(axes, (kind.height, kind.width), strict=True)
    return Window(*axes) if all(x.outputs(pixels) >= 1 for x, pixels in sizes) else Window()


def _shaped(weight: IntArray, op: type[Multiply], window: Window) -> IntArray:
    """Return random weights [oc, ic, taps] in the shape of a record."""
    if op is Direct:
        return weight.reshape(*weight.shape[:2], window.rows.kernel, window.columns.kernel)
    return weight if op is Winograd else weight.reshape(len(weight), -1)


def _window_fields(window: Window) -> dict[str, int]:
    """Return a window as the fields of a Direct node, without the kernel."""
    return {
        "stride_rows": window.rows.stride,
        "stride_columns": window.columns.stride,
        "top": window.rows.before,
        "left": window.columns.before,
        "bottom": window.rows.after,
        "right": window.columns.after,
    }


def pool_of(node: Node, name: str = "") -> MaxPool:
    """Return a max pool of a node's map."""
    kind = replace(node.output, height=node.output.height // 2, width=node.output.width // 2)
    return MaxPool(name=name or f"{node.name}_pool", inputs=(node.name,), output=kind)


def multiplies(graph: Graph) -> list[Multiply]:
    """Return the nodes of a graph that have weights."""
    return [node for node in graph.nodes if isinstance(node, Multiply)]


def change_node(graph: Graph, number: int, **fields: Any) -> Graph:
    """Return the graph with other fields in a node; a pool of it follows a changed output."""
    nodes = list(graph.nodes)
    nodes[number] = changed = replace(nodes[number], **fields)
    for place, node in enumerate(nodes):
        if isinstance(node, MaxPool) and node.inputs == (changed.name,):
            nodes[place] = pool_of(changed, node.name)
    return replace(graph, nodes=tuple(nodes))


def _random_operand(
    rng: np.random.Generator, kind: TensorType, m: int, v_bits: int
) -> tuple[IntArray, NDArray[np.float64]]:
    """Return ev - ex and the root mean square of V, both per tap."""
    low, high = kind.bounds
    rms = np.full(1, np.sqrt((np.arange(low, high + 1) ** 2).mean()))
    if m > 1:
        rms = rms * np.linalg.norm(winograd(m).input_kron, axis=1)
    vmax = int_range(v_bits, signed=True, narrow=True)[1]
    jitter = rng.integers(0, int(rng.choice([1, 3])), size=rms.shape)
    shift = np.clip(
        _fitting_shift(rng, (2.5 if m > 1 else 1.5) * rms, vmax) + jitter, 0, 15
    ).astype(np.int64)
    return shift, np.minimum(rms / 2.0**shift, vmax)


def _random_grid(rng: np.random.Generator, ev: IntArray, m: int) -> tuple[IntArray, int]:
    """Return weight exponents with a random spread, and the accumulator's exponent."""
    widest = int(rng.integers(_MAX_SPREAD + 1))
    eu = int(rng.integers(-9, 1)) + rng.integers(0, widest + 1, size=ev.shape)
    e = int((ev + eu).min()) - int(rng.choice([0, 0, 0, 1, 2]))
    return np.minimum(eu, e + _MAX_TAP_SHIFT[m] - ev), e


def _accumulator_rms(sum_rms: NDArray[np.float64], m: int) -> float:
    """Return the root mean square of Y for shifted sums of the given ones, per tap."""
    mixing = np.abs(winograd(m).output_kron) if m > 1 else np.ones((1, 1))
    return float(np.sqrt(((mixing * sum_rms) ** 2).sum(axis=1).mean()))


def _random_output(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    op: type[Multiply],
    *,
    pool: bool | None,
) -> tuple[TensorType, bool]:
    """Return the type before a pool, its exponent still to be chosen, and whether there is one."""
    channels, height, width = shape
    wanted = rng.random() < 0.4 if pool is None else pool
    has_pool = op is Winograd and wanted and min(height, width) >= 2
    return _random_feature(rng, channels, height, width), has_pool
