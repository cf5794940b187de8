# SPDX-License-Identifier: Apache-2.0
"""A stage runs when something it reads has changed, and leaves nothing half done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from winnow.artefact import Record, sha256_bytes
from winnow.stage import Result, files_hash, run_stage, sources_hash


@dataclass
class Stage:
    """A stage that writes `content` to a.txt and counts how often it ran."""

    out: Path
    content: str = "one"
    runs: list[str] = field(default_factory=list)

    def work(self) -> Result:
        self.runs.append(self.content)
        (self.out / "a.txt").write_text(self.content)
        return Result([self.out / "a.txt"], f"wrote {self.content}", {"length": len(self.content)})

    def run(self, **inputs: str) -> None:
        run_stage(self.out, "demo", inputs or {"config": "c"}, self.work)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_first_run_records_what_it_read_and_made(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.run()
    record = Record.load(stage.out / "demo.json", "")
    assert (record.stage, record.inputs) == ("demo", {"config": "c"})
    assert record.outputs == {"a.txt": sha256_bytes(b"one")}
    assert record.numbers == {"length": 3, "seconds": 0.0}
    assert capsys.readouterr().out == "demo: wrote one in 0 s\n"


def test_second_run_does_nothing(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.run()
    before = {path: path.stat().st_mtime_ns for path in stage.out.iterdir()}
    capsys.readouterr()
    stage.run()
    assert capsys.readouterr().out == "demo: up to date\n"
    assert stage.runs == ["one"]
    assert {path: path.stat().st_mtime_ns for path in stage.out.iterdir()} == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "a.txt").write_text("two"),
        lambda out: (out / "a.txt").unlink(),
        lambda out: (out / "demo.json").unlink(),
        lambda out: (out / "demo.json").write_text("{"),
    ],
)
def test_damage_runs_the_stage_again(stage: Stage, damage: Callable[[Path], object]) -> None:
    stage.run()
    damage(stage.out)
    stage.run()
    assert stage.runs == ["one", "one"]
    assert (stage.out / "a.txt").read_text() == "one"
    stage.run()
    assert len(stage.runs) == 2


def test_changed_or_additional_inputs_run_the_stage_again(stage: Stage) -> None:
    stage.run(config="c")
    stage.run(config="d")
    stage.run(config="d", code="e")
    stage.run(code="e", config="d")  # the order does not matter
    assert len(stage.runs) == 3


def test_failure_keeps_the_earlier_outputs_and_their_record(stage: Stage) -> None:
    stage.run()
    before = {path: path.read_bytes() for path in stage.out.iterdir()}

    def fail() -> Result:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        run_stage(stage.out, "demo", {"config": "other"}, fail)
    assert {path: path.read_bytes() for path in stage.out.iterdir()} == before
    stage.run()
    assert stage.runs == ["one"]


def test_failed_first_run_leaves_no_record(stage: Stage) -> None:
    def fail() -> Result:
        stage.work()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(stage.out, "demo", {}, fail)
    assert not (stage.out / "demo.json").exists()


def test_sources_hash_sees_content_names_and_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "sub" / "b.py").write_text("2")
    hashes = [sources_hash(tmp_path)]
    (tmp_path / "sub" / "b.py").write_text("3")
    hashes.append(sources_hash(tmp_path))
    (tmp_path / "a.py").rename(tmp_path / "c.py")
    hashes.append(sources_hash(tmp_path))
    (tmp_path / "d.py").write_text("")
    hashes.append(sources_hash(tmp_path))
    assert len(set(hashes)) == 4
    (tmp_path / "notes.txt").write_text("not a source")
    assert sources_hash(tmp_path) == hashes[-1]
    assert sources_hash(tmp_path, "*") != hashes[-1]


def test_files_hash_sees_names_and_contents(tmp_path: Path) -> None:
    a, b = tmp_path / "a.py", tmp_path / "b.py"
    a.write_text("1")
    b.write_text("1")
    hashes = {files_hash([a]), files_hash([b]), files_hash([a, b])}
    a.write_text("2")
    assert files_hash([a]) not in hashes
    assert len(hashes) == 3
