# SPDX-License-Identifier: Apache-2.0
"""Distillation losses: from the network's own deepest classifier, and from an fp32 teacher.

Self-distillation follows Be Your Own Teacher (Zhang et al., ICCV 2019, eq. 7): every shallow exit
learns from the labels, from the deepest classifier's softened output (KL), and from the deepest
feature map through its bottleneck (L2 hint).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.models.chain import ChainNet
from winnow.config import DistillConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher || student) of logits softened by T, mean over the batch."""
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def _with_teacher(logits: Tensor, labels: Tensor, teacher: Tensor, config: DistillConfig) -> Tensor:
    hard = F.cross_entropy(logits, labels)
    soft = soft_cross_entropy(logits, teacher, config.temperature)
    return (1 - config.soft) * hard + config.soft * soft


def self_distillation(net: ChainNet, config: DistillConfig) -> Loss:
    """Return the loss of the fp32 network with its exits; takes inputs and labels."""

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        logits, feature, shallow = net.with_exits(x)
        total = F.cross_entropy(logits, labels)
        for exit_logits, exit_feature in shallow:
            total = total + _with_teacher(exit_logits, labels, logits.detach(), config)
            distance = (exit_feature - feature.detach()).square().flatten(1).sum(1).mean()
            total = total + config.hint * distance
        return total

    return loss


def distillation(net: nn.Module, teacher: nn.Module, config: DistillConfig) -> Loss:
    """Return the loss of a student `net` under a fixed `teacher`; takes inputs and labels."""
    teacher.eval()

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher(x)
        return _with_teacher(net(x), labels, target, config)

    return loss
