# SPDX-License-Identifier: Apache-2.0
"""A stage runs when what it reads or made has changed, says why, and leaves nothing half done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import winnow.flow as flow
from winnow.artefact import Record, sha256_bytes
from winnow.config import ChannelPruningConfig, Config, DistillConfig
from winnow.engine import EngineConfig
from winnow.errors import ArtefactError
from winnow.flow import (
    BY_NAME,
    STAGES,
    Build,
    Result,
    Stage,
    difference,
    record_run,
    refuse_to_lose_import,
    require_current,
    run_stage,
    stage_inputs,
    staleness,
)

FIRST = Stage("first", "make a", "winnow.winograd", ("engine.m",))
SECOND = Stage("second", "make b of a", "winnow.srbs", ("seed",), ("first",))
BUILD_FILES = {"first": "a.txt", "second": "b.txt"}


@dataclass
class Player:
    """Plays the two stages: each writes `content` to its file and notes that it ran."""

    build: Build
    content: dict[str, str] = field(default_factory=lambda: {"first": "one", "second": "two"})
    runs: list[str] = field(default_factory=list)

    def work(self, stage: Stage) -> Callable[[Mapping[str, str]], Result]:
        def work(_: Mapping[str, str]) -> Result:
            self.runs.append(stage.name)
            path = self.build.out / BUILD_FILES[stage.name]
            path.write_text(self.content[stage.name])
            return Result([path], f"wrote {self.content[stage.name]}", {"n": 3})

        return work

    def run(self, *stages: Stage) -> list[str]:
        """Run stages; return the names of those that did something."""
        before = len(self.runs)
        for stage in stages or (FIRST, SECOND):
            run_stage(stage, self.build, self.work(stage))
        return self.runs[before:]


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Player:
    monkeypatch.setattr(flow, "BY_NAME", {"first": FIRST, "second": SECOND})
    return Player(Build(Config(), tmp_path / "out", config_path="configs/x.toml"))


def test_first_run_records_what_it_read_and_made(
    player: Player, capsys: pytest.CaptureFixture[str]
) -> None:
    assert player.run(FIRST) == ["first"]
    record = player.build.record("first")
    assert record.inputs == stage_inputs(FIRST, player.build)
    assert record.inputs.keys() == {"config", "code"}
    assert record.outputs == {"a.txt": sha256_bytes(b"one")}
    assert record.numbers == {"n": 3, "seconds": 0.0}
    assert capsys.readouterr().out == "first: wrote one in 0 s\n"


def test_second_run_does_nothing(player: Player, capsys: pytest.CaptureFixture[str]) -> None:
    player.run()
    before = {path: path.stat().st_mtime_ns for path in player.build.out.glob("[!.]*")}
    capsys.readouterr()
    assert player.run() == []
    assert capsys.readouterr().out == "first: up to date\nsecond: up to date\n"
    assert {p: p.stat().st_mtime_ns for p in player.build.out.glob("[!.]*")} == before


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "edited": (lambda out: (out / "a.txt").write_text("two"), "a.txt is not the one it made"),
    "emptied": (lambda out: (out / "a.txt").write_text(""), "a.txt is not the one it made"),
    "deleted": (lambda out: (out / "a.txt").unlink(), "a.txt is missing"),
    "swapped": (
        lambda out: (out / "b.txt").replace(out / "a.txt"),
        "a.txt is not the one it made",
    ),
    "a folder": (
        lambda out: ((out / "a.txt").unlink(), (out / "a.txt").mkdir()),
        "a.txt is missing",
    ),
    "record deleted": (lambda out: (out / "first.json").unlink(), "it has not run"),
    "record cut": (lambda out: (out / "first.json").write_text("{"), "first.json is damaged"),
    "record swapped": (
        lambda out: (out / "second.json").replace(out / "first.json"),
        "first.json is the record of 'second'",
    ),
    "number edited": (
        lambda out: (out / "first.json").write_text(
            (out / "first.json").read_text().replace('"n": 3', '"n": 4')
        ),
        "first.json is damaged",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_seen_named_and_mended(player: Player, case: str) -> None:
    spoil, reason = DAMAGE[case]
    player.run()
    spoil(player.build.out)
    assert staleness(FIRST, player.build) == reason
    with pytest.raises(ArtefactError) as caught:
        require_current(("second",), player.build)
    assert str(caught.value) == (
        f"'{player.build.out}': stage 'first' must run first: {reason}; run: "
        f"{player.build.command('first')}"
    )
    if case == "a folder":
        (player.build.out / "a.txt").rmdir()
    assert "first" in player.run()
    assert (player.build.out / "a.txt").read_text() == "one"
    assert player.run() == []


def test_same_result_again_leaves_what_follows_alone(player: Player) -> None:
    player.run()
    (player.build.out / "a.txt").unlink()
    assert player.run() == ["first"]
    player.content["first"] = "another"
    (player.build.out / "a.txt").unlink()
    assert player.run() == ["first", "second"]


def test_only_declared_keys_matter(player: Player) -> None:
    player.run()
    config = player.build.config
    player.build = replace(player.build, config=replace(config, engine=EngineConfig(po=2)))
    assert player.run() == []
    player.build = replace(player.build, config=replace(config, engine=EngineConfig(m=4)))
    assert staleness(FIRST, player.build) == "its config changed"
    assert player.run() == ["first"]  # and made the same
    player.build = replace(player.build, config=replace(player.build.config, seed=1))
    assert player.run() == ["second"]


def test_other_code_and_inputs_are_named(player: Player) -> None:
    player.run()
    out, inputs = player.build.out, stage_inputs(SECOND, player.build)
    assert difference(SECOND, out, inputs) is None
    assert difference(SECOND, out, inputs | {"code": "x"}) == "its code changed"
    assert difference(SECOND, out, inputs | {"first": "x"}) == "its first changed"
    assert difference(SECOND, out, inputs | {"tools": "x"}) == "its tools changed"
    fewer = {name: value for name, value in inputs.items() if name != "first"}
    assert difference(SECOND, out, fewer) == "it no longer reads first"


def test_stage_waits_for_those_before_it(player: Player) -> None:
    with pytest.raises(ArtefactError, match="stage 'first' must run first: it has not run; run: p"):
        run_stage(SECOND, player.build, player.work(SECOND))
    assert player.runs == []


def test_failed_run_leaves_no_record_of_success(player: Player) -> None:
    def fail(inputs: Mapping[str, str]) -> Result:
        player.work(FIRST)(inputs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(FIRST, player.build, fail)
    assert not (player.build.out / "first.json").exists()
    player.run()
    player.content["first"] = "half"
    (player.build.out / "first.json").write_text("{")
    with pytest.raises(KeyboardInterrupt):
        run_stage(FIRST, player.build, fail)
    assert staleness(FIRST, player.build) == "first.json is damaged"


def test_another_builds_files_are_not_taken(player: Player, tmp_path: Path) -> None:
    player.run()
    other = Player(replace(player.build, out=tmp_path / "other"))
    other.content = {"first": "ONE", "second": "TWO"}
    other.run()
    (other.build.out / "a.txt").replace(player.build.out / "a.txt")
    assert staleness(FIRST, player.build) == "a.txt is not the one it made"
    (other.build.out / "first.json").replace(player.build.out / "first.json")
    # A whole result of the same code and configuration is as good; what follows is made of it.
    assert staleness(FIRST, player.build) is None
    assert staleness(SECOND, player.build) == "its first changed"


def test_contents_outside_the_build_count(tmp_path: Path, player: Player) -> None:
    stage = replace(FIRST, keys=("distill",), outside=(("distill.teacher", "train.npz"),))
    teacher = tmp_path / "teacher" / "train.npz"
    teacher.parent.mkdir()
    config = replace(Config(), distill=DistillConfig(teacher=str(teacher.parent)))
    build = replace(player.build, config=config)
    missing = stage_inputs(stage, build)["distill.teacher"]
    teacher.write_text("1")
    first = stage_inputs(stage, build)["distill.teacher"]
    teacher.write_text("2")
    assert len({missing, first, stage_inputs(stage, build)["distill.teacher"]}) == 3
    assert "distill.teacher" not in stage_inputs(stage, player.build)
    assert "distill.teacher" not in stage_inputs(replace(stage, keys=("seed",)), build)


def test_imported_weights_are_never_trained_over(player: Player) -> None:
    record_run(
        FIRST,
        player.build,
        lambda inputs: replace(player.work(FIRST)(inputs), numbers={"imported": "w.pt"}),
    )
    assert player.run() == ["second"]
    (player.build.out / "a.txt").write_text("")
    with pytest.raises(ArtefactError) as caught:
        player.run()
    path = player.build.out / "first.json"
    assert str(caught.value) == (
        f"'{player.build.out}' holds weights imported from 'w.pt' and a.txt is not the one it "
        f"made; import them again, or delete '{path}' to train: {player.build.command('first')}"
    )
    path.unlink()
    assert player.run(FIRST) == ["first"]
    refuse_to_lose_import(FIRST, player.build, "trained")


def test_command_is_what_the_user_can_paste(tmp_path: Path) -> None:
    build = Build(Config(), tmp_path, config_path="my configs/x.toml")
    assert build.command("golden") == (
        f"python -m quant golden --config 'my configs/x.toml' --out {tmp_path}"
    )
    assert build.command("report").startswith("python -m winnow report --config ")


def test_list_of_stages_is_in_order_and_whole(root: Path) -> None:
    seen: set[str] = set()
    for stage in STAGES:
        assert set(stage.reads) <= seen, stage.name
        seen.add(stage.name)
        assert (root / stage.folder / "__main__.py").is_file()
        for place in stage.sources:
            assert (root / place).exists()
    assert len(BY_NAME) == len(STAGES)


def test_narrowed_network_depends_on_an_engine_only_for_a_budget_of_cycles() -> None:
    keys = BY_NAME["prune_channels"].keys_of
    pruning = ChannelPruningConfig(method="cascade", budget="flops")
    assert "engine" not in keys(Config())
    assert "engine" not in keys(replace(Config(), prune_channels=pruning))
    assert "engine" in keys(replace(Config(), prune_channels=replace(pruning, budget="cycles")))


def test_edited_record_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "first.json"
    Record("first", {"a": "b"}, {"c": "d"}, {"accuracy": 91.25}).save(path)
    text = path.read_text()
    for old, new in (("91.25", "99.25"), ('"b"', '"x"'), ('"d"', '"x"'), ('"first"', '"x"')):
        path.write_text(text.replace(old, new))
        with pytest.raises(ArtefactError, match=r"first\.json' is damaged; delete it and run: m"):
            Record.load(path, "make x")
