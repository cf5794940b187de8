# SPDX-License-Identifier: Apache-2.0
"""Pruning and quantization for those who keep their own training loop: modules in, modules out.

    net = prune(net, images, keep=2)        # layers in the Winograd domain, masks held
    ...                                     # train `net` as any module
    net = quantize(net, images)             # BatchNorm folded, Brevitas layers, scales set
    ...                                     # train it again

Both return a new `Network`, an `nn.Module` whose parameters train; the module given stays as it
is. Images are bytes; a network reads `to_input(images)`, image * 2^-8.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quant.allocate.bits import Choice
from quant.allocate.sizes import sparse_layers
from quant.build import Build, with_widths
from quant.data import Samples, to_input
from quant.data import with_constant as constant_added
from quant.data.arrays import as_array, checked_images, named_arrays, split_of
from quant.golden import golden_arrays
from quant.layers.quant_layer import QuantTapLayer
from quant.layers.winograd_layer import UnrolledConv2d, WinogradConv2d
from quant.network.calibrate import calibrate
from quant.network.graph import Shape
from quant.network.network import Network
from quant.network.network_file import save_network
from quant.network.normalise import Normal
from quant.network.normalise import on_bytes as rewritten
from quant.network.rewrite import fold_norms, tap_layers, to_winograd, without_dropout
from quant.prune.methods import new_pruner
from quant.trace import Traced, trace
from winnow import flow
from winnow.artefact import save_arrays, sha256_file, sha256_value, write_text
from winnow.config import DataConfig, PruneConfig, QuantizeConfig
from winnow.engine import EngineConfig
from winnow.errors import ConfigError, NetworkError, shown
from winnow.schema import from_table
from winnow.srbs import SUB_ROW

DATA, NETWORK, CODE = "data.npz", "given.npz", "given.py"
_LOADER = '''"""Written by winnow.build: the network that it was given."""

from pathlib import Path

from quant.network.network_file import load_network


def make_net(sha256):
    """Return the network beside this file; the hash is that of its weights."""
    return load_network(Path(__file__).with_name("given.npz"), "winnow.build")
'''
METHODS = ("obs", "magnitude")  # those that need no training in between


def prune(
    net: nn.Module,
    images: Any,
    *,
    keep: int = 2,
    skip: int = 1,
    first_keep: int = 0,
    m: int = 2,
    method: str = "obs",
    sub_row: int = 8,
) -> Network:
    """Return the network with its layers in the Winograd domain, pruned at once.

    `images` are uint8 [n, c, h, w]; "obs" compensates on them. `keep` of 8 weights stay in all
    layers but the first `skip`; `first_keep` in the first convolution if it is not 0, for which the
    network's input is unrolled. Pruning the result again with a smaller `keep` is gradual pruning.
    What is pruned stays so in training. Raises ConfigError for a value out of range, NetworkError
    for what the flow does not know.
    """
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {shown(method)}")
    engine = from_table(EngineConfig, {"m": m, "po": 4}, "engine")
    table = {"keep": keep, "skip": skip, "first_keep": first_keep, "method": method}
    table |= {"sub_row": sub_row, "steps": 1}
    config = from_table(PruneConfig, table, "prune")
    x = inputs_of(images)
    tapped = in_taps(net, x, engine.m, unroll=config.unrolls)
    pruner = new_pruner(config, tapped, sparse_layers(tapped, config.skip), x)
    pruner.begin_epoch(0)
    pruner.release()
    return tapped.train(net.training)


def quantize(
    net: nn.Module,
    images: Any,
    *,
    weight_bits: int | Mapping[str, int] = 8,
    operand_bits: int = 8,
    activation_bits: int = 8,
    m: int = 2,
) -> Network:
    """Return the network with BatchNorm folded and Brevitas layers, calibrated on `images`.

    `weight_bits` is one width, or one per layer by name. `images` and errors as for `prune`; a
    network that was not pruned is taken into the Winograd domain as F(m, 3) first.
    """
    from_table(EngineConfig, {"m": m, "po": 4}, "engine")  # refuses another m
    x = inputs_of(images)
    folded = without_dropout(fold_norms(in_taps(net, x, m))).eval()
    names = list(tap_layers(folded))
    widths = dict(weight_bits) if isinstance(weight_bits, Mapping) else {}
    same = [] if isinstance(weight_bits, Mapping) else [weight_bits]
    if widths and widths.keys() != set(names):
        raise ConfigError(
            f"weight_bits must give a width for each of {', '.join(names)}, got {', '.join(widths)}"
        )
    table = {
        "weight_bits": list(widths.values()) or same,
        "operand_bits": [operand_bits],
        "activation_bits": activation_bits,
    }
    config = from_table(QuantizeConfig, table, "quantize")
    choices = {
        name: Choice(widths.get(name, config.weight_bits[0]), operand_bits) for name in names
    }
    quantized = with_widths(folded, choices, config.activation_bits)
    calibrate(quantized, x)
    return quantized.train(net.training)


def on_bytes(
    net: nn.Module, images: Any, *, mean: Sequence[float] | float = (), std: Any = ()
) -> Network:
    """Return the network that gives for bytes what `net` gives for (image / 255 - mean) / std.

    `mean` and `std` are one value, or one per channel. `images`, uint8 [n, c, h, w], tell the size.
    With a mean that is not 0 it reads `with_constant(images)`. Errors as for `prune`.
    """
    table = {"mean": _numbers(mean), "std": _numbers(std)}
    data = from_table(DataConfig, table, "data")
    shape = tuple(inputs_of(images).shape[1:])
    return rewritten(_network(net, shape), Normal.of(data, shape[0]))


def _numbers(values: Any) -> list[Any]:
    return np.atleast_1d(as_array(values, "mean and std")).tolist()


def _network(net: Any, shape: Shape) -> Network:
    """Return the network of any module, a layer alone too; NetworkError for what is none."""
    if not isinstance(net, nn.Module):
        raise NetworkError(f"net must be an nn.Module, got {type(net).__name__}")
    return Network.of(net if any(True for _ in net.children()) else nn.Sequential(net), shape)


def with_constant(images: Any) -> Tensor:
    """Return images uint8 [n, c, h, w] with the constant channel that `on_bytes` reads."""
    return constant_added(bytes_of(images))


def in_taps(net: nn.Module, x: Tensor, m: int, *, unroll: bool | None = None) -> Network:
    """Return a copy of any module with its layers in taps; of one that has them, a plain copy.

    The first convolution is unrolled if `unroll`; None takes one that has layers in taps as it is.
    """
    if isinstance(net, Network) and tap_layers(net):
        if any(isinstance(layer, QuantTapLayer) for layer in tap_layers(net).values()):
            raise NetworkError("the network is quantized already; give the one before that")
        if tuple(x.shape[1:]) != net.graph.input:
            raise ConfigError(
                f"images must be {list(net.graph.input)} (c, h, w) as the network's, got "
                f"{list(x.shape[1:])}"
            )
        for layer in tap_layers(net).values():
            if isinstance(layer, WinogradConv2d) and layer.m != m:
                raise ConfigError(f"m must be {layer.m} as for the network's pruning, got {m}")
        unrolled = any(isinstance(layer, UnrolledConv2d) for layer in tap_layers(net).values())
        if unroll is not None and unroll != unrolled:
            raise ConfigError(
                f"first_keep must be {'1..8' if unrolled else '0'} as when the network was pruned "
                "first"
            )
        return to_winograd(net, m).eval()
    return to_winograd(_network(net, tuple(x.shape[1:])), m, unroll=bool(unroll)).eval()


def sample(
    module: nn.Module, images: Any, *, m: int, keep: int, **widths: Any
) -> tuple[Network, dict[str, NDArray[Any]]]:
    """Return a module quantized, and its golden arrays for bytes [n, c, h, w].

    What `quantize` has made stays as it is; anything else is pruned to `keep` of 8 in all layers.
    """
    if not any(isinstance(layer, QuantTapLayer) for layer in module.modules()):
        module = prune(module, images, keep=keep, skip=0, m=m) if keep < SUB_ROW else module
        module = quantize(module, images, m=m, **widths)
    if not isinstance(module, Network):
        raise NetworkError("a quantized network must be what winnow.quantize returned")
    pixels = bytes_of(images)
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    return module, golden_arrays(copy.deepcopy(module), Samples(pixels, labels))


def inputs_of(images: Any) -> Tensor:
    """Return bytes [n, c, h, w] as network inputs; ConfigError says what else they are."""
    return to_input(bytes_of(images))


def bytes_of(images: Any) -> Tensor:
    """Return an array or tensor as uint8 [n, c, h, w]; ConfigError says what it is instead."""
    return torch.from_numpy(checked_images(as_array(images, "images"), ""))


def given(
    net: nn.Module | None, data: Any, folder: Path, labels: str = "classes"
) -> dict[str, Any]:
    """Write a network and data into a build's folder; return the keys that name them.

    `data` is (images, labels) or a dict of arrays, None for neither; `labels` as data.labels;
    ConfigError and NetworkError
    for what the flow cannot take.
    """
    keys: dict[str, Any] = {}
    if data is not None:
        arrays = {name: as_array(value, name) for name, value in named_arrays(data, "data").items()}
        split_of(
            arrays, DataConfig(source="npz", path=DATA, labels=labels), "data"
        )  # refuses what is wrong
        save_arrays(folder / DATA, arrays)
        keys |= {"data.source": "npz", "data.path": DATA}
    if net is not None:
        if data is None:
            raise ConfigError("data must be given beside net, whose layers depend on its size")
        images = bytes_of(named_arrays(data, "data")["images"])
        network = _network(net, tuple(images.shape[1:]))
        files = save_network(folder / NETWORK, network)
        write_text(folder / CODE, _LOADER)
        digest = sha256_value([sha256_file(file) for file in files])
        keys |= {"model.name": f"{CODE}:make_net", "model.arguments": {"sha256": digest}}
    return keys


def trace_build(build: flow.Build, images: Any) -> tuple[Traced, ...]:
    """Return where accuracy goes in a build, on bytes [n, c, h, w] or None for test images."""
    whole = Build(build.config, build.out, config_path=build.config_path)
    return trace(whole, None if images is None else bytes_of(images))
