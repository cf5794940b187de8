# SPDX-License-Identifier: Apache-2.0
"""The figure of a comparison: accuracy against modelled cycles, sparse recipes and dense networks.

A recipe pays where its point lies above the line of the dense networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from quant.bench.judge import accuracy
from quant.bench.runs import Rival
from quant.bench.table import Runs
from quant.recipes import Recipe
from quant.report.page import render
from quant.report.plot import HEIGHT, WIDTH, Plot, Series, make_plot
from winnow.artefact import write_text
from winnow.errors import ConfigError

TEMPLATE = "figure.svg.j2"


def check_figure(path: Path) -> None:
    """Raise ConfigError, before anything is trained, where no figure can be written."""
    if path.suffix != ".svg":
        raise ConfigError(f"--figure must be a file that ends in .svg, got '{path}'")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"--figure '{path}': its folder must exist, and it must be no folder")


def write_figure(path: Path, recipes: Sequence[Recipe], runs: Sequence[Runs]) -> None:
    """Draw what the tables say, means over seeds, as SVG."""
    plot = _plot(recipes, runs)
    write_text(path, render(TEMPLATE, plot=plot, width=WIDTH, height=HEIGHT))


def _plot(recipes: Sequence[Recipe], runs: Sequence[Runs]) -> Plot:
    found = zip(recipes, runs, strict=True)
    points = tuple(
        (mean(r.cycles for r in of), accuracy([r.quantized for r in of])) for _, of in found
    )
    names = tuple(recipe.name for recipe in recipes)
    plot = make_plot(
        "Accuracy against cycles",
        ("modelled cycles of an image", "accuracy, %"),
        (Series("dense, 8 bits", dense_line(runs)), Series("recipes", points, names)),
        is_line=False,
    )
    assert plot is not None  # every comparison has a recipe
    return plot


def dense_line(runs: Sequence[Runs]) -> tuple[tuple[float, float], ...]:
    """Return cycles and accuracy of all smaller dense networks, by cycles, means over seeds."""
    points = set()
    for of in runs:
        for rivals in ([r.narrow for r in of], [r.light for r in of]):
            trained = [rival for rival in rivals if rival is not None]
            if len(trained) == len(of):
                points.add(_point(trained))
    return tuple(sorted(points))


def _point(rivals: Sequence[Rival]) -> tuple[float, float]:
    return mean(rival.cycles for rival in rivals), accuracy([rival.judged for rival in rivals])
