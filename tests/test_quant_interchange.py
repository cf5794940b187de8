# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in, ONNX and QONNX out: weights are the file's, exports compute what models do."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
)
from brevitas.quant.scaled_int import Int32Bias
from onnx.reference import ReferenceEvaluator
from safetensors.torch import save_file
from torch import Tensor, nn

from quant.checkpoint import save_model
from quant.interchange.onnx_export import Exported, export_onnx, export_qonnx
from quant.interchange.onnx_run import Quant, run_onnx
from quant.interchange.torch_import import load_checkpoint
from quant.models.channels import CompressibleNet
from quant.models.library import NAMES, make_model
from quant.quant_layer import (
    QuantDense,
    QuantDirectConv2d,
    QuantTapLayer,
    QuantWinogradConv2d,
    Widths,
)
from quant.quantizers import set_exponents
from quant.winograd_layer import Dense, DirectConv2d, Window, WinogradConv2d
from winnow.errors import (
    ArtefactError,
    ConfigError,
    LoweringError,
    MismatchError,
    ToolError,
    WinnowError,
)

CLASSES = 10
Writer = Callable[[Path, dict[str, Any]], None]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def tiny(name: str = "resnet18", classes: int = CLASSES) -> CompressibleNet:
    """Return a narrow network in evaluation mode whose BatchNorms have seen data."""
    net = make_model(name, classes, width=0.125)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        net(torch.randn(4, 3, 32, 32))
    return net.eval()


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 32, 32)


# --- checkpoints in -----------------------------------------------------------------------------


def write_safetensors(path: Path, state: dict[str, Any]) -> None:
    save_file(state, path)


def write_torch(path: Path, state: dict[str, Any]) -> None:
    torch.save(state, path)


def wrapped(key: str) -> Writer:
    return lambda path, state: torch.save({"epoch": 3, key: state}, path)


def prefixed(prefix: str) -> Writer:
    return lambda path, state: torch.save({prefix + n: v for n, v in state.items()}, path)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".pt", write_torch),
        (".pth", write_torch),
        (".safetensors", write_safetensors),
        (".pt", wrapped("state_dict")),
        (".pt", wrapped("model")),
        (".pt", wrapped("model_state_dict")),
        (".pt", prefixed("module.")),
        (".pt", prefixed("module._orig_mod.")),
        (".pt", lambda path, state: prefixed("module.")(path, state)),
    ],
)
def test_checkpoint_is_read_in_every_form(suffix: str, write: Writer, tmp_path: Path) -> None:
    source, net = tiny(), tiny()
    path = tmp_path / f"weights{suffix}"
    write(path, source.state_dict())
    x = images()
    assert not torch.equal(net(x), source(x))
    imported = load_checkpoint(net, path)
    assert set(imported.loaded) == source.state_dict().keys()
    assert imported.fresh == ()
    assert torch.equal(net(x), source(x))


def test_own_checkpoint_is_read(tmp_path: Path) -> None:
    source, net = tiny("vgg_nagadomi"), tiny("vgg_nagadomi")
    save_model(tmp_path / "weights.npz", source)
    load_checkpoint(net, tmp_path / "weights.npz")
    assert torch.equal(net(images()[:1] * 0 + 1), source(images()[:1] * 0 + 1))


def test_half_precision_becomes_the_networks_own(tmp_path: Path) -> None:
    source, net = tiny(), tiny()
    half = {n: v.half() if v.is_floating_point() else v for n, v in source.state_dict().items()}
    torch.save(half, tmp_path / "weights.pt")
    load_checkpoint(net, tmp_path / "weights.pt")
    assert net.fc.weight.dtype == torch.float32
    assert torch.equal(net.fc.weight, source.fc.weight.half().float())


def test_checkpoint_without_batch_counters_is_read(tmp_path: Path) -> None:
    source, net = tiny(), tiny()
    old = {n: v for n, v in source.state_dict().items() if not n.endswith("batches_tracked")}
    torch.save(old, tmp_path / "weights.pt")
    imported = load_checkpoint(net, tmp_path / "weights.pt")
    assert set(imported.loaded) == old.keys()
    x = images()
    assert torch.equal(net(x), source(x))


def test_classifier_for_other_classes_stays_fresh(tmp_path: Path) -> None:
    source, net = tiny(classes=1000), tiny()
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    fresh = net.fc.weight.clone()
    with pytest.raises(ArtefactError, match=r"'fc.weight' must be float32\[10, 64\]") as error:
        load_checkpoint(net, tmp_path / "weights.pt")
    assert str(error.value).endswith("; for another number of classes, replace the classifier")
    imported = load_checkpoint(net, tmp_path / "weights.pt", replace_head=True)
    assert imported.fresh == ("fc.weight", "fc.bias")
    assert torch.equal(net.fc.weight, fresh)
    assert torch.equal(net.layer4[0].conv1.weight, source.layer4[0].conv1.weight)


def _drop(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != "bn1.weight"}


def _nan(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"fc.bias": state["fc.bias"] * torch.nan}


DIFFERENT: tuple[tuple[Callable[[dict[str, Any]], Any], str], ...] = (
    (_drop, "belongs to another model: it lacks 'bn1.weight'"),
    (lambda s: s | {"a": torch.ones(1)}, "belongs to another model: it has an unknown 'a'"),
    (
        lambda s: s | {"bn1.weight": torch.ones(9)},
        "belongs to another model: differs: 'bn1.weight' must be float32[8], is float32[9]",
    ),
    (
        lambda s: s | {"bn1.weight": torch.ones(8, dtype=torch.int8)},
        "belongs to another model: differs: 'bn1.weight' must be float32[8], is int8[8]",
    ),
    (
        lambda s: _drop(s) | {"b": torch.ones(1), "bn1.bias": torch.ones(1)},
        "belongs to another model: it lacks 'bn1.weight'; it has an unknown 'b'; "
        "differs: 'bn1.bias' must be float32[8], is float32[1]",
    ),
    (
        lambda s: s | {f"x{i}": torch.ones(1) for i in range(6)},
        "belongs to another model: it has an unknown 'x0', 'x1', 'x2', 'x3' and 2 more",
    ),
    (_nan, "belongs to another model: NaN or infinity in 'fc.bias'"),
    (
        lambda s: s | {"note": "hello"},
        ": 'note' is str, no tensor; write it with: torch.save(model.state_dict(), FILE)",
    ),
    (
        lambda _: [1, 2],
        " holds no table of tensors; write it with: torch.save(model.state_dict(), FILE)",
    ),
    (
        lambda _: {"state_dict": {}},
        " holds no table of tensors; write it with: torch.save(model.state_dict(), FILE)",
    ),
)


@pytest.mark.parametrize(("change", "told"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_other_checkpoint_is_told_by_name_and_changes_nothing(
    change: Callable[[dict[str, Any]], Any], told: str, tmp_path: Path
) -> None:
    net, path = tiny(), tmp_path / "weights.pt"
    torch.save(change(tiny().state_dict()), path)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ArtefactError) as error:
        load_checkpoint(net, path)
    assert str(error.value).startswith(f"checkpoint '{path}'")
    assert str(error.value).endswith(told)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class Bomb:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Bomb()}, "weights.pt")
    with pytest.raises(ArtefactError, match=r"holds more than tensors \(UnpicklingError\); write"):
        load_checkpoint(tiny(), Path("weights.pt"))
    assert not Path("exploded").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
@pytest.mark.parametrize("length", [0, 1, 1000, -1000])
def test_damaged_checkpoint_is_told(suffix: str, length: int, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        save_model(path, tiny())
    else:
        (write_torch if suffix == ".pt" else write_safetensors)(path, tiny().state_dict())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ArtefactError, match="is damaged") as error:
        load_checkpoint(tiny(), path)
    assert str(path) in str(error.value)


def test_missing_and_unknown_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError) as error:
        load_checkpoint(tiny(), tmp_path / "no.pt")
    assert str(error.value) == f"checkpoint '{tmp_path}/no.pt' is missing; name an existing file"
    with pytest.raises(ConfigError) as unknown:
        load_checkpoint(tiny(), tmp_path / "net.h5")
    assert str(unknown.value) == (
        f"checkpoint '{tmp_path}/net.h5' must end in one of .pt, .pth, .safetensors, .npz"
    )


def test_missing_safetensors_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_safetensors(tmp_path / "weights.safetensors", tiny().state_dict())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ToolError) as error:
        load_checkpoint(tiny(), tmp_path / "weights.safetensors")
    assert str(error.value) == (
        "Python package 'safetensors' is missing; install the pinned packages with: make setup"
    )


# --- ONNX out -----------------------------------------------------------------------------------


def op_types(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def assert_runs_alike(path: Path, net: nn.Module, x: Tensor) -> None:
    """Compare ONNX's reference runtime with torch on an input the export has not seen."""
    (actual,) = ReferenceEvaluator(str(path)).run(None, {"input": x.numpy()})
    expected = net(x).detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_library_network_is_exported(name: str, tmp_path: Path) -> None:
    net, path = tiny(name), tmp_path / "net.onnx"
    exported = export_onnx(net, images(), path)
    assert exported == Exported(path, len(onnx.load(path).graph.node), exported.difference)
    assert exported.difference < 1e-5
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert_runs_alike(path, net, images())
    assert "Conv" in op_types(path)
    assert not {"BatchNormalization", "Dropout"} & op_types(path)


STRIDED = Window(kernel=(3, 3), stride=(2, 2), padding=(1, 1))
POINTWISE = Window(kernel=(1, 1), stride=(2, 2), padding=(0, 0))


class WinogradStack(nn.Module):
    """F(m, 3) on a map that m may not divide, ReLU, dense."""

    def __init__(self, m: int, edge: int) -> None:
        super().__init__()
        self.conv = WinogradConv2d(3, 5, m)
        self.fc = Dense(5 * edge**2, CLASSES, 5)
        nn.init.normal_(self.fc.weight, std=0.1)
        self.kernel = torch.randn(5, 3, 3, 3)
        self.conv.load_spatial(self.kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(x))).flatten(1)


@pytest.mark.parametrize(("m", "edge"), [(2, 8), (2, 7), (4, 8), (4, 9)])
def test_winograd_layers_are_exported_as_their_computation(
    m: int, edge: int, tmp_path: Path
) -> None:
    net, path = WinogradStack(m, edge), tmp_path / "net.onnx"
    export_onnx(net, torch.randn(2, 3, edge, edge), path)
    assert "Conv" not in op_types(path)
    x = torch.randn(2, 3, edge, edge)
    assert_runs_alike(path, net, x)
    matrix = net.fc.u[:, :, 0]
    direct = F.relu(F.conv2d(x, net.kernel, padding=1)).flatten(1) @ matrix.t()
    (actual,) = ReferenceEvaluator(str(path)).run(None, {"input": x.numpy()})
    np.testing.assert_allclose(actual, direct.detach().numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("window", [STRIDED, POINTWISE])
def test_direct_convolution_is_exported(window: Window, tmp_path: Path) -> None:
    net, kernel = DirectConv2d(3, 5, window), torch.randn(5, 3, *window.kernel)
    net.load_spatial(kernel)
    export_onnx(net, torch.randn(2, 3, 7, 7), tmp_path / "net.onnx")
    x = torch.randn(2, 3, 7, 7)
    (actual,) = ReferenceEvaluator(str(tmp_path / "net.onnx")).run(None, {"input": x.numpy()})
    expected = F.conv2d(x, kernel, stride=window.stride, padding=window.padding)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-5)


def test_every_tensor_of_an_export_has_its_shape(tmp_path: Path) -> None:
    export_onnx(WinogradStack(2, 7), torch.randn(3, 3, 7, 7), tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    known = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    assert known["input"] == [3, 3, 7, 7]
    assert known["output"] == [3, CLASSES]
    assert {name for node in graph.node for name in node.output} <= known.keys()
    results = ReferenceEvaluator(str(tmp_path / "net.onnx")).run(
        None, {"input": np.zeros((3, 3, 7, 7), np.float32)}, intermediate=True
    )
    assert {name: list(np.shape(results[name])) for name in known} == known


def test_export_leaves_the_model_alone_and_repeats(tmp_path: Path) -> None:
    net, x = tiny().double().train(), images().double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for name in ("a.onnx", "b.onnx"):
        export_onnx(net, x, tmp_path / name)
    content = (tmp_path / "a.onnx").read_bytes()
    assert content == (tmp_path / "b.onnx").read_bytes()
    assert str(Path(__file__).parent.parent).encode() not in content
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# --- QONNX out ----------------------------------------------------------------------------------


class QuantStack(nn.Module):
    """Quantized F(m, 3), then quantized dense with raw accumulators; random scales per tap."""

    def __init__(self, m: int, edge: int, relu: bool) -> None:
        super().__init__()
        self.conv = QuantWinogradConv2d(3, 5, m, Widths(4, 8, 6, relu))
        self.fc = QuantDense(5 * edge**2, CLASSES, 5, Widths(8, 8, None))
        x = torch.randn(2, 3, edge, edge)
        for layer in (self.conv, self.fc):
            nn.init.normal_(layer.weight, std=0.3)
            nn.init.normal_(layer.bias, std=0.3)
            layer.mask.copy_(torch.rand_like(layer.mask) < 0.5)
            scale(layer, x)
            x = layer(x).detach()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x)).flatten(1)


@torch.no_grad()
def scale(layer: QuantTapLayer, x: Tensor) -> None:
    """Set all scales so that about all values fit, one step finer or coarser at random per tap."""

    def fitted(rows: Tensor, bits: int) -> Tensor:
        exponents = (rows.flatten(1).abs().amax(1) / 2 ** (bits - 1)).log2().ceil().long()
        return exponents + torch.randint(-1, 2, exponents.shape)

    layer.eval()
    v = layer.lift(x)
    set_exponents(layer.input_quant, fitted(v, layer.widths.operand))
    set_exponents(layer.weight_quant, fitted(layer.u.permute(2, 0, 1), layer.widths.weight))
    if layer.widths.output is not None:
        y = layer.accumulate(layer.input_quant(v), layer.weight_quant(layer.u), x)
        set_exponents(layer.output_quant, fitted(y.flatten()[None], layer.widths.output))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("m", "edge"), [(2, 8), (2, 7), (4, 8), (4, 9)])
def test_winograd_qonnx_equals_brevitas_exactly(
    m: int, edge: int, relu: bool, tmp_path: Path
) -> None:
    net, path = QuantStack(m, edge, relu), tmp_path / "net.onnx"
    exported = export_qonnx(net, torch.randn(4, 3, edge, edge), path)
    assert exported.difference == 0
    proto = onnx.load(path)
    assert [value.name for value in proto.graph.input] == ["input"]
    names = [node.name for node in proto.graph.node if node.op_type == "Quant"]
    quantizers = ("conv.input", "conv.weight", "conv.bias", "conv.output")
    quantizers += ("fc.input", "fc.weight", "fc.bias")
    assert {n.split("/export")[0][1:].replace("/", ".") for n in names} == {
        f"{name}_quant" for name in quantizers
    }
    x = torch.randn(4, 3, edge, edge, dtype=torch.float64)
    expected = net.double()(x).detach().numpy()
    assert len(np.unique(expected)) > 20
    assert np.array_equal(run_onnx(proto, x.numpy()), expected)


@pytest.mark.parametrize("window", [STRIDED, POINTWISE])
def test_direct_qonnx_equals_brevitas_exactly(window: Window, tmp_path: Path) -> None:
    net = QuantDirectConv2d(3, 5, window, Widths(4, 8, 8, False))
    nn.init.normal_(net.weight, std=0.3)
    nn.init.normal_(net.bias, std=0.3)
    scale(net, torch.randn(2, 3, 7, 7))
    export_qonnx(net, torch.randn(2, 3, 7, 7), tmp_path / "net.onnx")
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    actual = run_onnx(onnx.load(tmp_path / "net.onnx"), x.numpy())
    expected = net.double()(x).detach().numpy()
    assert len(np.unique(expected)) > 10
    assert np.array_equal(actual, expected)


def test_small_accumulators_are_exact_in_float32(tmp_path: Path) -> None:
    net, x = QuantStack(2, 8, True), torch.randn(4, 3, 8, 8)
    export_qonnx(net, x, tmp_path / "net.onnx")
    actual = run_onnx(onnx.load(tmp_path / "net.onnx"), x.numpy())
    assert actual.dtype == np.float32
    assert np.array_equal(actual, net.double()(x.double()).detach().numpy())


def test_one_changed_weight_of_the_file_is_noticed(tmp_path: Path) -> None:
    net, x = QuantStack(2, 8, True), torch.randn(4, 3, 8, 8)
    export_qonnx(net, x, tmp_path / "net.onnx")
    proto = onnx.load(tmp_path / "net.onnx")
    inputs = {n.input[1] for n in proto.graph.node if "fc/weight_quant" in n.name}
    (tensor,) = (t for t in proto.graph.initializer if t.name in inputs)
    tensor.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 2, tensor.name)
    )
    assert not np.array_equal(
        run_onnx(proto, x.double().numpy()), net.double()(x.double()).detach().numpy()
    )


class BrevitasStack(nn.Module):
    """Brevitas' own layers; `fixed_point` gives power-of-two scales."""

    def __init__(self, fixed_point: bool) -> None:
        super().__init__()
        act = {"act_quant": Uint8ActPerTensorFixedPoint} if fixed_point else {}
        weight = {"weight_quant": Int8WeightPerTensorFixedPoint} if fixed_point else {}
        signed = {"act_quant": Int8ActPerTensorFixedPoint} if fixed_point else {}
        bias = {"bias_quant": Int32Bias}
        self.input = qnn.QuantIdentity(return_quant_tensor=True, **signed)
        self.conv = qnn.QuantConv2d(3, 6, 3, padding=1, stride=2, **bias, **weight)
        self.relu = qnn.QuantReLU(return_quant_tensor=True, **act)
        self.fc = qnn.QuantLinear(6 * 16, CLASSES, bias=True, **bias, **weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(self.input(x))).flatten(1))


@pytest.mark.parametrize("fixed_point", [True, False])
def test_brevitas_own_layers_are_exported(fixed_point: bool, tmp_path: Path) -> None:
    net = BrevitasStack(fixed_point)
    for _ in range(310):  # until Brevitas' statistics have become parameters
        net(torch.randn(4, 3, 8, 8))
    net.eval()
    exported = export_qonnx(net, torch.randn(4, 3, 8, 8), tmp_path / "net.onnx")
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    proto = onnx.load(tmp_path / "net.onnx")
    actual, expected = run_onnx(proto, x.numpy()), net.double()(x).detach().numpy()
    assert op_types(tmp_path / "net.onnx") >= {"Conv", "Quant"}
    if fixed_point:
        assert exported.difference == 0
        assert np.array_equal(actual, expected)
    else:
        assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("narrow", [0, 1])
@pytest.mark.parametrize(
    ("rounding", "rounded"),
    [
        ("ROUND", [-6, -4, -2, -2, 0, 0, 2, 2, 4, 6]),
        ("FLOOR", [-6, -5, -3, -2, -1, 0, 1, 2, 4, 6]),
        ("CEIL", [-6, -4, -2, -1, 0, 1, 2, 3, 5, 6]),
        ("ROUND_TO_ZERO", [-6, -4, -2, -1, 0, 0, 1, 2, 4, 6]),
    ],
)
def test_quant_node_rounds_and_clamps_as_specified(
    signed: int, narrow: int, rounding: str, rounded: list[int]
) -> None:
    """3 bits: -4..3 signed, -3..3 narrow, 0..7 unsigned, 0..6 narrow."""
    steps = np.array([-6, -4.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 4.5, 6])
    low, high = {(1, 0): (-4, 3), (1, 1): (-3, 3), (0, 0): (0, 7), (0, 1): (0, 6)}[signed, narrow]
    node = onnx.helper.make_node(
        "Quant",
        ["x", "s", "z", "b"],
        ["y"],
        domain=Quant.op_domain,
        signed=signed,
        narrow=narrow,
        rounding_mode=rounding,
    )
    constants = [
        onnx.numpy_helper.from_array(np.array(value), name)
        for name, value in (("s", 0.25), ("z", 0.0), ("b", 3.0))
    ]
    kind = onnx.TensorProto.DOUBLE
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, [10])],
        [onnx.helper.make_tensor_value_info("y", kind, [10])],
        constants,
    )
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid(Quant.op_domain, 2)]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    expected = np.array([min(max(step, low), high) for step in rounded]) * 0.25
    assert np.array_equal(run_onnx(model, steps * 0.25), expected)


# --- errors of both -----------------------------------------------------------------------------


class Drifting(nn.Module):
    """Computes something else every time, which no export can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.fc(x) + self.calls


class Eigen(nn.Module):
    """Has no ONNX form."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x).real


EXPORT_ERRORS: tuple[tuple[Callable[..., Exported], nn.Module, type[WinnowError], str], ...] = (
    (export_onnx, Drifting(), MismatchError, "not written: the export differs from the model by"),
    (export_onnx, Eigen(), LoweringError, "Eigen has no ONNX form: "),
    (export_qonnx, nn.Linear(3, 3), LoweringError, "Linear has no quantizer; export it as float"),
)


@pytest.mark.parametrize(("export", "net", "kind", "told"), EXPORT_ERRORS)
def test_failed_export_is_one_line_and_no_file(
    export: Callable[..., Exported],
    net: nn.Module,
    kind: type[WinnowError],
    told: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(kind, match=told) as error:
        export(net, torch.randn(3, 3), tmp_path / "net.onnx")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("export", [export_onnx, export_qonnx])
def test_unwritable_path_is_told(export: Callable[..., Exported], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "net.onnx"
    net = WinogradStack(2, 8) if export is export_onnx else QuantStack(2, 8, True)
    with pytest.raises(ArtefactError) as error:
        export(net, torch.randn(1, 3, 8, 8), path)
    assert str(error.value).startswith(f"cannot write '{path}': ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("package", ["onnx", "onnxoptimizer"])
@pytest.mark.parametrize("export", [export_onnx, export_qonnx])
def test_missing_package_is_told(
    export: Callable[..., Exported],
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else found(name, *a)
    )
    with pytest.raises(ToolError) as error:
        export(nn.Linear(3, 3), torch.randn(3, 3), tmp_path / "net.onnx")
    assert str(error.value) == (
        f"Python package '{package}' is missing; install the pinned packages with: make setup"
    )
