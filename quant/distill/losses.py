# SPDX-License-Identifier: Apache-2.0
"""Distillation losses: from the network's own deepest classifier, and from an fp32 teacher.

Self-distillation follows Be Your Own Teacher (Zhang et al., ICCV 2019, eq. 7): every shallow exit
learns from the labels, from the deepest classifier's softened output (KL), and, if it has a
bottleneck, from the deepest feature map through that (L2 hint). A teacher adds its own softened
output (Hinton et al. 2015) and, if asked, the attention maps of its blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quant.distill.features import attention_distance
from quant.network.network import Network, has_bottleneck
from quant.network.structure import block_ends
from quant.train.objective import Scheduled, hard_loss
from winnow.config import DistillConfig


class Distillation(Scheduled):
    """The loss of a student under a fixed teacher, and of its blocks if `config.feature`."""

    def __init__(self, net: Network, teacher: Network, config: DistillConfig) -> None:
        super().__init__(config)
        self.net, self.teacher = net, teacher
        teacher.eval()
        self.blocks = block_ends(net.graph) if config.feature else []
        self.teacher_blocks = block_ends(teacher.graph) if config.feature else []

    def against_teacher(
        self, x: Tensor, labels: Tensor, logits: Tensor, maps: list[Tensor]
    ) -> Tensor:
        """Return the loss of the student's logits and block maps for inputs x."""
        wanted = [self.teacher.graph.output, *self.teacher_blocks]
        with torch.no_grad():
            target, *teacher_maps = self.teacher.run(x, wanted)
        total = self.with_teacher(logits, labels, target)
        for ours, theirs in zip(maps, teacher_maps, strict=True):
            total = total + self.config.feature * attention_distance(ours, theirs)
        return total

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        logits, *maps = self.net.run(x, [self.net.graph.output, *self.blocks])
        return self.against_teacher(x, labels, logits, maps)


class SelfDistillation(Scheduled):
    """The loss of an fp32 network: its deepest classifier learns from the labels, and from a
    teacher if there is one; its exits, if any, from the deepest classifier."""

    def __init__(self, net: Network, config: DistillConfig, teacher: Network | None = None) -> None:
        super().__init__(config)
        self.net = net
        # Without a bottleneck of its own an exit's map is one of the network's.
        self.hints = [has_bottleneck(net.graph, name) for name, _ in net.graph.exits]
        self.deepest = Distillation(net, teacher, config) if teacher is not None else None

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        super().begin_epoch(epoch, epochs)
        if self.deepest is not None:
            self.deepest.begin_epoch(epoch, epochs)

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        blocks = self.deepest.blocks if self.deepest else []
        ((logits, feature), *shallow), maps = self.net.with_exits(x, blocks)
        if self.deepest is None:
            total = hard_loss(logits, labels)
        else:
            total = self.deepest.against_teacher(x, labels, logits, maps)
        for (exit_logits, exit_feature), hint in zip(shallow, self.hints, strict=True):
            total = total + self.with_teacher(exit_logits, labels, logits.detach())
            if not hint:
                continue
            distance = (exit_feature - feature.detach()).square().flatten(1).sum(1).mean()
            total = total + self.config.hint * distance
        return total


def self_distillation(
    net: Network, config: DistillConfig, teacher: Network | None = None
) -> SelfDistillation:
    """Return the loss of the fp32 network with its exits; takes inputs and labels."""
    return SelfDistillation(net, config, teacher)


def distillation(net: Network, teacher: Network, config: DistillConfig) -> Distillation:
    """Return the loss of a student `net` under a fixed `teacher`; takes inputs and labels."""
    return Distillation(net, teacher, config)
