# SPDX-License-Identifier: Apache-2.0
"""Knowledge distillation: docs/compression.md."""

from quant.distill.losses import distillation, self_distillation

__all__ = ["distillation", "self_distillation"]
