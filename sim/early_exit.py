# SPDX-License-Identifier: Apache-2.0
"""The host of a network with early exits: it starts part after part until an exit is sure.

Feature memory is the engine's state between two starts. An image leaves at the first exit whose
largest softmax probability, in integers (`winnow.confidence`), reaches the threshold, else at the
end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from codegen.exit_programs import ExitPrograms, Part
from codegen.pack import Bytes
from sim import csim, rtl
from winnow.confidence import confidence
from winnow.fixed_point import IntArray

# Part, folder of program.bin and weights.bin, feature memories [n, bytes] before -> the same after.
Start = Callable[[Part, Path, Bytes], Bytes]


@dataclass(frozen=True, eq=False)
class Left:
    """Images that left: how many parts ran [n], the results [n, oc], feature memory [n, bytes]."""

    parts: IntArray
    results: IntArray
    memory: Bytes


def on_csim(engine: csim.Engine) -> Start:
    """Return how a part is started on the compiled C++."""
    return partial(_start_csim, engine)


def on_rtl(harness: rtl.Harness, *, stall: int = 0, seed: int = 0) -> Start:
    """Return how a part is started on the RTL, with random stalls in percent."""
    return partial(_start_rtl, harness, stall, seed)


def _start_csim(engine: csim.Engine, part: Part, folder: Path, memory: Bytes) -> Bytes:
    inputs = _as_inputs(memory)
    outcome = csim.execute(engine, folder, inputs.content, inputs.sizes)
    csim.require_ok(part.layers, outcome)
    return outcome.memory


def _start_rtl(
    harness: rtl.Harness, stall: int, seed: int, part: Part, folder: Path, memory: Bytes
) -> Bytes:
    inputs = _as_inputs(memory)
    reports, after = rtl.execute(harness, folder, inputs, stall=stall, seed=seed)
    rtl.require_ok(part.layers, reports)
    return after.reshape(memory.shape)


def _as_inputs(memory: Bytes) -> csim.Starts:
    """Return all of feature memory as the input of every start."""
    words = memory.shape[1] // 8
    return csim.Starts(memory.tobytes(), (words, 0, words))


def run(start: Start, programs: ExitPrograms, images: IntArray, threshold: float) -> Left:
    """Run integer images [n, c, h, w] until they leave; above 1 no threshold lets one leave early.

    Raises MismatchError when the engine reports an error.
    """
    whole = programs.whole
    memory = csim.feature_memory(whole, images)
    parts = np.zeros(len(images), np.int64)
    results = np.zeros((len(images), programs.parts[-1].result.tensor.channels), np.int64)
    inside = np.arange(len(images))
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        weights = b"".join(plan.packed.tobytes() for plan in whole.layers)
        (folder / "weights.bin").write_bytes(weights)
        for number, part in enumerate(programs.parts, start=1):
            if not len(inside):
                break
            (folder / "program.bin").write_bytes(part.program.tobytes())
            memory[inside] = start(part, folder, memory[inside])
            results[inside] = results_of(part, memory[inside])
            parts[inside] = number
            exponent = part.result.tensor.exponent
            inside = inside[confidence(results[inside], exponent) < threshold]
    return Left(parts, results, memory)


def results_of(part: Part, memory: Bytes) -> IntArray:
    """Return the results [n, oc] of a part in feature memories [n, bytes]."""
    return csim.read_map(part.result, memory).reshape(len(memory), -1)
