# SPDX-License-Identifier: Apache-2.0
"""The methods of `shrink.method` but "none"."""

from __future__ import annotations

from collections.abc import Callable

from quant.shrink.cascade import cascade
from quant.shrink.structure import structure
from quant.shrink.task import Shrunk, Task

METHODS: dict[str, Callable[[Task], Shrunk]] = {"structure": structure, "cascade": cascade}
