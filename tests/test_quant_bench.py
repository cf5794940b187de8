# SPDX-License-Identifier: Apache-2.0
"""Recipes and their comparison: merging, refusals, shared stages, the table's arithmetic."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import quant.bench as bench
from quant.bench import RecipeResult, format_table, main, parse_seeds, run_all, run_recipe
from quant.recipes import load_recipes, merge
from tests.test_winnow_process import ends
from winnow.artefact import Record, load_arrays
from winnow.cli import guard
from winnow.errors import ConfigError

ROOT = Path(__file__).parent.parent

BASE = """
[model]
channels = [4, 8]
pool_after = [1, 2]
exit_after = [1]
[train]
epochs = 2
batch = 128
[prune]
steps = 2
epochs = 2
[quantize]
epochs = 1
budget_share = 1.0
"""
RECIPES = """
base = "tiny"
[recipes.dense]
note = "all weights"
goal = 1.5
prune.keep = 8
[recipes.sparse]
prune.keep = 2
quantize.weight_bits = [8]
"""


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(BASE)
    (tmp_path / "recipes").mkdir()
    path = tmp_path / "recipes" / "two.toml"
    path.write_text(RECIPES)
    return path


def test_merge_keeps_what_does_not_change() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 4}
    assert merge(base, {"a": {"b": 3}, "e": {"f": 5}}) == {
        "a": {"b": 3, "c": 2},
        "d": 4,
        "e": {"f": 5},
    }
    assert base == {"a": {"b": 1, "c": 2}, "d": 4}


def test_recipes_are_the_base_with_changes(recipes: Path) -> None:
    dense, sparse = load_recipes([recipes])
    assert (dense.name, dense.note) == ("dense", "all weights")
    assert (dense.config.prune.keep, sparse.config.prune.keep) == (8, 2)
    assert sparse.config.quantize.weight_bits == (8,)
    assert dense.config.model == sparse.config.model
    assert dense.config.model.channels == (4, 8)
    assert load_recipes([recipes], ("sparse",)) == (sparse,)


def test_recipes_of_the_repository_are_valid(root: Path) -> None:
    files = sorted((root / "configs" / "recipes").glob("*.toml"))
    assert files
    for path in files:
        found = load_recipes([path])
        assert all(recipe.note for recipe in found)


def test_two_recipes_train_once_and_are_measured(
    recipes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    runs = [run_recipe(r, out, torch.device("cpu")) for r in load_recipes([recipes])]
    printed = capsys.readouterr().out
    assert printed.count("train: fp32 test accuracy") == 1
    assert printed.count("train: up to date") == 1
    assert printed.count("prune: pruned test accuracy") == 2
    dense, sparse = runs
    assert dense.accuracy[0] == sparse.accuracy[0]
    assert dense.sparsity < 1
    masks = load_arrays(out / "sparse-0" / "prune.npz", "")
    kept = sum(float(array.sum()) for name, array in masks.items() if name.endswith("mask"))
    size = sum(array.size for name, array in masks.items() if name.endswith("mask"))
    assert sparse.sparsity == pytest.approx(100 * (1 - kept / size), abs=0.5)
    assert sparse.bits == 8
    assert sparse.cycles < dense.cycles
    seconds = Record.load(out / "dense-0" / "train.json", "").numbers["seconds"]
    assert dense.seconds >= seconds


def test_table_holds_mean_spread_and_loss(recipes: Path) -> None:
    accuracy = {0: (90.0, 89.0, 88.0), 1: (92.0, 90.0, 90.0)}

    def run(recipe: bench.Recipe) -> RecipeResult:
        return RecipeResult(accuracy[recipe.config.seed], 75.0, 6.5, 1000, 10.0)

    found = load_recipes([recipes])
    table = format_table(found, run_all(found, (0, 1), run, jobs=1))
    header, columns, dense, sparse, goals = table.splitlines()
    assert "2 seeds" in header
    assert columns.split() == [
        "recipe", "fp32", "pruned", "quantized", "loss", "goal",
        "zeros", "%", "bits", "cycles", "seconds"
    ]  # fmt: skip
    assert dense.split() == [
        "dense", "91.00±1.41", "89.50±0.71", "89.00±1.41", "2.00", "1.50",
        "75.0", "6.50", "1000", "20"
    ]  # fmt: skip
    assert sparse.split()[4:6] == ["2.00", "-"]
    assert goals == "goals met: 0 of 1; missed: dense"
    met = format_table(found[:1], [[RecipeResult((90.0, 88.0, 88.5), 75.0, 6.5, 1000, 10.0)]])
    assert met.splitlines()[-1] == "goals met: 1 of 1"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("base = 1", r"a recipe file must have base = "),
        ('base = "tiny"', r"a recipe file must have base = .* got base$"),
        ('base = "gone"\n[recipes.a]\n', r"configuration '.*gone.toml' is missing"),
        ('base = "tiny"\n[recipes.a]\nprune.keep = 9', r"recipe 'a': prune.keep must be an int"),
        ('base = "tiny"\n[recipes]\na = 1', r"recipes.a must be a table, got 1$"),
        (
            'base = "tiny"\n[recipes.a]\ngoal = -1',
            r"recipes.a.goal must be points, above 0 .* got -1$",
        ),
        ('base = "tiny"\n[recipes.a]\ngoal = true', r"goal must be points, .* got True$"),
        ("base = ", r"is not valid TOML"),
        (
            RECIPES.replace("recipes.dense", 'recipes."../x"'),
            r"the name of a recipe must be at most 60 letters, .* got '\.\./x'$",
        ),
        (
            RECIPES.replace("recipes.dense", f"recipes.{'n' * 5000}"),
            r"the name of a recipe must be at most 60 letters, .* got 'n{37}\.\.\.n{18}'$",
        ),
        (RECIPES.replace('"all weights"', "3"), r"recipes\.dense\.note must be text, got 3$"),
        (RECIPES.replace("goal = 1.5", f"goal = 0x{'f' * 5000}"), "got an int too long to show$"),
        (
            RECIPES.replace('"tiny"', f'"{"b" * 5000}"'),
            r"a recipe file must have base = .*recipes$",
        ),
    ],
)
def test_bad_recipes_are_refused_before_training(recipes: Path, text: str, match: str) -> None:
    recipes.write_text(text)
    with pytest.raises(ConfigError, match=match):
        load_recipes([recipes])


def test_recipe_of_two_files_is_refused(recipes: Path) -> None:
    other = recipes.with_name("other.toml")
    other.write_text(RECIPES)
    match = r"other.toml: recipe 'dense' is in another file too; rename it$"
    with pytest.raises(ConfigError, match=match):
        load_recipes([recipes, other])


def test_unknown_recipe_names_the_known(recipes: Path) -> None:
    with pytest.raises(ConfigError, match=r"^recipe 'x' is not in .*, which has: dense, sparse$"):
        load_recipes([recipes], ("x",))


def test_jobs_in_processes_share_stages(
    recipes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--recipes", str(recipes), "--out", str(tmp_path / "out"), "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", ["quant.bench", *arguments, "--jobs", "2"])
    assert guard(main) == 0
    printed = capfd.readouterr().out
    assert printed.count("train: fp32 test accuracy") == 1
    *rows, _, took = printed.splitlines()
    assert [line.split()[0] for line in rows[-2:]] == ["dense", "sparse"]
    assert re.fullmatch(r"this call took \d+\.\d minutes in 2 processes of one thread", took)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_jobs_end_with_the_comparison(
    recipes: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    recipes.with_name("two.toml").write_text(RECIPES + "train.epochs = 10000\n")
    arguments = ["--recipes", str(recipes), "--out", str(tmp_path / "out"), "--jobs", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", "quant.bench", *arguments, "--seeds", "0,1,2"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as bench:
        until = time.monotonic() + 120
        while not list((tmp_path / "out").glob("sparse-*/train.resume.npz")):
            assert time.monotonic() < until
            time.sleep(0.1)
        workers = children_of(bench.pid)
        os.killpg(bench.pid, number) if number == signal.SIGINT else bench.send_signal(number)
        _, error = bench.communicate(timeout=60)
    assert bench.returncode == code
    told = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}.get(number)
    assert error == (f"{told}; run the same command again to resume\n" if told else "")
    assert len(workers) >= 2
    assert [pid for pid in workers if not ends(pid)] == []


def children_of(pid: int) -> list[int]:
    """Return the numbers of a process's children."""
    parents = {
        int(path.parent.name): int(path.read_text().rpartition(") ")[2].split()[1])
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.is_file()
    }
    return [child for child, parent in parents.items() if parent == pid]


def test_impossible_number_of_jobs_is_one_line(
    recipes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--recipes", str(recipes), "--out", "out", "--jobs", "0"]
    monkeypatch.setattr(sys, "argv", ["quant.bench", *arguments])
    assert guard(main) == 1
    assert capsys.readouterr().err == "error: --jobs must be at least 1, got 0\n"


def test_seeds() -> None:
    assert parse_seeds("0,3") == (0, 3)
    with pytest.raises(ConfigError, match=r"^--seeds must be whole numbers .* got 'a,1'$"):
        parse_seeds("a,1")
    with pytest.raises(ConfigError, match=r"of up to 9 digits .* got '1{37}\.\.\.1{18}'$"):
        parse_seeds("1" * 5000)


def test_list_prints_names_and_notes(
    recipes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--recipes", str(recipes), "--out", "out", "--list"]
    monkeypatch.setattr(sys, "argv", ["quant.bench", *arguments])
    assert guard(main) == 0
    assert capsys.readouterr().out.splitlines()[0].split(maxsplit=1) == ["dense", "all weights"]
