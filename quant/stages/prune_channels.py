# SPDX-License-Identifier: Apache-2.0
"""Remove channels until the network is within its budget: train.npz -> prune_channels.npz."""

from __future__ import annotations

from quant.allocate.layer_cost import cost_terms, total
from quant.build import Build, compressed_network, load_trained, other_teacher
from quant.network.structure import channel_counts
from quant.prune_channels.cascade import cascade
from quant.prune_channels.least_squares import least_squares
from quant.prune_channels.structure import structure
from quant.prune_channels.task import Task, check_task
from quant.results import SAMPLE_IMAGES, saved
from quant.train.history import History
from quant.train.resume import Resume
from winnow.config import LEAST_SQUARES
from winnow.flow import Result

METHODS = {"structure": structure, "cascade": cascade, LEAST_SQUARES: least_squares}


def run(build: Build, resume: Resume) -> Result:
    """Remove channels until the network is within its budget, and fine-tune it."""
    config, trained = build.config, load_trained(build)
    keys = config.prune_channels
    net = compressed_network(build, trained)
    if keys.method == "none":
        numbers = {"channels": channel_counts(net), "share": 1.0}
        return saved(build, net, "narrowed", History(), **numbers)
    terms = cost_terms(net, config)
    check_task(config, terms, net)
    plan = build.plan("prune_channels", keys.epochs, keys.learning_rate)
    teacher = other_teacher(build) or trained
    task = Task(config, net, teacher, build.split(), terms, SAMPLE_IMAGES, plan, resume)
    found = METHODS[keys.method](task)
    counts = channel_counts(found.net)
    numbers = {"channels": counts, "share": total(terms, counts) / task.full, **found.numbers}
    return saved(build, found.net, "narrowed", found.history, **numbers)
