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
from quant.network.structure import channel_counts, channel_groups
from quant.prune_channels.saliency import floors
from quant.train.history import History
from quant.train.resume import Resume
from quant.train.training import Plan
from winnow.config import LEAST_SQUARES, Config
from winnow.errors import ConfigError

BATCH = 16  # images of one gradient: few, so that gradients differ
MOST_OPERANDS = 8192  # that least squares solves for: half a gigabyte a matrix


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
        start, train = 0, self.split.train
        for x in self.inputs(self.samples):
            yield x, train.labels[start : start + len(x)].to(self.plan.device)
            start += len(x)

    def inputs(self, count: int) -> Iterator[Tensor]:
        """Yield batches [n, c, h, w] of the first `count` training images, or of all there are."""
        train, dtype = self.split.train, next(self.net.parameters()).dtype
        count = min(count, len(train))
        for start in range(0, count, BATCH):
            images = train.images[start : min(start + BATCH, count)]
            yield to_input(images, dtype).to(self.plan.device)


def width_choices(count: int, percents: tuple[int, ...], multiple: int) -> list[int]:
    """Return the channels that `percents` of `count` are, to the nearest multiple, and `count`.

    width_choices(64, (25, 50), 8) -> [16, 32, 64]. None is below a multiple, or above `count`.
    """
    wanted = (max(1, round(count * percent / 100 / multiple)) * multiple for percent in percents)
    return [min(width, count) for width in wanted] + [count]


def smallest_counts(config: Config, counts: dict[str, int]) -> dict[str, int]:
    """Return the least channels per group that the configured method can reach."""
    keys = config.prune_channels
    if keys.method == "structure":
        return {n: min(width_choices(c, keys.widths, keys.multiple)) for n, c in counts.items()}
    return floors(counts, keys.multiple)


def check_task(config: Config, terms: list[CostTerm], net: Network) -> None:
    """Raise ConfigError for what the configured method cannot do with a network."""
    _check_budget(config, terms, net)
    if config.prune_channels.method == LEAST_SQUARES:
        _check_readers(net)


def _check_readers(net: Network) -> None:
    """Raise ConfigError for a layer with too many operands to solve for."""
    for group in channel_groups(net.graph):
        for name in group.consumers:
            operands = net.get_submodule(name).weight[0].numel()
            if operands > MOST_OPERANDS:
                raise ConfigError(
                    f"prune_channels.method '{LEAST_SQUARES}' solves for at most {MOST_OPERANDS:,} "
                    f"operands of a layer, '{name}' has {operands:,}; choose 'cascade', or pool "
                    "the map before that layer"
                )


def _check_budget(config: Config, terms: list[CostTerm], net: Network) -> None:
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
