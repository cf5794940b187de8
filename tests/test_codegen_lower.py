# SPDX-License-Identifier: Apache-2.0
"""Lowering: exponents, accumulator grid, keep, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codegen.check import check_graph
from codegen.interpret import interpret
from codegen.ir import INPUT, Graph, Layer, Op, TensorType
from codegen.lower import Place, lower_dense, lower_network, lower_winograd
from quant.calibrate import calibrate
from quant.data import Samples
from quant.golden import golden_arrays
from quant.model import QuantNet, net_spec
from quant.quant_layer import QuantDense, QuantWinogradConv2d, Widths
from quant.quantizers import set_exponents
from winnow.config import Config, ModelConfig, QuantizeConfig
from winnow.errors import LoweringError

ENTRY = TensorType(1, 16, 16, 8, False, -8)


def winograd_layer(weight_bits: int = 8) -> QuantWinogradConv2d:
    """A layer of 8 -> 4 channels: V at 2^-7, U at 2^-5 and 2^-4 in turn, output at 2^-6."""
    layer = QuantWinogradConv2d(8, 4, 2, Widths(weight_bits, 8, 8))
    nn.init.uniform_(layer.weight, -1, 1, generator=torch.Generator().manual_seed(0))
    nn.init.uniform_(layer.bias, -1, 1, generator=torch.Generator().manual_seed(1))
    set_exponents(layer.input_quant, torch.full((16,), -7))
    set_exponents(layer.weight_quant, torch.arange(16) % 2 - 5)
    set_exponents(layer.output_quant, torch.tensor([-6]))
    return layer


def place(channels: int = 8, pool: bool = False) -> Place:
    return Place("conv", INPUT, TensorType(channels, 6, 5, 8, False, -8), pool)


def random_net(config: Config, m: int, bits: dict[str, int]) -> tuple[QuantNet, Tensor]:
    """A network with random weights, calibrated on the random uint8 images it comes with."""
    net = QuantNet(net_spec(config), m, bits, config.quantize)
    generator = torch.Generator().manual_seed(m)
    for layer in net.layers.values():
        nn.init.normal_(layer.weight, std=0.3, generator=generator)
        nn.init.normal_(layer.bias, std=0.1, generator=generator)
    images = torch.randint(0, 256, (20, 1, 16, 16), generator=generator, dtype=torch.uint8)
    calibrate(net, images[:8] / 256.0)
    return net, images


def test_fields_of_a_winograd_layer() -> None:
    lowered = lower_winograd(winograd_layer(), place(pool=True))
    assert (lowered.op, lowered.m, lowered.keep) == (Op.WINOGRAD, 2, 8)
    assert (lowered.weight_bits, lowered.v_bits) == (8, 8)
    assert lowered.v_exponent.tolist() == [-7] * 16
    assert lowered.weight_exponent.tolist() == [-5, -4] * 8
    assert lowered.acc_exponent == -12
    assert lowered.output == TensorType(4, 3, 2, 8, False, -6)
    assert not lowered.weight.flags.writeable
    check_graph(Graph(place().input, (lowered,)))


def test_accumulator_grid_follows_a_finer_output() -> None:
    layer = winograd_layer()
    set_exponents(layer.output_quant, torch.tensor([-15]))
    assert lower_winograd(layer, place()).acc_exponent == -15


def test_keep_is_the_most_any_sub_row_holds() -> None:
    layer = winograd_layer()
    layer.mask[:, 3:] = 0
    assert lower_winograd(layer, place()).keep <= 3


def test_dense_keep_counts_channels_at_one_pixel() -> None:
    layer = QuantDense(8 * 4, 2, Widths(8, 8, None))
    nn.init.constant_(layer.weight, 0.5)
    for proxy in (layer.input_quant, layer.weight_quant):
        set_exponents(proxy, torch.tensor([-7]))
    layer.mask.view(2, 8, 4)[:, 2:] = 0  # (c, h, w) order: channels 0 and 1 stay at every pixel
    kind = TensorType(8, 2, 2, 8, False, -8)
    lowered = lower_dense(layer, Place("fc", INPUT, kind))
    assert lowered.keep == 2
    assert lowered.weight.shape == (2, 32)
    assert lowered.output == TensorType(2, 1, 1, 32, True, -14)


@pytest.mark.parametrize("m", [2, 4])
def test_network_equals_its_golden_vectors(m: int) -> None:
    model = ModelConfig(channels=(5, 9, 8), pool_after=(1, 3), exit_after=(1,))
    quantize = QuantizeConfig(v_bits=7, activation_bits=5)
    config = Config(model=model, quantize=quantize)
    net, images = random_net(config, m, {"conv1": 8, "conv2": 3, "conv3": 4, "fc": 5})
    golden = golden_arrays(net, Samples(images, torch.zeros(20, dtype=torch.int64)))
    graph = lower_network(dict(net.layers.items()), net.spec.pools, ENTRY)
    maps = interpret(graph, images.numpy())
    for name, integers in maps.items():
        np.testing.assert_array_equal(golden[f"layer.{name}"], integers)
    assert [layer.weight_bits for layer in graph.layers] == [8, 3, 4, 5]


def test_scale_that_is_no_power_of_two_is_refused() -> None:
    layer = winograd_layer()
    layer.weight_quant.tensor_quant.scaling_impl.restrict_clamp_scaling = nn.Identity()
    match = r"^layer 'conv': weights: scale \S+ is not a power of two; calibrate it again$"
    with pytest.raises(LoweringError, match=match):
        lower_winograd(layer, place())


def test_bias_beyond_int32_is_refused() -> None:
    layer = winograd_layer()
    layer.bias.data[1] = 1e6
    match = r"^layer 'conv': bias: must lie in -2147483648\.\.2147483647, got -\d+\.\.4096000000$"
    with pytest.raises(LoweringError, match=match):
        lower_winograd(layer, place())


def test_weight_that_is_no_number_is_refused() -> None:
    layer = winograd_layer()
    layer.bias.data[0] = float("nan")
    with pytest.raises(LoweringError, match="bias: must be whole multiples of their scale"):
        lower_winograd(layer, place())


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(LoweringError, match=r"'conv': it takes 8 channels, 'input' has 3"):
        lower_winograd(winograd_layer(), place(channels=3))
    dense = QuantDense(7, 2, Widths(8, 8, None))
    with pytest.raises(LoweringError, match=r"'conv': it takes 7 values, 'input' has 240"):
        lower_dense(dense, place())


def test_foreign_layer_is_refused() -> None:
    match = r"^layer 'conv1': cannot lower Conv2d; the engine runs QuantWinogradConv2d and Quant"
    with pytest.raises(LoweringError, match=match):
        lower_network({"conv1": nn.Conv2d(1, 2, 3)}, {}, ENTRY)


def test_lowered_layers_are_plain_records() -> None:
    config = Config()
    net, _ = random_net(config, 2, dict.fromkeys(net_spec(config).pools, 6))
    graph = lower_network(dict(net.layers.items()), net.spec.pools, ENTRY)
    check_graph(graph)
    assert all(isinstance(layer, Layer) for layer in graph.layers)
    assert [layer.source for layer in graph.layers] == [INPUT, "conv1", "conv2", "conv3", "conv4"]
    assert all(type(layer.keep) is int for layer in graph.layers)
