# SPDX-License-Identifier: Apache-2.0
"""Widths that a quantized file fixes, in the place of those that a budget chooses."""

from __future__ import annotations

from collections.abc import Sequence

from quant.allocate.bits import Choice, choices_of
from quant.network.quantization import Quantization
from winnow.config import Config
from winnow.errors import ConfigError


def given_choices(config: Config, given: Quantization, names: Sequence[str]) -> dict[str, Choice]:
    """Return the widths of every layer of `names`: the file's, the widest where it has none.

    Operands take the widest of quantize.operand_bits. Raises ConfigError where the configuration
    says something else than the file.
    """
    quantize, widest = config.quantize, choices_of(config)[-1]
    if quantize.budget_share:
        raise ConfigError(
            f"quantize.budget_share must be 0 for '{given.file}', whose widths are fixed, got "
            f"{quantize.budget_share:g}"
        )
    for name, found in given.weights.items():
        if found.bits not in quantize.weight_bits:
            raise ConfigError(
                f"quantize.weight_bits must have {found.bits}, the width of '{name}' in "
                f"'{given.file}' (node '{found.node}'), got {list(quantize.weight_bits)}"
            )
    if given.maps and given.map_bits != quantize.activation_bits:
        node = next(found.node for found in given.maps if found.bits == given.map_bits)
        raise ConfigError(
            f"quantize.activation_bits must be {given.map_bits}, the width of the maps in "
            f"'{given.file}' (node '{node}'), got {quantize.activation_bits}"
        )
    bits = {name: found.bits for name, found in given.weights.items()}
    return {name: Choice(bits.get(name, widest.weight), widest.operand) for name in names}
