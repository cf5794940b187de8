# SPDX-License-Identifier: Apache-2.0
"""Reading users' modules as graphs: every way to write an operation, and every refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.network.from_module import read_graph
from quant.network.graph import Concat, Dropout, Flatten, MaxPool, Mean, Relu
from quant.network.network import Network
from winnow.errors import NetworkError

SHAPE = (3, 8, 8)
HERE = Path(__file__).name


class Functional(nn.Module):
    """A convolution, what the test wants in between, and a classifier."""

    def __init__(self, middle: Callable[[nn.Module, Tensor], Tensor], operands: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.ones(1))
        self.middle = middle
        self.fc = nn.Linear(operands, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.middle(self, self.conv(x)))


def joined(_: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([x, x.relu()], dim=1).mean(dim=(-2, -1))


def shaped(_: nn.Module, x: Tensor) -> Tensor:
    n, _, _, _ = x.shape
    return F.adaptive_avg_pool2d(x, 1).reshape(n, -1)


def added(net: nn.Module, x: Tensor) -> Tensor:
    y = net.norm(x)
    y += x
    return F.max_pool2d(torch.add(y, F.relu6(x)), 8).view(x.size(0), -1)


def dropped(net: nn.Module, x: Tensor) -> Tensor:
    x = F.dropout(F.avg_pool2d(x, 4, stride=2, padding=1), 0.3, net.training)
    return torch.flatten(F.dropout2d(x, 0.2, training=net.training), start_dim=1)


def in_place(net: nn.Module, x: Tensor) -> Tensor:
    torch.relu_(x)
    x.add_(net.norm(x))
    return x.contiguous().mean([2, 3], keepdim=True).flatten(1)


@pytest.mark.parametrize(
    ("middle", "operands"),
    [(joined, 8), (shaped, 4), (added, 4), (dropped, 64), (in_place, 4)],
)
def test_functional_network_is_the_same_bit_for_bit(
    middle: Callable[[nn.Module, Tensor], Tensor], operands: int
) -> None:
    torch.manual_seed(0)
    net = Functional(middle, operands).double()
    network = Network.of(net, SHAPE)
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    for training in (False, True):
        net.train(training)
        network.train(training)
        torch.manual_seed(1)
        want = net(x)
        torch.manual_seed(1)
        assert torch.equal(network(x), want)


def test_operations_become_the_same_records_however_written() -> None:
    class Modules(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.pool, self.flat = nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(self.flat(self.pool(self.relu(x))))

    class Functions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(torch.relu(x), kernel_size=(2, 2), stride=[2])
            return F.dropout(x.view(-1, 48), training=self.training)

    for module in (Modules(), Functions()):
        nodes = read_graph(module, SHAPE).nodes
        assert [type(node) for node in nodes] == [Relu, MaxPool, Flatten, Dropout]
        assert [node.shape for node in nodes] == [(3, 8, 8), (3, 4, 4), (48,), (48,)]
        assert module.training


def test_a_module_that_runs_twice_has_two_records() -> None:
    relu = nn.ReLU()
    net = nn.Sequential(nn.Conv2d(3, 4, 1), relu, nn.Conv2d(4, 4, 1), relu)
    assert [n.name for n in read_graph(net, SHAPE).nodes] == ["0", "1", "2", "1_1"]


def test_what_is_not_needed_has_no_record() -> None:
    def unused(net: nn.Module, x: Tensor) -> Tensor:
        net.norm(x)
        return joined(net, x)

    kinds = [type(node) for node in read_graph(Functional(unused, 8), SHAPE).nodes]
    assert kinds[1:4] == [Relu, Concat, Mean]


def test_exits_are_read_from_a_table() -> None:
    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.early = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def both(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            y = self.a(x.flatten(1))
            return self.b(y), {"first": self.early(y)}

    graph = read_graph(Early(), (1, 2, 2), "both")
    assert (graph.output, graph.exits) == ("b", (("first", "early"),))
    assert [node.name for node in graph.ending_at("b").nodes] == ["flatten", "a", "b"]


def refused(middle: Callable[[nn.Module, Tensor], Tensor], message: str) -> None:
    """Require a refusal that names the line of `middle` in this file."""
    with pytest.raises(NetworkError) as caught:
        read_graph(Functional(middle, 256), SHAPE)
    first = middle.__code__.co_firstlineno
    found = re.match(rf"network 'Functional'.* at {HERE}:(\d+): ", str(caught.value))
    assert found, str(caught.value)
    assert first <= int(found[1]) <= first + 3
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


REFUSED: list[tuple[Callable[[nn.Module, Tensor], Tensor], str]] = [
    (lambda _, x: F.gelu(x), "calls the function 'gelu', which the flow does not know"),
    (lambda _, x: x.tanh(), "calls the method 'tanh', which the flow does not know"),
    (lambda _, x: x + 1, "adds something else than two results of layers"),
    (lambda _, x: torch.add(x, x, alpha=2), "adds something else than two results of layers"),
    (lambda net, x: x * net.scale, "computes with the tensor 'scale' outside of a layer"),
    (lambda _, x: x if x.sum() > 0 else -x, "must neither branch on values"),
    (lambda net, x: net.conv(x[:, :3]), "calls the function 'getitem'"),
    (lambda _, x: F.max_pool2d(x, 2, dilation=2), "pools with dilation or returns indices"),
    (lambda _, x: F.avg_pool2d(x, 2, divisor_override=3), "divides by a number of its own"),
    (lambda _, x: x.mean(1), "takes the mean over other axes than rows and columns"),
    (lambda _, x: x.flatten(), "flattens other axes than all but the first"),
    (lambda _, x: x.view(-1, 4, 64), "reshapes [n, 4, 8, 8] to [-1, 4, 64]"),
    (lambda _, x: torch.cat([x, x], 2), "joins along another axis than the channels"),
    (lambda net, x: torch.cat([x, net.scale], 1), "computes with the tensor 'scale'"),
    (lambda _, x: F.dropout(x), "drops values in evaluation too"),
    (lambda net, x: net.norm(net.norm(x)), "layer 'norm' runs twice"),
    (lambda _, x: x.flatten(1, 2, 3), "calls 'flatten' with arguments that the flow does not"),
    (lambda net, x: net.fc(x), "'fc' (Linear) must read a vector of 256 values, got (4, 8, 8)"),
    (lambda _, x: x + x.mean((2, 3)), "(Add) must read two results of one shape"),
]


@pytest.mark.parametrize(("middle", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_refusal_names_thing_place_and_remedy(
    middle: Callable[[nn.Module, Tensor], Tensor], message: str
) -> None:
    refused(middle, message)


def test_memory_shared_with_what_was_overwritten_is_refused() -> None:
    def shared(_: nn.Module, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        torch.relu_(x)
        return flat.relu()

    refused(shared, "over which another operation has written in place")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.GELU(), "'1' is a GELU, which the flow does not know; it knows the modules"),
        (nn.Conv2d(3, 4, 3, padding_mode="circular"), "pads with 'circular', must be 'zeros'"),
        (nn.Conv2d(3, 4, 2, padding="same"), "pads 'same' for an even kernel"),
        (nn.BatchNorm2d(3, track_running_stats=False), "takes the statistics of the batch"),
        (nn.Conv2d(5, 4, 3), "'1' (Conv) must read a map (c, h, w) of 5 channels, got (3, 8, 8)"),
        (nn.Conv2d(3, 4, 9), "'1' (Conv) must read a map of at least 9 pixels, got (3, 8, 8)"),
        (nn.MaxPool2d(2, return_indices=True), "pools with dilation or returns indices"),
    ],
)
def test_module_that_is_not_known_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(NetworkError, match=rf"^network 'Sequential'.*{re.escape(message)}"):
        read_graph(nn.Sequential(nn.ReLU(), module), SHAPE)


def test_networks_of_two_inputs_or_results_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.relu(), x

    with pytest.raises(NetworkError, match=r"takes a second input 'y'; it must take one, images"):
        read_graph(Two(), SHAPE)
    with pytest.raises(NetworkError, match="returns something else than one tensor"):
        read_graph(Pair(), SHAPE)


@pytest.mark.parametrize("name", ["graph", "layers", "run", "input", "größe", "0"])
def test_layers_may_have_any_name(name: str) -> None:
    net = nn.Sequential()
    net.add_module(name, nn.Sequential(nn.Conv2d(3, 4, 1)))
    net.add_module("last", nn.Conv2d(4, 4, 1))
    network = Network.of(net.double(), SHAPE)
    assert list(network.layers()) == [f"{name}.0", "last"]
    assert list(network.state_dict()) == list(net.state_dict())
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    assert torch.equal(network(x), net(x))


def test_same_padding_is_read_as_pixels() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, (3, 5), padding="same", dilation=(1, 2))).double()
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    assert torch.equal(Network.of(net, SHAPE)(x), net(x))
