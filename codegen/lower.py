# SPDX-License-Identifier: Apache-2.0
"""Lower a trained Brevitas network to the integer graph.

This is the one place where floats become integers. Every number is checked, not rounded: a scale
that is no power of two, or a weight that is no multiple of its scale, is a LoweringError.

    QuantWinogradConv2d(16, 32, m=2) -> conv2 = winograd(conv1) ... m=2 ... -> u8[32x8x8]*2^-5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codegen.golden import Golden, golden_of
from codegen.ir import (
    INPUT,
    RAW_BITS,
    Add,
    Concat,
    Dense,
    Direct,
    GlobalAverage,
    Graph,
    MaxPool,
    Node,
    TensorType,
    Unrolled,
    Winograd,
)
from quant.build import Build, load_quantized
from quant.data import INPUT_BITS, INPUT_EXPONENT
from quant.golden import POOL, layer_names
from quant.integer_exits import quantized_with_exits
from quant.layers.quant_add import QuantAdd, QuantAverage
from quant.layers.quant_layer import (
    QuantDense,
    QuantDirectConv2d,
    QuantTapLayer,
    QuantWinogradConv2d,
)
from quant.layers.quantizers import bits_of, exponents, scale_of
from quant.layers.winograd_layer import UnrolledConv2d
from quant.network import graph as network
from quant.network.graph import NetworkGraph
from quant.network.layer_graph import PASSING, rounding, unfolded
from quant.network.network import Network
from quant.rehearsal import rehearse, rehearsed_golden
from winnow import flow
from winnow.config import Config
from winnow.errors import LoweringError
from winnow.fixed_point import IntArray, int_range
from winnow.progress import steps
from winnow.srbs import max_keep, without_groups


@dataclass(frozen=True)
class Place:
    """Where a layer sits in the graph: its name, the node it reads, and the type of that map."""

    name: str
    source: str
    input: TensorType


def lower_winograd(layer: QuantWinogradConv2d, place: Place) -> Winograd:
    """Return the node of a calibrated Winograd convolution."""
    channels, height, width = place.input.shape
    if layer.in_channels != channels:
        raise LoweringError(
            f"layer '{place.name}': it takes {layer.in_channels} channels, "
            f"'{place.source}' has {channels}"
        )
    weight, fields = _lower(layer, place, (height, width))
    return Winograd(
        m=layer.m,
        groups=layer.groups,
        weight=_frozen(weight),
        keep=max_keep(without_groups(weight != 0, layer.groups)),
        **fields,
    )


def lower_direct(layer: QuantDirectConv2d, place: Place) -> Direct:
    """Return the node of a calibrated convolution without a transform."""
    channels, height, width = place.input.shape
    if layer.in_channels != channels:
        raise LoweringError(
            f"layer '{place.name}': it takes {layer.in_channels} channels, "
            f"'{place.source}' has {channels}"
        )
    rows, columns = layer.window.axes
    weight, fields = _lower(layer, place, (rows.outputs(height), columns.outputs(width)))
    by_place = weight[..., 0].reshape(len(weight), -1, rows.kernel, columns.kernel)
    in_rows = by_place.reshape(len(weight), layer.row_length, -1)
    return (Unrolled if isinstance(layer, UnrolledConv2d) else Direct)(
        weight=_frozen(by_place),
        groups=layer.groups,
        keep=max_keep(without_groups(in_rows != 0, layer.groups)),
        stride_rows=rows.stride,
        stride_columns=columns.stride,
        top=rows.before,
        left=columns.before,
        bottom=rows.after,
        right=columns.after,
        **fields,
    )


def lower_dense(layer: QuantDense, place: Place) -> Dense:
    """Return the node of a calibrated fully connected layer."""
    operands = int(np.prod(place.input.shape))
    if layer.weight.shape[1] != operands:
        raise LoweringError(
            f"layer '{place.name}': it takes {layer.weight.shape[1]} values, "
            f"'{place.source}' has {operands}"
        )
    weight, fields = _lower(layer, place, (1, 1))
    by_pixel = weight.reshape(len(weight), place.input.channels, -1)
    return Dense(weight=_frozen(weight[..., 0]), keep=max_keep(by_pixel), **fields)


def max_pool(record: network.MaxPool, place: Place) -> MaxPool:
    """Return the node of a max pool; with `ceil` what windows lack at the end is padding."""
    _, height, width = record.shape
    size, sides = (height, width), []
    for i, pixels in enumerate(place.input.shape[1:]):
        reach = (size[i] - 1) * record.stride[i] + record.kernel[i]
        before = record.padding[i]
        missing = reach - before - pixels if record.ceil else 0
        sides.append((before, max(before, missing)))
    (top, bottom), (left, right) = sides
    return MaxPool(
        name=place.name,
        inputs=(place.source,),
        output=replace(place.input, height=height, width=width),
        rows=record.kernel[0],
        columns=record.kernel[1],
        stride_rows=record.stride[0],
        stride_columns=record.stride[1],
        top=top,
        left=left,
        bottom=bottom,
        right=right,
    )


def _lower(
    layer: QuantTapLayer, place: Place, size: tuple[int, int]
) -> tuple[IntArray, dict[str, Any]]:
    """Return the weights [oc, k, taps], and the fields that all multiplications have alike."""
    name = place.name
    weight_exponent = _exponents(layer.weight_quant, name, "weights")
    v_exponent = _exponents(layer.input_quant, name, "lane operands")
    acc = int((v_exponent + weight_exponent).min())
    bits, signed, exponent = RAW_BITS, True, acc
    if not layer.is_raw:
        exponent = int(_exponents(layer.output_quant, name, "output")[0])
        bits, signed = bits_of(layer.output_quant), not layer.widths.relu
        acc = min(acc, exponent)
    fields = {
        "name": name,
        "inputs": (place.source,),
        "output": TensorType(layer.out_channels, *size, bits, signed, exponent),
        "v_bits": bits_of(layer.input_quant),
        "weight_bits": bits_of(layer.weight_quant),
        "acc_exponent": acc,
        "bias": _frozen(_bias(layer, acc, name)),
        "v_exponent": _frozen(v_exponent),
        "weight_exponent": _frozen(weight_exponent),
    }
    return _weight(layer, weight_exponent, name), fields


def lower_network(net: Network, entry: TensorType) -> Graph:
    """Return the integer graph of a network.

    A layer, a sum or a lone pool becomes the node called as `layer_names` says; a pool that follows
    a layer becomes a node `<name>_pool`. A ReLU is the output type of what it follows. Raises
    LoweringError that names the record which cannot be expressed.
    """
    graph = net.graph.ending_at(net.graph.output)
    names = layer_names(net.graph)
    _check_layers(net, names)
    nodes: list[Node] = []
    # By record: the node that holds its result, and its type.
    results = {network.INPUT: (INPUT, entry)}
    for record in steps("lowering", graph.nodes):
        sources = tuple(results[name] for name in record.inputs)
        made = _lower_record(net, record, names.get(record.name, ""), sources)
        if made is None:
            results[record.name] = sources[0]
        else:
            nodes.append(made)
            results[record.name] = (made.name, made.output)
    return Graph(entry, tuple(nodes))


Sources = tuple[tuple[str, TensorType], ...]  # of a record: the nodes it reads, and their types


def _lower_record(net: Network, record: network.Node, name: str, sources: Sources) -> Node | None:
    """Return the node of a record, called `name`; None if it leaves the integers as they are."""
    source, kind = sources[0]
    if isinstance(record, network.TapNode | network.Conv | network.Linear):
        layer, place = net.get_submodule(record.name), Place(name, source, kind)
        if isinstance(layer, QuantWinogradConv2d):
            return lower_winograd(layer, place)
        if isinstance(layer, QuantDirectConv2d):
            return lower_direct(layer, place)
        assert isinstance(layer, QuantDense), layer
        return lower_dense(layer, place)
    if isinstance(record, network.QuantAdd | network.QuantAverage):
        return _lower_sum(net.get_submodule(record.name), name, sources)
    if isinstance(record, network.Concat) and len(record.shape) == len(kind.shape):
        _require_one_grid(net.graph, record, name)
        return _lower_concat(name, sources)
    if isinstance(record, network.MaxPool):
        return max_pool(record, Place(name or f"{source}{POOL}", source, kind))
    keeps_size = isinstance(record, network.AdaptiveAvgPool) and record.shape == kind.shape
    if keeps_size or isinstance(record, PASSING):
        return None
    if isinstance(record, network.Relu):
        if record.limit is not None:
            raise LoweringError(
                f"'{record.name}' is a ReLU with the limit {record.limit:g}; use one without: its "
                "quantized output has a limit of its own"
            )
        if kind.signed:
            read = net.graph.by_name.get(unfolded(net.graph, record.inputs[0]))
            if isinstance(read, network.MaxPool):
                raise LoweringError(
                    f"'{record.name}' is a ReLU behind the max pool '{read.name}'; put it before "
                    "the pool, which computes the same"
                )
            raise LoweringError(
                f"'{record.name}' is a ReLU, but not the only reader of '{source}', or not right "
                "behind it; a ReLU belongs behind a layer or a sum, before any pool"
            )
        return None
    kind_name = type(record).__name__
    raise LoweringError(f"'{record.name}' ({kind_name}) reads '{source}'; {_RUNS}")


def _lower_sum(layer: nn.Module, name: str, sources: Sources) -> Add | GlobalAverage:
    """Return the node of a calibrated sum of maps, or of the average over one."""
    assert isinstance(layer, QuantAdd | QuantAverage)
    exponent = int(_exponents(layer.output_quant, name, "output")[0])
    inputs, shape = tuple(source for source, _ in sources), sources[0][1].shape
    bits, signed = bits_of(layer.output_quant), not layer.relu
    if isinstance(layer, QuantAdd):
        return Add(name=name, inputs=inputs, output=TensorType(*shape, bits, signed, exponent))
    output = TensorType(shape[0], 1, 1, bits, signed, exponent)
    return GlobalAverage(name=name, inputs=inputs, output=output)


def _require_one_grid(graph: NetworkGraph, record: network.Concat, name: str) -> None:
    """Raise LoweringError if images, whose grid is given, are joined with maps of layers.

    Calibration chooses the grid of those: with untrained weights it may be that of the images.
    """
    if len({bool(rounding(graph, source)) for source in record.inputs}) > 1:
        raise LoweringError(
            f"'{name}' (Concat) joins the images, or pools of them, with maps of layers, which "
            "have another grid; let convolutions, sums or averages make all of them"
        )


def _lower_concat(name: str, sources: Sources) -> Concat:
    """Return the node that joins maps; calibration has brought what layers write to one grid."""
    kinds = [kind for _, kind in sources]
    if len({kind.signed for kind in kinds}) > 1:
        raise LoweringError(
            f"'{name}' (Concat) joins maps with a ReLU and without; put one behind all or none"
        )
    channels, bits = sum(kind.channels for kind in kinds), max(kind.bits for kind in kinds)
    output = replace(kinds[0], channels=channels, bits=bits)
    return Concat(name=name, inputs=tuple(source for source, _ in sources), output=output)


def _refused(layer: nn.Module) -> str:
    """Return the kind of a layer with what of a convolution the engine lacks, and a remedy."""
    kind = type(layer).__name__
    if isinstance(layer, nn.Conv2d) and layer.dilation != (1, 1):
        return (
            f"{kind} with dilation {layer.dilation}; the engine's kernels have no gaps: set "
            "dilation=1, in a larger kernel with zeros in the gaps to compute the same"
        )
    return f"{kind}; the engine runs convolutions and fully connected layers"


def _check_layers(net: Network, names: Mapping[str, str]) -> None:
    """Raise LoweringError that names the first layer of a kind that the engine does not run."""
    for path, layer in net.layers().items():
        if path in names and not isinstance(layer, QuantAdd | QuantAverage | QuantTapLayer):
            raise LoweringError(f"layer '{names[path]}': cannot lower {_refused(layer)}")


_RUNS = (
    "the engine runs convolutions and fully connected layers, with a ReLU or a sum behind a "
    "convolution, max pools, averages over whole maps, maps joined by channels, and the last layer "
    "gives the result"
)


def lower_checkpoint(config: Config, out: Path) -> Graph:
    """Return the integer graph of the trained network in `out` (qat.npz)."""
    trained = load_quantized(Build(config, out, torch.device("cpu")))
    return lower_network(trained, _entry(trained))


def rehearsed_graph(build: flow.Build) -> tuple[Graph, Golden]:
    """Return the integer graph of untrained weights, and the golden values it must equal."""
    training = Build(build.config, build.out, config_path=build.config_path)
    rehearsed = rehearse(training)
    graph = lower_network(rehearsed, _entry(rehearsed))
    return graph, golden_of(rehearsed_golden(training, rehearsed))


def lower_exits(net: Network) -> tuple[Graph, dict[str, Graph]]:
    """Return the integer graph of a quantized network without exits, and those up to every exit."""
    entry, parts = _entry(net), {name: net.graph.ending_at(end) for name, end in net.graph.exits}
    network = lower_network(net.part(net.graph.ending_at(net.graph.output)), entry)
    return network, {name: lower_network(net.part(part), entry) for name, part in parts.items()}


def lower_build_exits(build: flow.Build) -> tuple[Graph, dict[str, Graph]]:
    """Return `lower_exits` of the trained network of a build."""
    training = Build(build.config, build.out, config_path=build.config_path)
    return lower_exits(quantized_with_exits(training))


def lower_whole(net: Network) -> Graph:
    """Return the integer graph of a quantized network that reads bytes."""
    return lower_network(net, _entry(net))


def _entry(net: Network) -> TensorType:
    """Return the type of the images that a network reads."""
    channels, height, width = net.graph.input
    return TensorType(channels, height, width, INPUT_BITS, False, INPUT_EXPONENT)


def _exponents(proxy: nn.Module, name: str, what: str) -> IntArray:
    """Return the flat exponents of a quantizer."""
    try:
        return exponents(scale_of(proxy)).flatten().numpy()
    except ValueError as error:
        raise LoweringError(f"layer '{name}': {what}: {error}; calibrate it again") from error


@torch.no_grad()
def _weight(layer: QuantTapLayer, exponent: IntArray, name: str) -> IntArray:
    """Return integer weights [oc, k, taps]."""
    value = layer.weight_quant(layer.u).value.double()
    scale = torch.tensor(2.0 ** exponent.astype(np.float64))
    bounds = int_range(bits_of(layer.weight_quant), signed=True, narrow=True)
    return _integers(value / scale, bounds, f"layer '{name}': weights")


@torch.no_grad()
def _bias(layer: QuantTapLayer, acc_exponent: int, name: str) -> IntArray:
    """Return integer biases [oc] on the accumulator's grid, rounded half to even."""
    steps = (layer.bias.double() * 2.0**-acc_exponent).round()
    remedy = "; it is far larger than the layer's sums: train with smaller biases"
    return _integers(steps, int_range(RAW_BITS, signed=True), f"layer '{name}': bias", remedy)


def _integers(values: Tensor, bounds: tuple[int, int], what: str, remedy: str = "") -> IntArray:
    """Return float64 `values` as int64; raises LoweringError unless they are such integers."""
    array = values.cpu().numpy()
    if not np.array_equal(array, np.rint(array)):  # NaN differs from itself
        raise LoweringError(f"{what}: must be whole multiples of their scale, some are not")
    low, high = bounds
    if array.size and (array.min() < low or array.max() > high):
        raise LoweringError(
            f"{what}: must lie in {low}..{high}, got {array.min():.0f}..{array.max():.0f}{remedy}"
        )
    return array.astype(np.int64)


def _frozen(array: IntArray) -> IntArray:
    array = np.ascontiguousarray(array, dtype=np.int64)
    array.setflags(write=False)
    return array
