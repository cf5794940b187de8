# SPDX-License-Identifier: Apache-2.0
"""Integer programs that choose widths and channels, solved by HiGHS through scipy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

LARGEST = 1e6  # of the objective's numbers: the solver takes what differs by 1e-6 for equal


def solve(
    objective: NDArray[np.float64], rules: Sequence[LinearConstraint]
) -> NDArray[np.bool_] | None:
    """Return the zeros and ones with the least sum of `objective`; None if no ones obey the rules.

    The objective is scaled, so that only what differs by less than 1e-12 of its largest number
    counts as equal.
    """
    largest = float(np.abs(objective).max(initial=0.0))
    scaled = objective * (LARGEST / largest) if largest else objective
    solution = milp(
        scaled,
        constraints=rules,
        integrality=np.ones(objective.size),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    return None if solution.x is None else solution.x > 0.5
