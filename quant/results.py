# SPDX-License-Identifier: Apache-2.0
"""What a stage that trains leaves: its network, and the accuracies of its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quant.build import Build
from quant.network.network import Network
from quant.network.network_file import save_network
from quant.network.quantization import Quantization
from quant.train.history import History
from winnow.flow import Result
from winnow.score import ACCURACY, score_in, score_text

KINDS = {"fp32": "train", "narrowed": "prune_channels", "pruned": "prune", "quantized": "qat"}
# Networks -> their stage; of these reports compare three.
COMPARED = tuple((kind, KINDS[kind]) for kind in ("fp32", "pruned", "quantized"))
SAMPLE_IMAGES = 256  # training images that pruning, sensitivity and calibration look at


def saved(build: Build, net: Network, kind: str, history: History, **numbers: object) -> Result:
    """Save a trained network and measure it: a quantized one in float64, which is exact."""
    path = build.out / f"{KINDS[kind]}.npz"
    files = save_network(path, net) if build.world.is_main else []
    accuracies = build.accuracies(kind, net.double() if kind == "quantized" else net)
    summary = f"{kind} test {score_text(*score_in(accuracies, kind))}"
    return Result(files, summary, accuracies | {"history": history.table()} | numbers)


def print_quantization(verb: str, given: Quantization) -> None:
    """Print what is taken of a quantized file, and what is not."""
    for line in (given.summary, *given.notes):
        print(f"{verb}: {line}")


def warn_of_chance(verb: str, numbers: Mapping[str, Any], classes: int) -> None:
    """Print a warning if a network guesses: most often its images were prepared otherwise."""
    kind, accuracy = score_in(numbers, "fp32")
    if kind != ACCURACY:
        return
    guess = 100 / classes
    if accuracy < min(2 * guess, guess + 0.1 * (100 - guess)):
        print(
            f"{verb}: WARNING: test accuracy {accuracy:.2f}% is that of guessing among {classes} "
            "classes; were the weights trained on images prepared like these? Without data.mean "
            "and data.std the network reads image / 256"
        )
