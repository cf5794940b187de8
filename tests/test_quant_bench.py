# SPDX-License-Identifier: Apache-2.0
"""Recipes and their comparison: merging, refusals, shared stages, the table's arithmetic."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from quant.bench.__main__ import main, parse_seeds
from quant.bench.figure import check_figure, dense_line, write_figure
from quant.bench.judge import FRESH_IMAGES, Judged, difference, judging_images
from quant.bench.price import price, priced
from quant.bench.rivals import (
    dense_cycles,
    narrow_rival,
)
from quant.bench.runs import RecipeResult, Rival, run_recipe
from quant.bench.table import format_tables, verdict
from quant.build import Build
from quant.check import check_recipe
from quant.data.load import read_split
from quant.recipes import Recipe, load_recipes, merge
from tests.conftest import ROOT
from tests.test_winnow_process import children_of, ends
from winnow.artefact import Record, load_arrays
from winnow.cli import guard
from winnow.config import (
    Config,
    DataConfig,
)
from winnow.errors import ConfigError

BASE = """
[model]
channels = [8, 32]
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


def test_profiles_of_the_base_are_no_recipes(recipes: Path) -> None:
    before = load_recipes([recipes])
    (recipes.parent.parent / "tiny.toml").write_text(f"{BASE}[profiles.fast]\nprune.keep = 1\n")
    assert load_recipes([recipes]) == before


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
    assert dense.config.model.channels == (8, 32)
    assert load_recipes([recipes], ("sparse",)) == (sparse,)


def test_recipes_of_the_repository_are_valid(root: Path) -> None:
    files = sorted((root / "configs" / "recipes").glob("*.toml"))
    assert files
    for path in files:
        found = load_recipes([path])
        assert all(recipe.note for recipe in found)


def test_cascades_compare_assistants_at_two_sizes_and_equal_epochs(root: Path) -> None:
    """All else is equal, and the checks before training find nothing to refuse."""
    found = load_recipes([root / "configs" / "recipes" / "distill.toml"])
    cascades = {r.name: r.config for r in found if r.config.prune_channels.method == "cascade"}
    keys = {name: config.prune_channels for name, config in cascades.items()}
    assert {name: (k.share, k.levels) for name, k in keys.items()} == {
        "cascade-60": (0.6, 3),
        "cascade-60-direct": (0.6, 1),
        "cascade-30": (0.3, 3),
        "cascade-30-direct": (0.3, 1),
    }
    first = cascades["cascade-60"]
    for name, config in cascades.items():
        sized = replace(first.prune_channels, share=keys[name].share, levels=keys[name].levels)
        assert config == replace(first, prune_channels=sized)
        check_recipe(Build(config, Path("nowhere")))
    assert {epochs_of(recipe.config) for recipe in found} == {38}


def epochs_of(config: Config) -> int:
    """Return the epochs of the whole network over all stages."""
    channels = config.prune_channels.epochs if config.prune_channels.method != "none" else 0
    return config.train.epochs + channels + config.prune.epochs + config.quantize.epochs


def test_two_recipes_train_once_and_are_measured(
    recipes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    runs = [run_recipe(r, out, torch.device("cpu")) for r in load_recipes([recipes])]
    printed = capsys.readouterr().out
    # One fp32 network for all but the narrow one of `sparse`; one twin for both.
    assert printed.count("train: fp32 test accuracy") == 2
    assert printed.count("prune: pruned test accuracy") == 4
    dense, sparse = runs
    assert (dense.twin.hits == sparse.twin.hits).all()
    assert len(dense.twin.hits) == 360
    assert dense.sparsity < 1
    masks = load_arrays(out / "sparse-0" / "prune.npz", "")
    kept = sum(float(array.sum()) for name, array in masks.items() if name.endswith("mask"))
    size = sum(array.size for name, array in masks.items() if name.endswith("mask"))
    assert sparse.sparsity == pytest.approx(100 * (1 - kept / size), abs=0.5)
    assert sparse.bits == 8
    assert sparse.cycles < dense.cycles
    assert dense.narrow is None  # it saves no cycles that a narrower network could
    assert sparse.narrow is not None
    assert sparse.narrow.cycles <= sparse.cycles
    seconds = Record.load(out / "dense-0" / "train.json", "").numbers["seconds"]
    assert dense.seconds >= seconds
    for name, stage, kind, judged in (
        ("sparse-0-twin", "prune", "pruned", sparse.twin),
        ("sparse-0", "prune", "pruned", sparse.pruned),
        ("sparse-0", "qat", "quantized", sparse.quantized),
    ):
        numbers = Record.load(out / name / f"{stage}.json", "").numbers
        assert 100 * judged.hits.mean() == pytest.approx(numbers[f"{kind}_accuracy"])
        assert judged.test == numbers[f"{kind}_accuracy"]
        assert judged.validation == numbers["validation_accuracy"]


def test_hits_that_were_kept_are_those_of_the_network(recipes: Path, tmp_path: Path) -> None:
    """They count again as long as the network is the same; another's, or garbage, do not."""
    (recipe,) = load_recipes([recipes], ("sparse",))
    first = run_recipe(recipe, tmp_path, torch.device("cpu"))
    kept = tmp_path / "sparse-0" / "qat.hits.npz"
    kept.write_bytes((tmp_path / "sparse-0" / "prune.hits.npz").read_bytes())
    (tmp_path / "sparse-0-twin" / "prune.hits.npz").write_bytes(b"garbage")
    again = run_recipe(recipe, tmp_path, torch.device("cpu"))
    assert (first.quantized.hits == again.quantized.hits).all()
    assert (first.twin.hits == again.twin.hits).all()


@pytest.mark.parametrize(("validations", "best"), [((80.0, 90.0), 1), ((90.0, 80.0), 0)])
def test_the_shape_that_is_best_on_validation_counts(
    recipes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    validations: tuple[float, float],
    best: int,
) -> None:
    recipes.write_text(f"{RECIPES}shapes = [[8, 8]]")
    (sparse,) = load_recipes([recipes], ("sparse",))
    names = ("sparse-0-narrow", "sparse-0-narrow-8-8")
    of = dict(zip(names, validations, strict=True))

    def judged_by_name(build: Build, *_: object) -> Judged:
        return judged("10", validation=of.get(build.out.name, 99.0))

    monkeypatch.setattr("quant.bench.runs.judge", judged_by_name)
    out = tmp_path / "out"
    found = run_recipe(sparse, out, torch.device("cpu")).narrow
    assert found is not None
    assert all((out / name / "qat.npz").is_file() for name in names)
    assert found.judged.validation == 90.0
    narrow = narrow_rival(sparse.config, found.cycles, out)
    assert narrow is not None
    channels = (narrow.model.channels, (8, 8))[best]
    model = replace(sparse.config.model, channels=channels)
    assert found.cycles == dense_cycles(replace(sparse.config, model=model))


def test_colour_is_judged_on_fresh_images() -> None:
    config = DataConfig(source="colour", image_size=32, train_images=40, test_images=20)
    judging = judging_images(config)
    assert len(judging) == FRESH_IMAGES
    split = read_split(config)
    fresh = {bytes(image.numpy()) for image in judging.images}
    assert len(fresh) == FRESH_IMAGES
    for samples in (split.train, split.validation, split.test):
        assert not fresh & {bytes(image.numpy()) for image in samples.images}


def judged(hits: str, validation: float = 90.0, test: float = 80.0) -> Judged:
    return Judged(np.array([mark == "+" for mark in hits]), validation, test)


def test_difference_is_paired() -> None:
    """4 images: differences 1, 0, 0, -1 and 1, 1, 0, 0 have variances 2/3 and 1/3."""
    one = difference([judged("++--")], [judged("-+-+")])
    assert (one.points, one.error) == (0.0, pytest.approx(100 * math.sqrt(2 / 3 / 4)))
    two = difference([judged("++--"), judged("++--")], [judged("-+-+"), judged("----")])
    assert two.points == 25.0
    of_images = 100 * math.sqrt(2 / 3 / 4 + 1 / 3 / 4) / 2
    of_seeds = 100 * math.sqrt(0.5**2 / 2) / math.sqrt(2)
    assert two.error == pytest.approx(max(of_images, of_seeds))


def result(twin: str, quantized: str, narrow: str | None, light: str | None = None) -> RecipeResult:
    return RecipeResult(
        twin=judged(twin, 91.0, 89.0),
        pruned=judged("+" * 10),
        quantized=judged(quantized),
        narrow=None if narrow is None else Rival(judged(narrow), 900, 700),
        light=None if light is None else Rival(judged(light), 600, 400),
        sparsity=75.0,
        bits=6.5,
        cycles=1000,
        steps=500,
        seconds=10.0,
    )


def test_table_holds_losses_gains_and_choices(recipes: Path) -> None:
    found = load_recipes([recipes])
    runs = [
        [result("++++++++++", "+++++++++-", "++++++++--") for _ in range(2)],
        [result("++++++++++", "++++++++++", None) for _ in range(2)],
    ]
    header, where, _, columns, dense, sparse, _, choices, own, _, goals = format_tables(
        found, runs, "10 images"
    ).splitlines()
    assert header == ("two: accuracy in percent, mean of 2 seeds")
    assert where == "  on 10 images, measured; cycles modelled"
    assert columns.split() == [
        "recipe", "twin", "pruned", "quant.", "loss", "goal", "narrow", "gain",
        "zeros", "%", "bits", "cycles", "narrow", "seconds"
    ]  # fmt: skip
    assert dense.split() == [
        "dense", "100.00", "100.00", "90.00", "10.00", "±", "7.07", "1.50", "80.00",
        "10.00", "±", "7.07", "75.0", "6.50", "1000", "900", "20"
    ]  # fmt: skip
    assert sparse.split()[4:9] == ["0.00", "±", "0.00", "-", "-"]
    assert "validation, test" in choices
    assert own.split() == [
        "dense",
        *["91.00,", "89.00", "90.00,", "80.00", "90.00,", "80.00", "90.00,", "80.00"],
    ]
    assert goals == "goals met: none; open: none; missed: dense (open: within the standard error)"


def test_light_networks_have_a_table_and_are_drawn(recipes: Path, tmp_path: Path) -> None:
    found = load_recipes([recipes])
    runs = [
        [result("++++++++++", "+++++++++-", "++++++++--", "++++++----") for _ in range(2)],
        [result("++++++++++", "++++++++++", None) for _ in range(2)],
    ]
    lines = format_tables(found, runs, "10 images").splitlines()
    place = next(i for i, line in enumerate(lines) if line.split()[:2] == ["equal", "products"])
    assert lines[place].split()[2:] == [
        "quant.", "steps", "cycles", "light", "gain", "steps", "cycles"
    ]  # fmt: skip
    assert lines[place + 1].split() == [
        "dense", "90.00", "500", "1000", "60.00", "30.00", "±", "10.80", "400", "600"
    ]  # fmt: skip
    assert lines[place + 2].split() == ["sparse", "100.00", "500", "1000", "-", "-", "-", "-"]
    assert dense_line(runs) == ((600, 60.0), (900, 80.0))
    path = tmp_path / "pays.svg"
    write_figure(path, found, runs)
    drawn = ElementTree.fromstring(path.read_text())
    circles = [(c.get("cx"), c.get("cy")) for c in drawn.iter() if c.tag.endswith("circle")]
    assert len(circles) == 2 + 2 + 2  # the line, the recipes, the legend
    texts = {text.text for text in drawn.iter() if text.tag.endswith("text")}
    assert {"dense", "sparse", "dense, 8 bits", "recipes"} <= texts


def test_figures_are_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "folder.svg").mkdir()
    for name, match in (
        ("pays.png", "must be a file that ends in .svg"),
        ("gone/pays.svg", "its folder must exist"),
        ("folder.svg", "its folder must exist, and it must be no folder"),
    ):
        with pytest.raises(ConfigError, match=match):
            check_figure(tmp_path / name)


@pytest.mark.parametrize(
    ("goal", "word"),
    [(None, None), (16.0, "met"), (14.0, "open"), (10.0, "open"), (6.0, "open"), (4.0, "missed")],
)
def test_goal_within_the_error_is_open(recipes: Path, goal: float | None, word: str | None) -> None:
    """One image of ten is lost by four seeds: 10 points, with an error of 5."""
    recipe: Recipe = replace(load_recipes([recipes])[0], goal=goal)
    runs = [result("++++++++++", "+++++++++-", None) for _ in range(4)]
    assert verdict(recipe, runs) == word


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
        ("version = 0\n" + RECIPES, "version must be a whole number from 1 up, got 0$"),
        (
            'version = 2\nfrozen = "0"\n' + RECIPES,
            r"recipe 'dense' has other keys of data, model or train than version 2; raise the "
            r'version and set frozen = "[0-9a-f]{16}"$',
        ),
        (RECIPES.replace('"all weights"', "3"), r"recipes\.dense\.note must be text, got 3$"),
        (f"{RECIPES}shapes = 8", r"'sparse': shapes must be a list of lists of channels, got 8$"),
        (f"{RECIPES}shapes = [8]", r"'sparse': model\.channels must be .*, got 8$"),
        (
            f"{RECIPES}shapes = [[8, 0]]",
            r"'sparse': model\.channels must be .* in 1\.\.2048, got \[8, 0\]$",
        ),
        (
            f'{RECIPES}model.name = "resnet8"\nshapes = [[8, 8]]',
            r"shapes are channels of model\.name 'chain', and this is 'resnet8'$",
        ),
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
    figure = tmp_path / "pays.svg"
    arguments += ["--jobs", "2", "--products", "--figure", str(figure)]
    monkeypatch.setattr(sys, "argv", ["quant.bench", *arguments])
    assert guard(main) == 0
    printed = capfd.readouterr().out
    # The network of the recipes, and the narrow one of `sparse`, which is the light one too.
    assert printed.count("train: fp32 test accuracy") == 2
    for kind in ("narrow", "light"):
        assert (tmp_path / "out" / f"sparse-0-{kind}" / "qat.json").is_file()
    assert "light: dense 8-bit network" in printed
    assert figure.read_text().count("<circle") == 1 + 2 + 2
    lines = printed.splitlines()
    assert "two: accuracy in percent, mean of one seed\n  on 360 test images of" in printed
    assert [line.split()[0] for line in lines[-4:-2]] == ["dense", "sparse"]
    assert re.fullmatch(
        r"this call took \d+\.\d minutes in 2 processes of one thread; training multiplied in "
        r"float32 on cpu",
        lines[-1],
    )


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


def test_impossible_number_of_jobs_is_one_line(
    recipes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--recipes", str(recipes), "--out", "out", "--jobs", "0"]
    monkeypatch.setattr(sys, "argv", ["quant.bench", *arguments])
    assert guard(main) == 1
    assert capsys.readouterr().err == "error: --jobs must be at least 1, got 0\n"


def test_seeds() -> None:
    assert parse_seeds("0,3") == (0, 3)
    with pytest.raises(ConfigError, match=r"^--seeds must be different ones, got '1,2,01'$"):
        parse_seeds("1,2,01")
    with pytest.raises(ConfigError, match=r"^--seeds must be whole numbers .* got 'a,1'$"):
        parse_seeds("a,1")
    with pytest.raises(ConfigError, match=r"of up to 9 digits .* got '1{37}\.\.\.1{18}'$"):
        parse_seeds("1" * 5000)


def test_list_prints_names_and_notes(
    recipes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--recipes", str(recipes), "--list"]
    monkeypatch.setattr(sys, "argv", ["quant.bench", *arguments])
    assert guard(main) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [lines[0][0], lines[0][2]] == ["dense", "all weights"]
    assert float(lines[0][1]) <= float(lines[-1][1])


def test_what_recipes_share_is_paid_once(root: Path) -> None:
    folder = root / "configs" / "recipes"
    (first,) = load_recipes([folder / "distill.toml"], ("plain",))
    alone, again, other = price([first, first, first.with_seed(1)])
    assert alone is not None
    assert again is not None
    assert other == alone > again > 0
    costs = [cost or 0 for cost in price(load_recipes([folder / "distill.toml"]))]
    assert 5 < sum(costs) < 15  # so that somebody runs it
    elsewhere = load_recipes([folder / "fashion.toml"])
    assert price(elsewhere) == [None] * len(elsewhere)
    assert priced(elsewhere).splitlines()[-1].split()[:2] == ["all", "?"]


def test_list_alone_prints_all_recipes_by_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["quant.bench", "--list"])
    assert guard(main) == 0
    lines = capsys.readouterr().out.splitlines()
    files = [line for line in lines if line.endswith(".toml")]
    assert files == sorted(map(str, Path("configs/recipes").glob("*.toml")))
    assert any(line.split()[:1] == ["srbs-75"] for line in lines)


@pytest.mark.parametrize(
    ("given", "lacking"),
    [([], "--recipes, --out"), (["--out", "out"], "--recipes"), (["--recipes", "a"], "--out")],
)
def test_training_needs_recipes_and_a_folder(
    given: list[str],
    lacking: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["quant.bench", *given])
    assert guard(main) == 1
    message = f"the following arguments are required: {lacking}; see: python -m quant.bench --help"
    assert capsys.readouterr().err == f"error: {message}\n"
