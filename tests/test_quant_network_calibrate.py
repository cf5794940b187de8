# SPDX-License-Identifier: Apache-2.0
"""The choice of scales: least squared error over all values, wherever in a map they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from quant.network.calibrate import best_exponents, grid_exponent
from winnow.fixed_point import int_range


def maps_with_dark_corners(seed: int) -> Tensor:
    """Maps [256, 32, 16, 16] with a long tail; the pixel in the corner stays near 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(256, 32, 16, 16, generator=generator).relu() ** 2
    x[:, :, 0, 0] *= 2.0**-6
    return x


@pytest.mark.parametrize("bits", [4, 8])
def test_exponent_has_the_least_error_over_all_values(bits: int) -> None:
    x = maps_with_dark_corners(bits)
    low, high = int_range(bits, signed=False)
    every = x.double().numpy().ravel()
    errors = {}
    for exponent in range(-16, 8):
        scale = 2.0**exponent
        held = np.clip(np.rint(every / scale), low, high) * scale
        errors[exponent] = np.square(held - every).mean()
    (found,) = best_exponents(x.reshape(1, -1), (low, high)).tolist()
    assert errors[found] <= 1.02 * min(errors.values()), (found, errors)


def test_rows_have_their_own_exponents() -> None:
    x = maps_with_dark_corners(1).reshape(1, -1)
    both = best_exponents(torch.cat([x, 8 * x]), (0, 255)).tolist()
    assert both[1] == both[0] + 3


def test_grid_is_that_of_all_pixels() -> None:
    x = (maps_with_dark_corners(2) * 64).round() / 64
    x[:, :, 0, 0] = 0
    assert grid_exponent(x) == -6
