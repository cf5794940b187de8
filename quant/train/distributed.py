# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training: every process computes a share of the batch, gradients are averaged.

    torchrun --nproc-per-node 2 -m quant train --config configs/NAME.toml --out build/NAME

All processes hold the same weights; the first one writes the files. BatchNorm takes the statistics
of a process's own share, and the running ones of the first process are kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from winnow.errors import ConfigError
from winnow.process import end_with_parent


@dataclass(frozen=True)
class World:
    """This process's number and how many there are; alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def part(self, chosen: Tensor) -> Tensor:
        """Return this process's share of a batch's indices; all shares are equally large."""
        return chosen[: len(chosen) // self.size * self.size][self.rank :: self.size]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over all processes."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def share(self, model: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            for value in model.state_dict().values():
                dist.broadcast(value, 0)


def join(device: torch.device) -> World:
    """Join the processes that torchrun started; alone when it did not.

    Raises ConfigError when there are more processes on this machine than CUDA devices.
    """
    if "RANK" not in os.environ:
        return World()
    end_with_parent()
    local, size = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    if device.type == "cuda":
        devices = torch.cuda.device_count()
        if local >= devices:
            raise ConfigError(
                f"--nproc-per-node must be at most {devices}, the CUDA devices of this machine, "
                f"got at least {local + 1}"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(int(os.environ["RANK"]), size)


def leave(world: World) -> None:
    """End the group that `join` made."""
    if world.size > 1:
        dist.destroy_process_group()
