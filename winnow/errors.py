# SPDX-License-Identifier: Apache-2.0
"""Errors a user of the flow can meet.

Every message is one line that says which thing is wrong, what it must be, what it was and what to
do. The command lines print `str(error)` and exit with code 1; any other exception is our own bug.

A message repeats a value of the user's through `shown` or `shown_text`, so that no value, however
long or strange, makes it more than one short line.
"""

from __future__ import annotations

from pathlib import Path

SHOWN = 60  # characters of a user's value that a message repeats
_GAP = "..."


def shown(value: object) -> str:
    """Return a value as Python writes it, for a message: at most SHOWN characters in one line."""
    try:
        return shown_text(repr(value))
    except (ValueError, RecursionError):  # an integer of thousands of digits, a deep list
        kind = type(value).__name__
        return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} too long to show"


def shown_text(text: str, limit: int = SHOWN) -> str:
    """Return a text for a message: control characters escaped, cut in the middle to `limit`."""
    line = one_line(text if len(text) <= 2 * limit else f"{text[:limit]}{text[-limit:]}")
    if len(text) <= limit and len(line) <= limit:
        return line
    tail = (limit - len(_GAP)) // 3
    return f"{line[: limit - len(_GAP) - tail]}{_GAP}{line[-tail:]}"


def one_line(text: str) -> str:
    """Return a text with control characters, line ends and lone surrogates escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class WinnowError(Exception):
    """Base of all errors that are the input's fault, not the program's."""


class ConfigError(WinnowError):
    """A configuration file is missing, malformed or holds a value out of range."""


class ArtefactError(WinnowError):
    """A file of an earlier stage is missing, corrupt or belongs to another build."""


class NetworkError(WinnowError):
    """A float network holds something that has no record in `quant.network.graph`."""


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


class LateError(ToolError):
    """An external tool was stopped: it took longer than it may."""
