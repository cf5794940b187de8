# SPDX-License-Identifier: Apache-2.0
"""Early exit: easy images leave the chain at a shallow classifier (Be Your Own Teacher, sec. 3.3).

An image leaves at the first exit whose largest softmax probability reaches the threshold, else at
the end. It has then paid for the backbone up to there and for every exit it tried, in modelled
engine cycles. The shallow networks alone are `model.exit`.
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
from winnow.config import Config
from winnow.errors import ConfigError

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
BATCH = 256


@dataclass(frozen=True)
class Answers:
    """What every exit, and last the end, says of every image, [exits + 1, n].

    `confidence` is the largest softmax probability, `right` whether its class is the label.
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Point:
    """One threshold: accuracy in percent, mean cost per image over that of the whole network
    without exits, and the share of images that leave at each exit and at the end."""

    threshold: float
    accuracy: float
    cost: float
    shares: tuple[float, ...]


@torch.no_grad()
def ask(net: Network, samples: Samples, device: torch.device) -> Answers:
    """Return what the exits and the end of a network say of all samples."""
    net.eval()
    confidence, right = [], []
    for start in range(0, len(samples), BATCH):
        part = slice(start, start + BATCH)
        ((logits, _), *shallow), _ = net.with_exits(to_input(samples.images[part]).to(device))
        every = torch.stack([*(exit_logits for exit_logits, _ in shallow), logits])
        best = every.double().softmax(2).max(2)
        confidence.append(best.values.cpu())
        right.append(best.indices.cpu() == samples.labels[part])
    return Answers(_joined(confidence), _joined(right))


def _joined(parts: Sequence[Tensor]) -> NDArray:
    return np.asarray(torch.cat(list(parts), dim=1).numpy())


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


def format_curve(names: Sequence[str], points: Sequence[Point], alone: Sequence[float]) -> str:
    """Return the table of a curve; `names` are the exits', `alone` each one's accuracy in percent,
    that of the end last."""
    places = [*names, "end"]
    lines = [
        "accuracy alone: "
        + ", ".join(f"{n} {a:.2f} %" for n, a in zip(places, alone, strict=True)),
        f"{'threshold':>9}{'accuracy':>11}{'cost':>8}" + "".join(f"{n:>9}" for n in places),
    ]
    for p in points:
        shares = "".join(f"{100 * share:>7.1f} %" for share in p.shares)
        lines.append(f"{p.threshold:>9g}{p.accuracy:>9.2f} %{p.cost:>8.3f}{shares}")
    return "\n".join(lines)
