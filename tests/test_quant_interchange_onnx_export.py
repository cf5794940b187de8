# SPDX-License-Identifier: Apache-2.0
"""ONNX and QONNX out: run without torch, an export computes what the model does."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

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
from torch import Tensor, nn

from quant.interchange.onnx_export import Exported, export_onnx, export_qonnx
from quant.interchange.onnx_run import Quant, run_onnx
from quant.layers.bit_widths import BitWidths
from quant.layers.quant_layer import (
    QuantDense,
    QuantDirectConv2d,
    QuantTapLayer,
    QuantWinogradConv2d,
)
from quant.layers.quantizers import set_exponents
from quant.layers.winograd_layer import Dense, DirectConv2d, Window, WinogradConv2d
from quant.models.library import NAMES, make_model
from quant.network.layer_graph import layer_graph, visit_layers
from quant.network.network import Network
from quant.network.rewrite import fold_norms, tap_layers, to_quantized, to_winograd
from tests.library_nets import CLASSES, images, tiny
from winnow.errors import (
    ArtefactError,
    LoweringError,
    MismatchError,
    ToolError,
    WinnowError,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


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


def test_batch_norm_behind_a_winograd_layer_is_exported(tmp_path: Path) -> None:
    """No convolution it could be folded into; in operator sets below 14 it is read as training."""
    norm = nn.BatchNorm2d(5)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    layer = WinogradConv2d(3, 5, 2)
    layer.load_spatial(torch.randn(5, 3, 3, 3))
    net = nn.Sequential(layer, norm, nn.ReLU(inplace=True)).eval()
    export_onnx(net, torch.randn(2, 3, 8, 8), tmp_path / "net.onnx")
    assert_runs_alike(tmp_path / "net.onnx", net, torch.randn(2, 3, 8, 8))


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
        self.conv = QuantWinogradConv2d(3, 5, m, BitWidths(4, 8, 6, relu))
        self.fc = QuantDense(5 * edge**2, CLASSES, 5, BitWidths(8, 8, None))
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
        exponents = (
            (rows.flatten(1).abs().amax(1).clamp(min=2e-6) / 2 ** (bits - 1)).log2().ceil().long()
        )
        return exponents + torch.randint(-1, 2, exponents.shape)

    layer.eval()
    v = layer.input_transform(x)
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


@pytest.mark.parametrize("layer", ["strided", "pointwise", "depthwise", "winograd in groups"])
def test_quantized_layer_as_qonnx_equals_brevitas_exactly(layer: str, tmp_path: Path) -> None:
    widths = BitWidths(4, 8, 8, False)
    net: QuantTapLayer = QuantDirectConv2d(3, 5, POINTWISE, widths)
    if layer == "strided":
        net = QuantDirectConv2d(3, 5, STRIDED, widths)
    elif layer == "depthwise":
        net = QuantDirectConv2d(3, 6, STRIDED, widths, groups=3)
    elif layer == "winograd in groups":
        net = QuantWinogradConv2d(3, 3, 2, widths, groups=3)
    nn.init.normal_(net.weight, std=0.3)
    nn.init.normal_(net.bias, std=0.3)
    scale(net, torch.randn(2, 3, 7, 7))
    export_qonnx(net, torch.randn(2, 3, 7, 7), tmp_path / "net.onnx")
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    actual = run_onnx(onnx.load(tmp_path / "net.onnx"), x.numpy())
    expected = net.double()(x).detach().numpy()
    assert len(np.unique(expected)) > 10
    assert np.array_equal(actual, expected)


def test_converted_residual_network_is_exported_at_every_stage(tmp_path: Path) -> None:
    """Winograd with BatchNorm and in-place ReLU, then folded and quantized: exact."""
    module, x = make_model("resnet18", CLASSES, width=0.125), torch.rand(2, 3, 8, 8)
    module.layer3, module.layer4 = nn.Identity(), nn.Identity()
    module.fc = nn.Linear(16, CLASSES)
    with torch.no_grad():
        module(torch.randn(4, 3, 8, 8))
    net = Network.of(module.eval(), (3, 8, 8))
    winograd = to_winograd(net, 2)
    export_onnx(winograd, x, tmp_path / "float.onnx")
    assert_runs_alike(tmp_path / "float.onnx", net, torch.rand(2, 3, 8, 8))
    folded = fold_norms(winograd)
    placed = layer_graph(folded.graph)
    widths = {name: BitWidths(6, 8, 8, placed[name].relu) for name in tap_layers(folded)}
    quantized = to_quantized(folded, widths).eval()
    layers = [module for module in quantized.modules() if isinstance(module, QuantTapLayer)]
    visit_layers(quantized, layers, x, scale)
    export_qonnx(quantized, x, tmp_path / "quant.onnx")
    y = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    actual = run_onnx(onnx.load(tmp_path / "quant.onnx"), y.numpy())
    expected = quantized.double()(y).detach().numpy()
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


STATISTICS_STEPS = 5


class BrevitasStack(nn.Module):
    """Brevitas' own layers; `fixed_point` gives power-of-two scales."""

    def __init__(self, fixed_point: bool) -> None:
        super().__init__()
        act = {"act_quant": Uint8ActPerTensorFixedPoint} if fixed_point else {}
        weight = {"weight_quant": Int8WeightPerTensorFixedPoint} if fixed_point else {}
        signed = {"act_quant": Int8ActPerTensorFixedPoint} if fixed_point else {}
        bias, steps = {"bias_quant": Int32Bias}, {"collect_stats_steps": STATISTICS_STEPS}
        self.input = qnn.QuantIdentity(return_quant_tensor=True, **steps, **signed)
        self.conv = qnn.QuantConv2d(3, 6, 3, padding=1, stride=2, **bias, **weight)
        self.relu = qnn.QuantReLU(return_quant_tensor=True, **steps, **act)
        self.fc = qnn.QuantLinear(6 * 16, CLASSES, bias=True, **bias, **weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(self.input(x))).flatten(1))


@pytest.mark.parametrize("fixed_point", [True, False])
def test_brevitas_own_layers_are_exported(fixed_point: bool, tmp_path: Path) -> None:
    net = BrevitasStack(fixed_point)
    for _ in range(STATISTICS_STEPS + 1):  # until Brevitas' statistics have become parameters
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


# --- errors -----------------------------------------------------------------------------


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
