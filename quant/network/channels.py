# SPDX-License-Identifier: Apache-2.0
"""Channels that can be taken out of a trained network together, and the surgery that does it.

A group is one set of channels and everything that touches it: the convolutions that produce it, the
BatchNorms and depthwise convolutions that carry it on channel by channel, and the layers that sum
over it. Nothing else reads the channels, so no residual width changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quant.network.network import Network


@dataclass(frozen=True)
class ChannelGroup:
    """Names of the modules that share a set of channels.

    `producers` are convolutions with the group as output channels; `followers` BatchNorms and
    depthwise convolutions of the same channels; `consumers` convolutions or linear layers with the
    group as input channels. `positions` is the pixels per channel that a linear consumer reads from
    a map flattened in (c, h, w) order, 1 otherwise.
    """

    name: str
    producers: tuple[str, ...]
    followers: tuple[str, ...]
    consumers: tuple[str, ...]
    positions: int = 1

    def channels(self, net: nn.Module) -> int:
        """Return how many channels the group has in `net` now."""
        return int(net.get_submodule(self.producers[0]).out_channels)


@torch.no_grad()
def remove_channels(net: Network, group: ChannelGroup, kept: Tensor) -> None:
    """Keep only the channels `kept` (int64 [n], ascending) of a group, in place.

    Parameters become new objects: make the optimizer afterwards. Raises ValueError, with the
    network unchanged, unless `kept` are different channels of the group in ascending order.
    """
    channels = group.channels(net)
    _check_kept(group, kept, channels)
    for name, module in _modules(net, (*group.producers, *group.followers)):
        _check_channels(name, module, channels)
    for name, module in _modules(net, group.consumers):
        _check_operands(name, module, channels * group.positions)
    for _, module in _modules(net, (*group.producers, *group.followers)):
        _keep_channels(module, kept)
    for _, module in _modules(net, group.consumers):
        _keep_operands(module, kept, group.positions)
    net.refresh()


def _modules(net: nn.Module, names: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    return ((name, net.get_submodule(name)) for name in names)


def _check_kept(group: ChannelGroup, kept: Tensor, channels: int) -> None:
    rising = kept.dtype == torch.int64 and kept.ndim == 1 and bool((kept.diff() > 0).all())
    if not rising or len(kept) == 0 or int(kept[0]) < 0 or int(kept[-1]) >= channels:
        raise ValueError(
            f"group '{group.name}': kept must be ascending int64 channels within "
            f"0..{channels - 1}, got {kept.tolist()}"
        )


def _check_channels(name: str, module: nn.Module, channels: int) -> None:
    is_norm = isinstance(module, nn.BatchNorm2d)
    found = module.num_features if is_norm else module.out_channels
    if found != channels:
        raise ValueError(f"'{name}' must have the group's {channels} channels, has {found}")


def _check_operands(name: str, module: nn.Module, operands: int) -> None:
    found = module.in_features if isinstance(module, nn.Linear) else module.in_channels
    if found != operands:
        raise ValueError(f"'{name}' must read the group's {operands} operands, reads {found}")


def _select(module: nn.Module, name: str, kept: Tensor) -> None:
    """Keep rows of a parameter or buffer; None stays None."""
    value = getattr(module, name)
    if value is None:
        return
    rows = value.index_select(0, kept.to(value.device))
    if isinstance(value, nn.Parameter):
        rows = nn.Parameter(rows, requires_grad=value.requires_grad)
    setattr(module, name, rows)


def _keep_channels(module: nn.Module, kept: Tensor) -> None:
    """Cut the output channels of a convolution, or all channels of a depthwise one or BatchNorm."""
    for name in ("weight", "bias"):
        _select(module, name, kept)
    if isinstance(module, nn.BatchNorm2d):
        for name in ("running_mean", "running_var"):
            _select(module, name, kept)
        module.num_features = len(kept)
        return
    if module.groups > 1:  # depthwise
        module.groups = module.in_channels = len(kept)
    module.out_channels = len(kept)


def _keep_operands(module: nn.Module, kept: Tensor, positions: int) -> None:
    """Cut the input channels of a convolution or linear layer."""
    old = module.weight
    by_channel = old.reshape(len(old), -1, positions, *old.shape[2:])  # oc, c, positions, kh, kw
    cut = by_channel.index_select(1, kept.to(old.device)).flatten(1, 2)
    module.weight = nn.Parameter(cut, requires_grad=old.requires_grad)
    if isinstance(module, nn.Linear):
        module.in_features = cut.shape[1]
    else:
        module.in_channels = cut.shape[1]
