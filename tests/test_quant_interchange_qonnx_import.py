# SPDX-License-Identifier: Apache-2.0
"""QONNX files in: float weights and widths of the file, or refused by the node's name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from brevitas.export import export_qonnx
from brevitas.quant import Int32Bias
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import quant.interchange.onnx_import as onnx_import
from codegen.stages import check
from quant.allocate.given_bits import given_choices
from quant.build import Build, load_bits, load_quantized, load_trained
from quant.interchange.onnx_run import Quant
from quant.models.own import read_file
from quant.network.network import Network
from quant.network.rewrite import tap_layers
from quant.network.same import random_images, result
from tests.test_quant_stages import TINY, run_all
from winnow.artefact import Record
from winnow.config import Config, DataConfig, ModelConfig, QuantizeConfig
from winnow.errors import ConfigError, NetworkError

IMAGE, CLASSES = (1, 16, 16), 10
GENERAL = "qonnx.custom_op.general"


class Small(nn.Module):
    """A network as Brevitas' users write it: 8 and 4 bits, a bias with and without a quantizer."""

    def __init__(self, last_bits: int = 8, bias: bool = True) -> None:
        super().__init__()
        self.images = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(1, 8, 3, padding=1, weight_bit_width=8, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.relu1 = qnn.QuantReLU(bit_width=8, return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(
            8, 12, 3, padding=1, weight_bit_width=4, bias=True, bias_quant=Int32Bias
        )
        self.relu2 = qnn.QuantReLU(bit_width=8, return_quant_tensor=True)
        self.pool = nn.MaxPool2d(2)
        self.fc = qnn.QuantLinear(12 * 16, CLASSES, weight_bit_width=last_bits, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.norm1(self.conv1(self.images(x)))))
        x = self.pool(self.relu2(self.conv2(x)))
        return self.fc(x.flatten(1))


class FloatTwin(nn.Module):
    """The same network in plain torch: what it computes where quantizers do nothing."""

    def __init__(self, of: Small) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        of = self.of
        x = torch.conv2d(x, of.conv1.weight, padding=1)
        x = of.pool(of.norm1(x).relu())
        x = of.pool(torch.conv2d(x, of.conv2.weight, of.conv2.bias, padding=1).relu())
        return nn.functional.linear(x.flatten(1), of.fc.weight, of.fc.bias)


def exported(path: Path, **options: Any) -> Small:
    """Write a network, its scales and statistics set by images, as Brevitas does; return it."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        net = Small(**options)
        net.train()(torch.rand(16, *IMAGE))
        export_qonnx(net.eval(), torch.rand(1, *IMAGE), str(path), dynamo=False)
    return net.eval()


def read(path: Path) -> Network:
    return read_file(path, IMAGE, CLASSES)


@pytest.mark.parametrize("bias", [True, False])
def test_export_of_brevitas_gives_its_float_network_and_widths(bias: bool, tmp_path: Path) -> None:
    source = exported(tmp_path / "net.onnx", bias=bias)
    net = read(tmp_path / "net.onnx")
    for name in ("conv1", "conv2", "fc"):
        assert torch.equal(net.get_submodule(name).weight, source.get_submodule(name).weight)
    x = random_images(IMAGE)
    want = FloatTwin(source.double()).eval()(x).detach()
    assert torch.allclose(result(net, x), want, rtol=0, atol=1e-6 * float(want.abs().max()))
    given = net.quantization
    assert given is not None
    assert {name: found.bits for name, found in given.weights.items()} == {
        "conv1": 8,
        "conv2": 4,
        "fc": 8,
    }
    assert (given.map_bits, len(given.maps), len(given.images), given.left_out) == (8, 2, 1, ())
    assert given.summary == (
        "'net.onnx' is quantized: its float weights and its bits (weights conv1=8 conv2=4 fc=8, "
        "maps 8) are taken, its integers and scales are not: integers of kernels are none of the "
        "Winograd domain, so stage qat finds those of all layers anew"
    )
    assert given.notes == ()


def test_network_is_compared_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(tmp_path / "net.onnx")
    monkeypatch.setattr(onnx_import, "as_identities", lambda _: [Quant])  # 4 bits are not rounding
    with pytest.raises(NetworkError, match=r"read from 'net\.onnx' differs from the network that"):
        read(tmp_path / "net.onnx")


def config_of(folder: Path, **quantize: Any) -> Config:
    keys = {"weight_bits": (4, 8), "epochs": 1} | quantize
    own = ModelConfig(name="net.onnx", base=folder)
    return replace(TINY, model=own, quantize=QuantizeConfig(**keys))


def test_stages_keep_the_weights_and_the_widths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = exported(tmp_path / "net.onnx")
    config = replace(config_of(tmp_path), prune=replace(TINY.prune, epochs=1))
    build = Build(config, tmp_path / "out", config_path="x.toml")
    run_all(build, ("train", "prune_channels", "prune", "bits", "qat"))
    said = capsys.readouterr().out
    assert "train: 'net.onnx' is quantized: its float weights and its bits (weights conv1=8" in said
    assert "train: its weights are kept, whatever train.epochs is; qat trains them on" in said
    assert "bits: conv1=8 conv2=4 fc=8 as in 'net.onnx', " in said
    assert torch.equal(load_trained(build).get_submodule("conv2").weight, source.conv2.weight)
    widths = {"conv1": 8, "conv2": 4, "fc": 8}
    assert {name: choice.weight for name, choice in load_bits(build).items()} == widths
    layers = tap_layers(load_quantized(build))
    assert {name: layer.widths.weight for name, layer in layers.items()} == widths
    assert Record.load(build.out / "bits.json", "").numbers["sensitivity"] == {}


def test_check_says_what_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(tmp_path / "net.onnx", last_bits=4)
    result = check.run(Build(config_of(tmp_path), Path("never")), {})
    assert "check: 'net.onnx' is quantized: its float weights" in capsys.readouterr().out
    assert result.summary.endswith("modelled cycles at the file's widths,")


CONTRADICTIONS = {
    "share": ({"budget_share": 0.9}, "quantize.budget_share must be 0 for 'net.onnx', whose"),
    "weights": (
        {"weight_bits": (8,)},
        "quantize.weight_bits must have 4, the width of 'conv2' in 'net.onnx' (node "
        "'/conv2/weight_quant/export_handler/Quant'), got [8]",
    ),
    "maps": (
        {"activation_bits": 6},
        "quantize.activation_bits must be 8, the width of the maps in 'net.onnx' (node "
        "'/relu1/act_quant/export_handler/Quant'), got 6",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_configuration_against_the_file_is_refused(case: str, tmp_path: Path) -> None:
    exported(tmp_path / "net.onnx")
    keys, words = CONTRADICTIONS[case]
    with pytest.raises(ConfigError) as caught:
        check.run(Build(config_of(tmp_path, **keys), Path("never")), {})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- files made by hand -----------------------------------------------------------------------

NODE = helper.make_node
RANDOM = np.random.default_rng(0)
CONSTANTS: Mapping[str, NDArray[Any]] = {
    "w1": RANDOM.standard_normal((8, 1, 3, 3)).astype(np.float32),
    "w2": RANDOM.standard_normal((2048, 10)).astype(np.float32),
    "w3": RANDOM.standard_normal((10, 2048)).astype(np.float32),
    **{name: np.ones(8, np.float32) for name in ("gain", "shift", "mean", "variance")},
    "scale": np.float32(0.25),
    "negative": np.float32(-0.25),
    "none": np.float32(0),
    "zero": np.float32(3),
    **{f"bits{bits}": np.float32(bits) for bits in (1, 3, 4, 6, 8, 16)},
    "bits2_5": np.float32(2.5),
    "bits_inf": np.float32(np.inf),
}


def quant(
    source: str, made: str, bits: str = "bits8", kind: str = "Quant", **more: Any
) -> onnx.NodeProto:
    scale, zero = more.pop("scale", "scale"), more.pop("zero", "none")
    domain = more.pop("domain", GENERAL)
    return NODE(kind, [source, scale, zero, bits], [made], made, domain=domain, **more)


def written(nodes: list[onnx.NodeProto], path: Path) -> Path:
    """Write a model from "x" to "y" with the constants that it reads."""
    read_names = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *IMAGE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(a, n) for n, a in CONSTANTS.items() if n in read_names],
    )
    domains = {node.domain for node in nodes if node.domain}
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def network(
    *,
    weights: onnx.NodeProto | None = None,
    maps: list[onnx.NodeProto] | None = None,
    images: onnx.NodeProto | None = None,
) -> list[onnx.NodeProto]:
    """Return x -> images -> "i" -> conv -> relu -> "r" -> maps -> "m" -> dense -> y."""
    return [
        images or NODE("Identity", ["x"], ["i"]),
        weights or quant("w1", "u1", narrow=1),
        NODE("Conv", ["i", "u1"], ["c"], "conv", pads=[1, 1, 1, 1]),
        NODE("Relu", ["c"], ["r"]),
        *([quant("r", "m", signed=0)] if maps is None else maps),
        NODE("Flatten", ["m"], ["f"]),
        quant("w2", "u2", "bits4"),
        NODE("MatMul", ["f", "u2"], ["y"], "dense"),
    ]


@pytest.mark.parametrize("domain", [GENERAL, "onnx.brevitas", "finn.custom_op.general"])
@pytest.mark.parametrize("kind", ["Quant", "IntQuant"])
def test_names_that_the_quantizer_has_had_are_read(domain: str, kind: str, tmp_path: Path) -> None:
    weights = quant("w1", "u1", "bits6", kind, domain=domain)
    given = read(written(network(weights=weights), tmp_path / "a.onnx")).quantization
    assert given is not None
    assert [(name, found.bits) for name, found in given.weights.items()] == [
        ("conv", 6),
        ("dense", 4),
    ]


def test_weights_behind_a_transpose_keep_their_width(tmp_path: Path) -> None:
    nodes = network()
    nodes[6:] = [
        quant("w3", "q3", "bits4"),
        NODE("Transpose", ["q3"], ["t3"], perm=[1, 0]),
        NODE("MatMul", ["f", "t3"], ["y"], "dense"),
    ]
    net = read(written(nodes, tmp_path / "a.onnx"))
    assert net.quantization is not None
    assert net.quantization.weights["dense"].bits == 4
    assert np.array_equal(net.get_submodule("dense").weight.detach(), CONSTANTS["w3"])


def test_quantizers_that_the_engine_has_elsewhere_are_said(tmp_path: Path) -> None:
    norm = [
        quant("r", "q", "bits16"),
        quant("q", "sums", "bits16"),
        NODE("BatchNormalization", ["sums", "gain", "shift", "mean", "variance"], ["n"]),
        NODE("Relu", ["n"], ["p"]),
        quant("p", "wide", signed=0),
        NODE("MaxPool", ["wide"], ["m"], kernel_shape=[1, 1]),
    ]
    nodes = network(maps=norm, images=quant("x", "i", "bits6", signed=0))
    nodes[3] = NODE("Identity", ["c"], ["r"])  # no ReLU before the BatchNorm
    nodes[-1] = NODE("MatMul", ["f", "u2"], ["z"], "dense")
    nodes.append(quant("z", "y", "bits6"))
    given = read(written(nodes, tmp_path / "a.onnx")).quantization
    assert given is not None
    assert [found.node for found in given.maps] == ["wide"]
    assert given.notes == (
        "'q', 'sums', 'y' left out: the engine keeps sums there, not a map",
        "'i' left out: images have 8 bits here",
    )


def test_narrower_maps_are_said(tmp_path: Path) -> None:
    maps = [
        quant("r", "narrow", "bits4", signed=0),
        NODE("MaxPool", ["narrow"], ["p"], kernel_shape=[1, 1]),
        quant("p", "m", "bits6", signed=0),
    ]
    given = read(written(network(maps=maps), tmp_path / "a.onnx")).quantization
    assert given is not None
    assert given.map_bits == 6
    assert given.notes == ("maps of 'narrow' are narrower there, here 6 bits",)


def test_layer_without_a_quantizer_is_said_and_gets_the_widest(tmp_path: Path) -> None:
    weights = NODE("Identity", ["w1"], ["u1"])
    given = read(written(network(weights=weights), tmp_path / "a.onnx")).quantization
    assert given is not None
    line = "weights of 'conv' have no quantizer there, here the widest of quantize.weight_bits"
    assert given.notes == (line,)
    chosen = given_choices(config_of(tmp_path), given, ["conv", "dense"])
    assert {name: choice.weight for name, choice in chosen.items()} == {"conv": 8, "dense": 4}


def test_file_that_quantizes_images_alone_gives_no_bits(tmp_path: Path) -> None:
    nodes = network(weights=NODE("Identity", ["w1"], ["u1"]), maps=[], images=quant("x", "i"))
    nodes[4] = NODE("Flatten", ["r"], ["f"])
    nodes[5] = NODE("Identity", ["w2"], ["u2"])
    given = read(written(nodes, tmp_path / "a.onnx")).quantization
    assert given is not None
    assert given.summary.startswith("'a.onnx' is quantized: its float weights are taken, its int")


def test_normalised_images_need_a_sign(tmp_path: Path) -> None:
    written(network(images=quant("x", "i", signed=0)), tmp_path / "net.onnx")
    config = replace(config_of(tmp_path), data=DataConfig(mean=(0.5,), std=(0.5,)))
    with pytest.raises(NetworkError, match=r"node 'i' \(Quant\) has no sign and reads the images"):
        check.run(Build(config, Path("never")), {})


WEIGHTS = "weights"
MAPS = "maps"
REFUSED: dict[str, tuple[str, onnx.NodeProto, str]] = {
    "one bit": (WEIGHTS, quant("w1", "u1", "bits1"), "(Quant) has 1 bits, weights of the engine"),
    "16 bits": (WEIGHTS, quant("w1", "u1", "bits16"), "(Quant) has 16 bits, weights of the engine"),
    "wide map": (MAPS, quant("r", "m", "bits16"), "(Quant) has 16 bits, maps of the engine have"),
    "part of a bit": (WEIGHTS, quant("w1", "u1", "bits2_5"), "must have one whole number of bits"),
    "infinite bits": (MAPS, quant("r", "m", "bits_inf"), "must have one whole number of bits"),
    "rounding by number": (
        MAPS,
        quant("r", "m", rounding_mode=1),
        "(Quant) cannot be read, 'int' object has no attribute 'decode'; export the network again",
    ),
    "no sign": (WEIGHTS, quant("w1", "u1", signed=0), "has weights without a sign; train it with"),
    "zero point": (MAPS, quant("r", "m", zero="zero"), "has the zero point 3, the engine none"),
    "scale": (WEIGHTS, quant("w1", "u1", scale="negative"), "has a scale that is not above 0"),
    "rounding": (MAPS, quant("r", "m", rounding_mode="FLOOR"), "rounds by 'FLOOR', the engine to"),
    "relu of its own": (MAPS, quant("c", "m", signed=0), "has no sign, so that it is a ReLU too"),
    "computed scale": (MAPS, quant("r", "m", scale="c"), "computes 'c', which must be a constant"),
    "left out": (MAPS, NODE("Quant", ["r"], ["m"], domain=GENERAL), "must have a scale, a zero"),
    "bipolar": (
        WEIGHTS,
        NODE("BipolarQuant", ["w1", "scale"], ["u1"], domain=GENERAL),
        "(BipolarQuant) has one bit, -1 or 1; the engine's numbers have 2..8 bits: train it so",
    ),
    "floats": (
        MAPS,
        NODE("FloatQuant", ["r", "scale"], ["m"], domain=GENERAL),
        "(FloatQuant) rounds to small floats; the engine has integers of 2..8 bits",
    ),
    "truncation": (
        MAPS,
        NODE("Trunc", ["r", "scale"], ["m"], domain="onnx.brevitas"),
        "(Trunc) drops bits of an average; the engine rounds a mean once",
    ),
    "thresholds": (
        MAPS,
        NODE("MultiThreshold", ["r", "w2"], ["m"], domain=GENERAL),
        "(MultiThreshold) is of a later stage of FINN; give the QONNX file that was its input",
    ),
    "QCDQ": (
        MAPS,
        NODE("QuantizeLinear", ["r", "scale"], ["m"]),
        "(QuantizeLinear) (QCDQ) holds integers; write the file with brevitas.export.export_qonnx",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_engine_has_not_is_refused_by_node(case: str, tmp_path: Path) -> None:
    place, node, words = REFUSED[case]
    nodes = network(weights=node) if place == WEIGHTS else network(maps=[node])
    with pytest.raises(NetworkError) as caught:
        read(written(nodes, tmp_path / "a.onnx"))
    assert str(caught.value).startswith(f"'a.onnx': node '{node.name or node.output[0]}' (")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
