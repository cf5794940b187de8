# SPDX-License-Identifier: Apache-2.0
"""The dense networks that a recipe is compared with.

Its *twin* has equal training: the same network as it is in PyTorch, nothing pruned, weights in
fp32. The *narrow* network has equal cycles: dense and of 8 bits, with so few channels that the
engine takes no longer than for the recipe's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from quant.allocate.layer_cost import WEIGHT_BITS, layer_costs
from quant.build import Build, compressed_network, new_network
from winnow.config import CHAIN, KERNELS, ChannelPruningConfig, Config, ModelConfig
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
    if dense_cycles(config) <= cycles:
        return None
    for model in _narrower(config.model):
        if dense_cycles(replace(config, model=model)) <= cycles:
            quantize = replace(config.quantize, weight_bits=(WEIGHT_BITS,), budget_share=1.0)
            distill = replace(config.distill, teacher=str(teacher))
            return replace(_dense(config), model=model, quantize=quantize, distill=distill)
    return None


def _dense(config: Config) -> Config:
    """Return the configuration that prunes nothing and trains the spatial convolutions.

    Training in the Winograd domain harms a dense network, the more the larger the tile.
    """
    prune = config.prune
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
