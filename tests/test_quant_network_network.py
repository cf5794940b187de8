# SPDX-License-Identifier: Apache-2.0
"""Every network of the library as a saved, runnable graph: equal to its module bit for bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quant.data import InputShape
from quant.layers.bit_widths import BitWidths
from quant.layers.quant_layer import QuantTapLayer
from quant.models.chain import ChainNet, chain_spec
from quant.models.library import NAMES, make_model
from quant.network.calibrate import calibrate_layer
from quant.network.graph import INPUT, BatchNorm, Dropout, Identity, Winograd
from quant.network.layer_graph import layer_graph, visit_layers
from quant.network.network import Network, backbone, exit_network
from quant.network.network_file import graph_path, load_graph, load_network, save_network
from quant.network.rewrite import (
    EXACT,
    fold_norms,
    tap_layers,
    to_quantized,
    to_winograd,
    without_dropout,
)
from winnow.artefact import load_arrays, save_arrays
from winnow.config import ModelConfig
from winnow.errors import ArtefactError

SHAPE = (3, 32, 32)
MADE_BY = "python -m quant train --config c.toml --out build"
CHAIN = ModelConfig(
    channels=(8, 16, 8),
    pool_after=(1, 2),
    exit_after=(1, 2),
    exit_head="convolutions",
    hidden=(16,),
)


def chain() -> ChainNet:
    return ChainNet(chain_spec(CHAIN, InputShape(3, 32, 10)))


def images(count: int = 2) -> Tensor:
    return torch.randn(count, *SHAPE, dtype=torch.float64)


def module_of(name: str) -> nn.Module:
    """Return a narrow float64 module whose norms have the statistics of a batch."""
    torch.manual_seed(0)
    net = chain() if name == "chain" else make_model(name, 10, width=0.125)
    net.double()
    with torch.no_grad():
        net(images(4))
    return net.eval()


def reloaded(net: Network, folder: Path) -> Network:
    """Return the network of the files that `net` is saved as."""
    files = save_network(folder / "net.npz", net)
    assert files == [folder / "net.npz", folder / "net.network.json"]
    made = load_network(files[0], MADE_BY)
    assert made.graph == net.graph == load_graph(files[0], MADE_BY)
    assert list(made.state_dict()) == list(net.state_dict())
    assert [name for name, _ in made.named_parameters()] == [n for n, _ in net.named_parameters()]
    return made


def quantized(net: Network) -> Network:
    """Return a calibrated Brevitas copy of a folded network."""
    layers = layer_graph(net.graph)
    last = net.graph.head()
    widths = {
        name: BitWidths(5, 8, None if name == last else 7, layers[name].relu)
        for name in tap_layers(net)
    }
    made = to_quantized(net, widths)
    chosen = [m for m in made.modules() if isinstance(m, QuantTapLayer)]
    visit_layers(made, chosen, images(), calibrate_layer)
    return made.eval()


@pytest.mark.parametrize("name", [*NAMES, "chain"])
def test_saved_graph_equals_its_module_bit_for_bit(name: str, tmp_path: Path) -> None:
    module, x = module_of(name), images()
    net = Network.of(module, SHAPE)
    assert list(net.state_dict()) == [
        key for key in module.state_dict() if not key.startswith("exits.")
    ]
    assert torch.equal(reloaded(net, tmp_path)(x), module(x))


@pytest.mark.parametrize(
    ("name", "m"),
    [("vgg_nagadomi_bn", 2), ("resnet18", 2), ("mobilenet_v2", 2), ("chain", 2), ("chain", 4)],
)
def test_every_form_of_a_network_is_the_same_on_disk(name: str, m: int, tmp_path: Path) -> None:
    module, x = module_of(name), images()
    winograd = to_winograd(Network.of(module, SHAPE), m).eval()
    folded = fold_norms(winograd).eval()
    for net in (winograd, folded, quantized(folded)):
        assert torch.equal(reloaded(net, tmp_path)(x), net(x))
    # U is stored in float32 once.
    torch.testing.assert_close(winograd(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rewrite", EXACT)
@pytest.mark.parametrize("name", [*NAMES, "chain"])
def test_exact_rewrites_change_nothing(name: str, rewrite: Callable[[Network], Network]) -> None:
    net = to_winograd(Network.of(module_of(name), SHAPE), 2).double().eval()
    x, before = images(), copy.deepcopy(net.state_dict())
    made = rewrite(net).eval()
    torch.testing.assert_close(made(x), net(x), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    has_norm = any(isinstance(node, BatchNorm) for node in net.graph.nodes)
    assert (len(made.graph.nodes) < len(net.graph.nodes)) == has_norm or rewrite is without_dropout
    assert not any(isinstance(n, Dropout | Identity) for n in without_dropout(made).graph.nodes)


def test_folded_and_winograd_records() -> None:
    net = Network.of(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)), SHAPE)
    winograd = to_winograd(net, 4)
    assert winograd.graph.by_name["0"] == Winograd("0", (INPUT,), 3, 8, 4, shape=(8, 32, 32))
    folded = fold_norms(winograd)
    assert [node.name for node in folded.graph.nodes] == ["0"]
    assert (folded.graph.output, winograd.graph.output) == ("0", "1")


def test_exits_are_networks_of_their_own(tmp_path: Path) -> None:
    module, x = chain().double().eval(), images()
    net = Network.of(module, SHAPE, "by_exit")
    assert list(net.state_dict()) == list(module.state_dict())
    logits, feature, shallow = module.with_exits(x)
    for made in (net, reloaded(net, tmp_path)):
        ends, (first,) = made.with_exits(x, ["conv1"])
        assert torch.equal(first, module.conv1(x))
        for got, want in zip(ends, [(logits, feature), *shallow], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        assert torch.equal(backbone(made)(x), module(x))
        for (name, _), (exit_logits, _) in zip(made.graph.exits, shallow, strict=True):
            alone = exit_network(made, name)
            assert torch.equal(alone(x), exit_logits)
            assert not any(key.startswith("exits.") for key in alone.state_dict())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The arrays file of a saved network."""
    torch.manual_seed(0)
    net = Network.of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten()), SHAPE)
    return save_network(tmp_path / "train.npz", net)[0]


def test_missing_files_name_the_command(saved: Path) -> None:
    for path in (graph_path(saved), saved):
        path.unlink()
        with pytest.raises(ArtefactError, match=rf"'{path}' is missing; make it with: {MADE_BY}"):
            load_network(saved, MADE_BY)


def test_every_changed_byte_of_the_graph_file_is_seen(saved: Path) -> None:
    path = graph_path(saved)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ArtefactError, match=r"to another build than 'train\.npz'"):
            load_network(saved, MADE_BY)
    path.write_bytes(whole[:-1])
    with pytest.raises(ArtefactError, match="is damaged or belongs to another build"):
        load_network(saved, MADE_BY)


def test_files_of_two_builds_are_refused(saved: Path, tmp_path: Path) -> None:
    other = Network.of(nn.Sequential(nn.Conv2d(3, 8, 5)), SHAPE)
    save_network(tmp_path / "other.npz", other)
    (tmp_path / "other.npz").replace(saved)
    with pytest.raises(ArtefactError, match=r"train\.network\.json' is damaged or belongs to anot"):
        load_network(saved, MADE_BY)


def test_arrays_that_are_not_the_listed_ones_are_refused(saved: Path) -> None:
    arrays = load_arrays(saved, "")
    changed = {
        "extra": {**arrays, "extra": arrays["0.bias"]},
        "0.bias": {key: value for key, value in arrays.items() if key != "0.bias"},
        "0.weight": {**arrays, "0.weight": arrays["0.weight"][:4]},
    }
    for name, content in changed.items():
        save_arrays(saved, content)
        with pytest.raises(ArtefactError, match=rf"belongs to another model \(.*'{name}'.*; run: "):
            load_network(saved, MADE_BY)


def rewritten(saved: Path, change: Callable[[dict], object]) -> str:
    """Return the error of a graph file that was changed together with its hash."""
    from quant.network.network_file import GRAPH_HASH, _hash

    table = json.loads(graph_path(saved).read_text())
    change(table)
    text = json.dumps(table)
    graph_path(saved).write_text(text)
    save_arrays(saved, {**load_arrays(saved, ""), GRAPH_HASH: _hash(text)})
    with pytest.raises(ArtefactError) as caught:
        load_network(saved, MADE_BY)
    assert str(caught.value).startswith(f"'{graph_path(saved)}' is damaged (")
    assert str(caught.value).endswith(f"); delete it and run: {MADE_BY}")
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("exits"), "must hold the keys exits, format, input"),
        (lambda t: t.update(format=1), "format 1 is unknown, this version reads 2"),
        (lambda t: t.update(input=[3, "a", 32]), "input[1]: must be int, got a"),
        (lambda t: t.update(nodes={}), "nodes must be a list"),
        (lambda t: t["nodes"][0].update(op="Exec"), "nodes[0]: must be a record with one of the"),
        (lambda t: t["nodes"][0].pop("stride"), "nodes[0]: a Conv must hold the keys"),
        (lambda t: t["nodes"][0].update(kernel=[3]), "nodes[0].kernel: must be tuple[int, int]"),
        (lambda t: t["nodes"][0].update(bias=1), "nodes[0].bias: must be bool, got 1"),
        (lambda t: t["nodes"][0].update(stride=[0, 1]), "integer division or modulo by zero"),
        (lambda t: t["nodes"][0].update(shape=[8, 2, 2]), "'0' gives (8, 30, 30), the file says"),
        (lambda t: t["nodes"][1].update(inputs=["9"]), "'1' reads '9', which does not come before"),
        (lambda t: t["nodes"][1].update(inputs=[]), "'1' reads nothing that comes before it"),
        (lambda t: t["nodes"][1].update(name="0"), "two records are called '0'; names must differ"),
        (lambda t: t.update(output="9"), "the network's result '9' is none of its records"),
    ],
)
def test_wrong_entry_of_a_graph_file_is_named(
    saved: Path, change: Callable[[dict], object], message: str
) -> None:
    assert message in rewritten(saved, change)


def test_text_is_one_record_per_line(saved: Path) -> None:
    lines = graph_path(saved).read_text().splitlines()
    assert lines[6].startswith('  {"op": "Conv", "name": "0", "inputs": [".input"], "shape": [8, 3')
    assert lines[11].startswith('  ["0.weight", "float32", [8, 3, 3, 3]]')


def test_a_result_is_freed_after_its_last_reader() -> None:
    net = Network.of(nn.Sequential(*(nn.ReLU() for _ in range(3))), SHAPE)
    results = net.run(images(), ["0", "2", INPUT])
    assert torch.equal(results[0], results[1])
    assert results[2].min() < 0
