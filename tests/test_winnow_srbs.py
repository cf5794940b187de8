# SPDX-License-Identifier: Apache-2.0
"""Sub-row-balanced sparsity: the mask keeps the best of every sub-row, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.srbs import SUB_ROW, max_keep, num_sub_rows, srbs_mask, to_sub_rows


def scores(seed: int, channels: int, taps: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 4, size=(3, channels, taps)).astype(float)


@given(
    seed=st.integers(0, 1000),
    channels=st.integers(1, 30),
    taps=st.integers(1, 4),
    keep=st.integers(1, SUB_ROW),
)
def test_mask_keeps_the_highest_of_every_sub_row(
    seed: int, channels: int, taps: int, keep: int
) -> None:
    score = scores(seed, channels, taps)
    mask = srbs_mask(score, keep)
    assert mask.shape == score.shape
    for oc, start, tap in np.ndindex(3, num_sub_rows(channels), taps):
        part = slice(start * SUB_ROW, (start + 1) * SUB_ROW)
        row, kept = score[oc, part, tap], mask[oc, part, tap]
        best = sorted(range(len(row)), key=lambda channel: (-row[channel], channel))[:keep]
        assert sorted(best) == np.flatnonzero(kept).tolist()


@given(seed=st.integers(0, 1000), channels=st.integers(1, 40), length=st.sampled_from((8, 16)))
def test_every_tap_may_keep_its_own_number(seed: int, channels: int, length: int) -> None:
    keeps = np.random.default_rng(seed + 1).integers(1, length + 1, size=4)
    score = scores(seed, channels, 4)
    mask = srbs_mask(score, keeps, length)
    for oc, start, tap in np.ndindex(3, num_sub_rows(channels, length), 4):
        part = slice(start * length, (start + 1) * length)
        row, kept = score[oc, part, tap], mask[oc, part, tap]
        best = sorted(range(len(row)), key=lambda channel: (-row[channel], channel))[: keeps[tap]]
        assert sorted(best) == np.flatnonzero(kept).tolist()


@given(seed=st.integers(0, 1000), channels=st.integers(1, 30), keep=st.integers(1, SUB_ROW))
def test_masked_weights_have_that_keep(seed: int, channels: int, keep: int) -> None:
    mask = srbs_mask(scores(seed, channels, 2), keep)
    assert max_keep(mask) == min(keep, channels)


def test_hopeless_scores_still_beat_the_padding() -> None:
    assert srbs_mask(np.full((1, 3, 1), -np.inf), 3).all()


@pytest.mark.parametrize("keep", [0, 9, -1])
def test_keep_out_of_range_is_rejected(keep: int) -> None:
    with pytest.raises(ValueError, match=rf"^keep must be 1..8, got {keep}$"):
        srbs_mask(np.zeros((1, 8, 1)), keep)


def test_one_keep_per_tap_out_of_range_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"^keep must be 1..16, got \[ 3 17\]$"):
        srbs_mask(np.zeros((1, 8, 2)), np.array([3, 17]), 16)


def test_sub_rows_are_padded_with_zeros() -> None:
    weight = np.arange(1, 19).reshape(1, 9, 2)
    rows = to_sub_rows(weight)
    assert rows.shape == (1, 2, SUB_ROW, 2)
    np.testing.assert_array_equal(rows.reshape(1, 16, 2)[:, :9], weight)
    assert not rows.reshape(1, 16, 2)[:, 9:].any()


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_num_sub_rows(channels: int, expected: int) -> None:
    assert num_sub_rows(channels) == expected


def test_max_keep_looks_at_the_worst_sub_row() -> None:
    weight = np.zeros((2, 16, 3))
    assert max_keep(weight) == 1  # an empty layer still needs one step
    weight[1, [7, 8], 2] = 1  # two sub-rows with one each
    assert max_keep(weight) == 1
    weight[0, 13:16, 1] = -1
    assert max_keep(weight) == 3
