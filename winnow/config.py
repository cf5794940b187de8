# SPDX-License-Identifier: Apache-2.0
"""One TOML file describes one build: data, model, compression, engine, target.

`load_config` reads it into frozen dataclasses; every stage takes the section it needs.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from winnow.engine import EngineConfig
from winnow.errors import ConfigError
from winnow.fields import choice, from_table, integer, integers, real, table, text
from winnow.srbs import SUB_ROW

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class DataConfig:
    """Which images, resized to `image_size` square, and the seed of the fixed split."""

    source: str = choice("digits", ("digits",))
    image_size: int = integer(16, low=16, high=64)
    split_seed: int = integer(0, low=0, high=2**31 - 1)


@dataclass(frozen=True)
class ModelConfig:
    """A VGG-style net: 3x3 convolutions with BatchNorm and ReLU, then one fully connected layer.

    `pool_after` and `exit_after` number the convolutions from 1; an exit is a shallow classifier
    for self-distillation.
    """

    channels: tuple[int, ...] = integers((16, 32, 32, 64), low=1, high=2048, at_least=1)
    pool_after: tuple[int, ...] = integers((2, 4), low=1, high=64)
    exit_after: tuple[int, ...] = integers((2, 3), low=1, high=64)

    def __post_init__(self) -> None:
        for key in ("pool_after", "exit_after"):
            for position in getattr(self, key):
                if position > len(self.channels):
                    raise ConfigError(
                        f"model.{key} must name one of the {len(self.channels)} convolutions of "
                        f"model.channels, got {position}"
                    )


@dataclass(frozen=True)
class TrainConfig:
    """fp32 training with Be-Your-Own-Teacher self-distillation."""

    epochs: int = integer(30, low=1, high=10000)
    batch: int = integer(64, low=2, high=65536)
    learning_rate: float = real(3e-3, low=1e-7, high=10.0)
    weight_decay: float = real(1e-4, low=0.0, high=1.0)


@dataclass(frozen=True)
class DistillConfig:
    """Weights of the distillation losses.

    `temperature` softens logits; `soft` weighs the KL term against cross entropy; `hint` weighs
    the feature distance of the exits.
    """

    temperature: float = real(3.0, low=0.1, high=100.0)
    soft: float = real(0.3, low=0.0, high=1.0)
    hint: float = real(0.003, low=0.0, high=100.0)


@dataclass(frozen=True)
class PruneConfig:
    """SRBS pruning: `keep` of 8, reached in `steps`, all layers but the first `skip`."""

    keep: int = integer(2, low=1, high=SUB_ROW)
    skip: int = integer(1, low=0, high=64)
    steps: int = integer(6, low=1, high=64)
    epochs: int = integer(18, low=1, high=10000)
    learning_rate: float = real(1e-3, low=1e-7, high=10.0)


@dataclass(frozen=True)
class QuantizeConfig:
    """Mixed-precision quantization-aware training.

    `weight_bits` are the widths the search may choose from; `cycle_budget` is the share of the
    modelled cycles of the widest choice that the chosen widths may take.
    """

    weight_bits: tuple[int, ...] = integers((4, 8), low=2, high=8, at_least=1)
    activation_bits: int = integer(8, low=2, high=8)
    v_bits: int = integer(8, low=2, high=8)
    cycle_budget: float = real(0.92, low=0.0, high=1.0)
    epochs: int = integer(12, low=1, high=10000)
    learning_rate: float = real(5e-4, low=1e-7, high=10.0)


@dataclass(frozen=True)
class TargetConfig:
    """The device the build is checked against."""

    part: str = text("xc7z020clg400-1")
    clock_mhz: int = integer(150, low=1, high=1000)


@dataclass(frozen=True)
class Config:
    """A whole build."""

    seed: int = integer(0, low=0, high=2**31 - 1)
    data: DataConfig = table(DataConfig)
    model: ModelConfig = table(ModelConfig)
    train: TrainConfig = table(TrainConfig)
    distill: DistillConfig = table(DistillConfig)
    prune: PruneConfig = table(PruneConfig)
    quantize: QuantizeConfig = table(QuantizeConfig)
    engine: EngineConfig = table(EngineConfig)
    target: TargetConfig = table(TargetConfig)

    def section(self, *names: str) -> dict[str, Any]:
        """Return the named members as plain values, for a stage's input hash."""
        whole = asdict(self)
        return {name: whole[name] for name in names}


def load_config(path: Path) -> Config:
    """Read a configuration file; raises ConfigError with one line that names the key."""
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.toml"))) or "none"
        raise ConfigError(f"configuration '{path}' is missing; {path.parent}/ has: {known}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not valid TOML: {error}") from error
    try:
        return from_table(Config, content, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
