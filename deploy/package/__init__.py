# SPDX-License-Identifier: Apache-2.0
"""A network for the Winnow engine: `DATA` is its folder for `engine.load`, `BIT` its bitstream.

BIT is None where the bitstream was not packed; the one of the same build is needed then.
"""

from pathlib import Path

DATA = Path(__file__).parent / "data"
BIT = next(DATA.glob("*.bit"), None) if DATA.is_dir() else None
