# SPDX-License-Identifier: Apache-2.0
"""Early exit: easy images leave at a shallow classifier (Be Your Own Teacher, sec. 3.3).

An image leaves at the first exit whose largest softmax probability reaches the threshold, else at
the end. It has then paid for the backbone up to there and for every exit it tried, in modelled
engine cycles. The shallow networks alone are `model.exit`. The ensemble is the mean of what all
exits and the end say; its images pay for everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quant.allocate.layer_cost import layer_costs, pool_costs
from quant.data import Samples, to_input
from quant.network.network import Network, backbone, exit_head, exit_network, own_records
from winnow.confidence import confidence_of
from winnow.config import Config
from winnow.errors import ConfigError

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
BATCH = 256


@dataclass(frozen=True)
class Answers:
    """What every exit, and last the end, says of every image, [exits + 1, n].

    `confidence` is the largest softmax probability, `right` whether its class is the label.
    `together` [n] is whether the class of the largest mean softmax probability is.
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    together: NDArray[np.bool_]

    @property
    def alone(self) -> list[float]:
        """Accuracy in percent of every exit for all images, and of the end."""
        return [100 * float(row.mean()) for row in self.right]

    @property
    def ensemble(self) -> float:
        """Accuracy in percent of the ensemble."""
        return 100 * float(self.together.mean())


@dataclass(frozen=True)
class Point:
    """One threshold: accuracy in percent, mean cost per image over that of the whole network
    without exits, and the share of images that leave at each exit and at the end."""

    threshold: float
    accuracy: float
    cost: float
    shares: tuple[float, ...]


@torch.no_grad()
def ask(
    net: Network, samples: Samples, device: torch.device, *, quantized: bool = False
) -> Answers:
    """Return what the exits and the end of a network say of all samples.

    A quantized one is as sure as its integers are everywhere: `winnow.confidence`.
    """
    net.eval()
    confidence, right, together = [], [], []
    for start in range(0, len(samples), BATCH):
        part = slice(start, start + BATCH)
        x = to_input(samples.images[part], next(net.parameters()).dtype).to(device)
        ((logits, _), *shallow), _ = net.with_exits(x)
        every = torch.stack([*(exit_logits for exit_logits, _ in shallow), logits])
        shares = every.double().softmax(2)
        best = shares.max(2)
        confidence.append(_integer_confidence(every) if quantized else best.values.cpu())
        right.append(best.indices.cpu() == samples.labels[part])
        together.append(shares.mean(0).argmax(1).cpu() == samples.labels[part])
    return Answers(_joined(confidence), _joined(right), _joined(together))


def _integer_confidence(logits: Tensor) -> Tensor:
    """Return how sure every exit is, [exits + 1, n], of logits [exits + 1, n, classes]."""
    return torch.from_numpy(np.stack([confidence_of(row) for row in logits.cpu().numpy()]))


def _joined(parts: Sequence[Tensor]) -> NDArray:
    return np.asarray(torch.cat(list(parts), dim=-1).numpy())


def leaving_costs(net: Network, config: Config) -> list[int]:
    """Return the modelled cycles of an image that leaves at each exit, and at the end last.

    Raises ConfigError when the network has no exit.
    """
    if not net.graph.exits:
        raise ConfigError(
            "model.exit_after must name a convolution of a chain or a block for early exit, got []"
        )
    whole = layer_costs(backbone(net), config)
    shared = {node.name for node in net.graph.needed([net.graph.output])}
    tried, costs = 0, []
    for name, end in net.graph.exits:
        before = {node.name for node in net.graph.needed([end])} & shared
        own = {node.name for node in own_records(net.graph, name)}  # its pools are counted below
        alone = layer_costs(exit_network(net, name), config)
        tried += sum(cycles for layer, cycles in alone.items() if layer not in before | own)
        tried += sum(pool_costs(exit_head(net.graph, name), config).values())
        costs.append(tried + sum(cycles for layer, cycles in whole.items() if layer in before))
    return [*costs, tried + sum(whole.values())]


def whole_cost(net: Network, config: Config) -> int:
    """Return the modelled cycles of the network without exits."""
    return sum(layer_costs(backbone(net), config).values())


def curve(
    answers: Answers, costs: Sequence[int], whole: int, thresholds: Sequence[float] = THRESHOLDS
) -> list[Point]:
    """Return accuracy against cost for each threshold; costs as `leaving_costs` gives them."""
    images = np.arange(answers.right.shape[1])
    points = []
    for threshold in thresholds:
        sure = answers.confidence >= threshold
        sure[-1] = True  # nothing comes after the end
        left = sure.argmax(0)
        shares = np.bincount(left, minlength=len(costs)) / len(images)
        accuracy = 100 * float(answers.right[left, images].mean())
        cost = float(np.asarray(costs)[left].mean()) / whole
        points.append(Point(threshold, accuracy, cost, tuple(shares.tolist())))
    return points


def cheapest(points: Sequence[Point], accuracy: float) -> int | None:
    """Return which point costs least of those that reach an accuracy; None if none does."""
    good = [i for i, point in enumerate(points) if point.accuracy >= accuracy]
    return min(good, key=lambda i: points[i].cost, default=None)


@dataclass(frozen=True)
class Reported:
    """A network's answers on the images that thresholds are chosen on, and on those reported."""

    validation: Answers
    test: Answers


def format_exits(names: Sequence[str], found: Reported, costs: Sequence[int], whole: int) -> str:
    """Return the tables of a network; `names` are the exits', costs as `leaving_costs` gives them.

    One row for every exit alone, for the end and for the ensemble, then one for every threshold.
    The chosen one is the cheapest that loses nothing to the end on validation images.
    """
    places = [*names, "end"]
    rows = [*zip(places, found.validation.alone, found.test.alone, costs, strict=True)]
    rows.append(("ensemble", found.validation.ensemble, found.test.ensemble, costs[-1]))
    lines = [f"{'everyone at':>11}{'validation':>12}{'test':>10}{'cost':>8}"]
    for name, validation, test, cost in rows:
        lines.append(f"{name:>11}{validation:>10.2f} %{test:>8.2f} %{cost / whole:>8.3f}")
    chosen_on, points = (curve(a, costs, whole) for a in (found.validation, found.test))
    chosen = cheapest(chosen_on, found.validation.alone[-1])
    lines.append(
        f"{'threshold':>11}{'validation':>12}{'test':>10}{'cost':>8}"
        + "".join(f"{name:>9}" for name in places)
    )
    for i, (before, p) in enumerate(zip(chosen_on, points, strict=True)):
        shares = "".join(f"{100 * share:>7.1f} %" for share in p.shares)
        mark = " <- chosen" if i == chosen else ""
        lines.append(
            f"{p.threshold:>11g}{before.accuracy:>10.2f} %{p.accuracy:>8.2f} %{p.cost:>8.3f}"
            f"{shares}{mark}"
        )
    if chosen is None:
        lines.append("no threshold is chosen: each loses to the end on validation images")
    return "\n".join(lines)
