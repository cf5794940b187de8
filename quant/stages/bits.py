# SPDX-License-Identifier: Apache-2.0
"""Choose the widths of every layer under the budget: prune.npz -> bits.json.

A quantized file has chosen them already.
"""

from __future__ import annotations

from quant.allocate.bits import choices_of, choose, cost_table, least_share, share_of
from quant.allocate.given_bits import given_choices
from quant.allocate.sensitivity import sensitivities
from quant.allocate.sizes import measured_keeps
from quant.build import Build, given_quantization, load_pruned
from quant.data import to_input
from quant.network.rewrite import tap_layers
from quant.results import SAMPLE_IMAGES
from quant.train.resume import Resume
from winnow.flow import Result


def run(build: Build, resume: Resume) -> Result:  # noqa: ARG001 (no training here)
    """Choose the widths of every layer under the budget."""
    config, net, samples = build.config, load_pruned(build), build.split().train
    x = to_input(samples.images[:SAMPLE_IMAGES]).to(build.device)
    labels = samples.labels[:SAMPLE_IMAGES].to(build.device)
    choices, names = choices_of(config), list(tap_layers(net))
    cost, given = cost_table(config, net, measured_keeps(net)), given_quantization(build)
    sensitivity = {}
    if given is not None:
        chosen = given_choices(config, given, names)
        columns = [choices.index(choice) for choice in chosen.values()]
    else:
        table = sensitivities(net, x, labels, choices, config.quantize.sensitivity)
        columns = choose(table, cost, config.quantize.budget_share)
        chosen = {name: choices[column] for name, column in zip(names, columns, strict=True)}
        sensitivity = dict(zip(names, table.tolist(), strict=True))
    share = share_of(cost, columns)
    numbers = {
        "bits": {name: choice.weight for name, choice in chosen.items()},
        "operand_bits": {name: choice.operand for name, choice in chosen.items()},
        "cost_share": share,
        "choices": choices,
        "sensitivity": sensitivity,
        "cost": dict(zip(names, cost.tolist(), strict=True)),
    }
    text = " ".join(
        f"{name}={choice.weight}"
        + (f"x{choice.operand}" if len(config.quantize.operand_bits) > 1 else "")
        for name, choice in chosen.items()
    )
    by = "" if given is None else f" as in '{given.file}'"
    budget, least = config.quantize.budget, least_share(cost)
    return Result(
        [],
        f"{text}{by}, {share:.3f} of the widest choice's {budget} (least possible {least:.3f})",
        numbers,
    )
