# SPDX-License-Identifier: Apache-2.0
"""What a quantized file says of widths. Its integers are not taken over, and that is said.

Integers of 3x3 kernels are none of the Winograd domain: U = G g G^T of integers g needs scales and
rounding of its own. So stage `qat` starts from the file's float weights, at the file's widths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantizer:
    """A quantizer of a file: the name of its node, its bits, whether it has a sign."""

    node: str
    bits: int
    signed: bool


@dataclass(frozen=True)
class Quantization:
    """The quantizers of a file, by what they are for in the engine.

    Members:
        file: its name, for messages.
        weights: of the weights of layers, by record.
        maps: of results that the engine writes as maps.
        images: of the images, which are bytes here.
        left_out: of results that the engine does not round, or more finely.
        unquantized: layers whose weights have none.
    """

    file: str
    weights: Mapping[str, Quantizer]
    maps: tuple[Quantizer, ...]
    images: tuple[Quantizer, ...]
    left_out: tuple[Quantizer, ...]
    unquantized: tuple[str, ...] = ()

    @property
    def map_bits(self) -> int:
        """Bits of its widest map; 0 if it quantizes none."""
        return max((quantizer.bits for quantizer in self.maps), default=0)

    @property
    def summary(self) -> str:
        """What is taken of the file and what is not, in one line."""
        weights = " ".join(f"{name}={found.bits}" for name, found in self.weights.items())
        parts = [f"weights {weights}"] if weights else []
        parts += [f"maps {self.map_bits}"] if self.maps else []
        bits = f" and its bits ({', '.join(parts)})" if parts else ""
        return (
            f"'{self.file}' is quantized: its float weights{bits} are taken, its integers and "
            "scales are not: integers of kernels are none of the Winograd domain, so stage qat "
            "finds those of all layers anew"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What else differs from the file, a line each."""
        lines = []
        if self.unquantized:
            lines.append(
                f"weights of {_named([*self.unquantized])} have no quantizer there, here the "
                "widest of quantize.weight_bits"
            )
        narrow = [q.node for q in self.maps if q.bits < self.map_bits]
        if narrow:
            lines.append(f"maps of {_named(narrow)} are narrower there, here {self.map_bits} bits")
        if self.left_out:
            nodes = [quantizer.node for quantizer in self.left_out]
            lines.append(f"{_named(nodes)} left out: the engine keeps sums there, not a map")
        other = [q.node for q in self.images if q.bits != 8]
        if other:
            lines.append(f"{_named(other)} left out: images have 8 bits here")
        return tuple(lines)


def _named(nodes: list[str]) -> str:
    shown = ", ".join(f"'{node}'" for node in nodes[:3])
    return shown + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
