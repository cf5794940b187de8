# SPDX-License-Identifier: Apache-2.0
"""The section [model]: a network of the library, a chain, or one of the user's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from winnow.errors import ConfigError, shown
from winnow.own_code import file_of_module, files_of
from winnow.schema import Arguments, arguments, choice, integer, integers, real, text

CHAIN = "chain"
MODELS = (
    CHAIN,
    "vgg16",
    "vgg16_bn",
    "vgg_nagadomi",
    "vgg_nagadomi_bn",
    "resnet8",
    "resnet20",
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v2_relu",
)
AUTO = (0,)  # positions in a chain: the usual ones, as far as they fit
HEADS = ("pool", "average", CONVOLUTIONS := "convolutions")  # of exits
EXITS = (2, 3)  # the convolutions of a chain that exits usually follow
FORMS = "FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION, FILE.onnx"


@dataclass(frozen=True)
class OwnModel:
    """Where a network of the user's is made.

    Members:
        file: a Python or ONNX file; None for a module.
        module: dotted name of a module, "" for a file.
        function: what makes the network, a function or class; "" for an ONNX file.
        folder: of the configuration; modules are looked up there first.
    """

    file: Path | None
    module: str
    function: str
    folder: Path

    @property
    def is_onnx(self) -> bool:
        """Whether the network is an ONNX file."""
        return not self.function

    @property
    def code_folder(self) -> Path:
        """The folder in which the code's imports are looked up first."""
        return self.folder if self.file is None else self.file.parent

    @property
    def places(self) -> tuple[Path, ...]:
        """The files that decide what the network is."""
        if self.file is not None:
            return (self.file,) if self.is_onnx else files_of(self.file)
        file = file_of_module(self.module, self.folder)
        return () if file is None else files_of(file, self.module)


@dataclass(frozen=True)
class ModelConfig:
    """A network of the library, its channels times `width`, a chain, or one of the user's own.

    `name` is one of the library, "chain", or where the user's is made: `FORMS`; `arguments` are
    given to that function. `checkpoint` is a file of trained weights. Files are relative to `base`,
    the folder of the configuration file, which is no key.
    A chain is 3x3 convolutions with BatchNorm and ReLU, then fully connected layers. `pool_after`
    and `exit_after` number the convolutions from 1, [0] stands for the usual ones that fit; an exit
    is a shallow classifier for self-distillation. Of other networks `exit_after` numbers blocks,
    and [0] stands for none. `exit_head` is what an exit is made of: `quant.models.heads`. `hidden`
    are the widths of fully connected layers before the classifier.
    `exit` deploys the network that ends at that exit; 0 the whole one.
    """

    name: str = text(CHAIN)
    arguments: Arguments = arguments()
    checkpoint: str = text("")
    width: float = real(1.0, low=0.01, high=16.0)
    channels: tuple[int, ...] = integers((16, 32, 32, 64), low=1, high=2048, at_least=1)
    pool_after: tuple[int, ...] = integers(AUTO, low=0, high=64)
    exit_after: tuple[int, ...] = integers(AUTO, low=0, high=64)
    exit_head: str = choice(HEADS[0], HEADS)
    hidden: tuple[int, ...] = integers((), low=1, high=65536)
    exit: int = integer(0, low=0, high=64)
    base: Path = field(default=Path(), kw_only=True, metadata={"key": False})

    def __post_init__(self) -> None:
        if self.name not in MODELS and self.own is None:
            raise ConfigError(
                f"model.name must be one of {', '.join(MODELS)}, or name your own network as one "
                f"of {FORMS}; got {shown(self.name)}"
            )
        for key in ("pool_after", "exit_after"):
            self._check_positions(key)
        if self.name != CHAIN and self.exit_numbers and self.exit_head == CONVOLUTIONS:
            raise ConfigError(
                f"model.exit_head '{CONVOLUTIONS}' is for a chain alone; set 'pool' or 'average' "
                f"for '{self.name}'"
            )
        self._check_own()

    def _check_positions(self, key: str) -> None:
        """Raise ConfigError unless a key numbers convolutions, or blocks of other networks."""
        for position in getattr(self, key):
            if position == 0 and getattr(self, key) != AUTO:
                raise ConfigError(
                    f"model.{key} must number convolutions from 1, or be [0] for those that "
                    f"fit, got {list(getattr(self, key))}"
                )
            if self.name == CHAIN and position > len(self.channels):
                raise ConfigError(
                    f"model.{key} must name one of the {len(self.channels)} convolutions of "
                    f"model.channels, got {position}"
                )

        if self.name == CHAIN and len(self.channels) in self.exit_after:
            raise ConfigError(
                "model.exit_after must number convolutions before the last one, whose map the "
                f"network's own classifier reads, got {len(self.channels)} of {len(self.channels)}"
            )

    def _check_own(self) -> None:
        """Raise ConfigError for keys that this kind of network would not look at."""
        is_code = self.own is not None and not self.own.is_onnx
        if self.arguments and not is_code:
            raise ConfigError(
                "model.arguments are given to a function that makes your own network, model.name "
                f"'{self.name}' has none; remove [model.arguments]"
            )
        if self.name == CHAIN and self.width != 1.0:
            raise ConfigError(
                "model.width is for networks of the library; a chain is as wide as "
                f"model.channels, got {self.width:g}"
            )
        if self.own is not None and self.width != 1.0:
            raise ConfigError(
                "model.width is for networks of the library; pass it to your own by "
                f"[model.arguments], got {self.width:g}"
            )
        if self.own is not None and self.own.is_onnx and self.checkpoint:
            raise ConfigError(
                f"model.checkpoint must be '' for the ONNX file '{self.name}', which holds its "
                f"weights, got {shown(self.checkpoint)}"
            )

    @property
    def exit_numbers(self) -> tuple[int, ...]:
        """The convolutions of a chain, or blocks of another network, that shall get an exit."""
        if self.exit_after != AUTO:
            return tuple(sorted(set(self.exit_after)))
        last = len(self.channels)
        return tuple(n for n in EXITS if n < last) if self.name == CHAIN else ()

    @property
    def exit_names(self) -> dict[int, str]:
        """The exits' names by their numbers."""
        kind = "conv" if self.name == CHAIN else "block"
        return {number: f"{kind}{number}" for number in self.exit_numbers}

    @property
    def own(self) -> OwnModel | None:
        """Where a network of the user's is made; None for the library's."""
        if self.name.endswith(".onnx"):
            return OwnModel(self.base / self.name, "", "", self.base)
        place, _, function = self.name.rpartition(":")
        if not function.isidentifier():
            return None
        if place.endswith(".py"):
            return OwnModel(self.base / place, "", function, self.base)
        is_module = all(part.isidentifier() for part in place.split("."))
        return OwnModel(None, place, function, self.base) if is_module else None

    @property
    def weights(self) -> Path | None:
        """The file of trained weights, if any."""
        return self.base / self.checkpoint if self.checkpoint else None
