# SPDX-License-Identifier: Apache-2.0
"""Profiles as a board gets them: several networks in one folder, for one engine.

bundle/ of every profile's build -> bundle_profiles/: profiles.json, and a folder for each
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codegen.emit import sealed_json
from codegen.golden import load_golden
from codegen.split import join_maps
from deploy.bundle import FILES, IMAGES, MEMORY
from deploy.driver.winnow_pynq import Engine
from deploy.driver.winnow_pynq.profiles import FILE, FORMAT
from deploy.stages.bundle import SIMULATED_SECONDS
from deploy.virtual_board import rtl_digest, virtual_board
from sim import rtl
from winnow.artefact import sha256_bytes, write_bytes
from winnow.compare import require_equal
from winnow.errors import ArtefactError
from winnow.flow import Build, profile_builds, require_current
from winnow.score import ACCURACY, score_in

FOLDER = "bundle_profiles"  # in a build


@dataclass(frozen=True)
class Profile:
    """A row of the table: scores of the quantized network, cycles of an image, bytes of weights.

    `kind` is what the scores are; `modelled` cycles are the cycle model's, `measured` the RTL's.
    """

    name: str
    kind: str
    validation: float
    test: float
    modelled: int
    measured: int
    weight_bytes: int


def read_profiles(build: Build) -> dict[str, Build]:
    """Return the builds of a configuration's profiles, all of them checked on the same RTL.

    Raises ArtefactError for one that is not current, or of another engine.
    """
    builds, digests = profile_builds(build), dict[str, bytes]()
    for name, each in builds.items():
        # The command of the whole: what a profile lacks may be another one's.
        require_current(["csim", "rtlsim", "bundle"], each, verb="run")
        digests[name] = rtl_digest(each.rtl)
    first, *rest = digests
    for name in rest:
        if digests[name] != digests[first]:
            raise ArtefactError(
                f"profiles '{first}' and '{name}' were checked on different RTL; run: "
                f"{build.command('profiles')}"
            )
    return builds


def row(name: str, build: Build) -> Profile:
    """Return what the stages of a profile measured."""
    qat, scheduled = build.record("qat").numbers, build.record("schedule").numbers
    kind, test = score_in(qat, "quantized")
    return Profile(
        name,
        kind,
        score_in(qat, "validation")[1],
        test,
        scheduled["total_cycles"],
        build.record("rtlsim").numbers["stall_0"]["cycles"][0],
        scheduled["weight_bytes"],
    )


def format_profiles(rows: list[Profile]) -> str:
    """Return the table of all profiles."""
    width = max(len("profile"), *(len(row.name) for row in rows))
    lines = [
        f"{'profile':<{width}}{'validation':>13}{'test':>11}{'modelled':>11}{'RTL':>11}"
        f"{'weights':>13}",
    ]
    for each in rows:
        unit = " %" if each.kind == ACCURACY else ""
        scores = [f"{s:.2f}{unit}" if unit else f"{s:.5g}" for s in (each.validation, each.test)]
        lines.append(
            f"{each.name:<{width}}{scores[0]:>13}{scores[1]:>11}{each.modelled:>11,}"
            f"{each.measured:>11,}{each.weight_bytes:>11,} B"
        )
    what = "accuracy" if rows[0].kind == ACCURACY else "mean squared error"
    lines.append(
        f"{what} of the quantized networks, measured; cycles of an image, by the cycle model and "
        "in RTL simulation"
    )
    return "\n".join(lines)


def write_profiles(folder: Path, builds: Mapping[str, Build]) -> list[Path]:
    """Write the bundles of profiles into one folder; return its files.

    What is in it of profiles that are no more is removed. Raises ArtefactError for profiles that
    read other images or have other classes.
    """
    content: dict[str, bytes] = {}
    for name, build in builds.items():
        content |= {f"{name}/{f}": (build.out / "bundle" / f).read_bytes() for f in FILES}
    _require_alike({name: json.loads(content[f"{name}/{MEMORY}"]) for name in builds})
    content[FILE] = described(content)
    for old in folder.iterdir() if folder.is_dir() else ():
        if old.is_dir() and old.name not in builds:
            shutil.rmtree(old)
    for name, part in content.items():
        write_bytes(folder / name, part)
    return [folder / name for name in content]


def described(content: Mapping[str, bytes]) -> bytes:
    """Return profiles.json of the other files of its folder, by their places."""
    profiles = {
        name.removesuffix(f"/{MEMORY}"): {"sha256": sha256_bytes(part)}
        for name, part in content.items()
        if name.endswith(f"/{MEMORY}")
    }
    return sealed_json({"format": FORMAT, "profiles": profiles})


def _require_alike(memories: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ArtefactError unless all networks have the same images, classes and engine."""
    first = next(iter(memories))
    for name, memory in memories.items():
        for what, found in _faces(memory).items():
            expected = _faces(memories[first])[what]
            if found != expected:
                raise ArtefactError(
                    f"profile '{name}' has another {what} than '{first}': {found}, not {expected}; "
                    "profiles are for the same images, classes and engine"
                )


def _faces(memory: Mapping[str, Any]) -> dict[str, Any]:
    last = list(memory["layers"].values())[-1]
    keys = ("shape", "bits", "signed", "exponent")
    return {
        "engine": memory["engine_id"],
        "input": [memory["input"][key] for key in keys],
        "number of results": last["shape"][0],
    }


def check_profiles(builds: Mapping[str, Build], folder: Path) -> int:
    """Run all profiles, loaded together, in turns; return how many integers were compared.

    Image after image each of them runs on one virtual board. Raises MismatchError if a map is not
    that of the Brevitas model.
    """
    golden = {name: load_golden(build).first(IMAGES) for name, build in builds.items()}
    build, values = next(iter(builds.values())), 0
    harness = rtl.build(build.rtl, build.config.engine, build.cache / "rtl")
    with virtual_board(harness, build.rtl) as board, Engine(board) as engine:
        networks = engine.load_profiles(folder, timeout_s=SIMULATED_SECONDS)
        for i in range(IMAGES):
            for name, network in networks.items():
                found = network.maps(golden[name].images[i : i + 1])
                expected = {n: maps[i : i + 1] for n, maps in golden[name].layers.items()}
                maps = {n: m.astype(np.int64) for n, m in found.items()}
                require_equal(expected, join_maps(maps))
                values += sum(maps.size for maps in found.values())
    return values
