# SPDX-License-Identifier: Apache-2.0
"""Cascaded channel pruning with hierarchical self-distillation (Miles & Mikolajczyk, BMVC 2020).

Teacher -> assistant -> ... -> student: each level starts as the one above, loses the channels that
matter least to the distillation loss under its own teacher, the level above, and is fine-tuned with
that loss. Costs fall geometrically, so every level asks for the same relative step. In the paper
all levels share weights and are trained together; here they follow each other.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

from quant.distill import distillation
from quant.network.network import Network
from quant.prune_channels.saliency import counts_within, keep_strongest, saliencies
from quant.prune_channels.task import Narrowed, Task
from quant.train.history import History
from quant.train.training import fit


def level_shares(share: float, levels: int) -> list[float]:
    """Return the share of the cost that each level may take.

    level_shares(0.25, 2) -> [0.5, 0.25]
    """
    return [share ** (level / levels) for level in range(1, levels + 1)]


def level_epochs(epochs: int, levels: int) -> list[int]:
    """Return the epochs of each level: together `epochs`, the last ones get the rest.

    level_epochs(8, 3) -> [2, 3, 3]
    """
    ends = [epochs * level // levels for level in range(levels + 1)]
    return [ends[i + 1] - ends[i] for i in range(levels)]


def cascade(task: Task) -> Narrowed:
    """Return a copy of the network within the budget, and the channels of every level."""
    keys = task.config.prune_channels
    student: Network = copy.deepcopy(task.net)
    teacher: nn.Module = task.teacher
    epochs = level_epochs(keys.epochs, keys.levels)
    history, levels = History(), []
    for level, share in enumerate(level_shares(keys.share, keys.levels)):
        loss = distillation(student, teacher, task.config.distill)
        found = saliencies(student, loss, task.batches())
        counts = counts_within(task.terms, found, task.limit(share), keys.multiple)
        keep_strongest(student, found, counts)
        name = f"level{level + 1}"
        plan = replace(task.plan, name=f"{task.plan.name}_{name}", epochs=epochs[level])
        run = fit(student, task.split, loss, plan, resume=task.resume.part(name))
        history.rows.extend(run.rows)
        levels.append(counts)
        teacher = copy.deepcopy(student)
    return Narrowed(student, history, {"levels": levels})
