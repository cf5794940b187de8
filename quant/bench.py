# SPDX-License-Identifier: Apache-2.0
"""Compare recipes: train each with several seeds and print what it keeps and what it costs.

Every run is an ordinary build in OUT/<recipe>-<seed>. Stages that two runs share, such as fp32
training, run once: results are kept by the hash of their inputs. An interrupted comparison
continues where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from quant.allocate.sizes import layer_shapes, measured_keeps, total_cycles
from quant.build import Build, load_bits, load_pruned
from quant.network.rewrite import tap_layers
from quant.recipes import Recipe, load_recipes
from quant.results import COMPARED
from quant.run import STAGES, run_stage
from quant.train.training import pick_device
from winnow.artefact import Record, sha256_value, write_bytes
from winnow.cache import lock
from winnow.cli import guard
from winnow.errors import ConfigError, shown
from winnow.flow import difference, stage_inputs
from winnow.process import worker_pool

_STAGES = tuple(name for name in STAGES if name != "golden")


@dataclass(frozen=True)
class RecipeResult:
    """What one recipe achieved with one seed.

    Members:
        accuracy: test accuracy in percent of the fp32, the pruned and the quantized network.
        sparsity: share of zeros among the weights of all layers that multiply, in percent.
        bits: mean width of the weights that are left.
        cycles: modelled engine cycles of all layers that the engine can run.
        seconds: time of the stages, also of those shared with other runs.
    """

    accuracy: tuple[float, float, float]
    sparsity: float
    bits: float
    cycles: int
    seconds: float


def run_recipe(recipe: Recipe, out: Path, device: torch.device) -> RecipeResult:
    """Run all stages of a recipe in OUT/<recipe>-<seed> and return what it achieved."""
    torch.set_num_threads(1)
    folder = out / f"{recipe.name}-{recipe.config.seed}"
    build = Build(recipe.config, folder, device, config_path=f"<{recipe.name}>")
    for name in _STAGES:
        _run_shared(name, build, out / ".stages")
    return measure(build)


def _run_shared(name: str, build: Build, store: Path) -> None:
    """Run a stage, or copy its files from a run with the same inputs."""
    stage = STAGES[name]
    inputs = stage_inputs(stage, build)
    kept = store / f"{name}-{sha256_value(inputs)[:16]}"
    record = f"{name}.json"
    with lock(kept):  # of two jobs with the same inputs one waits
        is_kept = difference(stage, kept, inputs) is None
        if is_kept and difference(stage, build.out, inputs) is not None:
            _copy(record, kept, build.out)
        run_stage(stage, build)
        if not is_kept:
            _copy(record, build.out, kept)


def _copy(record: str, source: Path, target: Path) -> None:
    """Copy a stage's files, the record last: without it the others count as not there."""
    for file in (*Record.load(source / record, "").outputs, record):
        write_bytes(target / file, (source / file).read_bytes())


def measure(build: Build) -> RecipeResult:
    """Return what a finished build achieved."""
    numbers = {name: build.record(name).numbers for name in _STAGES}
    net, bits = load_pruned(build), load_bits(build)
    widths = {name: choice.weight for name, choice in bits.items()}
    layers = tap_layers(net)
    shapes = layer_shapes(net, measured_keeps(net), widths)
    left = {name: int((layer.u != 0).sum()) for name, layer in layers.items()}
    total = sum(layer.weight.numel() for layer in layers.values())
    return RecipeResult(
        accuracy=_accuracies(numbers),
        sparsity=100 * (1 - sum(left.values()) / total),
        bits=sum(widths[name] * count for name, count in left.items()) / max(1, sum(left.values())),
        cycles=total_cycles(build.config.engine, shapes),
        seconds=sum(stage["seconds"] for stage in numbers.values()),
    )


def _accuracies(numbers: Mapping[str, Mapping[str, Any]]) -> tuple[float, float, float]:
    fp32, pruned, quantized = (numbers[stage][f"{kind}_accuracy"] for kind, stage in COMPARED)
    return fp32, pruned, quantized


def run_all(
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    run: Callable[[Recipe], RecipeResult],
    jobs: int,
) -> list[list[RecipeResult]]:
    """Run every recipe with every seed in `jobs` processes; return the runs [recipes][seeds]."""
    every = [recipe.with_seed(seed) for recipe in recipes for seed in seeds]
    if jobs == 1:
        runs = [run(recipe) for recipe in every]
    else:
        with worker_pool(jobs, "spawn") as pool:
            runs = list(pool.map(run, every))
    return [runs[i : i + len(seeds)] for i in range(0, len(runs), len(seeds))]


def format_table(recipes: Sequence[Recipe], runs: Sequence[Sequence[RecipeResult]]) -> str:
    """Return the table: mean and standard deviation over the seeds of every recipe."""
    seeds = "one seed" if len(runs[0]) == 1 else f"{len(runs[0])} seeds"
    lines = [
        f"test accuracy in percent, mean and standard deviation of {seeds}, measured; "
        "cycles modelled",
        f"  {'recipe':<20}{'fp32':>12}{'pruned':>13}{'quantized':>13}{'loss':>7}{'goal':>7}"
        f"{'zeros %':>9}{'bits':>6}{'cycles':>10}{'seconds':>9}",
    ]
    for recipe, found in zip(recipes, runs, strict=True):
        columns = list(zip(*(r.accuracy for r in found), strict=True))
        goal = "-" if recipe.goal is None else f"{recipe.goal:.2f}"
        lines.append(
            f"  {recipe.name:<20}{_spread(columns[0]):>12}{_spread(columns[1]):>13}"
            f"{_spread(columns[2]):>13}{loss(found):>7.2f}{goal:>7}"
            f"{mean(r.sparsity for r in found):>9.1f}"
            f"{mean(r.bits for r in found):>6.2f}{mean(r.cycles for r in found):>10.0f}"
            f"{sum(r.seconds for r in found):>9.0f}"
        )
    promised = [(r.name, r.goal, loss(f)) for r, f in zip(recipes, runs, strict=True) if r.goal]
    if promised:
        missed = [name for name, goal, lost in promised if lost > goal]
        names = f"; missed: {', '.join(missed)}" if missed else ""
        lines.append(f"goals met: {len(promised) - len(missed)} of {len(promised)}{names}")
    return "\n".join(lines)


def loss(runs: Sequence[RecipeResult]) -> float:
    """Return the points of mean accuracy that the quantized network is below the fp32 one."""
    return mean(run.accuracy[0] for run in runs) - mean(run.accuracy[2] for run in runs)


def _spread(values: Sequence[float]) -> str:
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.2f}±{spread:.2f}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m quant.bench`."""
    whole = argparse.ArgumentParser(
        prog="python -m quant.bench",
        description="Train recipes of a file with several seeds and print a table: accuracy, "
        "sparsity, bits, modelled cycles, seconds, and which goals are met. Continues where it "
        "was interrupted.",
        epilog="example: python -m quant.bench --recipes configs/recipes/colour.toml "
        "--out build/bench --only int8,srbs-75 --seeds 0,1,2",
    )
    whole.add_argument(
        "--recipes", type=Path, nargs="+", required=True, metavar="FILE", help="recipe files"
    )
    whole.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of all runs")
    whole.add_argument("--only", default="", metavar="NAMES", help="recipes, comma-separated (all)")
    whole.add_argument("--seeds", default="0,1,2", metavar="LIST", help="seeds (0,1,2)")
    whole.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where (cpu)")
    whole.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes at once, of one thread each (one per core)",
    )
    whole.add_argument("--list", action="store_true", help="list the recipes and stop")
    return whole


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a comma-separated list; ConfigError unless all are whole numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise ConfigError(
            "--seeds must be whole numbers of up to 9 digits with commas, such as 0,1,2; got "
            f"{shown(text)}"
        )
    return tuple(int(part) for part in parts)


def main() -> None:
    """Compare recipes."""
    options = parser().parse_args()
    only = tuple(name.strip() for name in options.only.split(",") if name.strip())
    recipes = load_recipes(options.recipes, only)
    if options.list:
        print("\n".join(f"{recipe.name:<20}{recipe.note}" for recipe in recipes))
        return
    seeds, device = parse_seeds(options.seeds), pick_device(options.device)
    if options.jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, got {options.jobs}")
    run = partial(run_recipe, out=options.out, device=device)
    begin = time.monotonic()
    print(format_table(recipes, run_all(recipes, seeds, run, options.jobs)))
    minutes = (time.monotonic() - begin) / 60
    print(f"this call took {minutes:.1f} minutes in {options.jobs} processes of one thread")


if __name__ == "__main__":
    sys.exit(guard(main))
