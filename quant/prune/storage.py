# SPDX-License-Identifier: Apache-2.0
"""What pruned 3x3 convolutions take in memory, and the packing of pattern-pruned ones.

SPM (sparsity pattern mask; PCNN, Tan et al., DAC 2020): a layer stores its few patterns once, and
per kernel a pattern's index in ceil(log2(patterns)) bits and the values in it, row by row, of which
every kernel has the same number.

    kernel 0 5 0    pattern 3 of 16: 0 1 0    index 0011, values 5 7 0
           7 0 0                     1 0 0    (a value in the pattern may be zero)
           0 0 0                     0 0 1

SRBS stores the value and its place in the sub-row for each weight that is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIXELS = 9  # of a 3x3 kernel
WEIGHT_BITS = 8  # of the weights whose storage is counted


def index_bits(choices: int) -> int:
    """Return the bits that tell one of `choices` things."""
    return (choices - 1).bit_length()


@dataclass(frozen=True, eq=False)
class Spm:
    """A layer's kernels packed as sparsity pattern masks.

    Members:
        patterns: bool [patterns, 9], each with the same number of places.
        indices: bytes with the pattern's index of one kernel after another, highest bit first.
        values: [kernels, places of a pattern], of the kernels' type.
    """

    patterns: NDArray[np.bool_]
    indices: bytes
    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """How many patterns there are, and how many places each has."""
        return len(self.patterns), self.values.shape[1]

    @property
    def index(self) -> NDArray[np.int64]:
        """The number of every kernel's pattern."""
        width, count = index_bits(len(self.patterns)), len(self.values)
        bits = np.unpackbits(np.frombuffer(self.indices, np.uint8), count=count * width)
        weights = 1 << np.arange(width)[::-1]
        return bits.reshape(count, width).astype(np.int64) @ weights

    def bits(self, weight_bits: int) -> int:
        """Return the size with values of `weight_bits`."""
        return spm_bits(len(self.values), self.values.shape[1], len(self.patterns), weight_bits)


def spm_bits(kernels: int, places: int, patterns: int, weight_bits: int) -> int:
    """Return the bits of `kernels` with `places` values each, and of their `patterns`."""
    return kernels * (index_bits(patterns) + places * weight_bits) + patterns * PIXELS


def srbs_bits(weights: int, sub_row: int, weight_bits: int) -> int:
    """Return the bits of `weights` kept in sub-rows of that length."""
    return weights * (index_bits(sub_row) + weight_bits)


def pack(kernels: NDArray[Any], patterns: NDArray[np.bool_]) -> Spm:
    """Return kernels [kernels, 9] packed as sparsity pattern masks.

    Raises ValueError for a kernel with a weight outside every pattern.
    """
    outside = (kernels != 0).astype(np.int64) @ (~patterns).T.astype(np.int64)
    misfits = np.flatnonzero(outside.min(axis=1))
    if misfits.size:
        raise ValueError(f"kernel {misfits[0]} must fit a pattern, has weights outside of each")
    index = outside.argmin(axis=1)  # the first that fits
    places = patterns.nonzero()[1].reshape(len(patterns), -1)
    values = np.take_along_axis(kernels, places[index], axis=1)
    shifts = np.arange(index_bits(len(patterns)))[::-1]
    indices = np.packbits((index[:, None] >> shifts & 1).astype(np.uint8)).tobytes()
    return Spm(patterns, indices, values)


def unpack(spm: Spm) -> NDArray[Any]:
    """Return the kernels [kernels, 9]."""
    places = spm.patterns.nonzero()[1].reshape(len(spm.patterns), -1)
    kernels = np.zeros((len(spm.values), PIXELS), dtype=spm.values.dtype)
    np.put_along_axis(kernels, places[spm.index], spm.values, axis=1)
    return kernels
