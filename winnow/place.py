# SPDX-License-Identifier: Apache-2.0
"""Where configurations and builds are. Standard library only: it runs before anything is installed.

digits -> configs/digits.toml, build/digits        ../my net.toml -> build/my_net
digits:fast -> configs/digits.toml:fast, build/digits/profiles/fast
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from winnow.errors import ConfigError, shown
from winnow.profiles import PROFILES, split_name

CONFIGS, BUILDS = Path("configs"), Path("build")
ROOT = Path(__file__).resolve().parent.parent  # a checkout, or where it is installed


def child_environment() -> dict[str, str]:
    """Return the environment in which `python -m quant` and its like are ours, wherever we are.

    Folders called `quant` or `sim` in the working directory must not be taken for them. Python
    3.10 does not know PYTHONSAFEPATH and looks into the working directory first.
    """
    path = os.environ.get("PYTHONPATH", "")
    paths = os.pathsep.join([str(ROOT), *([path] if path else [])])
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}


def config_place(name: str) -> Path:
    """Return the file that a name of configs/, or a path of a .toml file, stands for.

    Both may end with :PROFILE. Raises ConfigError when there is no such file.
    """
    path, profile = split_name(Path(name))
    if not profile and "/" not in name and not name.endswith(".toml"):
        stem, colon, profile = name.partition(":")
        if colon and not profile:
            raise ConfigError(f"configuration {shown(name)} names no profile behind the colon")
        path = CONFIGS / f"{stem}.toml"
    if path.is_dir():
        raise ConfigError(f"configuration '{path}' is a folder; name a .toml file")
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml"))) or "none"
        raise ConfigError(f"configuration '{path}' is missing; {CONFIGS}/ has: {known}")
    return path.with_name(f"{path.name}:{profile}") if profile else path


def default_out(config: Path) -> Path:
    """Return the folder of a configuration's build: build/NAME, with _ for odd characters."""
    file, profile = split_name(config)
    out = BUILDS / re.sub(r"[^\w.-]", "_", file.stem, flags=re.ASCII)
    return out / PROFILES / profile if profile else out


def require_plain(folder: Path, remedy: str) -> None:
    """Raise ConfigError unless the whole path of `folder` can be written into a makefile."""
    if re.search(r"[\s$#:;'\"`\\]", str(folder.resolve())):
        raise ConfigError(
            f"'{folder.resolve()}' must have no space, quote or any of $ # : ; ` \\ in its path, "
            f"which Verilator's makefiles cannot take; {remedy}"
        )
