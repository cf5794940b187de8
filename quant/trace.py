# SPDX-License-Identifier: Apache-2.0
"""Where accuracy goes: every layer's result in the float, the pruned and the integer network.

    signal to noise, in dB: 10 log10 of the energy of one result over that of its difference to
    the other; inf for equal ones. About 6 dB are one bit.

The integer network is the quantized one in float64, whose values are the integers times their
scale. Results are compared behind what follows a layer (BatchNorm, ReLU, pool).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quant.build import Build, load_compact, load_pruned, load_quantized
from quant.data import to_input, with_constant
from quant.golden import output_scale
from quant.layers.quant_add import QuantAdd, QuantAverage, share_of_mean
from quant.layers.quant_layer import QuantTapLayer
from quant.layers.quantizers import exponents, grid_of, scale_of
from quant.network.layer_graph import layer_graph, layer_results
from quant.network.network import Network
from quant.report.page import render
from quant.report.plot import HEIGHT, WIDTH, Series, make_plot
from winnow.artefact import write_text

TEMPLATE = "trace.svg.j2"
IMAGES = 64  # test images that are looked at
SHOWN_DB = 80.0  # where the picture ends: more is no loss that anything could show


@dataclass(frozen=True)
class Traced:
    """One layer.

    Members:
        pruned: signal to noise of the pruned network's result to the float one's, in dB.
        rounded: that of the integer one's to the pruned one's; what quantization costs alone.
        whole: that of the integer one's to the float one's.
        clipped: share of results at an end of their range, in percent; 0 for accumulators.
        exponent: of the results; `operands` and `weights` the least and largest of the taps.
        dead: channels whose integers are 0 everywhere, of `channels`.
    """

    name: str
    pruned: float
    rounded: float
    whole: float
    clipped: float
    exponent: int
    operands: tuple[int, int]
    weights: tuple[int, int]
    dead: int
    channels: int


def signal_to_noise(signal: Tensor, other: Tensor) -> float:
    """Return how far `other` is from `signal`, in dB: inf if equal, -inf if the signal is 0."""
    signal, other = signal.double(), other.double()
    noise = float((signal - other).square().sum())
    energy = float(signal.square().sum())
    if not noise:
        return math.inf
    return 10 * math.log10(energy / noise) if energy else -math.inf


def trace(build: Build, images: Tensor | None = None) -> tuple[Traced, ...]:
    """Compare the networks of a build on uint8 images [n, c, h, w], by default of the test part."""
    if images is None:
        images = build.split().test.images[:IMAGES]
    elif build.config.data.has_constant:
        images = with_constant(images)
    nets = (load_compact(build), load_pruned(build), load_quantized(build))
    return trace_networks(nets, to_input(images, torch.float64))


def trace_networks(nets: Sequence[Network], x: Tensor) -> tuple[Traced, ...]:
    """Compare [float, pruned, quantized] networks on inputs x [n, c, h, w], layer by layer."""
    plain, pruned, quantized = (layer_results(net.cpu().double(), x) for net in nets)
    graph, whole = nets[2].graph, nets[2].get_submodule
    placed, traced = layer_graph(graph), []
    for path, y in quantized.items():
        modules = whole(path), whole(placed[path].rounded_by)
        average, share = placed[path].average, 1.0
        if average is not None:  # the integer network holds what is missing to the mean in weights
            share = share_of_mean(*graph.shape_of(graph.by_name[average].inputs[0])[1:])
        traced.append(_traced(path, modules, (plain[path] * share, pruned[path] * share, y)))
    return tuple(traced)


def _traced(
    path: str,
    modules: tuple[QuantTapLayer, QuantTapLayer | QuantAdd | QuantAverage],
    values: tuple[Tensor, Tensor, Tensor],
) -> Traced:
    """Return one layer; `modules`: it, and what rounds its result, itself, a sum, an average."""
    plain, pruned, integer = values
    layer, last = modules
    scale = output_scale(last)
    steps = (integer / scale).round()
    clipped = 0.0
    if not (isinstance(last, QuantTapLayer) and last.is_raw):
        grid = grid_of(last.output_quant, scale)
        # The lower end of a ReLU's range is its 0, which is no clipping.
        at_end = (steps >= grid.high) | ((steps <= grid.low) & (grid.low < 0))
        clipped = 100 * float(at_end.double().mean())
    by_channel = steps.transpose(0, 1).flatten(1)
    return Traced(
        name=path,
        pruned=signal_to_noise(plain, pruned),
        rounded=signal_to_noise(pruned, integer),
        whole=signal_to_noise(plain, integer),
        clipped=clipped,
        exponent=int(exponents(scale).flatten()[0]),
        operands=_range(scale_of(layer.input_quant)),
        weights=_range(scale_of(layer.weight_quant)),
        dead=int((by_channel == 0).all(1).sum()),
        channels=len(by_channel),
    )


def _range(scale: Tensor) -> tuple[int, int]:
    found = exponents(scale)
    return int(found.min()), int(found.max())


def format_trace(layers: Sequence[Traced]) -> str:
    """Return the trace as a table of text."""
    rows = [
        f"{'layer':<16}{'pruned dB':>10}{'rounded dB':>11}{'both dB':>9}{'clipped %':>10}"
        f"{'out':>5}{'V':>9}{'U':>9}{'dead':>10}"
    ]
    for layer in layers:
        v, u = (f"{low}..{high}" for low, high in (layer.operands, layer.weights))
        rows.append(
            f"{layer.name:<16}{layer.pruned:>10.1f}{layer.rounded:>11.1f}{layer.whole:>9.1f}"
            f"{layer.clipped:>10.2f}{layer.exponent:>5}{v:>9}{u:>9}"
            f"{f'{layer.dead}/{layer.channels}':>10}"
        )
    return "\n".join(rows)


def draw_trace(path: Path, layers: Sequence[Traced]) -> Path:
    """Write the signal to noise of all layers as an SVG picture; return its path."""
    columns = {
        "pruned against float": [layer.pruned for layer in layers],
        "integer against pruned": [layer.rounded for layer in layers],
        "integer against float": [layer.whole for layer in layers],
    }
    series = [
        Series(name, tuple((i + 1.0, _shown(value)) for i, value in enumerate(values)))
        for name, values in columns.items()
    ]
    names = ("layer, in the order they run", "signal to noise, dB")
    plot = make_plot("where accuracy goes", names, series)
    text = render(
        TEMPLATE, plot=plot, width=WIDTH, height=HEIGHT, layers=[layer.name for layer in layers]
    )
    write_text(path, text)
    return path


def _shown(decibels: float) -> float:
    return max(-SHOWN_DB, min(SHOWN_DB, decibels))
