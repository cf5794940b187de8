# SPDX-License-Identifier: Apache-2.0
"""What a method of channel pruning is given: network, teacher, data, a budget and a plan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from quant.allocate.layer_cost import CostTerm, total
from quant.data import Split, to_input
from quant.network.network import Network
from quant.network.structure import channel_counts
from quant.prune_channels.saliency import floors
from quant.train.history import History
from quant.train.resume import Resume
from quant.train.training import Plan
from winnow.config import Config
from winnow.errors import ConfigError

BATCH = 16  # images of one gradient: few, so that gradients differ


@dataclass(frozen=True)
class Narrowed:
    """What a method returns: the network, its fine-tuning, and numbers for the record."""

    net: Network
    history: History
    numbers: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A trained network whose channels are pruned.

    Members:
        net: the fp32 network; methods change a copy.
        teacher: the network whose outputs the narrowed one shall give: `net` or another build's.
        terms: what the budget counts (`quant.allocate.layer_cost`).
        samples: training images that saliencies and regressors look at.
        plan: how all epochs of the stage are trained.
        resume: where unfinished runs are kept.
    """

    config: Config
    net: Network
    teacher: nn.Module
    split: Split
    terms: list[CostTerm]
    samples: int
    plan: Plan
    resume: Resume

    @property
    def full(self) -> int:
        """Cost of the network as it is."""
        return total(self.terms, channel_counts(self.net))

    def limit(self, share: float) -> int:
        """Return the cost that a share of the whole allows."""
        return math.floor(self.full * share)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (input, label) batches of the sample images, always the same."""
        train, device = self.split.train, self.plan.device
        for start in range(0, min(self.samples, len(train)), BATCH):
            part = slice(start, min(start + BATCH, self.samples))
            yield to_input(train.images[part]).to(device), train.labels[part].to(device)


def width_choices(count: int, percents: tuple[int, ...], multiple: int) -> list[int]:
    """Return the channels that `percents` of `count` are, to the nearest multiple, and `count`.

    width_choices(64, (25, 50), 8) -> [16, 32, 64]. None is below a multiple, or above `count`.
    """
    wanted = (max(1, round(count * percent / 100 / multiple)) * multiple for percent in percents)
    return [min(width, count) for width in wanted] + [count]


def smallest_counts(config: Config, counts: dict[str, int]) -> dict[str, int]:
    """Return the least channels per group that the configured method can reach."""
    keys = config.prune_channels
    if keys.method == "cascade":
        return floors(counts, keys.multiple)
    return {n: min(width_choices(c, keys.widths, keys.multiple)) for n, c in counts.items()}


def check_budget(config: Config, terms: list[CostTerm], net: Network) -> None:
    """Raise ConfigError when even the narrowest network costs more than is allowed."""
    keys = config.prune_channels
    counts = channel_counts(net)
    least, full = total(terms, smallest_counts(config, counts)), total(terms, counts)
    if least > math.floor(full * keys.share):
        share = math.ceil(1000 * least / full) / 1000
        raise ConfigError(
            f"prune_channels.share must be at least {share:.3f}, the smallest share of "
            f"{keys.budget} that prune_channels.method '{keys.method}' can reach, "
            f"got {keys.share:g}"
        )
