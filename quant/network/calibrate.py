# SPDX-License-Identifier: Apache-2.0
"""Choose the power-of-two scales of a quantized network, once, before training continues.

Every scale minimises the mean squared rounding and clipping error of what it quantizes, under the
rules of `docs/ir.md`: operands are never finer than the layer's input, and the exponents of a
layer's taps lie within `SPREAD` of each other so that aligning them stays a small left shift.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.data.samples import CONSTANT, INPUT_BITS
from quant.layers.quant_add import QuantAdd, QuantAverage
from quant.layers.quant_layer import QuantTapLayer
from quant.layers.quantizers import bits_of, exponents, scale_of, set_exponents
from quant.network.layer_graph import joined_layers, layer_graph, visit_layers
from quant.network.network import Network
from winnow.errors import NetworkError
from winnow.fixed_point import int_range

SPREAD = 6
ADD_SPREAD = 7  # the engine's
CANDIDATES = 5
SAMPLES = 1 << 16  # values per scale that the search looks at
GRID_SAMPLES = 1 << 18  # values that decide on the grid of an input
LARGEST = 2.0**40  # of weights and values; far beyond what sums of 32 bits could use
FINEST = 30  # bits after the point of the finest grid looked for


def quantize(x: Tensor, exponent: Tensor, bounds: tuple[int, int]) -> Tensor:
    """Return x rounded half to even to the grid 2^exponent and clamped to integer `bounds`."""
    scale = torch.pow(2.0, exponent.to(x.dtype))
    return (x / scale).round().clamp(*bounds) * scale


def sampled(x: Tensor, count: int) -> Tensor:
    """Return up to `count` random columns of x [rows, values], always the same ones.

    Not every n-th: steps that divide the size of a map would look at one of its corners only.
    """
    if x.shape[1] <= count:
        return x
    places = torch.randint(x.shape[1], (count,), generator=torch.Generator().manual_seed(0))
    return x[:, places.to(x.device)]


def best_exponents(x: Tensor, bounds: tuple[int, int], *, clip: bool = True) -> Tensor:
    """Return the int64 exponent of least mean squared error for every row of x [rows, values].

    The search starts where nothing clips and goes finer; without `clip` it stays there. Values that
    are all 0, of a map that is dead, get the grid of values up to 1.
    """
    if not bool(x.any()):
        return torch.full((len(x),), -max(bounds[1], 1).bit_length(), dtype=torch.int64)
    reach = (x.amax(1).clamp(min=0) / max(bounds[1], 1)).clamp(min=2.0**-24)
    if bounds[0] < 0:
        reach = torch.maximum(reach, x.amin(1).clamp(max=0) / bounds[0])
    coarsest = reach.log2().ceil().to(torch.int64)
    if not clip:
        return coarsest
    sample = sampled(x, SAMPLES)
    tries = torch.stack([coarsest - i for i in range(CANDIDATES)])  # candidates, rows
    errors = torch.stack(
        [(quantize(sample, e[:, None], bounds) - sample).square().mean(1) for e in tries]
    )
    return tries.gather(0, errors.argmin(0, keepdim=True))[0]


def weight_exponents(u: Tensor, bits: int, *, clip: bool = True) -> Tensor:
    """Return one exponent per tap [taps] for weights U [oc, k, taps]; `clip` as above."""
    rows = u.permute(2, 0, 1).flatten(1)
    best = best_exponents(rows, int_range(bits, signed=True, narrow=True), clip=clip)
    used = rows.abs().amax(1) > 0
    top = int(best[used].max()) if bool(used.any()) else 0
    return best.clamp(min=top - SPREAD, max=top)


def quantize_weight(u: Tensor, bits: int) -> Tensor:
    """Return U [oc, k, taps] as a layer of `bits` would hold it after calibration."""
    bounds = int_range(bits, signed=True, narrow=True)
    return quantize(u, weight_exponents(u, bits), bounds)


def grid_exponent(x: Tensor) -> int:
    """Return the exponent of the coarsest power-of-two grid that holds all of x."""
    sample = sampled(x.reshape(1, -1), GRID_SAMPLES).double()
    top = int(sample.abs().amax().clamp(min=2.0**-FINEST).log2().ceil())
    for exponent in range(top, -FINEST, -1):
        steps = sample * 2.0**-exponent
        if torch.equal(steps, steps.round()):
            return exponent
    return -FINEST


@torch.no_grad()
def calibrate_layer(layer: QuantTapLayer, x: Tensor, *, clip: bool = True) -> None:
    """Set all scales of a layer from its input `x`, which lies on the grid of the layer before.

    `clip` lets weights saturate where that lowers the squared error.
    """
    u = layer.u
    weight_bits = bits_of(layer.weight_quant)
    set_exponents(layer.weight_quant, weight_exponents(u, weight_bits, clip=clip))
    v = layer.input_transform(x)
    v_bounds = int_range(bits_of(layer.input_quant), signed=True, narrow=True)
    best = best_exponents(v.flatten(1), v_bounds).clamp(min=grid_exponent(x))
    set_exponents(layer.input_quant, best.clamp(min=int(best.max()) - SPREAD))
    if layer.is_raw:
        return
    bounds = int_range(bits_of(layer.output_quant), signed=not layer.widths.relu)
    y = layer.accumulate(layer.input_quant(v), layer.weight_quant(u), x).flatten()
    if layer.widths.relu:
        y = y.clamp(min=0)
    set_exponents(layer.output_quant, best_exponents(y[None], bounds))


@torch.no_grad()
def calibrate_add(layer: QuantAdd, x: Tensor, y: Tensor) -> None:
    """Set the scale of a sum from the maps it adds."""
    total = (x + y).flatten()
    if layer.relu:
        total = total.clamp(min=0)
    bounds = int_range(layer.bits, signed=not layer.relu)
    set_exponents(layer.output_quant, best_exponents(total[None], bounds))


@torch.no_grad()
def calibrate_average(layer: QuantAverage, x: Tensor) -> None:
    """Set the scale of an average from its map: never finer than the sum is."""
    total = layer.total(x)
    bounds = int_range(layer.bits, signed=not layer.relu)
    best = best_exponents(total.reshape(1, -1), bounds)
    set_exponents(layer.output_quant, best.clamp(min=grid_exponent(total)))


@torch.no_grad()
def align_adds(net: Network) -> None:
    """Make grids of results that only a sum reads so coarse that it can shift by them.

    A branch that gives nearly nothing, as untrained ones may, has a very fine one.
    """
    for name, placed in layer_graph(net.graph).items():
        if placed.add is None:
            continue
        layer, add = net.get_submodule(name), net.get_submodule(placed.add)
        if isinstance(layer, QuantTapLayer) and isinstance(add, QuantAdd):
            least = int(exponents(scale_of(add.output_quant))) - ADD_SPREAD
            found = exponents(scale_of(layer.output_quant)).flatten()
            set_exponents(layer.output_quant, found.clamp(min=least))


def _require_in_range(
    name: str, layer: QuantTapLayer | QuantAdd | QuantAverage, inputs: tuple[Tensor, ...]
) -> None:
    """Raise NetworkError if a layer's values or weights are so large that no scale holds them."""
    weights = (layer.u,) if isinstance(layer, QuantTapLayer) else ()
    if not all(bool((values.abs() < LARGEST).all()) for values in (*inputs, *weights)):
        raise NetworkError(
            f"'{name}' has weights or reads values of {LARGEST:g} or more; scale the weights of "
            "the network, or train it again"
        )


def joined_exponents(net: Network) -> dict[nn.Module, int]:
    """Return the grid of all that ends in one concatenation, the coarsest of theirs, by module."""
    groups: list[set[nn.Module]] = []
    for sources in joined_layers(net.graph):
        group = {net.get_submodule(name) for name in sources}
        others = [other for other in groups if other & group]
        groups = [other for other in groups if not other & group]
        groups.append(group.union(*others))
    groups = [group for group in groups if group]  # nothing rounds images and pools of them
    found: dict[nn.Module, int] = {}
    for group in groups:
        grids = [int(exponents(scale_of(layer.output_quant)).max()) for layer in group]
        found |= dict.fromkeys(group, max(grids))
    return found


def _is_black(x: Tensor) -> bool:
    """Whether inputs [n, c, h, w] hold 0 alone, beside a constant channel."""
    rows = x.transpose(0, 1).flatten(1)
    black = (rows == 0).all(1)
    is_constant = (rows == CONSTANT / 2**INPUT_BITS).all(1)
    return bool(black.any()) and bool((black | is_constant).all())


@torch.no_grad()
def calibrate(net: Network, x: Tensor, *, clip: bool = True) -> None:
    """Set all scales of a network, layer by layer on quantized maps, from inputs x [n, c, h, w]."""
    if _is_black(x):
        raise NetworkError(
            f"the {len(x)} images for calibration are all black (0), scales need pixels above 0; "
            "check the data"
        )
    layers = [m for m in net.modules() if isinstance(m, QuantTapLayer | QuantAdd | QuantAverage)]

    names = {module: name for name, module in net.named_modules()}

    joined: dict[nn.Module, int] = {}

    def visit(layer: QuantTapLayer | QuantAdd | QuantAverage, *inputs: Tensor) -> None:
        _require_in_range(names[layer], layer, inputs)
        if isinstance(layer, QuantAdd):
            calibrate_add(layer, *inputs)
        elif isinstance(layer, QuantAverage):
            calibrate_average(layer, *inputs)
        else:
            calibrate_layer(layer, *inputs, clip=clip)
        if layer in joined:
            set_exponents(layer.output_quant, torch.tensor(joined[layer]))

    visit_layers(net, layers, x, visit)
    joined.update(joined_exponents(net))
    if joined:  # again, so that what reads them is calibrated on their grid
        visit_layers(net, layers, x, visit)
    align_adds(net)
