# SPDX-License-Identifier: Apache-2.0
"""Exits of networks: where they read, what they are made of, and which network can have none."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quant.build import Build, compressed_network, new_network
from quant.data import InputShape
from quant.distill import self_distillation
from quant.interchange.torch_import import load_checkpoint
from quant.models.heads import with_heads
from quant.models.library import make_model, network_of
from quant.network.graph import LAYERS, MaxPool
from quant.network.network import Network, backbone, exit_network, own_records
from quant.network.network_file import load_network, save_network
from winnow.config import Config, DistillConfig, ModelConfig
from winnow.errors import ConfigError, NetworkError

SHAPE = InputShape(3, 32, 10)


def library(name: str, head: str = "pool", numbers: tuple[int, ...] = (1, 2)) -> Network:
    torch.manual_seed(0)
    model = ModelConfig(name=name, width=0.25, exit_after=numbers, exit_head=head)
    return network_of(model, SHAPE).eval()


@pytest.mark.parametrize(
    ("name", "taps", "deepest"),
    [
        ("vgg_nagadomi_bn", [(16, 16, 16), (32, 8, 8)], (64, 4, 4)),
        ("resnet8", [(8, 32, 32), (8, 16, 16)], (16, 8, 8)),
        ("mobilenet_v2", [(8, 32, 32), (8, 16, 16)], (1280, 4, 4)),
    ],
)
def test_exits_read_the_maps_between_blocks(
    name: str, taps: list[tuple[int, ...]], deepest: tuple[int, ...]
) -> None:
    net = library(name)
    graph = net.graph
    assert [exit_name for exit_name, _ in graph.exits] == ["block1", "block2"]
    read = [graph.shape_of(own_records(graph, n)[0].inputs[0]) for n, _ in graph.exits]
    assert read == taps
    ends, _ = net.with_exits(torch.rand(2, 3, 32, 32))
    assert [tuple(logits.shape) for logits, _ in ends] == [(2, 10)] * 3
    assert [tuple(feature.shape) for _, feature in ends] == [(2, *deepest)] * 3


def test_a_chain_of_another_kind_gives_what_it_gave_without_exits() -> None:
    model = ModelConfig(channels=(4, 8, 8), pool_after=(1, 2), exit_after=(1, 2))
    x = torch.rand(2, 1, 16, 16)
    results = []
    for changes in ({"exit_after": ()}, {}, {"exit_head": "average"}):
        torch.manual_seed(0)
        net = network_of(replace(model, **changes), InputShape(1, 16, 10)).eval()
        results.append(backbone(net)(x))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("head", ["pool", "average"])
def test_heads_pool_before_they_multiply(head: str) -> None:
    graph = library("resnet8", head).graph
    for name, _ in graph.exits:
        own = own_records(graph, name)
        assert isinstance(own[0], MaxPool)
        layers = [node for node in own if isinstance(node, LAYERS)]
        assert len(layers) == (2 if head == "pool" else 1)
        first = graph.shape_of(layers[0].inputs[0])
        assert first[1:] in ((), (8, 8))  # of the average, or of the deepest map


def test_odd_maps_are_halved_to_the_deepest_one() -> None:
    model = ModelConfig(name="resnet50", width=0.25, exit_after=(1, 3))
    net = network_of(model, InputShape(3, 72, 10)).eval()  # 18, 9, 5 and 3 pixels along an edge
    pools = [n for n in own_records(net.graph, "block1") if isinstance(n, MaxPool)]
    assert [(pool.shape[1], pool.ceil) for pool in pools] == [(9, False), (5, True), (3, True)]


def test_exits_of_a_library_network_are_saved_and_become_networks(tmp_path: Path) -> None:
    net = library("vgg_nagadomi_bn")
    save_network(tmp_path / "net.npz", net)
    read, x = load_network(tmp_path / "net.npz", "").eval(), torch.rand(2, 3, 32, 32)
    (_, *shallow), _ = read.with_exits(x)
    for (name, _), (logits, _) in zip(net.graph.exits, shallow, strict=True):
        alone = exit_network(net, name).eval()
        assert torch.equal(alone(x), logits)
        assert not any(key.startswith("exits.") for key in alone.state_dict())


def test_every_exit_of_a_residual_network_learns() -> None:
    net = library("resnet8").train()
    loss = self_distillation(net, DistillConfig())
    loss(torch.rand(4, 3, 32, 32), torch.arange(4)).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in net.parameters())


def test_an_exit_of_a_block_is_deployed_by_its_number(tmp_path: Path) -> None:
    model = ModelConfig(name="resnet8", width=0.25, exit_after=(1, 2), exit=2)
    build = Build(Config(model=model), tmp_path, torch.device("cpu"))
    found = compressed_network(build, new_network(build))
    assert found.graph.head() == "fc"
    assert "exit2_conv" in found.layers()
    assert "layer3.0.conv1" not in found.layers()


def test_a_checkpoint_without_exits_leaves_them_fresh(tmp_path: Path) -> None:
    plain = make_model("resnet8", 10, edge=32, width=0.25)
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    net = library("resnet8")
    fresh = net.state_dict()["exits.block1.fc.weight"].clone()
    imported = load_checkpoint(net, tmp_path / "plain.pt")
    assert torch.equal(net.state_dict()["fc.weight"], plain.state_dict()["fc.weight"])
    assert torch.equal(net.state_dict()["exits.block1.fc.weight"], fresh)
    assert imported.fresh[0] == "exits.block1.exit1_conv.weight"
    torch.save(net.state_dict(), tmp_path / "all.pt")
    assert load_checkpoint(library("resnet8"), tmp_path / "all.pt").fresh == ()


class Small(nn.Module):
    """Two blocks; `ends` decides what comes last."""

    def __init__(self, ends: str = "linear") -> None:
        super().__init__()
        self.ends = ends
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 10 if ends == "map" else 8, 3, stride=3 if ends == "odd" else 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(x)))
        if self.ends == "map":
            return self.pool(x).flatten(1)
        return self.last(self.pool(torch.relu(x)).flatten(1))


@pytest.mark.parametrize(
    ("ends", "kind", "message"),
    [
        ("map", "pool", "ends with a linear layer behind a map, 'pool' .* ends this one"),
        (
            "odd",
            "pool",
            r"the map of 16x16 pixels at 'block1' cannot be halved to the deepest one of 5x5",
        ),
        ("odd", "average", ""),
    ],
)
def test_what_can_have_no_exit_is_refused_by_name(ends: str, kind: str, message: str) -> None:
    net = Network.of(Small(ends), (1, 16, 16))
    model = ModelConfig(name="net.py:make_net", exit_after=(1,), exit_head=kind)
    if message:
        with pytest.raises(NetworkError, match=rf"^model\.exit_after.*({message})"):
            with_heads(net, model)
    else:
        assert [name for name, _ in with_heads(net, model).graph.exits] == ["block1"]


@pytest.mark.parametrize("name", ["exits", "exit1_conv", "exit1_pool1"])
def test_layers_that_are_called_as_those_of_exits_are_refused(name: str) -> None:
    steps = {name: nn.Conv2d(1, 8, 3, padding=1), "pool": nn.MaxPool2d(2)}
    steps |= {"next": nn.Conv2d(8, 8, 3, padding=1), "down": nn.MaxPool2d(2)}
    steps |= {"flat": nn.Flatten(), "last": nn.Linear(128, 10)}
    net = Network.of(nn.Sequential(OrderedDict(steps)), (1, 16, 16))
    with pytest.raises(NetworkError, match=rf"^model\.exit_after adds layers .* as '{name}' is; "):
        with_heads(net, ModelConfig(name="n.py:f", exit_after=(1,)))


def test_blocks_that_are_not_there_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^model\.exit_after must name blocks .* 1\.\.2 of 'resnet8', got 3$"
    ):
        library("resnet8", numbers=(3,))
    net = Network.of(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), (1, 16, 16))
    with pytest.raises(ConfigError, match=r"none of its blocks of 'n\.py:f', got 1$"):
        with_heads(net, ModelConfig(name="n.py:f", exit_after=(1,)))


def test_chains_of_convolutions_are_for_chains() -> None:
    with pytest.raises(ConfigError, match=r"^model\.exit_head 'convolutions' is for a chain alone"):
        ModelConfig(name="resnet8", exit_after=(1,), exit_head="convolutions")
    assert not network_of(ModelConfig(name="resnet8", width=0.25), SHAPE).graph.exits
