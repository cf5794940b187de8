# SPDX-License-Identifier: Apache-2.0
"""Verbs of `python -m quant` beside the stages: bring weights in, take networks out, show a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from quant.build import Build, load_quantized, load_trained, new_network
from quant.data import given_shape, to_input
from quant.data.source import describe
from quant.distill.exits import Reported, ask, format_exits, leaving_costs, whole_cost
from quant.distill.teacher import described
from quant.integer_exits import integer_costs, quantized_with_exits
from quant.interchange.onnx_export import export_onnx, export_qonnx
from quant.interchange.torch_import import Imported, load_checkpoint
from quant.network.network import Network
from quant.network.network_file import save_network
from quant.network.normalise import Normal
from quant.report.html import write_report
from quant.results import warn_of_chance
from quant.run import STAGES
from quant.trace import draw_trace, format_trace, trace
from quant.train.history import History
from winnow.errors import ArtefactError, NetworkError
from winnow.flow import Result, record_run, require_current
from winnow.score import score_in, score_text

CPU = torch.device("cpu")
EXAMPLES = 4  # test images that an export is checked with


@dataclass(frozen=True)
class Tool:
    """A verb: one line of help, its own options, and what it does."""

    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Build, argparse.Namespace], None]


def import_checkpoint(build: Build, options: argparse.Namespace) -> None:
    """Put the weights of a PyTorch checkpoint in the place of `train`'s."""

    found: list[Imported] = []

    def load(net: Network) -> None:
        found.append(load_checkpoint(net, options.checkpoint, replace_head=options.replace_head))

    net = new_network(build, load)
    imported = found[0]

    def work() -> Result:
        path = build.out / "train.npz"
        files = save_network(path, net)
        accuracies = build.accuracies("fp32", net.to(build.device).double())
        fresh = f" ({', '.join(imported.fresh)} left fresh)" if imported.fresh else ""
        warn_of_chance("import", accuracies, build.shape.classes)
        summary = (
            f"{len(imported.loaded)} tensors of '{options.checkpoint}'{fresh}, fp32 test "
            f"{score_text(*score_in(accuracies, 'fp32'))},"
        )
        more = {
            "history": History().table(),
            "imported": options.checkpoint.name,
            "config": described(build.config),
        }
        return Result(files, summary, accuracies | more)

    # The record is that of training, so that the stages after it take the weights.
    record_run(STAGES["train"], build, lambda _: work())


def export(build: Build, options: argparse.Namespace) -> None:
    """Write the fp32 network as ONNX or the quantized one as QONNX, checked by running it."""
    require_current(["train" if options.network == "fp32" else "qat"], build)
    example = to_input(build.split().test.images[:EXAMPLES])
    if options.network == "fp32":
        exported = export_onnx(load_trained(build), example, options.file)
    else:
        exported = export_qonnx(load_quantized(build), example, options.file)
    print(
        f"export: '{exported.path}', {exported.num_nodes} nodes, equals the {options.network} "
        f"network within {exported.difference:.1g} of its largest output"
    )


def print_data(build: Build, _: argparse.Namespace) -> None:
    """Print what the data are; ConfigError says how to get them if they are not there."""
    data = build.config.data
    text = describe(data)
    Normal.of(data, given_shape(data).channels)  # refuses what does not fit their channels
    print(text)


def report(build: Build, _: argparse.Namespace) -> None:
    """Write OUT/report.html: curves, accuracy against cycles, sparsity maps."""
    build.require_classes("report")
    require_current(["qat"], build)
    print(f"report: '{write_report(build)}'")


def exits(build: Build, _: argparse.Namespace) -> None:
    """Print accuracy against cost of leaving the trained and the quantized network at exits."""
    build.require_classes("exits")
    require_current(["train"], build)
    net, split = load_trained(build), build.split()
    costs, whole = leaving_costs(net, build.config), whole_cost(net, build.config)
    names = [name for name, _ in net.graph.exits]

    def text(net: Network, device: torch.device, costs: list[int], whole: int, **how: bool) -> str:
        parts = (split.validation, split.test)
        found = Reported(*(ask(net, part, device, **how) for part in parts))
        return format_exits(names, found, costs, whole)

    print(
        f"early exit of {len(split.test)} test images, threshold chosen on {len(split.validation)} "
        "validation images; cost: modelled cycles of all layers an image pays for, over those of "
        "the whole network without exits, on test images"
    )
    print(f"fp32 network:\n{text(net, build.device, costs, whole)}")
    if not (build.out / "qat.npz").is_file():
        print(f"quantized network: none yet; make it with: {build.command('qat')}")
        return
    try:
        require_current(["qat"], build)
        quantized = quantized_with_exits(build)
    except (ArtefactError, NetworkError) as error:
        print(f"quantized network: {error}")
        return
    costs, whole = integer_costs(build, quantized)
    print(f"quantized network:\n{text(quantized, CPU, costs, whole, quantized=True)}")


def print_trace(build: Build, _: argparse.Namespace) -> None:
    """Print where accuracy goes, layer by layer, and draw it in OUT/trace.svg."""
    require_current(["qat"], build)
    layers = trace(build)
    print(format_trace(layers))
    print(f"trace: '{draw_trace(build.out / 'trace.svg', layers)}'")


def _import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help=".pt, .pth, .npz"
    )
    parser.add_argument(
        "--replace-head", action="store_true", help="keep a fresh classifier: other classes"
    )


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", choices=("fp32", "quantized"), default="quantized")
    parser.add_argument("--file", type=Path, required=True, metavar="FILE", help="what to write")


def _no_options(_: argparse.ArgumentParser) -> None: ...


TOOLS = {
    "data": Tool("Print what the data are, or how to get them", _no_options, print_data),
    "import": Tool(
        "Take a PyTorch checkpoint for the trained network", _import_options, import_checkpoint
    ),
    "export": Tool("Write ONNX or QONNX and check it by running it", _export_options, export),
    "exits": Tool(
        "Print accuracy against modelled cycles of early exit, per threshold", _no_options, exits
    ),
    "trace": Tool(
        "Print every layer's signal to noise: float, pruned, integer", _no_options, print_trace
    ),
    "report": Tool("Write an HTML page of the run", _no_options, report),
}
