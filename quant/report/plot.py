# SPDX-License-Identifier: Apache-2.0
"""Points and lines as coordinates of an SVG drawing; the page's template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 10.0, 28.0


@dataclass(frozen=True)
class Axis:
    """One axis: its range, and where a value lies on it."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the coordinate of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Coordinates and labels of about four round values."""
        step = _round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [(self.at(i * step), f"{i * step:g}") for i in range(first, last + 1)]


@dataclass(frozen=True)
class Series:
    """A named line or set of points, in values."""

    name: str
    points: tuple[tuple[float, float], ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plot:
    """A drawing: title, axes, and what is on them."""

    title: str
    x_name: str
    y_name: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    is_line: bool

    def path(self, series: Series) -> str:
        """Return a series as SVG polyline coordinates."""
        return " ".join(f"{self.x.at(a)},{self.y.at(b)}" for a, b in series.points)


def make_plot(
    title: str, names: tuple[str, str], series: Sequence[Series], *, is_line: bool = True
) -> Plot | None:
    """Return the plot of the series that have points, axes just around them; None if none has."""
    full = tuple(s for s in series if s.points)
    if not full:
        return None
    xs = [a for s in full for a, _ in s.points]
    ys = [b for s in full for _, b in s.points]
    x = _axis(xs, LEFT, WIDTH - RIGHT)
    y = _axis(ys, HEIGHT - BOTTOM, TOP)
    return Plot(title, *names, x, y, full, is_line)


def _axis(values: Sequence[float], start: float, end: float) -> Axis:
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or max(abs(high) * 0.05, 1e-6)
    return Axis(low - margin, high + margin, start, end)


def _round_step(step: float) -> float:
    """Return the least of 1, 2, 5 times a power of ten that is at least `step`."""
    scale = 10.0 ** math.floor(math.log10(step))
    return next(m * scale for m in (1, 2, 5, 10) if m * scale >= step * (1 - 1e-9))
