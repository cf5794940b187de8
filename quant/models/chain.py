# SPDX-License-Identifier: Apache-2.0
"""The network of a configuration that the engine runs as it stands: a VGG-style chain.

3x3 convolutions `conv1`.. with BatchNorm, ReLU and 2x2 max pools, then fully connected layers
`fc1`.. with ReLU and the classifier `fc`, over the map flattened in (c, h, w) order. Inputs are
[n, c, h, w] on the 2^-8 grid, outputs logits [n, classes].

The shallow exits of Be Your Own Teacher (Zhang et al., ICCV 2019) may be chains too (`exit_head`
"convolutions"; others are in `quant.models.heads`): such an exit brings an early map to the shape
of the last one with convolutions and pools of the same kind and classifies it. So the backbone up
to an exit, with the exit, is again a network that the engine runs
(`quant.network.network.exit_network`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from quant.data import InputShape
from winnow.config import ModelConfig
from winnow.errors import ConfigError
from winnow.model_config import AUTO, CONVOLUTIONS

CLASSIFIER = "fc"
POOLS = (2, 4)  # the convolutions that pools usually follow
Pair = tuple[int, int]


@dataclass(frozen=True)
class ConvSpec:
    """One convolution: name, channels, (h, w) of its input map, and whether a pool follows."""

    name: str
    in_channels: int
    out_channels: int
    size: Pair
    pool: bool

    @property
    def out_size(self) -> Pair:
        height, width = self.size
        return (height // 2, width // 2) if self.pool else self.size


@dataclass(frozen=True)
class ChainSpec:
    """A chain: convolutions, widths of the hidden fully connected layers, classes, exits.

    `exits` holds (name of a convolution, the chain that reads its map).
    """

    convs: tuple[ConvSpec, ...]
    hidden: tuple[int, ...]
    classes: int
    exits: tuple[tuple[str, ChainSpec], ...] = field(default=())

    @property
    def channels(self) -> int:
        return self.convs[-1].out_channels

    @property
    def size(self) -> Pair:
        """(h, w) of the map that is flattened."""
        return self.convs[-1].out_size

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Name of every fully connected layer -> its inputs and outputs."""
        height, width = self.size
        widths = [self.channels * height * width, *self.hidden, self.classes]
        names = [f"{CLASSIFIER}{i}" for i in range(1, len(self.hidden) + 1)] + [CLASSIFIER]
        return {name: (widths[i], widths[i + 1]) for i, name in enumerate(names)}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all layers of the backbone, in order."""
        return (*(conv.name for conv in self.convs), *self.linears)


def chain_spec(model: ModelConfig, shape: InputShape, widths: Sequence[int] = ()) -> ChainSpec:
    """Return the network of a configuration; `widths` replace `model.channels` once pruned.

    Raises ConfigError if a pool has nothing to pool.
    """
    is_auto = model.pool_after == AUTO
    pools = POOLS if is_auto else model.pool_after
    convs = []
    channels, *edges = shape.image
    size: Pair = (edges[0], edges[1])
    for number, out_channels in enumerate(widths or model.channels, start=1):
        pool = number in pools and not (is_auto and min(size) < 2)
        conv = ConvSpec(f"conv{number}", channels, out_channels, size, pool)
        convs.append(conv)
        channels, size = out_channels, conv.out_size
        if 0 in size:
            raise ConfigError(
                f"model.pool_after: the map has no pixel left after conv{number}; pool less often"
            )
    spec = ChainSpec(tuple(convs), model.hidden, shape.classes)
    if model.exit_head != CONVOLUTIONS:
        return spec
    exits = ((name, _exit_spec(spec, n)) for n, name in model.exit_names.items())
    return replace(spec, exits=tuple(exits))


def _exit_spec(spec: ChainSpec, number: int) -> ChainSpec:
    """Return the branch after convolution `number`: pools down to the last map, then classifies."""
    channels, size = spec.convs[number - 1].out_channels, spec.convs[number - 1].out_size
    height = spec.size[0]  # rows and columns are pooled equally often
    convs: list[ConvSpec] = []
    while not convs or size[0] > height:
        name = f"exit{number}_conv{len(convs) + 1}"
        pool = size[0] > height
        last = size[0] // 2 <= height
        convs.append(ConvSpec(name, channels, spec.channels if last else channels, size, pool))
        channels, size = convs[-1].out_channels, convs[-1].out_size
    return ChainSpec(tuple(convs), (), spec.classes)


class ChainNet(nn.Module):
    """The chain. Layers are members called by their names, norms `<layer>_norm`.

    Exits exist for training and for early exit; `forward` does not use them.
    """

    def __init__(self, spec: ChainSpec) -> None:
        super().__init__()
        self.spec = spec
        for c in spec.convs:
            conv = nn.Conv2d(c.in_channels, c.out_channels, 3, padding=1, bias=False)
            self.add_module(c.name, conv)
            self.add_module(f"{c.name}_norm", nn.BatchNorm2d(c.out_channels))
        for name, (inputs, outputs) in spec.linears.items():
            self.add_module(name, nn.Linear(inputs, outputs))
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.exits = nn.ModuleDict({name: ChainNet(branch) for name, branch in spec.exits})

    def _conv(self, c: ConvSpec, x: Tensor) -> Tensor:
        norm = self.get_submodule(f"{c.name}_norm")
        x = self.relu(norm(self.get_submodule(c.name)(x)))
        return self.pool(x) if c.pool else x

    def features(self, x: Tensor) -> Tensor:
        """Return the last map [n, c, h, w]."""
        for c in self.spec.convs:
            x = self._conv(c, x)
        return x

    def classify(self, feature: Tensor) -> Tensor:
        """Return the logits [n, classes] of a last map."""
        x = self.flatten(feature)
        for name in self.spec.linears:
            x = self.get_submodule(name)(x)
            x = x if name == CLASSIFIER else self.relu(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))

    def with_exits(self, x: Tensor) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Return logits, the last map [n, c, h, w], and (logits, map) of every exit, in order."""
        shallow = []
        for c in self.spec.convs:
            x = self._conv(c, x)
            if c.name in self.exits:
                branch = self.exits[c.name]
                feature = branch.features(x)
                shallow.append((branch.classify(feature), feature))
        return self.classify(x), x, shallow

    def by_exit(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits, and those of every exit by the convolution it follows."""
        logits, _, shallow = self.with_exits(x)
        return logits, {name: value for name, (value, _) in zip(self.exits, shallow, strict=True)}
