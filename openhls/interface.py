# SPDX-License-Identifier: Apache-2.0
"""The pins of the top function, from its `#pragma HLS interface` lines.

    #pragma HLS interface mode = m_axi port = a bundle = gmem0 offset = slave
    #pragma HLS interface mode = s_axilite port = a bundle = control offset = 0x10
 -> Interface(masters={"a": "gmem0"}, registers=(ArgumentRegister("a", 0x10, 64),))

    #pragma openhls design = 0x123
 -> Interface.design, a number that tells designs apart: a register shows it

Register offsets follow the Vitis HLS layout: 0x00..0x0C are control, an argument takes
ceil(bits / 32) words and one reserved word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from openhls.errors import HlsError

FIRST_ARGUMENT = 0x10
POINTER_BITS = 64
RESULT_BITS = 32
WORD_BYTES = 4
_PRAGMA = re.compile(r"^\s*#\s*pragma\s+HLS\s+interface\b(.*)$", re.IGNORECASE | re.MULTILINE)
_DESIGN = re.compile(r"^\s*#\s*pragma\s+openhls\s+design\s*=\s*(\w+)", re.MULTILINE)
_OPTION = re.compile(r"(\w+)\s*=\s*(\w+)")


@dataclass(frozen=True)
class ArgumentRegister:
    """An argument in the AXI4-Lite registers; results are read-only."""

    name: str
    offset: int
    bits: int

    @property
    def word(self) -> int:
        """Position among the argument words, which start at FIRST_ARGUMENT."""
        return (self.offset - FIRST_ARGUMENT) // WORD_BYTES

    @property
    def words(self) -> int:
        return self.bits // 32


@dataclass(frozen=True)
class Interface:
    """AXI4 masters by argument, and the registers of all arguments in order of offset."""

    masters: Mapping[str, str]
    registers: tuple[ArgumentRegister, ...]
    design: int = 0

    @property
    def end_offset(self) -> int:
        """First offset after the arguments and the reserved word of the last one."""
        last = self.registers[-1]
        return last.offset + (last.words + 1) * WORD_BYTES


def parse_interface(source: str) -> Interface:
    """Read the interface pragmas of a file; raises HlsError for one that is not understood."""
    masters: dict[str, str] = {}
    offsets: dict[str, int] = {}
    for line in _PRAGMA.findall(source):
        options = {key.lower(): value for key, value in _OPTION.findall(line)}
        mode, port = options.get("mode"), options.get("port")
        if port is None or mode not in ("m_axi", "s_axilite"):
            raise HlsError(
                f"#pragma HLS interface{line}: must have port = NAME and mode = m_axi or s_axilite"
            )
        if mode == "m_axi":
            if "bundle" not in options:
                raise HlsError(f"#pragma HLS interface{line}: an m_axi port must name its bundle")
            masters[port] = options["bundle"]
        elif port != "return":
            if "offset" not in options:
                raise HlsError(f"#pragma HLS interface{line}: a register must state its offset")
            offsets[port] = int(options["offset"], 0)
    if len(set(masters.values())) != len(masters):
        raise HlsError("every m_axi port must have a bundle of its own")
    if not offsets:
        raise HlsError("the top function must have at least one s_axilite argument")
    registers = tuple(
        ArgumentRegister(name, offset, POINTER_BITS if name in masters else RESULT_BITS)
        for name, offset in sorted(offsets.items(), key=lambda item: item[1])
    )
    missing = masters.keys() - offsets.keys()
    if missing:
        raise HlsError(f"port '{min(missing)}' must have an s_axilite offset for its base address")
    design = _DESIGN.search(source)
    return Interface(masters, registers, int(design.group(1), 0) if design else 0)
