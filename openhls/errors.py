# SPDX-License-Identifier: Apache-2.0
"""What a user of openhls can do wrong."""

from __future__ import annotations

from winnow.errors import WinnowError


class HlsError(WinnowError):
    """C++ outside the supported subset, or a dataflow region that cannot be wired."""
