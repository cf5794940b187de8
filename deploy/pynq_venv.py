# SPDX-License-Identifier: Apache-2.0
"""The environment of pynq, apart from ours: pynq needs numpy 1, the flow has numpy 2.

`python3.11 -m deploy.pynq_venv` (make setup-pynq) makes .venv-pynq. Standard library only.
"""

from __future__ import annotations

import sys
from pathlib import Path

from winnow import host
from winnow.cli import guard
from winnow.errors import ToolError, shown

FOLDER = Path(".venv-pynq")
DEFAULT = "4.0.0"
REQUIREMENTS = {
    version: Path(__file__).resolve().parent / "requirements" / f"pynq-{version}.txt"
    for version in (DEFAULT, "3.1.2", "3.0.1")
}
REMOTE = (DEFAULT, "3.1.2")  # which know boards on the network
# Of Python: grpcio 1.64, pinned by pynq, has wheels for two; pynqmetadata 0.1.2 breaks with 3.11.
VERSIONS = dict.fromkeys(REMOTE, ("3.11", "3.12")) | {"3.0.1": ("3.10",)}


def folder_of(version: str) -> Path:
    """Return the environment of a version of pynq."""
    return FOLDER if version == DEFAULT else FOLDER.with_name(f"{FOLDER.name}-{version}")


def pynq_python(version: str = DEFAULT) -> Path:
    """Return the environment's interpreter; ToolError names the command that makes it."""
    python = folder_of(version) / "bin" / "python"
    if not python.is_file():
        more = "" if version == DEFAULT else f" PYNQ={version}"
        raise ToolError(
            f"'{folder_of(version)}' with pynq is missing; make it with: make setup-pynq{more}"
        )
    return python


def main(arguments: list[str]) -> None:
    """Make the environment of a version of pynq, and install its pinned packages."""
    version = arguments[0] if arguments else DEFAULT
    if version not in REQUIREMENTS:
        raise ToolError(f"PYNQ must be one of {', '.join(REQUIREMENTS)}, got {shown(version)}")
    found = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if found not in VERSIONS[version]:
        more = "" if version == DEFAULT else f"PYNQ={version} "
        raise ToolError(
            f"pynq {version} needs Python {' or '.join(VERSIONS[version])}, got {found}; name one "
            f"with: make setup-pynq {more}PYTHON=python{VERSIONS[version][0]}"
        )
    host.create_venv(folder_of(version))
    print(f"setup: installing pynq {version} and what it needs (minutes, once)", flush=True)
    pip = [str(pynq_python(version)), "-m", "pip", "install", "--quiet"]
    failed = "pip could not install pynq (see above); try again with: make setup-pynq"
    requirements = str(REQUIREMENTS[version])
    host.run([*pip, "--disable-pip-version-check", "-r", requirements], failed)


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))
