# SPDX-License-Identifier: Apache-2.0
"""A generated benchmark: 32x32 RGB scenes in ten classes, the same on every machine.

A class is a shape and a filling: disc, square, triangle, cross or ring, in stripes or in checks.
The largest object of a scene names its class; two smaller objects of other shapes, a textured
background, a bar across, light and noise stand in the way. Colours, angle, size and place are
drawn independently of the class, so none of them tells it. Labels hold no noise, and a mirrored
scene keeps its class.

Only PCG64's raw stream and elementwise float64 +, -, *, /, sqrt and rounding are used. IEEE 754
fixes all of them, unlike sines and sums over arrays, so every bit is reproducible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EDGE = 32
CHANNELS = 3
SHAPES = ("disc", "square", "triangle", "cross", "ring")
FILLINGS = ("stripes", "checks")
NUM_CLASSES = len(SHAPES) * len(FILLINGS)

Array = NDArray[np.float64]

CHUNK = 500  # images rendered at once, to bound memory; the result does not depend on it
COARSE = 4  # knots per edge of the background's smooth colour field
DISTRACTORS = 2
DRAWS = 256  # random numbers set aside for the geometry and colours of one scene
NOISE_DRAWS = CHANNELS * EDGE * EDGE
MIN_CONTRAST, MAX_CONTRAST = 0.10, 0.25  # half the distance of a filling's two colours
NOISE = 0.08  # largest deviation of a pixel
PIXELS = (np.arange(EDGE, dtype=np.float64) - (EDGE - 1) / 2)[None, :]  # centred coordinates


def generate(seed: int, part: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return `count` images [n, 3, 32, 32] and labels [n], balanced, in turn.

    `part` separates training, validation and test images. Image i depends on (seed, part, i) only.
    """
    stream = np.random.PCG64(np.random.SeedSequence([seed, part]))
    labels = np.arange(count, dtype=np.int64) % NUM_CLASSES
    images = np.empty((count, CHANNELS, EDGE, EDGE), np.uint8)
    for start in range(0, count, CHUNK):
        chosen = slice(start, min(start + CHUNK, count))
        num = len(labels[chosen])
        raw = stream.random_raw(num * (DRAWS + NOISE_DRAWS)).reshape(num, -1)
        uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
        images[chosen] = render(uniform, labels[chosen])
    return images, labels


def render(uniform: Array, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Paint scenes [n, 3, 32, 32] of the given classes from numbers in 0..1 [n, DRAWS + noise]."""
    draws = Draws(uniform[:, :DRAWS])
    shapes, fillings = labels // len(FILLINGS), labels % len(FILLINGS)
    canvas = background(draws)
    for _ in range(DISTRACTORS):
        step = 1 + np.floor(draws.number(0, len(SHAPES) - 1)).astype(np.int64)
        filling = np.floor(draws.number(0, len(FILLINGS))).astype(np.int64)
        small = Pose.draw(draws, reach=14.0, radius=(2.5, 4.0))
        canvas = paint(canvas, draws, small, (shapes + step) % len(SHAPES), filling)
    large = Pose.draw(draws, reach=4.0, radius=(9.0, 11.5))
    canvas = paint(canvas, draws, large, shapes, fillings)
    canvas = bar(canvas, draws)
    gain, offset = draws.number(0.65, 1.1), draws.number(-0.15, 0.15)
    canvas = (canvas - 0.5) * of_scene(gain) + of_scene(offset + 0.5)
    noise = uniform[:, DRAWS:].reshape(canvas.shape) * 2 - 1
    canvas = canvas + noise * of_scene(draws.number(0, NOISE))
    clipped: Array = np.clip(canvas, 0, 1)
    return np.rint(clipped * 255).astype(np.uint8)


class Draws:
    """Uniform numbers of n scenes, handed out column by column."""

    def __init__(self, uniform: Array) -> None:
        self._uniform = uniform
        self._next = 0

    def numbers(self, count: int, low: float, high: float) -> Array:
        """Return [n, count] numbers in low..high."""
        first, self._next = self._next, self._next + count
        assert self._next <= self._uniform.shape[1], "raise DRAWS"
        return self._uniform[:, first : self._next] * (high - low) + low

    def number(self, low: float, high: float) -> Array:
        """Return [n] numbers in low..high."""
        return self.numbers(1, low, high)[:, 0]

    def direction(self) -> tuple[Array, Array]:
        """Return unit vectors, two [n]: rational points of the circle, so no sine is needed."""
        t, side = self.number(-1, 1), np.where(self.number(0, 1) < 0.5, -1.0, 1.0)
        scale = side / (1 + t * t)
        return (1 - t * t) * scale, 2 * t * scale


@dataclass(frozen=True)
class Pose:
    """Where objects lie: coordinates of every pixel in the object's frame [n, h, w], in radii."""

    u: Array
    v: Array
    radius: Array  # pixels, [n]

    @classmethod
    def draw(cls, draws: Draws, *, reach: float, radius: tuple[float, float]) -> Pose:
        """Draw centres within `reach` pixels of the middle, any angle, and radii in pixels."""
        size, (cos, sin) = draws.number(*radius), draws.direction()
        dx = on_map(-draws.number(-reach, reach)) + PIXELS[:, None, :]
        dy = on_map(-draws.number(-reach, reach)) + PIXELS[:, :, None]
        u = (dx * on_map(cos) + dy * on_map(sin)) / on_map(size)
        v = (dy * on_map(cos) - dx * on_map(sin)) / on_map(size)
        return cls(u, v, size)


# Distance to the border, about, in radii: negative inside. Areas are roughly equal.
def _disc(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v) - 0.95


def _square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - 0.82


def _triangle(u: Array, v: Array) -> Array:
    slanted = np.abs(u) * 0.875 + v * 0.484375
    return np.maximum(slanted, -v) - 0.66


def _cross(u: Array, v: Array) -> Array:
    near, far = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
    return np.maximum(near - 0.40, far - 1.05)


def _ring(u: Array, v: Array) -> Array:
    return np.abs(np.sqrt(u * u + v * v) - 0.78) - 0.30


OUTLINES: tuple[Callable[[Array, Array], Array], ...] = (_disc, _square, _triangle, _cross, _ring)


def on_map(numbers: Array) -> Array:
    """Return [n] as [n, 1, 1], to fit the map of every scene."""
    return numbers[:, None, None]


def of_scene(numbers: Array) -> Array:
    """Return [n] as [n, 1, 1, 1]."""
    return numbers[:, None, None, None]


def waves(draws: Draws, period: tuple[float, float]) -> tuple[Array, Array]:
    """Return two perpendicular waves in -1..1 [n, h, w], with periods in pixels."""
    cos, sin = draws.direction()
    length = draws.number(*period)
    phase = draws.numbers(2, 0, 1)
    x, y = PIXELS[:, None, :], PIXELS[:, :, None]
    along = (x * on_map(cos) + y * on_map(sin)) / on_map(length) + on_map(phase[:, 0])
    across = (y * on_map(cos) - x * on_map(sin)) / on_map(length) + on_map(phase[:, 1])
    return _wave(along), _wave(across)


def _wave(s: Array) -> Array:
    """Return a triangle wave of period 1, cut to trapezoids."""
    clipped: Array = np.clip(8 * np.abs(s - np.floor(s) - 0.5) - 2, -1, 1)
    return clipped


def two_colours(draws: Draws) -> tuple[Array, Array]:
    """Return the middle of two colours and half their difference, each [n, 3, 1, 1]."""
    middle = draws.numbers(CHANNELS, 0.1, 0.9)
    towards = draws.numbers(CHANNELS, -1, 1)
    largest = np.maximum(np.maximum(np.abs(towards[:, :1]), np.abs(towards[:, 1:2])), 1e-3)
    largest = np.maximum(largest, np.abs(towards[:, 2:]))
    half = towards / largest * draws.numbers(1, MIN_CONTRAST, MAX_CONTRAST)
    return middle[:, :, None, None], half[:, :, None, None]


def background(draws: Draws) -> Array:
    """Return smooth fields of colour with stripes or checks of their own, [n, 3, h, w]."""
    knots = draws.numbers(CHANNELS * COARSE * COARSE, 0.2, 0.8).reshape(
        -1, CHANNELS, COARSE, COARSE
    )
    place = np.arange(EDGE) * ((COARSE - 1) / (EDGE - 1))
    low = np.minimum(place.astype(np.int64), COARSE - 2)
    share = place - low
    rows = knots[:, :, low] * (1 - share[:, None]) + knots[:, :, low + 1] * share[:, None]
    smooth: Array = rows[..., low] * (1 - share) + rows[..., low + 1] * share
    along, across = waves(draws, (3.5, 8.0))
    texture = np.where(on_map(draws.number(-1, 1)) < 0, along, along * across)
    _, half = two_colours(draws)
    return smooth + half * texture[:, None] * of_scene(draws.number(0, 0.4))


def paint(
    canvas: Array, draws: Draws, pose: Pose, shapes: NDArray[np.int64], fillings: NDArray[np.int64]
) -> Array:
    """Return the canvas with one object per scene over it; edges cover pixels by share."""
    along, across = waves(draws, (3.75, 6.25))
    texture = np.where((fillings == 0)[:, None, None], along, along * across)
    middle, half = two_colours(draws)
    outlines = np.stack([outline(pose.u, pose.v) for outline in OUTLINES])
    distance = outlines[shapes, np.arange(len(shapes))] * on_map(pose.radius)
    cover = np.clip(0.5 - distance, 0, 1)[:, None]
    return canvas + (middle + half * texture[:, None] - canvas) * cover


def bar(canvas: Array, draws: Draws) -> Array:
    """Return the canvas with a bar of one colour across every scene, 0 to 3.5 pixels wide."""
    pose = Pose.draw(draws, reach=9.0, radius=(1.0, 1.0))
    cover = np.clip(on_map(draws.number(-0.5, 1.0)) + 0.5 - np.abs(pose.u), 0, 1)
    colour = draws.numbers(CHANNELS, 0, 1)[:, :, None, None]
    return canvas + (colour - canvas) * cover[:, None]
