# SPDX-License-Identifier: Apache-2.0
"""Exits for the quantized network: the heads of the fp32 one, rounded to integers after training.

Stages `prune` and `qat` train the network without exits, under its teacher, and its maps stay near
those that the exits were trained on. So a head takes the weights of fp32 training, BatchNorm
folded, all of them, 8 bits wide, with scales calibrated on the maps that the quantized network
gives. The network itself keeps every integer.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from quant.allocate.bits import Choice
from quant.allocate.layer_cost import WEIGHT_BITS, pool_costs
from quant.allocate.sizes import layer_shapes, measured_keeps, total_cycles
from quant.build import Build, load_bits, load_quantized, load_trained, quantized_network
from quant.data import to_input
from quant.distill.exits import ask, cheapest, curve
from quant.network.calibrate import calibrate
from quant.network.graph import INPUT, NetworkGraph
from quant.network.network import Network, exit_head, exit_tap
from quant.network.rewrite import fold_norms, tap_layers, to_winograd, without_dropout
from quant.results import SAMPLE_IMAGES
from winnow import flow
from winnow.config import Config
from winnow.errors import ConfigError, NetworkError

HEAD_WIDTHS = Choice(WEIGHT_BITS, 8)


def quantized_with_exits(build: Build) -> Network:
    """Return the trained Brevitas network of a build with exits, in float64, to evaluate.

    Raises NetworkError that names the exit whose map the quantized network does not have, or for
    one that ends at an exit.
    """
    return with_integer_heads(build, load_trained(build).cpu(), load_quantized(build))


def with_integer_heads(build: Build, trained: Network, net: Network) -> Network:
    """Return a quantized network with heads made of the exits of an fp32 one; errors as above."""
    if build.config.model.exit:
        raise NetworkError(
            f"model.exit must be 0 for exits, got {build.config.model.exit}, at which the "
            "quantized network ends; set it to 0 and quantize again"
        )
    heads = {}
    for name, _ in trained.graph.exits:
        tap = exit_tap(trained.graph, name)
        _require_map(trained.graph, net.graph, name, tap)
        heads[name] = _head(build, trained, net, name)
    return _joined(net, trained, heads)


def _require_map(trained: NetworkGraph, ours: NetworkGraph, name: str, tap: str) -> None:
    found = ours.by_name.get(tap)
    if found is None or found.shape != trained.shape_of(tap):
        why = "none" if found is None else f"one of {list(found.shape)}"
        raise NetworkError(
            f"exit '{name}' reads a map {list(trained.shape_of(tap))} '{tap}', of which the "
            f"quantized network has {why}; quantize with model.exit = 0 and "
            'prune_channels.method = "none"'
        )


@torch.no_grad()
def _head(build: Build, trained: Network, net: Network, name: str) -> Network:
    """Return the quantized head of an exit, which reads its map as its input."""
    alone = trained.part(exit_head(trained.graph, name)).eval()
    folded = without_dropout(fold_norms(to_winograd(alone, build.config.engine.m)))
    widths = dict.fromkeys(tap_layers(folded), HEAD_WIDTHS)
    head = quantized_network(build, folded.double(), widths).double()
    images = build.split().train.images[:SAMPLE_IMAGES]
    (maps,) = net.run(to_input(images, torch.float64), [exit_tap(trained.graph, name)])
    calibrate(head, maps, clip=build.config.quantize.weight_scale == "mse")
    return head.eval()


def _joined(net: Network, trained: Network, heads: dict[str, Network]) -> Network:
    """Return the network with its heads, which read its maps; it shares all layers."""
    nodes, layers, exits = list(net.graph.nodes), net.layers(), []
    for name, head in heads.items():
        tap = exit_tap(trained.graph, name)
        nodes += [
            replace(node, inputs=tuple(tap if read == INPUT else read for read in node.inputs))
            for node in head.graph.nodes
        ]
        layers |= head.layers()
        exits.append((name, head.graph.output))
    graph = NetworkGraph.of(net.graph.input, nodes, net.graph.output, exits)
    return Network(graph, layers).double().eval()


def chosen_threshold(given: flow.Build) -> float:
    """Return the threshold of the quantized network, chosen on validation images.

    Raises ConfigError where each one there is loses to the end.
    """
    build = Build(given.config, given.out, config_path=given.config_path)
    net = quantized_with_exits(build)
    costs, whole = integer_costs(build, net)
    answers = ask(net, build.split().validation, torch.device("cpu"), quantized=True)
    points = curve(answers, costs, whole)
    chosen = cheapest(points, answers.alone[-1])
    if chosen is None:
        raise ConfigError(
            "no threshold is chosen: each loses to the end on validation images; give one: "
            "--threshold 0.9"
        )
    return points[chosen].threshold


def integer_costs(build: Build, net: Network) -> tuple[list[int], int]:
    """Return `leaving_costs` and the cost of the whole network of quantized ones with exits.

    They are modelled at the weights and widths that the layers have.
    """
    config, bits = build.config, {n: c.weight for n, c in load_bits(build).items()}
    whole = _costs(net, net.graph.ending_at(net.graph.output), bits, config)
    tried, costs = 0, []
    for name, end in net.graph.exits:
        before = {node.name for node in net.graph.needed([end])}
        head = _costs(net, exit_head(net.graph, name), {}, config)
        tried += sum(head.values())
        costs.append(tried + sum(cost for layer, cost in whole.items() if layer in before))
    total = sum(whole.values())
    return [*costs, tried + total], total


def _costs(
    net: Network, graph: NetworkGraph, bits: dict[str, int], config: Config
) -> dict[str, int]:
    """Return the modelled cycles of the layers and lone pools of a part of the network."""
    part = net.part(graph)
    widths = {name: bits.get(name, WEIGHT_BITS) for name in tap_layers(part)}
    shapes = layer_shapes(part, measured_keeps(part), widths)
    layers = {name: total_cycles(config.engine, {name: shape}) for name, shape in shapes.items()}
    return layers | pool_costs(graph, config)
