# SPDX-License-Identifier: Apache-2.0
"""One TOML file describes one build: data, model, compression, engine, target.

`load_config` reads it into frozen dataclasses; every stage takes the section it needs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from math import comb
from pathlib import Path
from typing import Any

from winnow.data_config import DataConfig
from winnow.engine import EngineConfig
from winnow.errors import ConfigError, shown, shown_text
from winnow.model_config import CHAIN, MODELS, ModelConfig
from winnow.parts import EXAMPLE, find_part
from winnow.place import CONFIGS
from winnow.profiles import split_name, split_profiles
from winnow.schema import choice, flag, from_table, integer, integers, plain, real, table, text
from winnow.srbs import SUB_ROW

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


__all__ = ["CHAIN", "MODELS", "Config", "DataConfig", "ModelConfig", "load_config", "read_toml"]

LEAST_SQUARES = "least_squares"  # the method of channel pruning that needs no training
KERNELS = "kernels"  # the pruning method whose taps share their channels
PATTERN = "pattern"  # the pruning method without SRBS
KERNEL_WEIGHTS = 9
LISTED, REASON = 300, 120  # characters of a list of files, and of what is wrong with TOML


@dataclass(frozen=True)
class TrainConfig:
    """fp32 training with Be-Your-Own-Teacher self-distillation, and what all stages share.

    `epochs`, `learning_rate` are of this stage, 0 epochs keep the weights as they are; `batch`,
    `weight_decay` and the rest of all. `ema` is the decay per step of an average of the weights
    (0: none), `amp` multiplies in bfloat16 on a GPU or CPU that has instructions for it,
    `validate_every` counts epochs (0: never).
    """

    epochs: int = integer(30, low=0, high=10000)
    batch: int = integer(64, low=2, high=65536)
    learning_rate: float = real(3e-3, low=1e-7, high=10.0)
    weight_decay: float = real(1e-4, low=0.0, high=1.0)
    ema: float = real(0.0, low=0.0, high=0.99999)
    amp: bool = flag(False)
    validate_every: int = integer(5, low=0, high=10000)


@dataclass(frozen=True)
class DistillConfig:
    """Knowledge distillation, in all training stages.

    `teacher` is the folder of another build whose fp32 network teaches, "" this build's own.
    `temperature` softens logits; by `schedule` it moves to `temperature_end` over the epochs of a
    stage. `soft` weighs the KL term against cross entropy, `hint` the feature distance of the
    exits, `feature` that of the attention maps of blocks, student to teacher. `block_epochs` is
    how long each block of the fp32 network first imitates the teacher's, one block at a time.
    """

    teacher: str = text("")
    temperature: float = real(3.0, low=0.1, high=100.0)
    temperature_end: float = real(1.0, low=0.1, high=100.0)
    schedule: str = choice("constant", ("constant", "linear", "cosine"))
    soft: float = real(0.3, low=0.0, high=1.0)
    hint: float = real(0.003, low=0.0, high=100.0)
    feature: float = real(0.0, low=0.0, high=10000.0)
    block_epochs: int = integer(0, low=0, high=10000)

    def __post_init__(self) -> None:
        if self.block_epochs and not self.teacher:
            raise ConfigError(
                "distill.block_epochs needs a teacher: set distill.teacher to the folder of a "
                f"trained build, or distill.block_epochs to 0, got {self.block_epochs}"
            )


@dataclass(frozen=True)
class ChannelPruningConfig:
    """Removal of channels before pruning, down to a `share` of what `budget` counts.

    `structure` chooses among `widths` (percent) for every block by how well the narrowed block
    imitates its own; `block_epochs` train each of them. `cascade` removes the least salient
    channels in `levels`, each taught by the one above. `least_squares` removes those that others
    make up for best and refits the layers that read them. Groups stay multiples of `multiple`.
    `epochs` 0 is no fine-tuning.
    """

    method: str = choice("none", ("none", "structure", "cascade", LEAST_SQUARES))
    budget: str = choice("cycles", ("flops", "parameters", "cycles"))
    share: float = real(0.5, low=0.0, high=1.0)
    multiple: int = integer(8, low=1, high=64)
    levels: int = integer(3, low=1, high=16)
    widths: tuple[int, ...] = integers((25, 50, 75), low=1, high=99, at_least=1)
    block_epochs: int = integer(2, low=1, high=1000)
    epochs: int = integer(12, low=0, high=10000)
    learning_rate: float = real(1e-3, low=1e-7, high=10.0)


@dataclass(frozen=True)
class PruneConfig:
    """Pruning of all layers but the first `skip`, to `keep` of 8 weights.

    `method` decides how: docs/compression.md. `steps` is how many times all but "admm" and
    "pattern" lower the number kept. Sub-rows are `sub_row` channels long; of 16, twice
    `keep` stay. `per_tap` lets taps keep different numbers, with the mean of `keep`; `per_layer`
    lets layers, within the modelled cycles of `keep` in all of them. `first_keep` of 8 weights stay
    in the first convolution, whatever `skip` is: its input is unrolled for that; 0: it is not.
    `rho` is the first penalty weight of "admm" and "pattern"; `decay` fades what
    "straight_through" drops. "kernels" prunes whole kernels, the same for all taps.
    "pattern" prunes no sub-rows but 3x3 kernels: `pattern_keep` of 9 weights stay, in one of
    `patterns` shapes per layer; `per_layer` lets layers keep different numbers, within the storage
    of `pattern_keep` in all of them. `batch` 0 is that of [train].
    """

    method: str = choice("obs", ("obs", "magnitude", "admm", "straight_through", KERNELS, PATTERN))
    keep: int = integer(2, low=1, high=SUB_ROW)
    sub_row: int = choice(SUB_ROW, (SUB_ROW, 2 * SUB_ROW))
    per_tap: bool = flag(False)
    per_layer: bool = flag(False)
    skip: int = integer(1, low=0, high=64)
    first_keep: int = integer(0, low=0, high=SUB_ROW)
    steps: int = integer(6, low=1, high=64)
    rho: float = real(0.01, low=1e-6, high=100.0)
    decay: float = real(2e-4, low=0.0, high=1.0)
    pattern_keep: int = integer(4, low=1, high=KERNEL_WEIGHTS)
    patterns: int = integer(16, low=1, high=126)
    epochs: int = integer(18, low=1, high=10000)
    batch: int = integer(0, low=0, high=65536)
    learning_rate: float = real(1e-3, low=1e-7, high=10.0)

    def __post_init__(self) -> None:
        if self.method in ("admm", PATTERN) and self.epochs < 2:
            raise ConfigError(
                f"prune.epochs must be at least 2 for prune.method '{self.method}', which retrains "
                f"in the second half, got {self.epochs}"
            )
        if self.method == KERNELS and self.per_tap:
            raise ConfigError(
                f"prune.per_tap must be false for prune.method '{KERNELS}', whose taps all keep "
                "the same channels, got true; remove it or choose another method"
            )
        if self.keeps_by_cycles and (self.per_tap or self.sub_row != SUB_ROW):
            raise ConfigError(
                "prune.per_layer is for sub-rows of 8 whose taps keep the same number, got true "
                f"beside prune.per_tap {shown(self.per_tap)} and prune.sub_row {self.sub_row}; "
                "remove one of them"
            )
        if self.method != PATTERN:
            return
        for key, default in (("per_tap", False), ("sub_row", SUB_ROW), ("first_keep", 0)):
            if getattr(self, key) != default:
                raise ConfigError(
                    f"prune.{key} is for sub-rows, which prune.method 'pattern' has none of; "
                    f"remove it or choose another method, got {getattr(self, key)}"
                )
        possible = comb(KERNEL_WEIGHTS, self.pattern_keep)
        if self.patterns > possible:
            raise ConfigError(
                f"prune.patterns must be at most {possible}, the patterns that there are for "
                f"prune.pattern_keep {self.pattern_keep}, got {self.patterns}"
            )

    @property
    def unrolls(self) -> bool:
        """Whether the host unrolls the images for the first convolution."""
        return self.first_keep > 0

    @property
    def keeps_by_cycles(self) -> bool:
        """Whether cycles decide on a keep per layer."""
        return self.per_layer and self.method != PATTERN


@dataclass(frozen=True)
class QuantizeConfig:
    """Mixed-precision quantization-aware training.

    `weight_bits` and `operand_bits` (of the lane operand V) are the widths the search may choose
    from for every layer, `activation_bits` is that of all feature maps. `sensitivity` measures
    what a width costs in accuracy. `budget_share` is the share of the widest choice's modelled
    cycles or bit operations (`budget`) that the chosen widths may take; 0 asks for 0.92, or for the
    least that the widths can reach if that is more. `weight_scale` fits a scale to the squared
    error or to the largest weight. `batch` 0 is that of [train].
    """

    weight_bits: tuple[int, ...] = integers((4, 8), low=2, high=8, at_least=1)
    operand_bits: tuple[int, ...] = integers((8,), low=2, high=8, at_least=1)
    activation_bits: int = integer(8, low=2, high=8)
    sensitivity: str = choice("kl", ("kl", "hessian"))
    budget: str = choice("cycles", ("cycles", "bops"))
    budget_share: float = real(0.0, low=0.0, high=1.0)
    weight_scale: str = choice("mse", ("mse", "max"))
    epochs: int = integer(12, low=1, high=10000)
    batch: int = integer(0, low=0, high=65536)
    learning_rate: float = real(5e-4, low=1e-7, high=10.0)


@dataclass(frozen=True)
class TargetConfig:
    """The device the build is checked against."""

    part: str = text(EXAMPLE)
    clock_mhz: int = integer(100, low=1, high=1000)

    def __post_init__(self) -> None:
        find_part(self.part)


@dataclass(frozen=True)
class Config:
    """A whole build."""

    seed: int = integer(0, low=0, high=2**31 - 1)
    data: DataConfig = table(DataConfig)
    model: ModelConfig = table(ModelConfig)
    train: TrainConfig = table(TrainConfig)
    distill: DistillConfig = table(DistillConfig)
    prune_channels: ChannelPruningConfig = table(ChannelPruningConfig, formerly="shrink")
    prune: PruneConfig = table(PruneConfig)
    quantize: QuantizeConfig = table(QuantizeConfig)
    engine: EngineConfig = table(EngineConfig)
    target: TargetConfig = table(TargetConfig)

    def __post_init__(self) -> None:
        if not self.train.epochs and not self.model.checkpoint and self.model.own is None:
            raise ConfigError(
                "train.epochs must be at least 1 for a network without weights, got 0; set "
                "model.checkpoint to the file of its weights"
            )
        if self.prune.keeps_by_cycles and self.quantize.budget_share:
            raise ConfigError(
                "quantize.budget_share must be 0 with prune.per_layer, as which share the widths "
                f"can reach is known after pruning only; got {self.quantize.budget_share:g}"
            )

    def section(self, *names: str) -> dict[str, Any]:
        """Return the named members as plain values, for a stage's input hash."""
        members = {name: getattr(self, name) for name in names}
        return {n: m if isinstance(m, int) else plain(m) for n, m in members.items()}

    def places(self, key: str) -> tuple[Path, ...]:
        """Return the files and folders that the path of a key stands for; none if it is empty."""
        if key == "data.path":
            return self.data.places
        if key == "model.name":
            return () if self.model.own is None else self.model.own.places
        if key == "model.checkpoint":
            return () if self.model.weights is None else (self.model.weights,)
        section, _, name = key.partition(".")
        value = getattr(getattr(self, section), name)
        return (Path(value),) if value else ()

    def beside(self, folder: Path) -> Config:
        """Return the configuration with paths of data and network relative to `folder`."""
        data, model = replace(self.data, base=folder), replace(self.model, base=folder)
        return replace(self, data=data, model=model)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raises ConfigError when it is missing, unreadable or no TOML."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"configuration '{path}' is missing; {_remedy(path)}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"configuration '{path}' is a folder; name a .toml file") from error
    except OSError as error:
        raise ConfigError(f"configuration '{path}' cannot be read: {error.strerror}") from error
    except ValueError as error:  # NUL in its name
        raise ConfigError(f"configuration {shown(str(path))} cannot be a file's name") from error
    try:
        return tomllib.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ConfigError(f"'{path}' is not valid TOML: it is nested too deeply") from error
    except ValueError as error:  # tomllib's own, no UTF-8, integers of thousands of digits
        reason = shown_text(str(error), REASON)
        raise ConfigError(f"'{path}' is not valid TOML: {reason}") from error


def _remedy(path: Path) -> str:
    """Say which file the missing configuration may be."""
    if path.name == str(path) and (named := CONFIGS / f"{path}.toml").is_file():
        return f"this command takes a file: {named}"
    names = sorted(p.stem for p in path.parent.glob("*.toml") if p.name != "pyproject.toml")
    return f"{path.parent}/ has: {shown_text(', '.join(names) or 'none', LISTED)}"


def load_config(path: Path) -> Config:
    """Read a configuration file, or a profile of it; ConfigError with one line names the key.

    Its profiles are checked, too. Paths of data and network in it are relative to its folder.
    """
    file, profile = split_name(path)
    base, profiles = _configs(file)
    if not profile:
        return base
    if profile not in profiles:
        known = shown_text(", ".join(profiles), LISTED) or "none"
        raise ConfigError(f"{file}: no profile is called {shown(profile)}; it has: {known}")
    return profiles[profile]


def load_profiles(path: Path) -> dict[str, Config]:
    """Read the profiles of a configuration file by their names; ConfigError if it has none."""
    file, profile = split_name(path)
    if profile:
        raise ConfigError(f"{path}: one profile is not several; name the configuration '{file}'")
    profiles = _configs(file)[1]
    if not profiles:
        raise ConfigError(
            f"{path}: there are no profiles; add a table [profiles.NAME] for each, with the keys "
            "in which it differs"
        )
    return profiles


def _configs(path: Path) -> tuple[Config, dict[str, Config]]:
    """Read a configuration file: the configuration itself, and its profiles."""
    content = read_toml(path)

    def config(content: dict[str, Any], where: str) -> Config:
        try:
            return from_table(Config, content, "").beside(path.parent)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error

    try:
        base, profiles = split_profiles(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    whole = config(base, str(path))
    return whole, {n: config(keys, f"{path}: profile '{n}'") for n, keys in profiles.items()}
