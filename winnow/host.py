# SPDX-License-Identifier: Apache-2.0
"""The machine the flow runs on: the system tools it needs and the Python environment.

`check` and `venv` run before anything is installed, so this module and what it imports use the
standard library only. `install` runs inside the new environment.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

from winnow import process
from winnow.cli import Parser, guard
from winnow.errors import ToolError, shown
from winnow.place import config_place, require_plain

PACKAGES = {"g++": "g++", "make": "make", "perl": "perl"}  # tool -> Debian package
VITIS_TOOLS = ("vitis-run", "vitis_hls")  # 2025.1 and later; up to 2024.2
HLS_CHOICES = ("csim", "vitis")


def check_tools() -> None:
    """Check for every system tool at once; raises ToolError naming the command that installs."""
    packages = {tool: name for tool, name in PACKAGES.items() if shutil.which(tool) is None}
    if importlib.util.find_spec("ensurepip") is None:
        packages["Python's ensurepip"] = f"{Path(sys.executable).name}-venv"
    if packages:
        verb, pronoun = ("is", "it") if len(packages) == 1 else ("are", "them")
        raise ToolError(
            f"{' and '.join(packages)} {verb} missing; "
            f"install {pronoun} with: apt-get install {' '.join(packages.values())}"
        )


def find_vitis() -> Path:
    """Return the Vitis HLS command on the PATH; raises ToolError when there is none."""
    for tool in VITIS_TOOLS:
        path = shutil.which(tool)
        if path is not None:
            return Path(path)
    raise ToolError(
        f"Vitis HLS is missing (no {' or '.join(VITIS_TOOLS)} on the PATH); source the "
        "settings64.sh of your Vitis installation, or leave out HLS=vitis"
    )


def create_venv(folder: Path) -> None:
    """Create the environment, anew if the one in `folder` cannot run pip."""
    python = folder / "bin" / "python"
    try:
        run([str(python), "-m", "pip", "--version"], "", quiet=True)
    except ToolError:
        print(f"setup: creating {folder}")
        run([sys.executable, "-m", "venv", "--clear", str(folder)], f"cannot create '{folder}'")


def requirements(pyproject: Path) -> tuple[list[str], list[str]]:
    """Return the pinned requirements: those installed with their dependencies, those without."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # tomli is not installed yet, but pip carries it
        from pip._vendor import tomli as tomllib
    content: dict[str, Any] = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    groups = content["dependency-groups"]
    return content["project"]["dependencies"] + groups["dev"], groups["no-deps"]


def install(pyproject: Path) -> None:
    """Install the requirements of `pyproject` into the running interpreter's environment."""
    complete, alone = requirements(pyproject)
    print(f"setup: installing {len(complete) + len(alone)} pinned packages (minutes, once)")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    failed = "pip could not install the packages (see above); try again with: make setup"
    run([*pip, *complete], failed)
    run([*pip, "--no-deps", *alone], failed)


def run(command: list[str], failed: str, *, quiet: bool = False) -> None:
    """Run `command`; raises ToolError with the message `failed` unless it exits with 0."""
    try:
        code = process.run(command, capture=quiet).code
    except ToolError as error:
        code = error.exit_code
    if code:
        raise ToolError(failed, " ".join(command), code)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line `python -m winnow.host check | venv FOLDER | install PYPROJECT`."""
    parser = Parser(prog="python -m winnow.host", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    check = verbs.add_parser("check", help="check the system tools")
    check.add_argument("--hls", default=HLS_CHOICES[0], help=f"one of {', '.join(HLS_CHOICES)}")
    check.add_argument("--config", help="a configuration that must be there")
    verbs.add_parser("venv", help="create the environment").add_argument("folder", type=Path)
    verbs.add_parser("install", help="install the pins").add_argument("pyproject", type=Path)
    options = parser.parse_args(arguments)
    if options.verb == "venv":
        create_venv(options.folder)
    elif options.verb == "install":
        install(options.pyproject)
    else:
        check_tools()
        require_plain(Path.cwd(), "move the checkout")
        if options.config is not None:
            config_place(options.config)
        if options.hls not in HLS_CHOICES:
            raise ToolError(
                f"HLS must be one of {', '.join(HLS_CHOICES)}; got {shown(options.hls)}"
            )
        if options.hls == "vitis":
            find_vitis()


if __name__ == "__main__":
    sys.exit(guard(main))
