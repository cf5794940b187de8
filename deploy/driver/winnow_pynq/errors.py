# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on a board. Every message is one line and says what to do."""

from __future__ import annotations


class DriverError(RuntimeError):
    """Base of all errors of this package."""


class NotFoundError(DriverError):
    """A file, a device or the engine is not where it must be."""


class MismatchError(DriverError):
    """Files, engine, clock or results are not those of one build."""


class MemoryFullError(DriverError):
    """The board has no contiguous memory of the size that is wanted."""


class BusyError(DriverError):
    """Another process, or a run that never ended, uses the engine."""


class RunTimeoutError(DriverError):
    """A run did not end; the engine was stopped if it can be."""


class EngineError(DriverError):
    """The engine refused a program or its weights: its status `code`, at the layer `layer`."""

    def __init__(self, message: str, code: int, layer: str) -> None:
        super().__init__(message)
        self.code, self.layer = code, layer


class BusError(DriverError):
    """Memory answered some of the engine's `ports` with an error."""

    def __init__(self, message: str, ports: tuple[str, ...]) -> None:
        super().__init__(message)
        self.ports = ports


class InputError(DriverError, ValueError):
    """Images are not what the network reads."""
