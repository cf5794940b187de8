# SPDX-License-Identifier: Apache-2.0
"""Networks for the Winnow engine: `DATA` is for `engine.load_profiles`, `BIT` their bitstream.

BIT is None where the bitstream was not packed; the one of the same build is needed then.
"""

from pathlib import Path

DATA = Path(__file__).parent / "data"
BIT = next(DATA.glob("*.bit"), None) if DATA.is_dir() else None
