# SPDX-License-Identifier: Apache-2.0
"""Lower a trained Brevitas network to the integer graph.

This is the one place where floats become integers. Every number is checked, not rounded: a scale
that is no power of two, or a weight that is no multiple of its scale, is a LoweringError.

    QuantWinogradConv2d(16, 32, m=2) -> conv2 = winograd(conv1) m=2 ... -> u8[32x8x8]*2^-5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from codegen.check import RAW_BITS
from codegen.ir import INPUT, Graph, Layer, Op, TensorType
from quant.build import Build, load_quantized
from quant.data import INPUT_BITS, INPUT_EXPONENT, input_shape
from quant.golden import layer_name
from quant.layers.quant_layer import QuantDense, QuantTapLayer, QuantWinogradConv2d
from quant.layers.quantizers import bits_of, exponents, scale_of
from quant.network.sites import Site, find_sites
from winnow.config import Config
from winnow.errors import LoweringError
from winnow.fixed_point import IntArray, int_range
from winnow.srbs import max_keep


@dataclass(frozen=True)
class Place:
    """Where a layer sits in the graph: its name, what it reads, and whether a pool follows."""

    name: str
    source: str
    input: TensorType
    pool: bool = False


def lower_winograd(layer: QuantWinogradConv2d, place: Place) -> Layer:
    """Return the integer layer of a calibrated Winograd convolution."""
    channels, height, width = place.input.shape
    if layer.weight.shape[1] != channels:
        raise LoweringError(
            f"layer '{place.name}': it takes {layer.weight.shape[1]} channels, "
            f"'{place.source}' has {channels}"
        )
    if place.pool:
        height, width = height // 2, width // 2
    return _lower(layer, place, Op.WINOGRAD, (height, width))


def lower_dense(layer: QuantDense, place: Place) -> Layer:
    """Return the integer layer of a calibrated fully connected layer."""
    operands = int(np.prod(place.input.shape))
    if layer.weight.shape[1] != operands:
        raise LoweringError(
            f"layer '{place.name}': it takes {layer.weight.shape[1]} values, "
            f"'{place.source}' has {operands}"
        )
    return _lower(layer, place, Op.DENSE, (1, 1))


def _lower(layer: QuantTapLayer, place: Place, op: Op, size: tuple[int, int]) -> Layer:
    name = place.name
    weight_exponent = _exponents(layer.weight_quant, name, "weights")
    v_exponent = _exponents(layer.input_quant, name, "lane operands")
    acc = int((v_exponent + weight_exponent).min())
    bits, signed, exponent = RAW_BITS, True, acc
    if not layer.is_raw:
        exponent = int(_exponents(layer.output_quant, name, "output")[0])
        bits, signed = bits_of(layer.output_quant), not layer.widths.relu
        acc = min(acc, exponent)
    weight = _weight(layer, weight_exponent, name)
    is_dense = op is Op.DENSE
    by_pixel = weight.reshape(len(weight), place.input.channels, -1) if is_dense else weight
    return Layer(
        name=name,
        op=op,
        source=place.source,
        m=1 if is_dense else layer.m,
        weight=_frozen(weight[..., 0] if is_dense else weight),
        bias=_frozen(_bias(layer, acc, name)),
        v_exponent=_frozen(v_exponent),
        weight_exponent=_frozen(weight_exponent),
        v_bits=bits_of(layer.input_quant),
        weight_bits=bits_of(layer.weight_quant),
        keep=max_keep(by_pixel),
        acc_exponent=acc,
        pool=place.pool,
        raw=layer.is_raw,
        output=TensorType(layer.out_channels, *size, bits, signed, exponent),
    )


def lower_network(net: nn.Module, sites: Mapping[str, Site], entry: TensorType) -> Graph:
    """Return the graph of a network whose layers, at `sites`, form a chain.

    Raises LoweringError that names the layer for what the engine does not run.
    """
    lowered: dict[str, Layer] = {}
    kinds = {INPUT: entry}
    for path, site in sites.items():
        name, layer = layer_name(path), net.get_submodule(path)
        source = layer_name(site.source or "")
        if source not in kinds:
            raise LoweringError(f"layer '{name}': it reads a sum; the engine runs chains of layers")
        place = Place(name, source, kinds[source], site.pool)
        if isinstance(layer, QuantWinogradConv2d):
            lowered[name] = lower_winograd(layer, place)
        elif isinstance(layer, QuantDense):
            lowered[name] = lower_dense(layer, place)
        else:
            raise LoweringError(
                f"layer '{name}': cannot lower {type(layer).__name__}; the engine runs "
                "QuantWinogradConv2d and QuantDense"
            )
        kinds[name] = lowered[name].output
    return Graph(entry, tuple(lowered.values()))


def lower_checkpoint(config: Config, out: Path) -> Graph:
    """Return the graph of the trained network in `out` (qat.npz and bits.json)."""
    network = load_quantized(Build(config, out, torch.device("cpu")))
    channels, edge, _ = input_shape(config.data)
    entry = TensorType(channels, edge, edge, INPUT_BITS, False, INPUT_EXPONENT)
    return lower_network(network, find_sites(network, entry.shape), entry)


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
    return _integers(steps, int_range(RAW_BITS, signed=True), f"layer '{name}': bias")


def _integers(values: Tensor, bounds: tuple[int, int], what: str) -> IntArray:
    """Return float64 `values` as int64; raises LoweringError unless they are such integers."""
    array = values.cpu().numpy()
    if not np.array_equal(array, np.rint(array)):  # NaN differs from itself
        raise LoweringError(f"{what}: must be whole multiples of their scale, some are not")
    low, high = bounds
    if array.size and (array.min() < low or array.max() > high):
        raise LoweringError(
            f"{what}: must lie in {low}..{high}, got {array.min():.0f}..{array.max():.0f}"
        )
    return array.astype(np.int64)


def _frozen(array: IntArray) -> IntArray:
    array = np.ascontiguousarray(array, dtype=np.int64)
    array.setflags(write=False)
    return array
