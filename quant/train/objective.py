# SPDX-License-Identifier: Apache-2.0
"""What training minimises: any loss, and losses whose temperature follows the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from winnow.config import DistillConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher || student) of logits softened by T, mean over the batch."""
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def hard_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return cross entropy of logits [n, classes], or mean squared error of values [n, k]."""
    if labels.is_floating_point():
        return F.mse_loss(outputs, labels.to(outputs.dtype))
    return F.cross_entropy(outputs, labels)


def temperature_at(config: DistillConfig, epoch: int, epochs: int) -> float:
    """Return the temperature of an epoch: `temperature` in the first, the end's in the last."""
    progress = epoch / max(1, epochs - 1)
    if config.schedule == "constant":
        return config.temperature
    if config.schedule == "cosine":
        progress = 0.5 * (1 - math.cos(math.pi * progress))
    return config.temperature + progress * (config.temperature_end - config.temperature)


class Scheduled:
    """A loss whose temperature follows the epochs; takes inputs and labels.

    It depends on nothing but the epoch, so a resumed run goes on with the same numbers.
    """

    def __init__(self, config: DistillConfig) -> None:
        self.config = config
        self.temperature = config.temperature

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the temperature of one of `epochs` epochs, counted from 0."""
        self.temperature = temperature_at(self.config, epoch, epochs)

    def with_teacher(self, logits: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
        """Return (1 - soft) * cross entropy + soft * KL, all logits [n, classes].

        Of values both are mean squared errors.
        """
        hard = hard_loss(logits, labels)
        if labels.is_floating_point():
            soft = F.mse_loss(logits, teacher)
        else:
            soft = soft_cross_entropy(logits, teacher, self.temperature)
        return (1 - self.config.soft) * hard + self.config.soft * soft

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError
