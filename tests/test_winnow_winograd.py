# SPDX-License-Identifier: Apache-2.0
"""The Winograd matrices against direct convolution, in exact integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from winnow.fixed_point import IntArray
from winnow.winograd import KERNEL, TILE_SIZES, winograd

G_SCALE = {2: 2, 4: 24}  # makes every entry of G an integer


def tiles(edge: int) -> st.SearchStrategy[IntArray]:
    return arrays(np.int64, (edge, edge), elements=st.integers(-255, 255))


def direct(d: IntArray, g: IntArray, m: int) -> IntArray:
    return np.array(
        [[(d[y : y + KERNEL, x : x + KERNEL] * g).sum() for x in range(m)] for y in range(m)]
    )


@given(data=st.data(), m=st.sampled_from(TILE_SIZES))
def test_identity_is_exact(data: st.DataObject, m: int) -> None:
    matrices = winograd(m)
    d, g = data.draw(tiles(matrices.alpha)), data.draw(tiles(KERNEL))
    scaled = np.round(matrices.g * G_SCALE[m]).astype(np.int64)
    product = (scaled @ g @ scaled.T) * (matrices.b_t @ d @ matrices.b_t.T)
    y = matrices.a_t @ product @ matrices.a_t.T
    np.testing.assert_array_equal(y, direct(d, g, m) * G_SCALE[m] ** 2)


@pytest.mark.parametrize("m", TILE_SIZES)
def test_g_is_integer_when_scaled(m: int) -> None:
    scaled = winograd(m).g * G_SCALE[m]
    np.testing.assert_allclose(scaled, np.round(scaled), atol=1e-14)


@given(data=st.data(), m=st.sampled_from(TILE_SIZES))
def test_kron_forms_are_the_transforms(data: st.DataObject, m: int) -> None:
    matrices = winograd(m)
    d = data.draw(tiles(matrices.alpha))
    v = matrices.b_t @ d @ matrices.b_t.T
    np.testing.assert_array_equal(matrices.input_kron @ d.reshape(-1), v.reshape(-1))
    y = matrices.a_t @ d @ matrices.a_t.T
    np.testing.assert_array_equal(matrices.output_kron @ d.reshape(-1), y.reshape(-1))


@pytest.mark.parametrize(("m", "alpha"), [(2, 4), (4, 6)])
def test_sizes(m: int, alpha: int) -> None:
    matrices = winograd(m)
    assert (matrices.alpha, matrices.num_taps) == (alpha, alpha**2)
    assert matrices.b_t.shape == (alpha, alpha)
    assert matrices.g.shape == (alpha, KERNEL)
    assert matrices.a_t.shape == (m, alpha)


def test_other_tiles_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"^output tile m must be one of \(2, 4\), got 3$"):
        winograd(3)
