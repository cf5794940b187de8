# SPDX-License-Identifier: Apache-2.0
"""How sure a network is: nearly the softmax, and exactly the same in the flow and on a board."""

from __future__ import annotations

import decimal

import numpy as np
import pytest

from deploy.driver.winnow_pynq import exits as driver
from winnow import confidence as flow

EXPONENTS = (-70, -40, -31, -30, -29, -20, -12, -5, 0, 1, 5, 33, 70)


def logits_of(exponent: int, classes: int = 10) -> np.ndarray:
    """Logits of 32 bits, of every size."""
    rng = np.random.default_rng(exponent + 100)
    wide = rng.integers(-(1 << 31), 1 << 31, (300, classes))
    return wide >> rng.integers(0, 32, (300, 1))


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_it_is_the_largest_softmax_probability(exponent: int) -> None:
    results = logits_of(exponent)
    logits = results * 2.0**exponent
    shares = np.exp(logits - logits.max(1, keepdims=True))
    found = flow.confidence(results, exponent)
    assert np.abs(found - 1 / shares.sum(1)).max() < 1e-7
    assert found.max() <= 1


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_flow_and_driver_agree_in_every_bit(exponent: int) -> None:
    results = logits_of(exponent)
    found = flow.confidence(results, exponent)
    assert np.array_equal(found, driver.confidence(results, exponent))
    assert np.array_equal(found, flow.confidence_of(results * 2.0**exponent))
    finer = flow.confidence(results << 7, exponent - 7)  # the same logits
    assert np.array_equal(found, finer)


def test_constants_do_not_depend_on_the_machine_nor_on_its_settings() -> None:
    assert flow.FACTORS == driver.FACTORS
    assert (flow.FACTORS[0], flow.FACTORS[30], flow.FACTORS[34]) == ((1 << 30) - 1, 395007542, 120)
    with decimal.localcontext() as context:
        context.prec = 3
        assert flow._exactly.exp(decimal.Decimal(-1)) != context.exp(decimal.Decimal(-1))


def test_alike_classes_share_and_a_far_one_counts_nothing() -> None:
    assert flow.confidence(np.array([[5, 5], [5, 5]]), 0).tolist() == [0.5, 0.5]
    assert flow.confidence(np.array([[0, -(1 << 31)]]), 20).tolist() == [1.0]
