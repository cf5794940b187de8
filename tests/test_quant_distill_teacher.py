# SPDX-License-Identifier: Apache-2.0
"""A teacher from another build: what it must be, and that it decides what is trained."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import quant.stages.train
from quant.build import Build, load_teacher, load_trained, other_teacher
from quant.check import check_recipe
from quant.data import InputShape
from quant.distill.teacher import check_blocks
from quant.models.library import make_model, network_of
from quant.network.network import Network
from quant.run import STAGES, run_stage
from winnow.artefact import Record
from winnow.config import (
    Config,
    DataConfig,
    DistillConfig,
    ModelConfig,
    QuantizeConfig,
    TrainConfig,
    load_config,
)
from winnow.errors import ConfigError
from winnow.flow import stage_inputs

SMALL = Config(
    model=ModelConfig(channels=(8, 8), pool_after=(1, 2), exit_after=()),
    train=TrainConfig(epochs=1, batch=128),
    quantize=QuantizeConfig(budget_share=1.0),
)
LARGE = replace(SMALL, model=replace(SMALL.model, channels=(16, 24)))


def build_at(out: Path, config: Config) -> Build:
    return Build(config, out, torch.device("cpu"), config_path="configs/x.toml")


def taught(teacher: Path | str, config: Config = SMALL, **keys: object) -> Config:
    return replace(config, distill=DistillConfig(teacher=str(teacher), **keys))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained, larger network; tests must not change it."""
    build = build_at(tmp_path_factory.mktemp("large"), LARGE)
    run_stage(STAGES["train"], build)
    return build.out


@pytest.fixture
def copied(large: Path, tmp_path: Path) -> Path:
    """A copy of that folder which a test may spoil."""
    folder = tmp_path / "large"
    folder.mkdir()
    for name in ("train.npz", "train.network.json", "train.json"):
        (folder / name).write_bytes((large / name).read_bytes())
    return folder


def message(build: Build, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what training says; it must not get as far as reading images."""

    def no_training(*_: object, **__: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(quant.stages.train, "fit", no_training)
    monkeypatch.setattr(quant.stages.train, "train_blocks", no_training)
    with pytest.raises(ConfigError) as caught:
        run_stage(STAGES["train"], build)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_teacher_is_the_other_builds_network(large: Path, tmp_path: Path) -> None:
    build = build_at(tmp_path, taught(large))
    run_stage(STAGES["train"], build)
    teacher = load_teacher(build)
    want = load_trained(build_at(large, LARGE)).state_dict()
    assert teacher.state_dict().keys() == want.keys()
    assert all(torch.equal(value, want[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training
    own = build_at(tmp_path, SMALL)
    assert other_teacher(own) is None
    assert load_teacher(own).conv1.out_channels == 8


def test_teacher_changes_the_result_and_makes_the_stage_stale(
    large: Path, copied: Path, tmp_path: Path
) -> None:
    alone, student = (build_at(tmp_path / n, c) for n, c in (("a", SMALL), ("b", taught(copied))))
    for build in (alone, student):
        run_stage(STAGES["train"], build)
    assert not torch.equal(load_trained(alone).fc.weight, load_trained(student).fc.weight)
    before = stage_inputs(STAGES["train"], student)
    assert (
        stage_inputs(STAGES["train"], build_at(student.out, taught(large)))["distill.teacher"]
        == (before["distill.teacher"])
    )
    (copied / "train.npz").unlink()
    assert stage_inputs(STAGES["train"], student)["distill.teacher"] == "missing"
    assert before.keys() - stage_inputs(STAGES["train"], alone).keys() == {"distill.teacher"}


def test_blocks_learn_from_the_teacher_first(large: Path, tmp_path: Path) -> None:
    build = build_at(tmp_path, taught(large, block_epochs=1, feature=1.0))
    run_stage(STAGES["train"], build)
    errors = Record.load(tmp_path / "train.json", "").numbers["block_errors"]
    assert len(errors) == 3
    assert all(0 < error < 0.5 for error in errors[:2])  # the classifier needs longer
    assert [path.name for path in tmp_path.glob("*.resume*")] == []


def test_folder_without_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = message(build_at(tmp_path, taught("nowhere")), monkeypatch)
    assert got == (
        "distill.teacher must be the folder of a trained build: 'nowhere/train.json' is missing; "
        "make it with: python -m quant train --out nowhere"
    )


def test_damaged_teacher(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copied / "train.npz"
    path.write_bytes(path.read_bytes()[:-100])
    got = message(build_at(tmp_path, taught(copied)), monkeypatch)
    assert re.match(r"distill\.teacher must be the folder of a trained build: '.*' is damaged", got)


def test_teacher_of_another_record(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied / "train.json"
    replace(Record.load(path, ""), outputs={"train.npz": "0"}).save(path)
    got = message(build_at(tmp_path, taught(copied)), monkeypatch)
    assert got == (
        f"distill.teacher: '{copied}/train.npz' is not the one of its record; train again"
    )


def test_teacher_of_other_data(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(SMALL, data=DataConfig(split_seed=1))
    got = message(build_at(tmp_path, taught(large, other)), monkeypatch)
    assert got == (
        f"distill.teacher '{large}' must be trained on the same data: its data.split_seed is 0, "
        "ours 1"
    )
    other = replace(SMALL, data=DataConfig(source="colour", image_size=32))
    got = message(build_at(tmp_path, taught(large, other)), monkeypatch)
    assert got.endswith("its data.source is 'digits', ours 'colour'")


def test_blocks_that_cannot_be_compared(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = replace(SMALL, model=replace(SMALL.model, pool_after=(2,)))
    got = message(build_at(tmp_path, taught(large, fewer, feature=1.0)), monkeypatch)
    assert got == (
        "distill.feature must be 0 for this teacher: its blocks end with maps of 16x16 8x8 pixels, "
        "those of the network with 16x16"
    )
    got = message(build_at(tmp_path, taught(large, fewer, block_epochs=1)), monkeypatch)
    assert got.startswith("distill.block_epochs must be 0 for this teacher: its blocks end with")


def test_an_exit_has_other_blocks_than_the_whole_network(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelConfig(
        channels=(8, 8, 8), pool_after=(2,), exit_after=(1,), exit_head="average", exit=1
    )
    build = build_at(
        tmp_path / "own", replace(SMALL, model=model, distill=DistillConfig(feature=1))
    )
    assert message(build, monkeypatch) == (
        "distill.feature must be 0 for this teacher: its blocks end with maps of 16x16 8x8 pixels, "
        "those of the network with 16x16"
    )
    # Block by block the whole network is trained, exits or not.
    build = build_at(tmp_path, taught(large, replace(SMALL, model=model), block_epochs=1))
    check_recipe(build)


def test_attention_compares_sizes_that_block_wise_training_cannot() -> None:
    chain = ModelConfig(channels=(8, 8, 8), pool_after=(1, 2, 3), exit_after=())
    net = network_of(chain, InputShape(3, 32, 10))
    teacher = Network.of(make_model("vgg_nagadomi", 10, edge=64, width=0.125), (3, 64, 64))
    check_blocks(net, teacher, DistillConfig(feature=1.0))
    assert net.training
    with pytest.raises(ConfigError, match=r"64x64 32x32 16x16 pixels, .* with 32x32 16x16 8x8$"):
        check_blocks(net, teacher, DistillConfig(teacher="large", block_epochs=1))


def test_block_epochs_without_a_teacher(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[distill]\nblock_epochs = 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == (
        f"{path}: distill.block_epochs needs a teacher: set distill.teacher to the folder of a "
        "trained build, or distill.block_epochs to 0, got 2"
    )
