# SPDX-License-Identifier: Apache-2.0
"""First rung of the ladder: Brevitas layers in float64 equal the integer interpreter, exactly."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from brevitas.core.function_wrapper import TensorClamp
from torch import Tensor

from codegen.interpret import interpret
from codegen.ir import INPUT, Graph, MaxPool, TensorType, Winograd
from codegen.lower import Place, lower_dense, lower_winograd
from quant.golden import as_map, to_integers
from quant.layers.bit_widths import BitWidths
from quant.layers.quant_layer import (
    QuantDense,
    QuantDirectConv2d,
    QuantTapLayer,
    QuantWinogradConv2d,
)
from quant.layers.quantizers import Clamp, exponents, grid_of, scale_of, set_exponents
from quant.layers.winograd_layer import Window
from quant.network.calibrate import calibrate_layer
from quant.prune.kernel import release, through_kernel
from tests.ladder import change_node, multiplies, pool_of
from winnow.fixed_point import IntArray
from winnow.srbs import srbs_mask

NUM_CASES = 30
CASES_PER_SEED = 8


class Case:
    """A random layer with random, per-tap scales around calibrated ones, and random images."""

    def __init__(self, seed: int, dense: bool) -> None:
        self.rng = np.random.default_rng([seed, int(dense)])
        self.generator = torch.Generator().manual_seed(seed)
        pick = self.rng.integers
        channels = int(pick(1, 20))
        height, width = (int(pick(1, 5)) if dense else int(pick(1, 12)) for _ in range(2))
        signed = bool(pick(2))
        kind = TensorType(channels, height, width, self._bits(), signed, int(pick(-9, 2)))
        low, high = kind.bounds
        self.images: IntArray = pick(low, high + 1, size=(3, *kind.shape))
        self.pool = not dense and min(height, width) >= 2 and bool(pick(2))
        self.place = Place("layer", INPUT, kind)
        self.dense = dense
        self.layer = self._layer(kind)
        self.x = torch.tensor(self.images, dtype=torch.float64) * 2.0**kind.exponent
        self._calibrate(kind.exponent)

    def _bits(self) -> int:
        """2..8, and 8 half of the time: narrow numbers hide errors."""
        return int(self.rng.choice([2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8]))

    def _layer(self, kind: TensorType) -> QuantTapLayer:
        pick = self.rng.integers
        raw = self.dense and bool(pick(2))
        output = None if raw else self._bits()
        widths = BitWidths(self._bits(), self._bits(), output, relu=bool(pick(2)))
        oc = int(pick(1, 12))
        layer: QuantTapLayer
        if self.dense:
            layer = QuantDense(int(np.prod(kind.shape)), oc, kind.channels, widths)
        else:
            layer = QuantWinogradConv2d(kind.channels, oc, int(self.rng.choice([2, 4])), widths)
        torch.nn.init.normal_(layer.weight, std=0.3, generator=self.generator)
        torch.nn.init.normal_(layer.bias, std=0.3, generator=self.generator)
        weight = layer.by_channel(layer.weight.detach())
        mask = srbs_mask(weight.abs().numpy(), int(pick(1, 9)))
        layer.mask.copy_(torch.from_numpy(mask).view_as(layer.mask))
        return layer.eval()

    def _calibrate(self, ex: int) -> None:
        """Calibrate, then move every exponent a little, so that values saturate and tie."""
        layer = self.layer.double()
        calibrate_layer(layer, self.x)
        for proxy, low, high in ((layer.weight_quant, -1, 2), (layer.input_quant, -2, 2)):
            moved = exponents(scale_of(proxy)).flatten()
            moved = moved + torch.tensor(self.rng.integers(low, high, size=len(moved)))
            floor = ex if proxy is layer.input_quant else -1000
            set_exponents(proxy, moved.clamp(min=floor))
        if not layer.is_raw:
            moved = exponents(scale_of(layer.output_quant)) + int(self.rng.integers(-2, 3))
            set_exponents(layer.output_quant, moved)

    def lower(self) -> Graph:
        if isinstance(self.layer, QuantDense):
            return Graph(self.place.input, (lower_dense(self.layer, self.place),))
        assert isinstance(self.layer, QuantWinogradConv2d)
        node = lower_winograd(self.layer, self.place)
        nodes = (node, pool_of(node)) if self.pool else (node,)
        return Graph(self.place.input, nodes)

    @torch.no_grad()
    def brevitas_integers(self) -> IntArray:
        y = self.layer(self.x)
        y = F.max_pool2d(y, 2) if self.pool else y
        return as_map(to_integers(y, self.layer, "layer")).astype(np.int64)


def result(graph: Graph, images: IntArray) -> IntArray:
    return interpret(graph, images)[graph.nodes[-1].name]


@pytest.mark.parametrize("dense", [False, True], ids=["winograd", "dense"])
@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_brevitas_in_float64_equals_interpreter(seed: int, dense: bool) -> None:
    for number in range(CASES_PER_SEED):
        case = Case(seed * 1000 + number, dense)
        want = result(case.lower(), case.images)
        np.testing.assert_array_equal(case.brevitas_integers(), want)


@pytest.mark.parametrize("dense", [False, True], ids=["winograd", "dense"])
def test_cases_use_every_keep(dense: bool) -> None:
    keeps = {multiplies(Case(seed, dense).lower())[0].keep for seed in range(150)}
    assert keeps >= set(range(1, 8))


def test_cases_use_the_whole_space() -> None:
    graphs = [Case(seed, False).lower() for seed in range(150)]
    layers = [node for graph in graphs for node in multiplies(graph)]
    assert {layer.m for layer in layers if isinstance(layer, Winograd)} == {2, 4}
    for key in ("weight_bits", "v_bits"):
        assert {getattr(layer, key) for layer in layers} == set(range(2, 9))
    assert {layer.output.signed for layer in layers} == {False, True}
    assert {isinstance(graph.nodes[-1], MaxPool) for graph in graphs} == {False, True}
    assert any(len(set(layer.v_exponent.tolist())) > 2 for layer in layers)
    assert any(graph.input.height % 2 for graph in graphs)


def test_a_corrupted_weight_is_seen() -> None:
    tried = 0
    for seed in range(60):
        case = Case(seed, False)
        graph = case.lower()
        (layer,), kind = multiplies(graph), graph.input
        widths = (kind.bits, layer.v_bits, layer.weight_bits, layer.output.bits)
        right = case.brevitas_integers()
        if min(widths) < 5 or min(kind.height, kind.width) < 4 or len(np.unique(right)) < 10:
            continue  # too coarse, too small or too saturated to show every weight
        weight = layer.weight.copy()
        largest = np.unravel_index(np.abs(weight).argmax(), weight.shape)
        weight[largest] = -weight[largest]
        found = result(change_node(graph, 0, weight=weight), case.images)
        assert not np.array_equal(found, right), seed
        tried += 1
    assert tried >= 10


def test_gradients_reach_weights_and_bias_but_no_scale() -> None:
    layer = QuantWinogradConv2d(3, 4, 2, BitWidths(4, 8, 8))
    torch.nn.init.normal_(layer.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    x = torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6) % 256 / 256.0
    calibrate_layer(layer, x)
    layer.train()(x).sum().backward()
    trained = {name for name, p in layer.named_parameters() if p.grad is not None}
    assert trained == {"weight", "bias"}
    assert float(layer.weight.grad.abs().sum()) > 0


def passed(layer: QuantTapLayer, x: Tensor, *, fast: bool) -> list[Tensor]:
    """Return the output, and the gradients of input, weight and bias, of a pass that trains."""
    x, layer = x.clone().requires_grad_(), copy.deepcopy(layer)
    layer.train().training = fast  # what the layer asks before it leaves Brevitas' way
    y = layer(x)
    weights = torch.empty_like(y)  # in the same order in memory, so that sums are
    (y * weights.normal_(generator=torch.Generator().manual_seed(1))).sum().backward()
    return [y.detach(), x.grad, layer.weight.grad, layer.bias.grad]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dense", [False, True], ids=["winograd", "dense"])
def test_training_computes_what_brevitas_does(dense: bool, kind: torch.dtype) -> None:
    is_mixed = kind == torch.bfloat16
    for seed in range(60):
        case = Case(seed, dense)
        layer, x = case.layer, case.x
        if kind != torch.float64:
            layer, x = layer.float(), x.float()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            found, want = (passed(layer, x, fast=fast) for fast in (True, False))
        for ours, theirs in zip(found, want, strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs), seed


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "window",
    [
        Window((3, 3), (2, 2), (1, 1)),
        Window((1, 1), (1, 1), (0, 0)),
        Window((5, 3), (1, 2), (2, 0)),
    ],
    ids=["strided", "pointwise", "oblong"],
)
def test_direct_convolutions_train_as_in_brevitas(window: Window, kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = QuantDirectConv2d(5, 7, window, BitWidths(4, 6, 8))
    torch.nn.init.normal_(layer.weight, std=0.3, generator=generator)
    torch.nn.init.normal_(layer.bias, std=0.3, generator=generator)
    x = torch.randint(0, 256, (3, 5, 9, 9), generator=generator) / 256
    if kind == torch.float64:
        layer, x = layer.double(), x.double()
    calibrate_layer(layer.eval(), x)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        found, want = (passed(layer, x, fast=fast) for fast in (True, False))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, want, strict=True))


@pytest.mark.parametrize("quantizer", ["input_quant", "weight_quant", "output_quant"])
@pytest.mark.parametrize(("bits", "relu"), [(2, True), (4, False), (8, True), (8, False)])
def test_grid_of_training_is_that_of_brevitas(quantizer: str, bits: int, relu: bool) -> None:
    proxy = getattr(QuantDense(4, 4, 4, BitWidths(bits, bits, bits, relu=relu)), quantizer)
    set_exponents(proxy, torch.tensor([-3]))
    grid = grid_of(proxy, scale_of(proxy).detach())
    steps = torch.arange(-300.0, 300.25, 0.25).view(-1, 1, 1)  # ties, limits, half a step beyond
    ours, theirs = ((steps / 8).requires_grad_() for _ in range(2))
    found, want = grid.integers(ours * 8) / 8, proxy(theirs).value
    assert torch.equal(found, want)
    (found * steps).sum().backward()
    (want * steps).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_training_sees_a_new_scale_at_once() -> None:
    case = Case(3, False)
    layer, x = case.layer.train(), case.x
    before = layer(x)
    set_exponents(layer.weight_quant, exponents(scale_of(layer.weight_quant)).flatten() + 2)
    after = layer(x)
    assert not torch.equal(before, after)
    assert torch.equal(after, layer.eval()(x))


@pytest.mark.parametrize("bits", range(2, 9))
def test_exponents_survive_a_round_trip(bits: int) -> None:
    layer = QuantWinogradConv2d(2, 2, 4, BitWidths(bits, bits, bits))
    want = torch.arange(36) - 30
    for kind in (torch.float32, torch.float64):
        layer.to(kind)
        set_exponents(layer.weight_quant, want)
        assert torch.equal(exponents(scale_of(layer.weight_quant)).flatten(), want)


def test_a_scale_that_is_no_power_of_two_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"scale 0\.3 is not a power of two"):
        exponents(torch.tensor([0.5, 0.3]))


def test_clamp_is_that_of_brevitas() -> None:
    low, high = torch.tensor(-3.0), torch.tensor(2.0)
    start = torch.tensor([-9.0, -3.0, -1.0, 0.0, 2.0, 2.5])
    results = []
    for clamp in (Clamp(), TensorClamp()):
        x = start.clone().requires_grad_()
        y = clamp(x, low, high)
        (y * torch.arange(1.0, 7.0)).sum().backward()
        results.append((y.detach(), x.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("m", [2, 4])
def test_scales_outlive_training_through_the_kernel(m: int) -> None:
    """Brevitas makes a weight's quantizer anew when a parametrization ends, unless it is held."""
    generator = torch.Generator().manual_seed(m)
    layer = QuantWinogradConv2d(5, 6, m, BitWidths(8, 8, 8, relu=True)).eval()
    layer.load_spatial(0.01 * torch.randn(6, 5, 3, 3, generator=generator))
    x = torch.rand(4, 5, 8, 8, generator=generator)
    calibrate_layer(layer, x)
    scales = [scale_of(proxy).clone() for proxy in layer.scaled()]
    want = layer(x).detach()
    assert want.abs().max() > 0
    through_kernel(layer)
    torch.testing.assert_close(layer(x), want)
    release(layer)
    assert all(map(torch.equal, map(scale_of, layer.scaled()), scales))
    trained = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert trained == {"weight", "bias"}
    torch.testing.assert_close(layer(x), want)


def test_new_weights_keep_the_scales() -> None:
    layer = QuantDense(8, 4, 8, BitWidths(8, 8, None, relu=False))
    set_exponents(layer.weight_quant, torch.tensor([-9]))
    layer.weight = torch.nn.Parameter(torch.ones(4, 8, 1))
    layer.bias = torch.nn.Parameter(torch.ones(4))
    assert exponents(scale_of(layer.weight_quant)).flatten().tolist() == [-9]
