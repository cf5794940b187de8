# SPDX-License-Identifier: Apache-2.0
"""Run a recipe and the dense networks it is compared with.

Every network is an ordinary build in OUT: `<recipe>-<seed>`, `<recipe>-<seed>-twin`,
`<recipe>-<seed>-narrow` and, if asked for, `<recipe>-<seed>-light`. Stages that two builds share,
such as fp32 training, run once: results are kept by the hash of their inputs. An interrupted
comparison continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from quant.allocate.sizes import layer_shapes, measured_keeps, total_cycles
from quant.bench.judge import Judged, judge
from quant.bench.rivals import (
    dense_cycles,
    dense_steps,
    dense_twin,
    lane_steps,
    light_rival,
    narrow_rival,
    shaped_rivals,
)
from quant.build import Build, load_bits, load_pruned, load_stage
from quant.network.rewrite import tap_layers
from quant.recipes import Recipe
from quant.run import STAGES, run_stage
from winnow.artefact import sha256_value
from winnow.cache import lock
from winnow.config import Config
from winnow.flow import adopt, copy_results, difference, stage_inputs
from winnow.process import worker_pool

_STAGES = tuple(name for name in STAGES if name != "golden")
_TO_PRUNED = _STAGES[: _STAGES.index("prune") + 1]


@dataclass(frozen=True)
class Rival:
    """A dense network of 8 bits: how good it is, modelled cycles, steps of the lanes."""

    judged: Judged
    cycles: int
    steps: int


@dataclass(frozen=True)
class RecipeResult:
    """What one recipe achieved with one seed.

    Members:
        twin: the dense fp32 network of equal training.
        pruned, quantized: the recipe's networks, in fp32 and in integers.
        narrow: the dense network of equal cycles, of several shapes the best on validation images;
            None if there is no such width.
        light: the dense network of equal products; None also if it was not asked for.
        sparsity: share of zeros among the weights of all layers that multiply, in percent.
        bits: mean width of the weights that are left.
        cycles: modelled engine cycles of all layers that the engine can run.
        steps: those of them in which the lanes multiply.
        seconds: time of the stages, also of those shared with other runs.
    """

    twin: Judged
    pruned: Judged
    quantized: Judged
    narrow: Rival | None
    light: Rival | None
    sparsity: float
    bits: float
    cycles: int
    steps: int
    seconds: float


def run_recipe(
    recipe: Recipe, out: Path, device: torch.device, *, with_light: bool = False
) -> RecipeResult:
    """Run a recipe and its rivals in OUT and return what they achieved."""
    torch.set_num_threads(1)
    name = f"{recipe.name}-{recipe.config.seed}"
    build = _run(name, recipe.config, out, device, _STAGES)
    build.require_classes("a recipe")
    twin = _run(f"{name}-twin", dense_twin(recipe.config), out, device, _TO_PRUNED)
    cycles, steps = _cycles_and_steps(build)
    teacher = build.out.resolve()

    def rival(kind: str, config: Config | None) -> Rival | None:
        if config is None:
            return None
        found = _run(f"{name}-{kind}", config, out, device, _STAGES)
        return Rival(_judged(found, "qat", "quantized"), dense_cycles(config), dense_steps(config))

    narrow = rival("narrow", narrow_rival(recipe.config, cycles, teacher))
    shaped = [
        rival("-".join(["narrow", *map(str, config.model.channels)]), config)
        for config in shaped_rivals(recipe.config, recipe.shapes, cycles, teacher)
    ]
    candidates = [found for found in (narrow, *shaped) if found is not None]
    best = max(candidates, key=lambda found: found.judged.validation, default=None)
    light = light_rival(recipe.config, steps, teacher) if with_light else None
    sparsity, bits = _weights(build)
    return RecipeResult(
        _judged(twin, "prune", "pruned"),
        _judged(build, "prune", "pruned"),
        _judged(build, "qat", "quantized"),
        best,
        rival("light", light),
        sparsity,
        bits,
        cycles,
        steps,
        _seconds(build),
    )


def _run(
    name: str, config: Config, out: Path, device: torch.device, stages: Sequence[str]
) -> Build:
    build = Build(config, out / name, device, config_path=f"<{name}>")
    for stage in stages:
        _run_shared(stage, build, out / ".stages")
    return build


def _run_shared(name: str, build: Build, store: Path) -> None:
    """Run a stage, or copy its files from a run with the same inputs."""
    stage = STAGES[name]
    inputs = stage_inputs(stage, build)
    kept = store / f"{name}-{sha256_value(inputs)[:16]}"
    with lock(kept):  # of two jobs with the same inputs one waits
        if difference(stage, build.out, inputs) is not None:
            adopt(stage, build, inputs, kept)
        run_stage(stage, build)
        if difference(stage, kept, inputs) is not None:
            copy_results(stage, build.out, kept)


def _judged(build: Build, stage: str, kind: str) -> Judged:
    return judge(build, stage, kind, load_stage(build, stage))


def _cycles_and_steps(build: Build) -> tuple[int, int]:
    net, bits, engine = load_pruned(build), load_bits(build), build.config.engine
    widths = {name: choice.weight for name, choice in bits.items()}
    shapes = layer_shapes(net, measured_keeps(net), widths)
    steps = sum(lane_steps(engine, shape, name) for name, shape in shapes.items())
    return total_cycles(engine, shapes), steps


def _weights(build: Build) -> tuple[float, float]:
    """Return the share of zeros in percent, and the mean width of the other weights."""
    layers, bits = tap_layers(load_pruned(build)), load_bits(build)
    left = {name: int((layer.u != 0).sum()) for name, layer in layers.items()}
    total = sum(layer.weight.numel() for layer in layers.values())
    mean_bits = sum(bits[name].weight * count for name, count in left.items())
    return 100 * (1 - sum(left.values()) / total), mean_bits / max(1, sum(left.values()))


def _seconds(build: Build) -> float:
    return sum(float(build.record(name).numbers["seconds"]) for name in _STAGES)


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
