# SPDX-License-Identifier: Apache-2.0
"""Compact structure by block-wise distillation (Ahmed et al. 2021).

1. Every block of the network is narrowed to each candidate width and trained, fed by the network
   itself, to give the block's own output: its relative error on validation images is the price.
2. An integer program picks one width per block: least total error within the budget.
3. The chosen student learns block by block, each behind its own ones before it.
4. All of it is fine-tuned under the teacher.

What a block costs depends on its own width and on that of the block before it, so the choices form
a path, and the program has one variable for each pair of neighbouring choices.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint
from torch import Tensor

from quant.allocate.integer_program import solve
from quant.allocate.layer_cost import CostTerm
from quant.data import to_input
from quant.distill import distillation
from quant.distill.blockwise import make_block, segments, train_block, train_blocks
from quant.network.network import Network
from quant.network.structure import block_ends, channel_counts, channel_groups
from quant.prune_channels.saliency import keep_strongest, saliencies
from quant.prune_channels.task import Narrowed, Task, width_choices
from quant.train.training import fit


@dataclass(frozen=True)
class BlockWidth:
    """A width of a block: channels of each of its groups, and the error it makes."""

    counts: dict[str, int]
    error: float = 0.0


def group_blocks(net: Network) -> dict[str, int]:
    """Return the block, from 0, that produces each group's channels."""
    parts = [part.graph.by_name for part in segments(net)]
    return {
        group.name: next(i for i, nodes in enumerate(parts) if group.producers[0] in nodes)
        for group in channel_groups(net.graph)
    }


def candidates(net: Network, percents: tuple[int, ...], multiple: int) -> list[list[BlockWidth]]:
    """Return the widths of every block, different ones only; the last is the block as it is."""
    counts, blocks = channel_counts(net), group_blocks(net)
    table: list[list[BlockWidth]] = []
    for block in range(len(block_ends(net.graph)) + 1):
        own = [name for name in counts if blocks[name] == block]
        widths = {name: width_choices(counts[name], percents, multiple) for name in own}
        choices: list[BlockWidth] = []
        for i in range(len(percents) + 1):
            choice = BlockWidth({name: widths[name][i] for name in own})
            if choice not in choices:
                choices.append(choice)
        table.append(choices)
    return table


def pair_costs(
    terms: Sequence[CostTerm], blocks: Mapping[str, int], table: Sequence[Sequence[BlockWidth]]
) -> tuple[int, list[NDArray[np.int64]]]:
    """Return the cost that no choice changes, and what the choices of every block cost.

    Entry i of the list is [choices of block i - 1, choices of block i]; for i = 0 one row. Raises
    ValueError if a layer joins blocks that are not neighbours.
    """
    fixed = 0
    costs = [
        np.zeros((len(table[i - 1]) if i else 1, len(choices)), np.int64)
        for i, choices in enumerate(table)
    ]
    for term in terms:
        joined = sorted({blocks[name] for name in (term.reads, term.writes) if name is not None})
        if not joined:
            fixed += term.cost({})
            continue
        last = joined[-1]
        if joined[0] < last - 1:
            raise ValueError(f"'{term.name}' joins blocks {joined[0] + 1} and {last + 1}")
        rows, columns = costs[last].shape
        for i in range(rows):
            for j in range(columns):
                before = table[last - 1][i].counts if last else {}
                costs[last][i, j] += term.cost({**before, **table[last][j].counts})
    return fixed, costs


def choose_path(
    errors: Sequence[Sequence[float]], costs: Sequence[NDArray[np.int64]], limit: int
) -> list[int]:
    """Return the choice of every block with the least total error and a cost of `limit` at most.

    `errors[b]` and `costs[b]` [choices before, choices] as `pair_costs` returns them. At least one
    path must be within the limit. A variable is a pair of neighbouring choices: one pair leaves
    the start, and the pairs that lead to a choice are as many as those that leave it.
    """
    starts = np.cumsum([0, *(cost.size for cost in costs)])
    spans = [slice(*ends) for ends in pairwise(starts)]
    error = np.concatenate([np.tile(e, len(c)) for e, c in zip(errors, costs, strict=True)])
    one = np.zeros((1, starts[-1]))
    one[:, spans[0]] = 1
    rules = [
        LinearConstraint(np.concatenate([c.ravel() for c in costs])[None], -np.inf, limit),
        LinearConstraint(one, 1, 1),
    ]
    for b in range(1, len(costs)):
        before, choices = costs[b].shape
        flow = np.zeros((before, starts[-1]))
        flow[:, spans[b - 1]] = np.tile(np.eye(before), len(costs[b - 1]))
        flow[:, spans[b]] = -np.repeat(np.eye(before), choices, axis=1)
        rules.append(LinearConstraint(flow, 0, 0))
    solution = solve(error, rules)
    assert solution is not None  # the caller has checked the budget
    taken = [solution[span].reshape(c.shape) for span, c in zip(spans, costs, strict=True)]
    return [int(pair.sum(0).argmax()) for pair in taken]


def measured(
    task: Task, table: list[list[BlockWidth]], saliency: Mapping[str, Tensor]
) -> list[list[BlockWidth]]:
    """Return the choices with the errors they make after `block_epochs` of training."""
    plan = replace(task.plan, epochs=task.config.prune_channels.block_epochs)
    x, held = _samples(task)
    teacher = segments(task.net)
    full = channel_counts(task.net)
    known = [list(choices) for choices in table]
    for block, choices in enumerate(known):
        for i, choice in enumerate(choices[:-1]):
            narrowed = copy.deepcopy(task.net)
            keep_strongest(narrowed, saliency, full | choice.counts)
            own = segments(narrowed)[block]
            trained = make_block(teacher[: block + 1], [*teacher[:block], own], x)
            part = task.resume.part(f"block{block + 1}_{i}")
            train_block(trained, task.split, plan, part)
            choices[i] = replace(choice, error=trained.error(held))
    return known


def _samples(task: Task) -> tuple[Tensor, Tensor]:
    """Return sample inputs of training and validation images."""
    parts = (task.split.train, task.split.validation)
    x, held = (to_input(p.images[: task.samples]).to(task.plan.device) for p in parts)
    return x, held


def best_counts(task: Task, table: list[list[BlockWidth]]) -> dict[str, int]:
    """Return the channels per group that the integer program chooses."""
    fixed, costs = pair_costs(task.terms, group_blocks(task.net), table)
    errors = [[choice.error for choice in choices] for choices in table]
    path = choose_path(errors, costs, task.limit(task.config.prune_channels.share) - fixed)
    counts: dict[str, int] = {}
    for choices, taken in zip(table, path, strict=True):
        counts |= choices[taken].counts
    return counts


def structure(task: Task) -> Narrowed:
    """Return a copy of the network with the best width of every block within the budget.

    The numbers are the candidates' errors, and those of the student's blocks before fine-tuning.
    """
    config, keys, resume = task.config, task.config.prune_channels, task.resume
    loss = distillation(task.net, task.teacher, config.distill)
    found = saliencies(task.net, loss, task.batches())
    table = measured(task, candidates(task.net, keys.widths, keys.multiple), found)
    student: Network = copy.deepcopy(task.net)
    keep_strongest(student, found, best_counts(task, table))
    plan = replace(task.plan, epochs=keys.block_epochs)
    after = train_blocks(student, task.net, task.split, plan, resume=resume, samples=task.samples)
    joint = distillation(student, task.teacher, config.distill)
    history = fit(student, task.split, joint, task.plan, resume=resume.part("joint"))
    errors = [[asdict(choice) for choice in choices] for choices in table]
    return Narrowed(student, history, {"candidates": errors, "block_errors": after})
