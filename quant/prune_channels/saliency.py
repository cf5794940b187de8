# SPDX-License-Identifier: Apache-2.0
"""Which channels matter: first-order Taylor saliency of a loss.

A channel is thought to pass a gate that is 1. To first order, closing the gate changes the loss by
its derivative there (Molchanov et al., ICLR 2017, eq. 6). The gate sits where the channel is scaled
last: on the group's last BatchNorm, or on its filters where there is none. The derivative is summed
as magnitudes over small batches, because over all samples it vanishes in a trained network, and
divided by its norm over the group, so that layers of all depths compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from quant.allocate.layer_cost import CostTerm, total
from quant.network.channels import ChannelGroup, remove_channels
from quant.network.network import Network
from quant.network.structure import channel_groups
from quant.train.objective import Loss
from winnow.progress import steps


def gates(net: nn.Module, group: ChannelGroup) -> list[nn.Module]:
    """Return the modules whose weights and biases, scaled together, scale a group's channels."""
    norms = [m for m in map(net.get_submodule, group.followers) if isinstance(m, nn.BatchNorm2d)]
    return norms[-1:] or [net.get_submodule(name) for name in group.producers]


def gate_gradients(net: nn.Module, group: ChannelGroup) -> Tensor:
    """Return the derivative [channels] of the last loss by every gate, from the `grad` fields."""
    scaled = [value for module in gates(net, group) for value in (module.weight, module.bias)]
    terms = [(v * v.grad).reshape(len(v), -1).sum(1) for v in scaled if v is not None]
    return torch.stack(terms).sum(0).detach()


def saliencies(
    net: Network, loss: Loss, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Return the saliency [channels] of every group, of norm 1; all zero if nothing matters.

    The network is left in evaluation mode without gradients.
    """
    net.eval()
    groups = channel_groups(net.graph)
    sums = {group.name: torch.zeros(group.channels(net), dtype=torch.float64) for group in groups}
    for x, labels in steps("saliency, batches", batches):
        net.zero_grad(set_to_none=True)
        loss(x, labels).backward()
        for group in groups:
            sums[group.name] += gate_gradients(net, group).abs().double().cpu()
    net.zero_grad(set_to_none=True)
    return {name: value / value.norm().clamp(min=1e-30) for name, value in sums.items()}


def strongest(saliency: Tensor, count: int) -> Tensor:
    """Return the `count` most salient channels, ascending int64; the first ones win ties."""
    order = torch.argsort(saliency, descending=True, stable=True)
    return order[:count].sort().values


def floors(counts: Mapping[str, int], multiple: int) -> dict[str, int]:
    """Return the least channels that each group may keep: `multiple`, or all it has if fewer."""
    return {name: min(multiple, count) for name, count in counts.items()}


def counts_within(
    terms: Iterable[CostTerm], saliency: Mapping[str, Tensor], limit: int, multiple: int
) -> dict[str, int]:
    """Return how many channels each group keeps so that all terms cost `limit` at most.

    Groups lose their least salient channels down to whole multiples, `multiple` at a time, the
    group with the least mean saliency of what it would lose first. Stops at the smallest widths.
    """
    terms = list(terms)
    rising = {name: value.sort().values for name, value in saliency.items()}
    counts = {name: len(value) for name, value in rising.items()}
    least = floors(counts, multiple)

    def loss_of(name: str) -> float:
        gone, drop = len(rising[name]) - counts[name], _step(counts[name], multiple)
        return float(rising[name][gone : gone + drop].mean())

    while total(terms, counts) > limit:
        open_groups = [name for name in counts if counts[name] > least[name]]
        if not open_groups:
            break
        chosen = min(open_groups, key=loss_of)
        counts[chosen] -= _step(counts[chosen], multiple)
    return counts


def _step(count: int, multiple: int) -> int:
    """Return how many channels to remove so that a multiple is left."""
    return count % multiple or multiple


def keep_strongest(net: Network, saliency: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
    """Remove all but the `counts` most salient channels of every group, in place."""
    for group in channel_groups(net.graph):
        if counts[group.name] < group.channels(net):
            remove_channels(net, group, strongest(saliency[group.name], counts[group.name]))
