# SPDX-License-Identifier: Apache-2.0
"""All networks of the library by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from quant.data import InputShape
from quant.interchange.torch_import import load_checkpoint
from quant.models.chain import ChainNet, chain_spec
from quant.models.heads import with_heads
from quant.models.mobilenet import mobilenet_v2, mobilenet_v2_relu
from quant.models.model_spec import ModelSpec
from quant.models.own import own_module, read_file, read_module
from quant.models.resnet import resnet8, resnet18, resnet20, resnet34, resnet50
from quant.models.vgg import NAGADOMI, VGG16, vgg16, vgg_nagadomi
from quant.network.network import Network
from winnow.config import CHAIN, ModelConfig
from winnow.errors import ConfigError

MAX_WIDTH = 16.0
MAX_EDGE = 1024


@dataclass(frozen=True)
class Entry:
    """How to make a network, and the smallest input it can take (pixels)."""

    make: Callable[[ModelSpec], nn.Module]
    smallest_edge: int


_LIBRARY = {
    "vgg16": Entry(vgg16, VGG16.smallest_edge),
    "vgg16_bn": Entry(partial(vgg16, batch_norm=True), VGG16.smallest_edge),
    "vgg_nagadomi": Entry(vgg_nagadomi, NAGADOMI.smallest_edge),
    "vgg_nagadomi_bn": Entry(partial(vgg_nagadomi, batch_norm=True), NAGADOMI.smallest_edge),
    "resnet8": Entry(resnet8, 4),
    "resnet20": Entry(resnet20, 4),
    "resnet18": Entry(resnet18, 8),
    "resnet34": Entry(resnet34, 8),
    "resnet50": Entry(resnet50, 8),
    "mobilenet_v2": Entry(mobilenet_v2, 8),
    "mobilenet_v2_relu": Entry(mobilenet_v2_relu, 8),
}
NAMES = tuple(_LIBRARY)


def smallest_edge(name: str) -> int:
    """Return the pixels along an edge of the smallest images that a network takes."""
    return _LIBRARY[name].smallest_edge


def make_model(
    name: str, classes: int, in_channels: int = 3, edge: int = 32, width: float = 1.0
) -> nn.Module:
    """Return a network of the library with fresh weights, input [n, in_channels, edge, edge].

    Up to 64 pixels it takes its CIFAR spec, beyond its ImageNet spec. `width` multiplies the
    channels, rounded to multiples of 8. Raises ConfigError for an unknown name or a value out of
    range.
    """
    if name not in _LIBRARY:
        raise ConfigError(f"model '{name}' is unknown; choose one of: {', '.join(NAMES)}")
    entry = _LIBRARY[name]
    _check(f"model '{name}': classes", classes, 1, 1_000_000)
    _check(f"model '{name}': in_channels", in_channels, 1, 4096)
    _check(f"model '{name}': edge", edge, entry.smallest_edge, MAX_EDGE)
    if not (math.isfinite(width) and 0 < width <= MAX_WIDTH):
        raise ConfigError(
            f"model '{name}': width must be above 0 and at most {MAX_WIDTH:g}, got {width:g}"
        )
    return entry.make(ModelSpec(classes, in_channels, edge, width))


def network_of(
    model: ModelConfig, shape: InputShape, load: Callable[[Network], object] | None = None
) -> Network:
    """Return the network of a configuration, with fresh weights or those of `model.checkpoint`.

    It has the exits of the configuration, whose weights stay fresh if the checkpoint has none.
    `load` may give it others. Raises ConfigError as `make_model`, NetworkError for a network of the
    user's that cannot run, ArtefactError for a checkpoint of another network.
    """
    net = with_heads(_made(model, shape), model)
    if model.weights is not None and model.own is None:
        load_checkpoint(net, model.weights)
    if load is not None:
        load(net)
    return net


def _made(model: ModelConfig, shape: InputShape) -> Network:
    if model.own is not None:
        if model.own.is_onnx and model.own.file is not None:
            return read_file(model.own.file, shape.image, shape.classes, shape.kind)
        return read_module(own_module(model), shape.image, shape.classes, shape.kind)
    if model.name == CHAIN:
        return Network.of(ChainNet(chain_spec(model, shape)), shape.image, "by_exit")
    return Network.of(_library_model(model, shape), shape.image)


def _library_model(model: ModelConfig, shape: InputShape) -> nn.Module:
    channels, height, width = shape.image
    if height != width:
        raise ConfigError(
            f"model '{model.name}' must read square images, got {height} rows and {width} columns; "
            "set data.image_size, or take a chain or a network of your own"
        )
    return make_model(model.name, shape.classes, channels, height, model.width)


def _check(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{what} must be within {low}..{high}, got {value}")
