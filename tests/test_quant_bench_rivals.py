# SPDX-License-Identifier: Apache-2.0
"""The dense networks that a recipe is compared with: their widths, shapes and training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quant.bench.rivals import (
    dense_cycles,
    dense_steps,
    dense_twin,
    light_rival,
    narrow_rival,
    shaped_rivals,
)
from winnow.config import (
    ChannelPruningConfig,
    Config,
    DataConfig,
    ModelConfig,
    PruneConfig,
    QuantizeConfig,
)
from winnow.errors import ConfigError


def test_twin_differs_by_its_sparsity_alone() -> None:
    config = Config(
        prune=PruneConfig(keep=1, epochs=5, batch=7, learning_rate=0.5, skip=2),
        quantize=QuantizeConfig(epochs=3),
        prune_channels=ChannelPruningConfig(method="cascade", epochs=4),
    )
    prune = PruneConfig(method="kernels", keep=8, epochs=12, batch=7, learning_rate=0.5, skip=2)
    twin = dense_twin(config)
    assert twin.prune == prune
    assert twin == replace(config, prune=prune, prune_channels=ChannelPruningConfig())
    plain = replace(config, prune_channels=ChannelPruningConfig())
    assert dense_twin(plain).prune.epochs == 8


def test_narrow_rival_is_the_widest_within_the_cycles() -> None:
    config = Config(model=ModelConfig(channels=(32, 64), pool_after=(1, 2), exit_after=()))
    limit = dense_cycles(config) // 2
    rival = narrow_rival(config, limit, Path("/teacher"))
    assert rival is not None
    assert rival.model.channels == (16, 40)
    assert dense_cycles(rival) <= limit
    wider = replace(config.model, channels=(24, 40))
    assert dense_cycles(replace(config, model=wider)) > limit
    assert (rival.prune.keep, rival.prune.method) == (8, "kernels")
    assert rival.prune.epochs == config.prune.epochs
    assert rival.train == config.train
    assert rival.distill.teacher == "/teacher"
    assert (rival.quantize.weight_bits, rival.quantize.budget_share) == ((8,), 1.0)
    assert narrow_rival(config, 10, Path("/teacher")) is None


def test_a_recipe_that_saves_no_cycles_has_no_narrow_rival() -> None:
    config = Config(model=ModelConfig(channels=(32, 64), pool_after=(1, 2), exit_after=()))
    cycles = dense_cycles(config)
    assert narrow_rival(config, cycles, Path("/teacher")) is None
    assert narrow_rival(config, cycles - 1, Path("/teacher")) is not None


def test_library_networks_have_narrow_rivals() -> None:
    data = DataConfig(source="colour", image_size=32)
    config = Config(data=data, model=ModelConfig(name="vgg_nagadomi", width=0.25))
    limit = dense_cycles(config) // 2
    rival = narrow_rival(config, limit, Path("/teacher"))
    assert rival is not None
    assert 0 < rival.model.width < 0.25
    assert limit // 2 < dense_cycles(rival) <= limit


def test_shapes_are_dense_rivals_within_the_cycles() -> None:
    model = ModelConfig(channels=(32, 64), pool_after=(1, 2), exit_after=())
    config, teacher = Config(model=model), Path("/teacher")
    shapes = (replace(model, channels=(16, 8)), replace(model, channels=(8, 8)))
    limit = dense_cycles(replace(config, model=shapes[0]))
    narrow = narrow_rival(config, limit, teacher)
    assert narrow is not None
    found = shaped_rivals(config, shapes, limit, teacher)
    assert found == tuple(replace(narrow, model=model) for model in shapes)
    match = (
        rf"^shape \[16, 8\] takes {limit:,} modelled cycles, more than the recipe's {limit - 1:,}; "
        "take it out or make it narrower$"
    )
    with pytest.raises(ConfigError, match=match):
        shaped_rivals(config, shapes, limit - 1, teacher)


def test_light_rival_is_the_widest_within_the_products() -> None:
    """Steps counted by hand: tiles / 2 x outputs / 4 x inputs.

    Digits are 16x16 here: conv1 has 64 tiles of 1 channel, conv2 behind a pool 16 of 32; the
    classifier reads 16 pixels, a lane each, of 64 channels; its 10 outputs fill two groups of 8.
    """
    config = Config(model=ModelConfig(channels=(32, 64), pool_after=(1, 2), exit_after=()))
    assert dense_steps(config) == 32 * 8 * 1 + 8 * 16 * 32 + 4 * 64
    sparse = replace(config, prune=replace(config.prune, keep=1))
    assert dense_steps(sparse) == dense_steps(config)
    rival = light_rival(sparse, dense_steps(config) // 4, Path("/teacher"))
    assert rival is not None
    assert rival.prune.keep == 8
    assert rival.distill.teacher == "/teacher"
    assert dense_steps(rival) <= dense_steps(config) // 4
    wider = replace(rival.model, channels=tuple(n + 8 for n in rival.model.channels))
    assert dense_steps(replace(config, model=wider)) > dense_steps(config) // 4
    assert light_rival(config, dense_steps(config), Path("/teacher")) is None
