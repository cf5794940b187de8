# SPDX-License-Identifier: Apache-2.0
"""Run a recipe and the dense networks it is compared with.

Every network is an ordinary build in OUT: `<recipe>-<seed>`, `<recipe>-<seed>-twin`,
`<recipe>-<seed>-narrow`. Stages that two builds share, such as fp32 training, run once: results are
kept by the hash of their inputs. An interrupted comparison continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from quant.allocate.sizes import layer_shapes, measured_keeps, total_cycles
from quant.bench.judge import Judged, judge
from quant.bench.rivals import dense_cycles, dense_twin, narrow_rival
from quant.build import Build, load_bits, load_pruned, load_stage
from quant.network.rewrite import tap_layers
from quant.recipes import Recipe
from quant.run import STAGES, run_stage
from winnow.artefact import Record, sha256_value, write_bytes
from winnow.cache import lock
from winnow.config import Config
from winnow.flow import difference, stage_inputs
from winnow.process import worker_pool

_STAGES = tuple(name for name in STAGES if name != "golden")
_TO_PRUNED = _STAGES[: _STAGES.index("prune") + 1]


@dataclass(frozen=True)
class Narrow:
    """The dense network of at most the recipe's cycles: how good it is, modelled cycles."""

    judged: Judged
    cycles: int


@dataclass(frozen=True)
class RecipeResult:
    """What one recipe achieved with one seed.

    Members:
        twin: the dense fp32 network of equal training.
        pruned, quantized: the recipe's networks, in fp32 and in integers.
        narrow: the dense network of equal cycles, of 8 bits; None if there is no such width.
        sparsity: share of zeros among the weights of all layers that multiply, in percent.
        bits: mean width of the weights that are left.
        cycles: modelled engine cycles of all layers that the engine can run.
        seconds: time of the stages, also of those shared with other runs.
    """

    twin: Judged
    pruned: Judged
    quantized: Judged
    narrow: Narrow | None
    sparsity: float
    bits: float
    cycles: int
    seconds: float


def run_recipe(recipe: Recipe, out: Path, device: torch.device) -> RecipeResult:
    """Run a recipe and its rivals in OUT and return what they achieved."""
    torch.set_num_threads(1)
    name = f"{recipe.name}-{recipe.config.seed}"
    build = _run(name, recipe.config, out, device, _STAGES)
    build.require_classes("a recipe")
    twin = _run(f"{name}-twin", dense_twin(recipe.config), out, device, _TO_PRUNED)
    cycles = _cycles(build)
    config = narrow_rival(recipe.config, cycles, build.out.resolve())
    narrow = None
    if config is not None:
        rival = _run(f"{name}-narrow", config, out, device, _STAGES)
        narrow = Narrow(_judged(rival, "qat", "quantized"), dense_cycles(config))
    sparsity, bits = _weights(build)
    return RecipeResult(
        _judged(twin, "prune", "pruned"),
        _judged(build, "prune", "pruned"),
        _judged(build, "qat", "quantized"),
        narrow,
        sparsity,
        bits,
        cycles,
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


def _judged(build: Build, stage: str, kind: str) -> Judged:
    return judge(build, stage, kind, load_stage(build, stage))


def _cycles(build: Build) -> int:
    net, bits = load_pruned(build), load_bits(build)
    widths = {name: choice.weight for name, choice in bits.items()}
    return total_cycles(build.config.engine, layer_shapes(net, measured_keeps(net), widths))


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
