# SPDX-License-Identifier: Apache-2.0
"""Knowledge distillation: docs/compression.md."""

from quant.distill.losses import (
    Loss,
    Scheduled,
    distillation,
    self_distillation,
    soft_cross_entropy,
)

__all__ = ["Loss", "Scheduled", "distillation", "self_distillation", "soft_cross_entropy"]
