# SPDX-License-Identifier: Apache-2.0
"""The package: what a wheel holds, and that it works outside of the checkout beside other names."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("winnow", "quant", "codegen", "openhls", "sim", "deploy", "hls_templates")
CONFIG = """
[model]
channels = [4, 8]
pool_after = [1, 2]
exit_after = [1]
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tracked files, built without network or isolation."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *PACKAGES, "pyproject.toml", "README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in (*tracked, "LICENSE"):
        if (ROOT / name).is_file():
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "copy" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*command, str(folder / "copy")], check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.slow
def test_wheel_holds_every_file_of_its_folders(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {name for name in tracked if (ROOT / name).is_file()} - held == set()
    (scripts,) = (name for name in held if name.endswith("entry_points.txt"))
    assert "winnow = winnow.__main__:script" in zipfile.ZipFile(wheel).read(scripts).decode()


@pytest.mark.slow
def test_installed_package_checks_a_network_in_another_folder(wheel: Path, tmp_path: Path) -> None:
    """Installed into a folder of its own; a folder `quant` of the user's is not taken for ours."""
    place, work = tmp_path / "place", tmp_path / "work"
    zipfile.ZipFile(wheel).extractall(place)
    (work / "quant").mkdir(parents=True)
    (work / "quant" / "__init__.py").write_text("raise RuntimeError('the user's own')\n")
    (work / "net.toml").write_text(CONFIG)
    script = "import sys; from winnow.__main__ import script; sys.exit(script())"
    result = subprocess.run(
        [sys.executable, "-c", script, "check", "--config", "net.toml"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    assert result.returncode == 0
    assert result.stdout.startswith("check: 3 layers fit, ")
    assert (work / "build" / "net" / "check.json").is_file()
