# SPDX-License-Identifier: Apache-2.0
"""The table of parts: which names load, what is refused, and what the timing estimate covers."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow.config import TargetConfig, load_config
from winnow.errors import ConfigError
from winnow.parts import DEVICES, Resources, find_part, timing_note

KNOWN = f"known devices are {', '.join(DEVICES)}; an example is xc7z020clg400-1"


def test_resources_add_and_multiply() -> None:
    one = Resources(1, 2, 3, 0.5)
    assert one + one == one.times(2) == Resources(2, 4, 6, 1)


@pytest.mark.parametrize(
    ("name", "device", "grade"),
    [
        ("xc7z020clg400-1", "xc7z020", "1"),
        ("XC7Z010CLG225-3", "xc7z010", "3"),
        ("xc7z010iclg225-1L", "xc7z010", "1l"),
        ("xc7z007sclg400-2", "xc7z007s", "2"),
        ("xc7z045ffg900-2", "xc7z045", "2"),
    ],
)
def test_part_is_device_and_grade(name: str, device: str, grade: str) -> None:
    part = find_part(name)
    assert (part.device, part.grade) == (DEVICES[device], grade)


@pytest.mark.parametrize(
    "name",
    [
        "banana",
        "",
        "x; exec touch x",
        "xc7z020clg400-1}",
        "xc7z020 clg400-1",
        "xc7z\uff1020clg400-1",
    ],
)
def test_name_of_no_part_is_refused_at_load(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TargetConfig(part=name)
    assert str(caught.value) == (
        "target.part must be the name of an AMD part, such as xc7z020clg400-1, "
        f"got {name!r}; {KNOWN}"
    )


@pytest.mark.parametrize(
    "name",
    ["xc7z020", "xc7z020-1clg400", "xc7a35tcpg236-1", "xc7z999clg400-1", "xc7z020clg400-1-1"],
)
def test_part_of_an_unknown_device_is_refused_at_load(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TargetConfig(part=name)
    assert str(caught.value) == (
        "target.part must be a Zynq-7000 device with package and speed grade, such as "
        f"xc7z020clg400-1, got '{name}'; {KNOWN}"
    )


@pytest.mark.parametrize("name", ["xczu3eg-sbva484-1-e", "xczu7ev", "xck26-sfvc784-2LV-c"])
def test_ultrascale_plus_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TargetConfig(part=name)
    assert str(caught.value) == (
        f"target.part '{name}' is UltraScale+, which is not supported until it is mapped and timed "
        f"as its own family; {KNOWN}"
    )


def test_refusal_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[target]\npart = "x; exec rm"\n')
    with pytest.raises(ConfigError, match=r"x\.toml: target\.part must be the name of an AMD part"):
        load_config(path)


def test_estimate_for_another_grade_or_fabric_says_so() -> None:
    assert timing_note("xc7z020clg400-1") == ""
    assert timing_note("xc7z020clg400-2") == (
        "the estimate is for speed grade -1 of the Artix-7 fabric; xc7z020clg400-2 is grade -2 of "
        "the Artix-7 fabric"
    )
    assert timing_note("xc7z045ffg900-1").endswith("is grade -1 of the Kintex-7 fabric")
