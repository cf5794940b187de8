# SPDX-License-Identifier: Apache-2.0
"""How many bits the numbers of a quantized layer have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BitWidths:
    """Bits of a layer's numbers; `output` is None for raw accumulators, `relu` picks unsigned."""

    weight: int
    operand: int
    output: int | None
    relu: bool = True
