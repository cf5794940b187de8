# SPDX-License-Identifier: Apache-2.0
"""Errors a user of the flow can meet.

Every message is one line that says which thing is wrong, what it must be, what it was and what to
do. The command lines print `str(error)` and exit with code 1; any other exception is our own bug.
"""

from __future__ import annotations

from pathlib import Path


class WinnowError(Exception):
    """Base of all errors that are the input's fault, not the program's."""


class ConfigError(WinnowError):
    """A configuration file is missing, malformed or holds a value out of range."""


class ArtefactError(WinnowError):
    """A file of an earlier stage is missing, corrupt or belongs to another build."""


class GraphError(WinnowError):
    """An integer graph breaks the contract of `docs/ir.md`."""


class LoweringError(WinnowError):
    """A trained model cannot be expressed as an integer graph."""


class ScheduleError(WinnowError):
    """The engine cannot do a node of a graph, or does not hold a layer."""


class MismatchError(WinnowError):
    """Two rungs of the verification ladder disagree."""


class ToolError(WinnowError):
    """An external tool is missing or failed; keeps the command, exit code and log."""

    def __init__(
        self, message: str, command: str = "", exit_code: int = 0, log: Path | None = None
    ) -> None:
        super().__init__(message)
        self.command = command
        self.exit_code = exit_code
        self.log = log
