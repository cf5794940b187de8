# SPDX-License-Identifier: Apache-2.0
"""The tables of a comparison: losses against the dense twin, gains over smaller dense networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from quant.bench.judge import Difference, Judged, accuracy, difference
from quant.bench.runs import RecipeResult, Rival
from quant.recipes import Recipe

Runs = Sequence[RecipeResult]  # of one recipe, by seed

LOSSES = (
    f"  {'recipe':<20}{'twin':>8}{'pruned':>8}{'quant.':>8}{'loss':>13}{'goal':>6}{'narrow':>8}"
    f"{'gain':>13}{'zeros %':>9}{'bits':>6}{'cycles':>9}{'narrow':>9}{'seconds':>9}"
)
PRODUCTS = (
    f"  {'equal products':<20}{'quant.':>8}{'steps':>9}{'cycles':>9}{'light':>8} {'gain':>13}"
    f"{'steps':>9}{'cycles':>9}"
)
CHOICES = f"  {'validation, test':<20}{'twin':>16}{'pruned':>16}{'quantized':>16}{'narrow':>16}"


def format_tables(recipes: Sequence[Recipe], runs: Sequence[Runs], judged_on: str) -> str:
    """Return the tables, and which goals are met.

    A goal is met or missed if the loss differs from it by more than its standard error.
    """
    seeds = "one seed" if len(runs[0]) == 1 else f"{len(runs[0])} seeds"
    tables = ", ".join(dict.fromkeys(recipe.table for recipe in recipes))
    lines = [
        f"{tables}: accuracy in percent, mean of {seeds}",
        f"  on {judged_on}, measured; cycles modelled",
        "  loss: dense fp32 twin of equal training - quantized; gain: quantized - dense 8-bit "
        "network of at most its cycles; ± standard error",
        LOSSES,
        *(_losses(recipe, found) for recipe, found in zip(recipes, runs, strict=True)),
        *_products(recipes, runs),
        "  accuracy on the build's own images: choices are made on validation",
        CHOICES,
        *(_choices(recipe, found) for recipe, found in zip(recipes, runs, strict=True)),
        *_verdicts(recipes, runs),
    ]
    return "\n".join(lines)


def loss(runs: Runs) -> Difference:
    """Return what the quantized network loses against the dense twin."""
    return difference([run.twin for run in runs], [run.quantized for run in runs])


def gain(runs: Runs) -> Difference | None:
    """Return what it gains over the dense network of equal cycles; None where a seed has none."""
    return _over(runs, _narrow(runs))


def _over(runs: Runs, rivals: Sequence[Rival]) -> Difference | None:
    if len(rivals) < len(runs):
        return None
    return difference([run.quantized for run in runs], [rival.judged for rival in rivals])


def verdict(recipe: Recipe, runs: Runs) -> str | None:
    """Return whether the goal of a recipe is "met", "missed" or "open"; None if it has none."""
    if recipe.goal is None:
        return None
    lost = loss(runs)
    if abs(lost.points - recipe.goal) <= lost.error:
        return "open"
    return "met" if lost.points < recipe.goal else "missed"


def _verdicts(recipes: Sequence[Recipe], runs: Sequence[Runs]) -> Iterator[str]:
    found = [(recipe.name, verdict(recipe, r)) for recipe, r in zip(recipes, runs, strict=True)]
    if any(word for _, word in found):
        parts = (
            f"{word}: {', '.join(names) or 'none'}"
            for word in ("met", "open", "missed")
            for names in [[name for name, said in found if said == word]]
        )
        yield "goals " + "; ".join(parts) + " (open: within the standard error)"


def _losses(recipe: Recipe, runs: Runs) -> str:
    goal = "-" if recipe.goal is None else f"{recipe.goal:.2f}"
    narrow, gained = _narrow(runs), gain(runs)
    return (
        f"  {recipe.name:<20}{_rate([r.twin for r in runs])}{_rate([r.pruned for r in runs])}"
        f"{_rate([r.quantized for r in runs])}{_points(loss(runs))}{goal:>6}"
        f"{_rate([rival.judged for rival in narrow])}{_points(gained)}"
        f"{mean(r.sparsity for r in runs):>9.1f}{mean(r.bits for r in runs):>6.2f}"
        f"{mean(r.cycles for r in runs):>9.0f}"
        + (f"{mean(rival.cycles for rival in narrow):>9.0f}" if narrow else f"{'-':>9}")
        + f"{sum(r.seconds for r in runs):>9.0f}"
    )


def _products(recipes: Sequence[Recipe], runs: Sequence[Runs]) -> Iterator[str]:
    """Yield the table of equal products, if there is a light network."""
    rows = [(recipe, found, _light(found)) for recipe, found in zip(recipes, runs, strict=True)]
    if not any(light for _, _, light in rows):
        return
    yield "  light: dense 8-bit network for which the lanes take at most as many steps"
    yield PRODUCTS
    for recipe, found, light in rows:
        yield (
            f"  {recipe.name:<20}{_rate([r.quantized for r in found])}"
            f"{mean(r.steps for r in found):>9.0f}{mean(r.cycles for r in found):>9.0f}"
            f"{_rate([rival.judged for rival in light])} {_points(_over(found, light))}"
            + (
                f"{mean(rival.steps for rival in light):>9.0f}"
                f"{mean(rival.cycles for rival in light):>9.0f}"
                if light
                else f"{'-':>9}{'-':>9}"
            )
        )


def _choices(recipe: Recipe, runs: Runs) -> str:
    columns = (
        [r.twin for r in runs],
        [r.pruned for r in runs],
        [r.quantized for r in runs],
        [rival.judged for rival in _narrow(runs)],
    )
    return f"  {recipe.name:<20}" + "".join(map(_own, columns))


def _narrow(runs: Runs) -> list[Rival]:
    return [run.narrow for run in runs if run.narrow is not None]


def _light(runs: Runs) -> list[Rival]:
    return [run.light for run in runs if run.light is not None]


def _rate(networks: Sequence[Judged]) -> str:
    if not networks:
        return f"{'-':>8}"
    return f"{accuracy(networks):>8.2f}"


def _own(networks: Sequence[Judged]) -> str:
    if not networks:
        return f"{'-':>16}"
    validation = mean(net.validation for net in networks)
    return f"{f'{validation:.2f}, {mean(net.test for net in networks):.2f}':>16}"


def _points(found: Difference | None) -> str:
    if found is None:
        return f"{'-':>13}"
    return f"{f'{found.points:.2f} ± {found.error:.2f}':>13}"
