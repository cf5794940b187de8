# SPDX-License-Identifier: Apache-2.0
"""Winograd minimal filtering F(m x m, 3 x 3), m = 2 or 4 (Lavin & Gray 2016, section 4).

    y = A^T [ (G g G^T) * (B^T d B) ] A

`d` is an alpha x alpha input tile, `g` the 3 x 3 kernel, `y` the m x m output tile and
alpha = m + 2. B and A hold integers, so both transforms are exact; G does not, so the product
`U = G g G^T` is where weights are quantized. A *tap* is one of the alpha^2 positions of the
Winograd domain, numbered row * alpha + column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

KERNEL = 3
TILE_SIZES = (2, 4)

_B_T = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    4: [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
}
_G = {
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
}
_A_T = {
    2: [[1, 1, 1, 0], [0, 1, -1, -1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}


@dataclass(frozen=True, eq=False)
class WinogradMatrices:
    """The three matrices of F(m, 3).

    Members: `b_t` [alpha, alpha] int64, `g` [alpha, 3] float64, `a_t` [m, alpha] int64.
    """

    m: int
    b_t: NDArray[np.int64]
    g: NDArray[np.float64]
    a_t: NDArray[np.int64]

    @property
    def alpha(self) -> int:
        return self.m + KERNEL - 1

    @property
    def num_taps(self) -> int:
        return self.alpha**2

    @property
    def input_kron(self) -> NDArray[np.int64]:
        """[alpha^2, alpha^2]: row-major vec(B^T d B) = input_kron @ vec(d)."""
        return np.kron(self.b_t, self.b_t)

    @property
    def output_kron(self) -> NDArray[np.int64]:
        """[m^2, alpha^2]: row-major vec(A^T M A) = output_kron @ vec(M)."""
        return np.kron(self.a_t, self.a_t)


@cache
def winograd(m: int) -> WinogradMatrices:
    """Return the matrices of F(m, 3); `m` is 2 or 4, else ValueError."""
    if m not in TILE_SIZES:
        raise ValueError(f"output tile m must be one of {TILE_SIZES}, got {m}")
    return WinogradMatrices(
        m,
        np.array(_B_T[m], dtype=np.int64),
        np.array(_G[m], dtype=np.float64),
        np.array(_A_T[m], dtype=np.int64),
    )
