# SPDX-License-Identifier: Apache-2.0
"""Compare recipes with dense networks of equal training and of equal cycles, with several seeds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from quant.bench.figure import check_figure, write_figure
from quant.bench.judge import is_fresh, judging_images
from quant.bench.price import priced
from quant.bench.runs import run_all, run_recipe
from quant.bench.table import format_tables
from quant.recipes import Recipe, load_recipes
from quant.train.training import multiplies_bfloat16, pick_device
from winnow.cli import Parser, guard
from winnow.errors import ConfigError, shown
from winnow.place import CONFIGS


def parser() -> Parser:
    """Return the parser of `python -m quant.bench`."""
    whole = Parser(
        prog="python -m quant.bench",
        description="Train recipes of a file with several seeds and print a table: accuracy, "
        "loss against the dense twin, gain over a dense network of equal cycles, and which goals "
        "are met. Continues where it was interrupted.",
        epilog="example: python -m quant.bench --recipes configs/recipes/colour.toml "
        "--out build/bench --only int8,srbs-75 --seeds 0,1,2",
    )
    whole.add_argument("--recipes", type=Path, nargs="+", metavar="FILE", help="recipe files")
    whole.add_argument("--out", type=Path, metavar="DIR", help="folder of all runs")
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
    whole.add_argument(
        "--products",
        action="store_true",
        help="also train dense networks of equal products, beside those of equal cycles",
    )
    whole.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw accuracy against cycles as an SVG file"
    )
    whole.add_argument(
        "--list",
        action="store_true",
        help="list recipes with their prices and stop; without --recipes all",
    )
    return whole


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a comma-separated list; ConfigError unless it is one."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise ConfigError(
            "--seeds must be whole numbers of up to 9 digits with commas, such as 0,1,2; got "
            f"{shown(text)}"
        )
    seeds = tuple(int(part) for part in parts)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds must be different ones, got {shown(text)}")
    return seeds


def main() -> None:
    """Compare recipes."""
    arguments = parser()
    options = arguments.parse_args()
    lacking = [f"--{key}" for key in ("recipes", "out") if getattr(options, key) is None]
    if lacking and not options.list:
        arguments.error(f"the following arguments are required: {', '.join(lacking)}")
    only = tuple(name.strip() for name in options.only.split(",") if name.strip())
    if options.list and options.recipes is None:
        for file in sorted((CONFIGS / "recipes").glob("*.toml")):
            print(f"{file}\n{priced(load_recipes([file]))}")
        return
    recipes = load_recipes(options.recipes, only)
    if options.list:
        print(priced(recipes))
        return
    seeds, device = parse_seeds(options.seeds), pick_device(options.device)
    if options.jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, got {options.jobs}")
    if options.figure is not None:
        check_figure(options.figure)
    run = partial(run_recipe, out=options.out, device=device, with_light=options.products)
    begin = time.monotonic()
    runs = run_all(recipes, seeds, run, options.jobs)
    print(format_tables(recipes, runs, _judged_on(recipes)))
    if options.figure is not None:
        write_figure(options.figure, recipes, runs)
    minutes = (time.monotonic() - begin) / 60
    print(
        f"this call took {minutes:.1f} minutes in {options.jobs} processes of one thread; "
        f"{_arithmetic(recipes, device)}"
    )


def _judged_on(recipes: Sequence[Recipe]) -> str:
    """Name the images, of every set of data that recipes use."""
    kinds = {recipe.config.data: None for recipe in recipes}
    return " or ".join(
        f"{len(judging_images(data)):,} {'fresh' if is_fresh(data) else 'test'} images of "
        f"data.source '{data.source}'"
        for data in kinds
    )


def _arithmetic(recipes: Sequence[Recipe], device: torch.device) -> str:
    """Say how training multiplied: another processor may give other networks."""
    wanted = any(recipe.config.train.amp for recipe in recipes)
    used = wanted and multiplies_bfloat16(device)
    return f"training multiplied in {'bfloat16' if used else 'float32'} on {device.type}"


if __name__ == "__main__":
    sys.exit(guard(main))
