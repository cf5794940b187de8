# SPDX-License-Identifier: Apache-2.0
"""A network as files: program.bin, weights.bin, memory.json, and golden.npz where there is one.

memory.json says what the others are, their SHA-256 and that of itself.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import MismatchError, NotFoundError
from .layout import Region
from .unrolled import Kernel

FORMAT = 3
NEEDED = ("feature_words", "header", "program_words", "registers", "status_text", "weight_beats")
VLNV = "winnow:hls:winnow_engine:0.1"  # what Vivado and pynq call the engine's block


@dataclass(frozen=True)
class Port:
    """A memory port: its register, its AXI master and the memory that it reads or writes."""

    register: str
    master: str
    memory: str


@dataclass(frozen=True)
class Bundle:
    """A network's files, read and checked.

    Members:
        content: memory.json; its numbers `program_words`, `weight_beats`, `feature_words` are what
            the registers of these names get.
        engine_id: the signature of the engine that the program was scheduled for.
        clock_mhz: the highest clock that the engine may have; None if that is not known.
    """

    folder: Path
    content: dict[str, Any]
    program: bytes
    weights: bytes
    input: Region
    layers: tuple[Region, ...]
    ports: tuple[Port, ...]
    engine_id: int
    clock_mhz: float | None

    @property
    def registers(self) -> dict[str, int]:
        """Return the offsets of registers by name."""
        return dict(self.content["registers"])

    def layer(self, name: str) -> Region:
        """Return a layer's map; NotFoundError lists the layers there are."""
        for region in self.layers:
            if region.name == name:
                return region
        names = [region.name for region in self.layers]
        raise NotFoundError(f"the network has no layer '{name}'; it has {', '.join(names)}")

    def status_text(self, code: int) -> str:
        """Return what a status code means."""
        return str(self.content["status_text"].get(str(code), f"unknown status {code}"))

    def golden(self) -> dict[str, Any]:
        """Return `images` [n, c, h, w] and every layer's maps, by name, as integers."""
        path = self.folder / "golden.npz"
        read_checked(path, self.content["sha256"].get(path.name, "none"))
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise MismatchError(f"'{path}' is damaged; copy the bundle again") from error


def load_bundle(folder: Any) -> Bundle:
    """Read and check a folder; NotFoundError or MismatchError names the file that is wrong."""
    folder = Path(folder)
    path = folder / "memory.json"
    content = description(path)
    try:
        for name in NEEDED:
            content[name]
        return Bundle(
            folder,
            content,
            program=read_checked(folder / "program.bin", content["sha256"]["program.bin"]),
            weights=read_checked(folder / "weights.bin", content["sha256"]["weights.bin"]),
            input=_region("input", content["input"]),
            layers=tuple(_region(*layer) for layer in content["layers"].items()),
            ports=tuple(Port(**port) for port in content["ports"]),
            engine_id=int(content["engine_id"], 16),
            clock_mhz=content.get("clock_mhz"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MismatchError(f"'{path}' lacks something ({error}); copy the bundle again") from error


def _region(name: str, given: dict[str, Any]) -> Region:
    made = {**given, "name": name, "shape": tuple(given["shape"])}
    if "unrolled" in given:
        pairs = {key: tuple(pair) for key, pair in dict(given["unrolled"]).items()}
        made["unrolled"] = Kernel(**pairs)
    return Region(**made)


def description(path: Path, wanted: int = FORMAT) -> dict[str, Any]:
    """Return memory.json, or another sealed file, if it is of our format and whole."""
    try:
        content: dict[str, Any] = json.loads(read_checked(path, None))
        found, seal = content.get("format"), content.pop("seal", None)
    except (ValueError, AttributeError, RecursionError) as error:
        raise MismatchError(f"'{path}' is damaged; copy the bundle again") from error
    if found != wanted:
        raise MismatchError(f"'{path}' has format {found}, this driver reads {wanted}")
    text = json.dumps(content, sort_keys=True).encode()
    if seal != hashlib.sha256(text).hexdigest():
        raise MismatchError(f"'{path}' is not what was written; copy the bundle again")
    return content


def read_checked(path: Path, sha256: str | None) -> bytes:
    """Return a file's content; MismatchError if it is not the one with this hash."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"cannot read '{path}': {error.strerror}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise MismatchError(f"'{path}' is damaged or of another build; copy the bundle again")
    return content
