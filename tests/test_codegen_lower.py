# SPDX-License-Identifier: Apache-2.0
"""Lowering: exponents, accumulator grid, keep, and what it refuses."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codegen.check import check_graph
from codegen.interpret import interpret
from codegen.ir import (
    INPUT,
    NODES,
    Add,
    Concat,
    Dense,
    GlobalAverage,
    Graph,
    MaxPool,
    TensorType,
    Winograd,
)
from codegen.lower import Place, lower_dense, lower_network, lower_winograd, max_pool
from quant.data import InputShape, Samples
from quant.golden import golden_arrays
from quant.layers.bit_widths import BitWidths
from quant.layers.quant_layer import QuantDense, QuantWinogradConv2d
from quant.layers.quantizers import set_exponents
from quant.models.library import make_model, network_of
from quant.network import graph as network
from quant.network.calibrate import calibrate
from quant.network.layer_graph import layer_graph
from quant.network.network import Network, backbone
from quant.network.rewrite import fold_norms, tap_layers, to_quantized, to_winograd
from tests.engines import expected_maps
from tests.ladder import multiplies
from tests.own.either import ReadTwice
from winnow.config import Config, ModelConfig, QuantizeConfig
from winnow.errors import LoweringError, NetworkError

ENTRY = TensorType(1, 16, 16, 8, False, -8)


def winograd_layer(weight_bits: int = 8) -> QuantWinogradConv2d:
    """A layer of 8 -> 4 channels: V at 2^-7, U at 2^-5 and 2^-4 in turn, output at 2^-6."""
    layer = QuantWinogradConv2d(8, 4, 2, BitWidths(weight_bits, 8, 8))
    nn.init.uniform_(layer.weight, -1, 1, generator=torch.Generator().manual_seed(0))
    nn.init.uniform_(layer.bias, -1, 1, generator=torch.Generator().manual_seed(1))
    set_exponents(layer.input_quant, torch.full((16,), -7))
    set_exponents(layer.weight_quant, torch.arange(16) % 2 - 5)
    set_exponents(layer.output_quant, torch.tensor([-6]))
    return layer


def place(channels: int = 8) -> Place:
    return Place("conv", INPUT, TensorType(channels, 6, 5, 8, False, -8))


def random_net(
    net: Network,
    m: int,
    quantize: QuantizeConfig,
    bits: dict[str, int],
    entry: TensorType = ENTRY,
) -> Network:
    """The Brevitas form of a network, random weights, calibrated on noise."""
    winograd = to_winograd(net, m)
    generator = torch.Generator().manual_seed(m)
    for layer in tap_layers(winograd).values():
        nn.init.normal_(layer.weight, std=0.3, generator=generator)
        nn.init.normal_(layer.bias, std=0.1, generator=generator)
    folded = fold_norms(winograd)
    last = folded.graph.head()
    widths = {
        name: BitWidths(
            bits[name],
            quantize.operand_bits[0],
            None if name == last else quantize.activation_bits,
            relu=found.relu,
        )
        for name, found in layer_graph(folded.graph).items()
    }
    made = to_quantized(folded, widths, quantize.activation_bits)
    calibrate(made, random_images(generator, entry)[:8] / 256.0)
    return made


def random_images(generator: torch.Generator, entry: TensorType) -> Tensor:
    return torch.randint(0, 256, (20, *entry.shape), generator=generator, dtype=torch.uint8)


def chain_net(model: ModelConfig) -> Network:
    return backbone(network_of(model, InputShape(1, 16, 10)))


def test_fields_of_a_winograd_layer() -> None:
    lowered = lower_winograd(winograd_layer(), place())
    assert (type(lowered), lowered.m, lowered.keep) == (Winograd, 2, 8)
    assert (lowered.name, lowered.inputs) == ("conv", (INPUT,))
    assert (lowered.weight_bits, lowered.v_bits) == (8, 8)
    assert lowered.v_exponent.tolist() == [-7] * 16
    assert lowered.weight_exponent.tolist() == [-5, -4] * 8
    assert lowered.acc_exponent == -12
    assert lowered.output == TensorType(4, 6, 5, 8, False, -6)
    assert not lowered.weight.flags.writeable
    pool = lowered_pool(nn.MaxPool2d(2), lowered.output)
    assert pool.is_halving
    assert pool.output == TensorType(4, 3, 2, 8, False, -6)
    check_graph(Graph(place().input, (lowered, pool)))


def lowered_pool(pool: nn.MaxPool2d, kind: TensorType) -> MaxPool:
    """Return the node of a pool of the map `conv`."""
    (record,) = Network.of(nn.Sequential(pool), kind.shape).graph.nodes
    assert isinstance(record, network.MaxPool)
    return max_pool(record, Place("pool", "conv", kind))


@pytest.mark.parametrize("size", [(5, 6), (6, 5), (7, 9), (8, 8), (2, 3)])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("ceil", [False, True])
def test_pools_are_those_of_torch(
    size: tuple[int, int], kernel: int, stride: int, padding: int, ceil: bool
) -> None:
    kind = TensorType(3, *size, 8, True, -3)
    pool = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    least = kernel - ceil * (stride - 1)  # an incomplete window holds a pixel
    if min(size) + 2 * padding < least:
        with pytest.raises(NetworkError, match=f"a map of at least {least - 2 * padding} pixels"):
            lowered_pool(pool, kind)
        return
    graph = Graph(kind, (replace(lowered_pool(pool, kind), inputs=(INPUT,)),))
    images = torch.randint(-128, 128, (2, *kind.shape))
    (found,) = interpret(graph, images.numpy()).values()
    np.testing.assert_array_equal(found, pool(images.double()).numpy())


def test_accumulator_grid_follows_a_finer_output() -> None:
    layer = winograd_layer()
    set_exponents(layer.output_quant, torch.tensor([-15]))
    assert lower_winograd(layer, place()).acc_exponent == -15


def test_keep_is_the_most_any_sub_row_holds() -> None:
    layer = winograd_layer()
    layer.mask[:, 3:] = 0
    assert lower_winograd(layer, place()).keep <= 3


def test_dense_keep_counts_channels_at_one_pixel() -> None:
    layer = QuantDense(8 * 4, 2, 8, BitWidths(8, 8, None))
    nn.init.constant_(layer.weight, 0.5)
    for proxy in (layer.input_quant, layer.weight_quant):
        set_exponents(proxy, torch.tensor([-7]))
    layer.mask.view(2, 8, 4)[:, 2:] = 0  # (c, h, w) order: channels 0 and 1 stay at every pixel
    kind = TensorType(8, 2, 2, 8, False, -8)
    lowered = lower_dense(layer, Place("fc", INPUT, kind))
    assert lowered.keep == 2
    assert lowered.weight.shape == (2, 32)
    assert lowered.output == TensorType(2, 1, 1, 32, True, -14)


def require_golden(net: Network, entry: TensorType = ENTRY) -> Graph:
    """The graph of a network; the interpreter must give the network's golden integers.

    A node of the network's layer has what the pool makes of it in a node of its own.
    """
    images = random_images(torch.Generator().manual_seed(9), entry)
    golden = golden_arrays(net, Samples(images, torch.zeros(20, dtype=torch.int64)))
    graph = lower_network(net, entry)
    maps = expected_maps(graph, images.numpy())
    assert [f"layer.{name}" for name in maps] == [n for n in golden if n.startswith("layer.")]
    for name, integers in maps.items():
        np.testing.assert_array_equal(golden[f"layer.{name}"], integers)
    check_graph(graph)
    return graph


@pytest.mark.parametrize("m", [2, 4])
def test_network_equals_its_golden_vectors(m: int) -> None:
    model = ModelConfig(channels=(5, 9, 8), pool_after=(1, 3), exit_after=(1,), hidden=(11,))
    quantize = QuantizeConfig(operand_bits=(7,), activation_bits=5)
    bits = {"conv1": 8, "conv2": 3, "conv3": 4, "fc1": 6, "fc": 5}
    graph = require_golden(random_net(chain_net(model), m, quantize, bits))
    assert [layer.weight_bits for layer in multiplies(graph)] == list(bits.values())
    assert [layer.name for layer in multiplies(graph)] == list(bits)
    pools = {node.name: node.inputs for node in graph.nodes if isinstance(node, MaxPool)}
    assert pools == {"conv1_pool": ("conv1",), "conv3_pool": ("conv3",)}


@pytest.mark.parametrize("name", ["vgg16_bn", "vgg_nagadomi"])
def test_library_chain_equals_its_golden_vectors(name: str) -> None:
    entry = TensorType(3, 32, 32, 8, False, -8)
    module = make_model(name, 10, 3, 32, 0.02)
    net = Network.of(module, entry.shape)
    layers = [n for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    made = random_net(net, 2, QuantizeConfig(), dict.fromkeys(layers, 6), entry)
    graph = require_golden(made, entry)
    pools = sum(isinstance(part, nn.MaxPool2d) for part in module.modules())
    assert sum(isinstance(node, MaxPool) for node in graph.nodes) == pools > 0
    assert [n.name for n in multiplies(graph)] == [path.replace(".", "_") for path in layers]


class Block(nn.Module):
    """A residual block; its shortcut is a convolution where the channels change."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Identity()
            if in_channels == channels
            else nn.Conv2d(in_channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y))
        y += self.shortcut(x)
        return y.relu()


def residual_net(size: int = 8, *, average: bool = False) -> Network:
    """A stem with a pool, three blocks, the middle one wider, perhaps an average, a classifier."""
    layers = {"stem": nn.Conv2d(1, 6, 3, padding=1), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2)}
    layers |= {"a": Block(6, 6), "b": Block(6, 9), "c": Block(9, 9), "flat": nn.Flatten()}
    if average:
        layers |= {"flat": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    layers["fc"] = nn.Linear(9 * (1 if average else (size // 2) ** 2), 10)
    return Network.of(nn.Sequential(OrderedDict(layers)), (1, size, size))


class Averaged(nn.Module):
    """A convolution, the average over its map in some form, a classifier."""

    def __init__(self, form: nn.Module | None) -> None:
        super().__init__()
        self.conv, self.form, self.fc = nn.Conv2d(1, 5, 3, padding=1), form, nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        return self.fc(y.mean((2, 3)) if self.form is None else self.form(y).flatten(1))


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("form", ["mean", "adaptive", "plain"])
def test_global_average_equals_its_golden_vectors(form: str, size: int) -> None:
    entry = TensorType(1, size, size, 8, False, -8)
    forms = {"mean": None, "adaptive": nn.AdaptiveAvgPool2d(1), "plain": nn.AvgPool2d(size)}
    net = Network.of(Averaged(forms[form]).eval(), entry.shape)
    graph = require_golden(random_net(net, 2, QuantizeConfig(), {"conv": 8, "fc": 8}, entry), entry)
    assert [type(node) for node in graph.nodes] == [Winograd, GlobalAverage, Dense]
    assert not graph.nodes[1].output.signed


@pytest.mark.parametrize("size", [4, 3])
def test_weights_behind_an_average_hold_its_factor(size: int) -> None:
    """The quantized network computes what the given one does, not N / 2^k of it."""
    torch.manual_seed(0)
    module = Averaged(None).eval()
    nn.init.zeros_(module.fc.bias)
    x = torch.rand(64, 1, size, size)
    net = to_winograd(Network.of(module, (1, size, size)), 2)
    widths = {"conv": BitWidths(8, 8, 8), "fc": BitWidths(8, 8, None)}
    made = to_quantized(net, widths)
    calibrate(made, x)
    with torch.no_grad():
        want, got = module(x), made.eval()(x)
    assert float((want - got).abs().max()) < 0.1 * float(want.abs().max())  # 7 of 16 without


def test_average_of_another_number_of_pixels_needs_weights_behind_it() -> None:
    class Sum(Averaged):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.fc((y.mean((2, 3), keepdim=True) + y.relu().mean((2, 3), True)).flatten(1))

    net = to_winograd(Network.of(Sum(None), (1, 3, 3)), 2)
    widths = {"conv": BitWidths(8, 8, 8), "fc": BitWidths(8, 8, None)}
    match = (
        r"^'add' \(Add\) reads the average 'mean' over 3x3 pixels; the factor of a number that is "
        r"no power of two must meet weights: put a layer there, or pad the map$"
    )
    with pytest.raises(NetworkError, match=match):
        to_quantized(net, widths)


@pytest.mark.parametrize("m", [2, 4])
def test_residual_network_equals_its_golden_vectors(m: int) -> None:
    net, entry = residual_net(), TensorType(1, 8, 8, 8, False, -8)
    layers = layer_graph(net.graph)
    quantize = QuantizeConfig(activation_bits=6)
    graph = require_golden(random_net(net, m, quantize, dict.fromkeys(layers, 6), entry), entry)
    sums = {node.name: node for node in graph.nodes if isinstance(node, Add)}
    assert {name: node.inputs for name, node in sums.items()} == {
        "iadd": ("a_conv2", "stem_pool"),
        "iadd_1": ("b_conv2", "b_shortcut"),
        "iadd_2": ("c_conv2", "iadd_1"),
    }


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU6()],
            r"^'1' is a ReLU with the limit 6; use one w",
        ),
        (
            [nn.Conv2d(1, 8, 3, padding=1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 2)],
            r"^'1' \(AvgPool\) reads 'layer_0'; the engine runs conv",
        ),
        (
            [nn.Flatten(), nn.Linear(256, 2), nn.Sigmoid()],
            r"^'2' \(Sigmoid\) reads 'layer_1'; the engine runs conv",
        ),
        (
            [nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1)],
            r"^'2' is a ReLU behind the max pool '1'; put it before the pool, which computes the s",
        ),
    ],
)
def test_what_the_engine_does_not_run_is_named(layers: list[nn.Module], message: str) -> None:
    net = Network.of(nn.Sequential(*layers), ENTRY.shape)
    made = random_net(net, 2, QuantizeConfig(), dict.fromkeys(layer_graph(net.graph), 8))
    with pytest.raises(LoweringError, match=message):
        lower_network(made, ENTRY)


def test_relu_of_a_map_that_others_read_is_named() -> None:
    net = Network.of(ReadTwice(), ENTRY.shape)
    made = random_net(net, 2, QuantizeConfig(), dict.fromkeys(layer_graph(net.graph), 8))
    match = "^'relu' is a ReLU, but not the only reader of 'a', or not right behind it; a ReLU"
    with pytest.raises(LoweringError, match=match):
        lower_network(made, ENTRY)


def test_scale_that_is_no_power_of_two_is_refused() -> None:
    layer = winograd_layer()
    layer.weight_quant.tensor_quant.scaling_impl.restrict_clamp_scaling = nn.Identity()
    match = r"^layer 'conv': weights: scale \S+ is not a power of two; calibrate it again$"
    with pytest.raises(LoweringError, match=match):
        lower_winograd(layer, place())


def test_bias_beyond_int32_is_refused() -> None:
    layer = winograd_layer()
    layer.bias.data[1] = 1e6
    match = r"^layer 'conv': bias: must lie in -2147483648\.\.2147483647, got -\d+\.\.4096000000; "
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
    dense = QuantDense(7, 2, 7, BitWidths(8, 8, None))
    with pytest.raises(LoweringError, match=r"'conv': it takes 7 values, 'input' has 240"):
        lower_dense(dense, place())


class JoinedMaps(nn.Module):
    """Two convolutions of one map, joined, with a ReLU or without; the first may be the images."""

    def __init__(self, *relus: bool, images: bool = False) -> None:
        super().__init__()
        self.relus, self.images = relus, images
        self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.last, self.fc = nn.Conv2d(16, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x if self.images else self.a(x), self.b(x)]
        maps = [y.relu() if relu else y for y, relu in zip(maps, self.relus, strict=True)]
        return self.fc(self.last(torch.cat(maps, 1)).mean((2, 3)))


def lower_joined(module: JoinedMaps) -> Graph:
    entry = TensorType(8, 4, 4, 8, False, -8)
    net = Network.of(module.eval(), entry.shape)
    bits = dict.fromkeys(layer_graph(net.graph), 8)
    return require_golden(random_net(net, 2, QuantizeConfig(), bits, entry), entry)


@pytest.mark.parametrize("relu", [True, False])
def test_joined_maps_are_brought_to_one_grid(relu: bool) -> None:
    graph = lower_joined(JoinedMaps(relu, relu))
    a, b, joined, last, *_ = graph.nodes
    assert isinstance(joined, Concat)
    assert (a.output.signed, joined.output.signed) == (not relu, not relu)
    assert a.output.exponent == b.output.exponent == joined.output.exponent
    assert (joined.output.channels, last.inputs) == (16, (joined.name,))


def test_maps_that_cannot_be_joined_are_refused() -> None:
    with pytest.raises(LoweringError) as error:
        lower_joined(JoinedMaps(True, False))
    assert str(error.value) == (
        "'cat' (Concat) joins maps with a ReLU and without; put one behind all or none"
    )
    for relus in ((False, True), (False, False)):
        with pytest.raises(LoweringError) as error:
            lower_joined(JoinedMaps(*relus, images=True))
        assert str(error.value) == (
            "'cat' (Concat) joins the images, or pools of them, with maps of layers, which have "
            "another grid; let convolutions, sums or averages make all of them"
        )


def test_images_are_not_joined_with_maps_that_have_their_grid_by_chance() -> None:
    """Training would choose another grid, so that stage `lower` refused what `check` took."""
    entry = TensorType(8, 4, 4, 8, False, -8)
    net = Network.of(JoinedMaps(False, True, images=True).eval(), entry.shape)
    made = random_net(net, 2, QuantizeConfig(), dict.fromkeys(layer_graph(net.graph), 8), entry)
    set_exponents(made.get_submodule("b").output_quant, torch.tensor([-8]))
    with pytest.raises(LoweringError, match="joins the images, or pools of them, with maps"):
        lower_network(made, entry)


def test_foreign_layer_is_refused() -> None:
    net = Network.of(nn.Sequential(nn.Conv2d(1, 2, 3)), ENTRY.shape)
    match = r"^layer 'layer_0': cannot lower Conv2d; the engine runs convolutions and"
    with pytest.raises(LoweringError, match=match):
        lower_network(net, ENTRY)


def test_lowered_layers_are_plain_records() -> None:
    config = Config()
    net = chain_net(config.model)
    made = random_net(net, 2, config.quantize, dict.fromkeys(layer_graph(net.graph), 6))
    graph = lower_network(made, ENTRY)
    check_graph(graph)
    assert all(type(node) in NODES for node in graph.nodes)
    assert [layer.inputs for layer in multiplies(graph)] == [
        (INPUT,),
        ("conv1",),
        ("conv2_pool",),
        ("conv3",),
        ("conv4_pool",),
    ]
    assert all(type(layer.keep) is int for layer in multiplies(graph))
