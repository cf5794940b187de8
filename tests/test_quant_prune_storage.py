# SPDX-License-Identifier: Apache-2.0
"""SPM: what is packed comes back, in as many bytes as are counted."""

from __future__ import annotations

import numpy as np
import pytest

from quant.prune.storage import index_bits, pack, spm_bits, srbs_bits, unpack


def random_case(seed: int, count: int, places: int, kernels: int) -> tuple[np.ndarray, np.ndarray]:
    """Patterns [count, 9] and int8 kernels [kernels, 9] that have them."""
    generator = np.random.default_rng(seed)
    patterns: list[list[bool]] = []
    while len(patterns) < count:
        row = np.zeros(9, dtype=bool)
        row[generator.permutation(9)[:places]] = True
        if row.tolist() not in patterns:
            patterns.append(row.tolist())
    chosen = np.array(patterns)[generator.integers(0, count, size=kernels)]
    return np.array(patterns), (generator.integers(-127, 128, (kernels, 9)) * chosen).astype(
        np.int8
    )


@pytest.mark.parametrize("count", [1, 2, 5, 8, 16, 33])
@pytest.mark.parametrize("places", [2, 4])
def test_packed_kernels_come_back(count: int, places: int) -> None:
    patterns, kernels = random_case(count, count, places, 77)
    spm = pack(kernels, patterns)
    back = unpack(spm)
    assert back.dtype == np.int8
    np.testing.assert_array_equal(back, kernels)
    assert spm.values.shape == (77, places)
    assert len(spm.indices) == -(-77 * index_bits(count) // 8)
    size = 77 * index_bits(count) + 8 * spm.values.nbytes + patterns.size
    assert spm.bits(8) == size


def test_layout_is_that_of_the_document() -> None:
    patterns = np.zeros((16, 9), dtype=bool)
    for row in range(16):
        patterns[row, [0, 2, 3 + row % 6]] = True  # others, which the kernel does not fit
    patterns[3] = np.array([0, 1, 0, 1, 0, 0, 0, 0, 1], dtype=bool)
    spm = pack(np.array([[0, 5, 0, 7, 0, 0, 0, 0, 0]] * 3), patterns)
    assert spm.indices == bytes([0b0011_0011, 0b0011_0000])
    assert spm.values.tolist() == [[5, 7, 0]] * 3


def test_one_damaged_index_bit_is_seen() -> None:
    patterns, kernels = random_case(0, 8, 4, 20)
    kernels[:, :] = np.where(kernels == 0, 0, 1)  # so that a place decides
    spm = pack(patterns.astype(np.int8), patterns)
    damaged = bytes([spm.indices[0] ^ 0x80]) + spm.indices[1:]
    object.__setattr__(spm, "indices", damaged)
    assert (unpack(spm) != patterns).any(axis=1).tolist() == [True] + [False] * 7


def test_kernel_outside_the_patterns_is_rejected() -> None:
    patterns, kernels = random_case(1, 4, 3, 9)
    kernels[5] = 1
    with pytest.raises(ValueError, match=r"^kernel 5 must fit a pattern, has weights outside of"):
        pack(kernels, patterns)


@pytest.mark.parametrize(("choices", "bits"), [(1, 0), (2, 1), (3, 2), (8, 3), (9, 4), (126, 7)])
def test_index_bits(choices: int, bits: int) -> None:
    assert index_bits(choices) == bits


def test_sizes_by_hand() -> None:
    assert spm_bits(100, 4, 16, 8) == 100 * (4 + 32) + 16 * 9
    assert srbs_bits(100 * 4, 8, 8) == 100 * 4 * 11
    assert srbs_bits(100 * 4, 16, 8) == 100 * 4 * 12
