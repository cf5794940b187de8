# SPDX-License-Identifier: Apache-2.0
"""The FPGAs that the flow knows: what each device has, and what a part's name says.

    xc7z020clg400-1 = device xc7z020, package clg400, speed grade 1

Numbers are those of the Zynq-7000 data sheet DS190. Mapping and timing are of the 7 series only, so
other families are refused by name. The table is the one place for a new device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from winnow.errors import ConfigError, shown

EXAMPLE = "xc7z020clg400-1"
ARTIX, KINTEX = "Artix-7", "Kintex-7"  # fabrics
TIMED = (ARTIX, "1")  # fabric and speed grade whose delays openhls/timing.py has


@dataclass(frozen=True)
class Resources:
    """LUTs, flip-flops, DSP blocks, block RAMs of 36 Kbit (an 18 Kbit one counts half)."""

    lut: float = 0
    ff: float = 0
    dsp: float = 0
    bram: float = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.lut + other.lut, self.ff + other.ff, self.dsp + other.dsp, self.bram + other.bram
        )

    def times(self, count: int) -> Resources:
        """Return the resources of `count` instances."""
        return Resources(self.lut * count, self.ff * count, self.dsp * count, self.bram * count)


@dataclass(frozen=True, slots=True)
class Device:
    """A die: what it has, and which 7-series fabric it is made of."""

    fabric: str
    resources: Resources


@dataclass(frozen=True, slots=True)
class Part:
    """A device in a package and a speed grade, as the vendor's tools name it."""

    name: str
    device: Device
    grade: str

    @property
    def is_timed(self) -> bool:
        """Whether the delays of openhls/timing.py are this part's own."""
        return (self.device.fabric, self.grade) == TIMED


DEVICES = {
    "xc7z007s": Device(ARTIX, Resources(14400, 28800, 66, 50)),
    "xc7z012s": Device(ARTIX, Resources(34400, 68800, 120, 72)),
    "xc7z014s": Device(ARTIX, Resources(40600, 81200, 170, 107)),
    "xc7z010": Device(ARTIX, Resources(17600, 35200, 80, 60)),
    "xc7z015": Device(ARTIX, Resources(46200, 92400, 160, 95)),
    "xc7z020": Device(ARTIX, Resources(53200, 106400, 220, 140)),
    "xc7z030": Device(KINTEX, Resources(78600, 157200, 400, 265)),
    "xc7z035": Device(KINTEX, Resources(171900, 343800, 900, 500)),
    "xc7z045": Device(KINTEX, Resources(218600, 437200, 900, 545)),
    "xc7z100": Device(KINTEX, Resources(277400, 554800, 2020, 755)),
}
_NAME = re.compile(r"(x[aqck][a-z0-9]*)((?:-[a-z0-9]+)+)?")
_PART = re.compile(r"(xc7z\d{3}s?)i?((?:cl|sb|fb|ff)[gv]\d{3})-(\d)([a-z]?)")
_ULTRASCALE_PLUS = re.compile(r"x[aqc](zu|ku\d+p|vu\d+p|au)|xck\d")


def find_part(name: str) -> Part:
    """Return the part of a name such as xc7z020clg400-1; ConfigError says which there are."""
    known = f"known devices are {', '.join(DEVICES)}; an example is {EXAMPLE}"
    lower = name.lower()
    if not name.isascii() or not _NAME.fullmatch(lower):
        raise ConfigError(
            f"target.part must be the name of an AMD part, such as {EXAMPLE}, got {shown(name)}; "
            f"{known}"
        )
    if _ULTRASCALE_PLUS.match(lower):
        raise ConfigError(
            f"target.part {shown(name)} is UltraScale+, which is not supported until it is mapped "
            f"and timed as its own family; {known}"
        )
    match = _PART.fullmatch(lower)
    if match is None or match.group(1) not in DEVICES:
        raise ConfigError(
            f"target.part must be a Zynq-7000 device with package and speed grade, such as "
            f"{EXAMPLE}, got {shown(name)}; {known}"
        )
    return Part(lower, DEVICES[match.group(1)], match.group(3) + match.group(4))


def timing_note(name: str) -> str:
    """Return what the timing estimate of a part leaves out; empty where it is the part's own."""
    part = find_part(name)
    if part.is_timed:
        return ""
    return (
        f"the estimate is for speed grade -{TIMED[1]} of the {TIMED[0]} fabric; {part.name} is "
        f"grade -{part.grade} of the {part.device.fabric} fabric"
    )
