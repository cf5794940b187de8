# SPDX-License-Identifier: Apache-2.0
"""Run the stages of quant/: resumed where they were interrupted, by one process or several."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import torch

from quant.build import Build
from quant.check import check_recipe
from quant.results import KINDS
from quant.train.resume import Resume
from winnow import flow
from winnow.artefact import sha256_value
from winnow.flow import Result, Stage, stage_inputs, staleness

STAGES = {stage.name: stage for stage in flow.STAGES if stage.folder == "quant"}


def run_stage(stage: Stage, build: Build) -> None:
    """Run a stage of quant/ unless it is current; print one line of what it measured.

    Before the first training, what later stages would refuse is refused. Processes that torchrun
    started beside the first one help to train and leave no file.
    """

    def work(inputs: Mapping[str, str]) -> Result:
        if stage.name == KINDS["fp32"]:
            check_recipe(build)
        result: Result = import_module(stage.module).run(build, _resume(stage, build, inputs))
        return result

    if build.world.is_main:
        flow.run_stage(stage, build, work)
        _resume(stage, build, {}).clear()
    elif stage.name in KINDS.values() and staleness(stage, build) is not None:
        work(stage_inputs(stage, build))


def _resume(stage: Stage, build: Build, inputs: Mapping[str, str]) -> Resume:
    """Return where an interrupted run of a stage is kept."""
    key = sha256_value([inputs, build.device.type, torch.get_num_threads(), build.world.size])
    return Resume(build.out / f"{stage.name}.resume.npz", key, build.command(stage.name))
