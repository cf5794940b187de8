# SPDX-License-Identifier: Apache-2.0
"""The environment of pynq, apart from ours: pynq needs numpy 1, the flow has numpy 2.

`python3.11 -m deploy.pynq_venv` (make setup-pynq) makes .venv-pynq. Standard library only.
"""

from __future__ import annotations

import sys
from pathlib import Path

from winnow import host
from winnow.cli import guard
from winnow.errors import ToolError

FOLDER = Path(".venv-pynq")
REQUIREMENTS = Path(__file__).resolve().parent / "requirements" / "pynq-4.0.0.txt"
VERSIONS = ((3, 11), (3, 12))  # which grpcio 1.64, pinned by pynq, has wheels for


def pynq_python() -> Path:
    """Return the environment's interpreter; ToolError names the command that makes it."""
    python = FOLDER / "bin" / "python"
    if not python.is_file():
        raise ToolError(f"'{FOLDER}' with pynq is missing; make it with: make setup-pynq")
    return python


def main() -> None:
    """Make the environment, and install the pinned packages into it."""
    if sys.version_info[:2] not in VERSIONS:
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise ToolError(
            f"pynq 4.0.0 needs Python 3.11 or 3.12, got {found}; name one with: make setup-pynq "
            f"PYTHON=python3.11"
        )
    host.create_venv(FOLDER)
    print("setup: installing pynq 4.0.0 and what it needs (minutes, once)", flush=True)
    pip = [str(pynq_python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    failed = "pip could not install pynq (see above); try again with: make setup-pynq"
    host.run([*pip, "-r", str(REQUIREMENTS)], failed)


if __name__ == "__main__":
    sys.exit(guard(main))
