# SPDX-License-Identifier: Apache-2.0
"""One file for a board: a wheel with the driver, a network, and the bitstream where there is one.

bundle/, winnow_pynq -> winnow_NAME-VERSION-py3-none-any.whl; the same input gives the same bytes.
It installs with `pip install --no-index --no-deps`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codegen.emit import sealed_json
from deploy.bundle import FILES, MEMORY, PROGRAM, WEIGHTS
from deploy.driver import winnow_pynq
from deploy.driver.winnow_pynq import profiles
from deploy.profiles import described
from winnow.artefact import sha256_value, write_bytes
from winnow.errors import ArtefactError, ConfigError, shown

TEMPLATES = Path(__file__).resolve().parent / "package"
NOTEBOOK = "classify.ipynb"
DRIVER = Path(winnow_pynq.__file__).parent
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can hold
_MODE = 0o644 << 16
_NAME = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Bitstream:
    """A .bit with its .hwh beside it, and the clock in MHz at which its timing closed."""

    path: Path
    clock_mhz: float

    def files(self) -> dict[str, bytes]:
        """Return both files under names of their content: pynq keeps what it knows by name."""
        found = {}
        for path in (self.path, self.path.with_suffix(".hwh")):
            if not path.is_file():
                raise ArtefactError(f"'{path}' is missing; a .bit and its .hwh go together")
            found[path.suffix] = path.read_bytes()
        digest = hashlib.sha256(found[".bit"] + found[".hwh"]).hexdigest()[:8]
        return {f"winnow_{digest}{suffix}": content for suffix, content in found.items()}


def package_name(name: str) -> str:
    """Return the name of a build's package; ConfigError when it can be none."""
    plain = name.replace("-", "_").replace(".", "_")
    if not _NAME.fullmatch(plain):
        raise ConfigError(
            f"no package can be named after the folder {shown(name)}; use letters, digits and "
            f"single underscores: --out build/NAME"
        )
    return f"winnow_{plain}"


def write_wheel(folder: Path, bundle: Path, name: str, bitstream: Bitstream | None = None) -> Path:
    """Write the wheel of a bundle into `folder`, and remove older ones of it; return its path."""
    package = package_name(name)
    contents = _contents(package, bundle, bitstream)
    label = sha256_value({n: hashlib.sha256(c).hexdigest() for n, c in contents.items()})[:8]
    version = f"{winnow_pynq.__version__}+{label}"
    contents |= _described(package, version)
    path = folder / f"{package}-{version}-py3-none-any.whl"
    for older in folder.glob(f"{package}-*.whl"):
        older.unlink()
    write_bytes(path, _zipped(contents, f"{package}-{version}.dist-info"))
    return path


def has_bitstream(wheel: Path) -> bool:
    """Tell whether a wheel holds a bitstream."""
    with zipfile.ZipFile(wheel) as archive:
        return any(name.endswith(".bit") for name in archive.namelist())


def require_of(wheel: Path, bundle: Path, package: str) -> None:
    """Raise ArtefactError unless a wheel is whole, and its network that of a bundle."""
    remedy = "run: make overlay"
    try:
        with zipfile.ZipFile(wheel) as archive:
            held = {name: archive.read(f"{package}/data/{name}") for name in (PROGRAM, WEIGHTS)}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ArtefactError(f"'{wheel}' is damaged; {remedy}") from error
    for name, content in held.items():
        if content != (bundle / name).read_bytes():
            raise ArtefactError(f"'{wheel}' has {name} of another build; {remedy}")


def _contents(package: str, bundle: Path, bitstream: Bitstream | None) -> dict[str, bytes]:
    """Return the files of the package by their places in the wheel."""
    found = {f"{package}/{p.name}": p.read_bytes() for p in sorted(TEMPLATES.glob("*.py"))}
    found |= {
        f"{package}/winnow_pynq/{p.name}": p.read_bytes() for p in sorted(DRIVER.glob("*.py"))
    }
    notebook = (TEMPLATES / NOTEBOOK).read_text(encoding="utf-8").replace("PACKAGE", package)
    found[f"{package}/{NOTEBOOK}"] = notebook.encode()
    data = _networks(bundle)
    if bitstream is not None:
        data = bitstream.files() | _clocked(data, bitstream.clock_mhz)
    return found | {f"{package}/data/{name}": content for name, content in data.items()}


def _networks(bundle: Path) -> dict[str, bytes]:
    """Return the files of a bundle, or of a folder of profiles, by their places in it."""
    if not (bundle / profiles.FILE).is_file():
        return {name: (bundle / name).read_bytes() for name in FILES}
    names = [f"{folder}/{part}" for folder in profiles.profile_folders(bundle) for part in FILES]
    return {name: (bundle / name).read_bytes() for name in (*names, profiles.FILE)}


def _clocked(data: Mapping[str, bytes], clock_mhz: float) -> dict[str, bytes]:
    """Return files of networks with the clock at which timing closed."""
    clocked = dict(data)
    for name in data:
        if Path(name).name == MEMORY:
            memory = json.loads(data[name])
            memory.pop("seal")
            clocked[name] = sealed_json({**memory, "clock_mhz": clock_mhz})
    return clocked | ({profiles.FILE: described(clocked)} if profiles.FILE in data else {})


def _described(package: str, version: str) -> dict[str, bytes]:
    """Return what pip reads, without the list of files."""
    info = f"{package}-{version}.dist-info"
    metadata = (
        f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: {version}\n"
        f"Summary: A network for the Winnow engine, with its driver\nLicense: Apache-2.0\n"
        f"Requires-Python: >=3.10\nRequires-Dist: numpy>=1.21\n"
        f"Description-Content-Type: text/markdown\n\n"
    )
    readme = (TEMPLATES / "README.md").read_text(encoding="utf-8").replace("PACKAGE", package)
    wheel = "Wheel-Version: 1.0\nGenerator: winnow\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return {
        f"{info}/METADATA": (metadata + readme).encode(),
        f"{info}/WHEEL": wheel.encode(),
    }


def _zipped(contents: Mapping[str, bytes], info: str) -> bytes:
    """Return the zip file: everything, and RECORD with the hashes."""
    rows = []
    for name, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        rows.append(f"{name},sha256={digest},{len(content)}\n")
    rows.append(f"{info}/RECORD,,\n")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**contents, f"{info}/RECORD": "".join(rows).encode()}.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, _MODE
            archive.writestr(entry, content)
    return file.getvalue()
