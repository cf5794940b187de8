# SPDX-License-Identifier: Apache-2.0
"""The dense networks that a recipe is compared with.

Its *twin* has equal training: the same network as it is in PyTorch, nothing pruned, weights in
fp32. Two more are dense, of 8 bits and fewer channels: the *narrow* network has equal cycles, the
engine takes no longer for it than for the recipe's; the *light* one has equal products, the
engine's lanes take no more steps. So the narrow network says whether a method pays on this engine,
the light one whether it would on an engine that does nothing but multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from quant.allocate.layer_cost import WEIGHT_BITS, layer_costs
from quant.allocate.sizes import layer_keeps, layer_shapes
from quant.build import Build, compressed_network, new_network
from quant.network.rewrite import tap_layers, to_winograd
from winnow.blocking import LayerShape
from winnow.config import CHAIN, KERNELS, ChannelPruningConfig, Config, ModelConfig
from winnow.cycles import layer_cycles
from winnow.engine import EngineConfig
from winnow.errors import ConfigError
from winnow.srbs import SUB_ROW

STEPS = 64  # widths that are tried, equally far apart


def dense_twin(config: Config) -> Config:
    """Return the configuration whose pruned network has had all epochs of `config`, but is dense.

    The epochs of quantization-aware training, and those of channel pruning, are added to those of
    pruning.
    """
    prune, channels = config.prune, config.prune_channels
    epochs = prune.epochs + config.quantize.epochs
    if channels.method != "none":
        epochs += channels.epochs
    dense = replace(_dense(config), prune_channels=ChannelPruningConfig())
    return replace(dense, prune=replace(dense.prune, epochs=epochs))


def narrow_rival(config: Config, cycles: int, teacher: Path) -> Config | None:
    """Return the widest dense configuration of at most `cycles`, with the same training.

    The fp32 network of the build `teacher` teaches it, as it teaches the recipe's. None if the
    recipe saves no cycles against its own network in dense form, if there is no such width, or the
    model has none to choose.
    """
    return _widest(config, dense_cycles, cycles, teacher)


def shaped_rivals(
    config: Config, shapes: Sequence[ModelConfig], cycles: int, teacher: Path
) -> tuple[Config, ...]:
    """Return dense configurations of given shapes, otherwise as `narrow_rival`.

    Raise ConfigError where one takes more than `cycles`.
    """
    for model in shapes:
        taken = dense_cycles(replace(config, model=model))
        if taken > cycles:
            raise ConfigError(
                f"shape {list(model.channels)} takes {taken:,} modelled cycles, more than the "
                f"recipe's {cycles:,}; take it out or make it narrower"
            )
    return tuple(_rival(config, model, teacher) for model in shapes)


def light_rival(config: Config, steps: int, teacher: Path) -> Config | None:
    """Return the widest dense configuration whose products take at most `steps` of the lanes.

    Otherwise as `narrow_rival`.
    """
    return _widest(config, dense_steps, steps, teacher)


def _widest(
    config: Config, measure: Callable[[Config], int], limit: int, teacher: Path
) -> Config | None:
    if measure(config) <= limit:
        return None
    for model in _narrower(config.model):
        if measure(replace(config, model=model)) <= limit:
            return _rival(config, model, teacher)
    return None


def _rival(config: Config, model: ModelConfig, teacher: Path) -> Config:
    quantize = replace(config.quantize, weight_bits=(WEIGHT_BITS,), budget_share=1.0)
    distill = replace(config.distill, teacher=str(teacher))
    return replace(_dense(config), model=model, quantize=quantize, distill=distill)


def _dense(config: Config) -> Config:
    """Return the configuration that prunes nothing and trains the spatial convolutions.

    Training in the Winograd domain harms a dense network, the more the larger the tile.
    """
    prune = replace(config.prune, first_keep=0)
    plain = replace(
        prune, method=KERNELS, keep=SUB_ROW, sub_row=SUB_ROW, per_tap=False, per_layer=False
    )
    return replace(config, prune=plain)


def _narrower(model: ModelConfig) -> Iterator[ModelConfig]:
    """Yield the model at smaller widths, the widest first."""
    if model.own is not None:
        return
    seen = {model}
    for step in reversed(range(1, STEPS)):
        share = step / STEPS
        if model.name == CHAIN:
            groups = (max(1, round(n * share / SUB_ROW)) for n in model.channels)
            channels = (min(n, k * SUB_ROW) for n, k in zip(model.channels, groups, strict=True))
            found = replace(model, channels=tuple(channels))
        else:
            found = replace(model, width=model.width * share)
        if found not in seen:
            seen.add(found)
            yield found


@cache
def dense_cycles(config: Config) -> int:
    """Return the modelled cycles of the configuration's network if nothing is pruned."""
    build = Build(config, Path("nowhere"))
    net = compressed_network(build, new_network(build))
    return sum(layer_costs(net, _dense(config)).values())


@cache
def dense_steps(config: Config) -> int:
    """Return the steps of the lanes for the configuration's network if nothing is pruned."""
    build = Build(config, Path("nowhere"))
    net = to_winograd(compressed_network(build, new_network(build)), config.engine.m)
    bits = dict.fromkeys(tap_layers(net), WEIGHT_BITS)
    shapes = layer_shapes(net, layer_keeps(_dense(config), net), bits)
    return sum(lane_steps(config.engine, shape, name) for name, shape in shapes.items())


def lane_steps(engine: EngineConfig, shape: LayerShape, name: str) -> int:
    """Return the steps in which the lanes do the products of a layer, without any wait."""
    found = layer_cycles(engine, shape, name)
    return round(found.utilisation * found.total)
