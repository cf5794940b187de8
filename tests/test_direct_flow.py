# SPDX-License-Identifier: Apache-2.0
"""A strided network on every rung: PyTorch module, Brevitas, integer graph, C++ and RTL."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache

import pytest
import torch
from torch import nn

from codegen.interpret import interpret
from codegen.ir import Dense, Direct, Graph, TensorType, Winograd
from codegen.lower import lower_network
from codegen.schedule import schedule
from quant.data import Samples
from quant.golden import golden_arrays
from quant.layers.bit_widths import BitWidths
from quant.network.calibrate import calibrate
from quant.network.layer_graph import layer_graph
from quant.network.network import Network
from quant.network.rewrite import fold_norms, tap_layers, to_quantized, to_winograd
from sim import csim, rtl
from tests.engines import ENGINES, compiled, expected_maps
from tests.test_sim_rtl import harness
from winnow.compare import require_equal
from winnow.fixed_point import IntArray
from winnow.srbs import max_keep, srbs_mask

ENTRY = TensorType(3, 31, 29, 8, False, -8)
KEEP = 2


def strided_module() -> nn.Module:
    """5x5 and oblong kernels of stride 2, 1x1 and 3x3 of both strides, then a dense layer."""
    layers = {
        "stem": nn.Conv2d(3, 16, 5, stride=2, padding=2, bias=False),
        "stem_norm": nn.BatchNorm2d(16),
        "stem_relu": nn.ReLU(),
        "oblong": nn.Conv2d(16, 24, (3, 2), stride=(2, 1), padding=(1, 0)),
        "oblong_relu": nn.ReLU(),
        "mix": nn.Conv2d(24, 16, 1),
        "mix_relu": nn.ReLU(),
        "square": nn.Conv2d(16, 16, 3, padding=1),
        "square_relu": nn.ReLU(),
        "down": nn.Conv2d(16, 32, 3, stride=2, padding=1),
        "down_relu": nn.ReLU(),
        "flat": nn.Flatten(),
        "head": nn.Linear(32 * 4 * 7, 10),
    }
    return nn.Sequential(OrderedDict(layers))


@cache
def lowered() -> tuple[Graph, IntArray]:
    """The pruned and quantized network as an integer graph, equal to Brevitas; 3 images."""
    generator = torch.Generator().manual_seed(0)
    net = to_winograd(Network.of(strided_module(), ENTRY.shape), 2)
    for number, layer in enumerate(tap_layers(net).values()):
        nn.init.normal_(layer.weight, std=0.3, generator=generator)
        nn.init.normal_(layer.bias, std=0.1, generator=generator)
        if number:  # 2 of 8 channels at every place of the kernel
            magnitude = layer.by_channel(layer.u.detach().abs()).numpy()
            mask = torch.from_numpy(srbs_mask(magnitude, KEEP))
            layer.mask.copy_(mask.reshape(layer.mask.shape))
    net = fold_norms(net)
    last = net.graph.head()
    widths = {
        name: BitWidths(6, 8, None if name == last else 8, relu=found.relu)
        for name, found in layer_graph(net.graph).items()
    }
    made = to_quantized(net, widths)
    images = torch.randint(0, 256, (8, *ENTRY.shape), generator=generator, dtype=torch.uint8)
    calibrate(made, images / 256.0)
    graph = lower_network(made, ENTRY)
    arrays = golden_arrays(made, Samples(images[:3], torch.zeros(3, dtype=torch.long)))
    ints = arrays["images"].astype("int64")
    golden = {k.removeprefix("layer."): v for k, v in arrays.items() if k.startswith("layer.")}
    require_equal(golden, expected_maps(graph, ints))
    return graph, ints


def test_graph_holds_every_convolution() -> None:
    graph, images = lowered()
    kinds = [type(node) for node in graph.nodes]
    assert kinds == [Direct, Direct, Direct, Winograd, Direct, Dense]
    assert [node.output.shape for node in graph.nodes] == [
        (16, 16, 15), (24, 8, 14), (16, 8, 14), (16, 8, 14), (32, 4, 7), (10, 1, 1),
    ]  # fmt: skip
    pruned = [node for node in graph.nodes if isinstance(node, Direct)][1:]
    for node in pruned:
        by_place = node.weight.reshape(*node.weight.shape[:2], -1)
        assert node.keep == max_keep(by_place) == KEEP
    assert all(maps.any() for maps in interpret(graph, images).values())


def test_compiled_engine_equals_brevitas() -> None:
    graph, images = lowered()
    plan = schedule(graph, ENGINES["default"])
    require_equal(expected_maps(graph, images), csim.run(compiled("default"), plan, images))


@pytest.mark.slow
@pytest.mark.parametrize("stall", [0, 30])
def test_rtl_equals_brevitas(stall: int) -> None:
    graph, images = lowered()
    plan = schedule(graph, ENGINES["default"])
    run = rtl.run(harness("default"), plan, images[:1], stall=stall, seed=stall)
    require_equal(expected_maps(graph, images[:1]), run.maps)
    if stall == 0:
        (measured,) = run.layer_cycles
        for layer, cycles in zip(plan.layers, measured, strict=True):
            assert layer.cycles.total == pytest.approx(cycles, rel=0.05, abs=50)
