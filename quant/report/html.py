# SPDX-License-Identifier: Apache-2.0
"""The page of a run: curves, accuracy against cycles, sparsity maps; one HTML file, no script.

Reads the records of the stages and the pruned network, measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quant.allocate.sizes import layer_shapes, measured_keeps, total_cycles
from quant.build import Build, compressed_network, load_bits, load_pruned, load_trained
from quant.layers.winograd_layer import TapLayer
from quant.network.network import Network
from quant.network.rewrite import tap_layers, to_winograd
from quant.report.page import render
from quant.report.plot import HEIGHT, WIDTH, Plot, Series, make_plot
from quant.results import COMPARED
from winnow.artefact import Record, write_text
from winnow.cycles import layer_cycles
from winnow.srbs import SUB_ROW

PERCENT = 100


@dataclass(frozen=True)
class LayerMap:
    """Sparsity of one layer: share of weights kept at each tap, in percent, in rows of a square."""

    name: str
    kind: str
    keep: int
    bits: int
    cycles: int
    kept: float
    rows: tuple[tuple[int, ...], ...]


def write_report(build: Build) -> Path:
    """Write OUT/report.html; ArtefactError names the first stage that has not run."""
    stages = (*(stage for _, stage in COMPARED), "bits")
    numbers = {s: Record.load(build.out / f"{s}.json", build.command(s)).numbers for s in stages}
    net = load_pruned(build)
    bits = {name: choice.weight for name, choice in load_bits(build).items()}
    path = build.out / "report.html"
    text = render(
        "report.html.j2",
        name=build.out.name,
        accuracies=[(kind, numbers[stage][f"{kind}_accuracy"]) for kind, stage in COMPARED],
        plots=[*_curves(numbers), *_against_cycles(build, net, bits, numbers)],
        layers=_maps(build, net, bits),
        width=WIDTH,
        height=HEIGHT,
    )
    write_text(path, text)
    return path


def _curves(numbers: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """Return loss and validation accuracy over the epochs of every stage that trains."""
    plots = []
    for column, title in (("loss", "loss"), ("validation_accuracy", "validation accuracy, %")):
        series = [
            Series(stage, _points(numbers[stage]["history"][column])) for _, stage in COMPARED
        ]
        plots.append(make_plot(title, ("epoch", ""), series))
    return [plot for plot in plots if plot is not None]


def _points(values: Sequence[float | None]) -> tuple[tuple[float, float], ...]:
    return tuple((i + 1, value) for i, value in enumerate(values) if value is not None)


def _against_cycles(
    build: Build, net: Network, bits: Mapping[str, int], numbers: Mapping[str, Mapping[str, Any]]
) -> list[Plot]:
    """Return accuracy against modelled cycles: dense at 8 bits, pruned, pruned and quantized.

    The dense network has all its channels, also those that `prune_channels` removed.
    """
    dense, wide = dict.fromkeys(bits, SUB_ROW), dict.fromkeys(bits, SUB_ROW)
    keeps, whole = measured_keeps(net), compressed_network(build, load_trained(build))
    costs = [
        total_cycles(build.config.engine, layer_shapes(n, k, b))
        for n, k, b in (
            (to_winograd(whole, build.config.engine.m), dense, wide),
            (net, keeps, wide),
            (net, keeps, bits),
        )
    ]
    series = [
        Series(kind, ((cost, numbers[stage][f"{kind}_accuracy"]),))
        for (kind, stage), cost in zip(COMPARED, costs, strict=True)
    ]
    names = ("modelled cycles per image", "")
    plot = make_plot("test accuracy against cycles, %", names, series, is_line=False)
    return [plot] if plot else []


def _maps(build: Build, net: Network, bits: Mapping[str, int]) -> list[LayerMap]:
    keeps = measured_keeps(net)
    shapes = layer_shapes(net, keeps, bits)
    maps = []
    for name, layer in tap_layers(net).items():
        shape = shapes.get(name)
        cycles = layer_cycles(build.config.engine, shape).total if shape else 0
        kept = PERCENT * float((layer.u != 0).float().mean())
        kind = type(layer).__name__
        maps.append(LayerMap(name, kind, keeps[name], bits[name], cycles, kept, _rows(layer)))
    return maps


def _rows(layer: TapLayer) -> tuple[tuple[int, ...], ...]:
    """Return the share of weights kept per tap in percent, as a square of taps."""
    shares = (PERCENT * (layer.u != 0).float().mean(dim=(0, 1))).round().int().tolist()
    edge = round(len(shares) ** 0.5)
    return tuple(tuple(shares[i : i + edge]) for i in range(0, len(shares), edge))
