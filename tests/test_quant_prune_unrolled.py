# SPDX-License-Identifier: Apache-2.0
"""A first convolution pruned over all values under its kernel, from the float network on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import winnow
from codegen.fuse import fuse
from codegen.ir import Unrolled
from codegen.lower import lower_checkpoint
from codegen.schedule import schedule
from quant.allocate.layer_cost import layer_costs
from quant.allocate.sizes import layer_keeps, layer_shapes, sparse_layers
from quant.bench.rivals import dense_cycles, dense_twin
from quant.build import Build
from quant.layers.winograd_layer import UnrolledConv2d
from quant.network import graph
from quant.network.network import Network
from quant.network.network_file import load_network, save_network
from quant.network.rewrite import image_reader, tap_layers, to_winograd
from quant.prune.keep_per_layer import chosen_keeps, keep_costs
from quant.prune.methods import new_pruner
from quant.run import STAGES, run_stage
from sim import csim
from tests.engines import compiled, expected_maps
from tests.test_library_flow import config_of, require_shapes
from winnow.artefact import Record, load_arrays
from winnow.blocking import LayerShape, Op
from winnow.compare import require_equal
from winnow.config import Config, PruneConfig
from winnow.cycles import layer_cycles
from winnow.errors import ConfigError
from winnow.srbs import max_keep, to_sub_rows
from winnow.window import Window

METHODS = ("obs", "magnitude", "admm", "straight_through", "kernels")
X = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def module(kernel: int = 5, stride: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten()),
        nn.Linear(8 * (12 // stride) ** 2, 5),
    )


def network(kernel: int = 5, stride: int = 2) -> Network:
    return Network.of(module(kernel, stride), (3, 12, 12))


def rows_of(values: Tensor) -> np.ndarray:
    """Weights [oc, k, 1] as [oc, c * rows * columns], by hand."""
    return values.detach().flatten(1).numpy()


@pytest.mark.parametrize(("kernel", "stride"), [(5, 2), (3, 1), (1, 1)])
def test_rewritten_network_computes_the_same(kernel: int, stride: int) -> None:
    net = network(kernel, stride).eval()
    made = to_winograd(net, 2, unroll=True)
    assert isinstance(tap_layers(made)["0"], UnrolledConv2d)
    assert type(made.graph.nodes[0]) is graph.Unrolled
    torch.testing.assert_close(made(X), net(X), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, UnrolledConv2d) for m in tap_layers(to_winograd(net, 2)).values())


def test_network_is_read_back_as_saved(tmp_path: Path) -> None:
    net = to_winograd(network(), 2, unroll=True).eval()
    save_network(tmp_path / "net.npz", net)
    read = load_network(tmp_path / "net.npz", "")
    assert read.graph == net.graph
    assert torch.equal(read(X), net(X))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sub_row", [8, 16])
def test_every_method_keeps_so_many_of_the_values_under_the_kernel(
    method: str, sub_row: int
) -> None:
    config = PruneConfig(
        method=method, keep=4, first_keep=2, sub_row=sub_row, steps=2, epochs=4, rho=1.0
    )
    net = to_winograd(network(), 2, unroll=True)
    layers = sparse_layers(net, config.skip)
    assert list(layers) == ["0", "3", "6"]
    pruner = new_pruner(config, net, layers, X)
    for epoch in range(config.epochs):
        pruner.begin_epoch(epoch)
    pruner.release()
    first = tap_layers(net)["0"]
    mask = rows_of(first.mask)
    assert mask.shape == (8, 75)
    held = to_sub_rows(mask, sub_row).sum(axis=2)
    whole = 75 // sub_row
    assert (held[:, :whole] == 2 * sub_row // 8).all()
    assert (held[:, whole:] <= 2 * sub_row // 8).all()
    # Not a pattern of places: that would keep 1 of 3 channels at least.
    assert mask.reshape(8, 3, 25).max(axis=1).min() == 0


def test_largest_weights_stay() -> None:
    config = PruneConfig(method="magnitude", first_keep=1, steps=1, epochs=2)
    net = to_winograd(network(), 2, unroll=True)
    before = rows_of(tap_layers(net)["0"].u)
    pruner = new_pruner(config, net, sparse_layers(net, 1), X)
    pruner.begin_epoch(0)
    mask = rows_of(tap_layers(net)["0"].mask)
    for row, kept in zip(before, mask, strict=True):
        for start in range(0, 75, 8):
            best = start + int(np.abs(row[start : start + 8]).argmax())
            assert kept[start : start + 8].sum() == kept[best] == 1


def test_first_layer_is_priced_as_what_the_engine_runs() -> None:
    config = Config(prune=PruneConfig(keep=2, first_keep=4))
    net = to_winograd(network(), 2, unroll=True)
    keeps = layer_keeps(config, net)
    assert keeps == {"0": 4, "3": 2, "6": 2}
    shape = layer_shapes(net, keeps, dict.fromkeys(keeps, 8))["0"]
    assert shape == LayerShape(Op.DIRECT, 75, 8, 6, 6, 4, 8, window=Window())
    cost, allowed = keep_costs(config, net, ["0", "3"])
    assert cost[0, 3] == layer_cycles(config.engine, shape).total
    assert allowed == cost[0, 3] + cost[1, 1]
    chosen = chosen_keeps(config, net, {n: tap_layers(net)[n] for n in ("0", "3")}, X)
    assert sum(cost[i, chosen[n] - 1] for i, n in enumerate(("0", "3"))) <= allowed
    assert layer_costs(network(), config)["0"] == cost[0, 3]


def refused(net: nn.Module) -> str:
    with pytest.raises(ConfigError) as caught:
        to_winograd(Network.of(net, (2, 8, 8)), 2, unroll=True)
    return str(caught.value)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(2, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


def test_what_cannot_be_unrolled_is_named() -> None:
    several = "prune.first_keep must be 0 where several layers read the images, here "
    assert refused(Two()) == several + "'a' and 'b'"
    none = (
        "prune.first_keep must be 0 where no convolution without groups and dilation reads the "
        "images, here "
    )
    assert refused(nn.Sequential(nn.Conv2d(2, 8, 3, groups=2))) == none + "'0' (Conv) does"
    assert refused(nn.Sequential(nn.Conv2d(2, 8, 3, dilation=2))) == none + "'0' (Conv) does"
    first = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 8, 3))
    assert refused(first) == none + "'0' (MaxPool) does"
    dropped = nn.Sequential(nn.Dropout(0.1), nn.Identity(), nn.Conv2d(2, 8, 3))
    assert image_reader(Network.of(dropped, (2, 8, 8)).graph) == "2"


def test_dense_rivals_are_dense_from_the_first_layer_on() -> None:
    config = Config(prune=PruneConfig(first_keep=2))
    assert dense_twin(config).prune == dense_twin(Config()).prune
    assert dense_cycles(config) == dense_cycles(Config())


def test_patterns_have_no_sub_rows() -> None:
    with pytest.raises(ConfigError, match=r"prune\.first_keep is for sub-rows, which prune\.metho"):
        PruneConfig(method="pattern", first_keep=2)


def test_python_call_prunes_in_steps() -> None:
    images = (X * 40 + 128).clamp(0, 255).to(torch.uint8)
    once = winnow.prune(module(), images, keep=4, first_keep=4, method="magnitude")
    twice = winnow.prune(once, images, keep=2, first_keep=2, method="magnitude")
    kept = [max_keep(rows_of(tap_layers(net)["0"].u)) for net in (once, twice)]
    assert kept == [4, 2]
    with pytest.raises(ConfigError, match=r"first_keep must be 1\.\.8 as when the network was"):
        winnow.prune(once, images, keep=2)
    plain = winnow.prune(module(), images, keep=4)
    with pytest.raises(ConfigError, match="first_keep must be 0 as when the network was pruned f"):
        winnow.prune(plain, images, first_keep=2)


def test_network_of_the_library_goes_to_the_engine(tmp_path: Path) -> None:
    """Trained, pruned and quantized; Brevitas, interpreter and C++ on all maps."""
    config = config_of("resnet8", 0.5)
    config = replace(config, prune=replace(config.prune, first_keep=3))
    build = Build(config, tmp_path)
    for stage in STAGES.values():
        run_stage(stage, build)
    lowered = lower_checkpoint(config, tmp_path)
    first = lowered.nodes[0]
    assert isinstance(first, Unrolled)
    assert first.keep == 3
    assert Record.load(tmp_path / "prune.json", "").numbers["keep"]["conv1"] == 3
    require_shapes(build, lowered)
    golden = load_arrays(tmp_path / "golden.npz", "")
    images = golden["images"][:4].astype(np.int64)
    maps = expected_maps(lowered, images)
    want = {name: golden[f"layer.{name}"][:4].astype(np.int64) for name in maps}
    require_equal(want, maps)
    plan = schedule(lowered, config.engine)
    assert fuse(lowered)[0].unrolled == first.window
    require_equal(want, csim.run(compiled("default"), plan, images))
