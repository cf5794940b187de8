# SPDX-License-Identifier: Apache-2.0
"""Networks for other tools: ONNX of float ones, QONNX of quantized ones, each checked by running.

Shapes are those of the example, constants float32. Layers in the Winograd domain are written as
what they compute: slices of the padded map, two matrix products and a batched one in between.
QONNX holds every quantizer as a `Quant` node. A file is written only after ONNX's reference runtime
has reproduced the model's output for the example.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from winnow.artefact import write_bytes
from winnow.errors import ArtefactError, LoweringError, MismatchError, ToolError

OPSET = 14  # old enough for other tools; before it, the reference runtime misreads BatchNorm
PACKAGES = ("onnx", "onnxoptimizer")
FLOAT_TOLERANCE = 1e-5  # of the largest output: folded constants are rounded to float32
STEP_TOLERANCE = 1e-2  # the same with scales that are no powers of two: a value may round elsewhere


@dataclass(frozen=True)
class Exported:
    """A written file: its nodes, and the largest difference from the model / largest output."""

    path: Path
    num_nodes: int
    difference: float


def export_onnx(model: nn.Module, example: Tensor, path: Path) -> Exported:
    """Write a float network as ONNX, BatchNorm folded; `example` is an input [n, c, h, w].

    Raises ToolError when a package is missing, LoweringError when the network has no ONNX form,
    MismatchError when the export computes something else, ArtefactError when `path` cannot be
    written.
    """
    _require_packages()
    net, x = _float_copy(model, example)
    proto = _translated(model, lambda: _trace(net, x))
    actual = _run(model, proto, x.double().numpy())
    return _checked(proto, _expected(net, x), actual, (path, FLOAT_TOLERANCE))


def export_qonnx(model: nn.Module, example: Tensor, path: Path) -> Exported:
    """Write a Brevitas network as QONNX; `example` is an input [n, c, h, w].

    Where all scales are powers of two, the file executed in float64 equals the model in float64
    exactly; in float32 as long as no accumulator passes 2^24 of its steps. Raises as `export_onnx`.
    """
    _require_packages()
    # Reads onnx, which may be missing until here.
    from quant.interchange.onnx_run import scales
    from quant.interchange.qonnx_manager import AccumulatorQonnxManager

    net, x = _float_copy(model, example)
    expected = _expected(model, x)
    proto = _translated(
        model,
        lambda: AccumulatorQonnxManager.export(
            net, args=x, dynamo=False, keep_initializers_as_inputs=False, **_OPTIONS
        ),
    )
    found = scales(proto)
    if not found:
        raise LoweringError(f"{type(model).__name__} has no quantizer; export it as float ONNX")
    is_exact = all(bool((np.frexp(scale)[0] == 0.5).all()) for scale in found)
    actual = _run(model, proto, x.double().numpy())
    return _checked(proto, expected, actual, (path, 0.0 if is_exact else STEP_TOLERANCE))


_OPTIONS: dict[str, Any] = {
    "opset_version": OPSET,
    "input_names": ["input"],
    "output_names": ["output"],
}


def _require_packages() -> None:
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise ToolError(
                f"Python package '{name}' is missing; install the pinned packages with: make setup"
            )


def _float_copy(model: nn.Module, example: Tensor) -> tuple[nn.Module, Tensor]:
    """Return the model and example in float32 on the CPU; exporting leaves traces in a model."""
    return copy.deepcopy(model).cpu().float().eval(), example.detach().cpu().float()


@torch.no_grad()
def _expected(model: nn.Module, x: Tensor) -> NDArray[Any]:
    """Return the model's output in float64."""
    y = copy.deepcopy(model).cpu().double().eval()(x.double())
    return np.asarray(getattr(y, "value", y))  # Brevitas may return its own kind of tensor


def _trace(net: nn.Module, x: Tensor) -> Any:
    """Return the ONNX model that torch's tracing exporter writes."""
    import onnx  # may be missing until `_require_packages` has looked

    content = io.BytesIO()
    # Ten times as fast as the exporter through torch.export, which needs two more packages.
    torch.onnx.export(net, (x,), content, dynamo=False, **_OPTIONS)
    return onnx.load_model_from_string(content.getvalue())


def _translated(model: nn.Module, translate: Callable[[], Any]) -> Any:
    """Return what `translate` makes; what torch cannot express is the model's fault."""
    try:
        with warnings.catch_warnings():
            # Deprecation of the tracing exporter; sizes become constants, as they should.
            warnings.simplefilter("ignore")
            return translate()
    except (torch.onnx.OnnxExporterError, RuntimeError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoweringError(f"{type(model).__name__} has no ONNX form: {reason}") from error


def _run(model: nn.Module, proto: Any, x: NDArray[Any]) -> NDArray[Any]:
    """Return the export's output for x, and note the shapes of all its tensors."""
    # Reads onnx, which may be missing until here.
    from quant.interchange.onnx_run import annotate, trace_onnx

    try:
        results = trace_onnx(proto, x)
    except (NotImplementedError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LoweringError(
            f"the export of {type(model).__name__} cannot be run for its check: {reason}"
        ) from error
    annotate(proto, results)
    return results[proto.graph.output[0].name]


def _checked(
    proto: Any, expected: NDArray[Any], actual: NDArray[Any], target: tuple[Path, float]
) -> Exported:
    """Write the file if `actual` equals `expected` within the tolerance; target = (path, it)."""
    path, tolerance = target
    if expected.shape != actual.shape:
        raise MismatchError(
            f"'{path}' not written: the export returns {list(actual.shape)}, "
            f"the model {list(expected.shape)}"
        )
    largest = float(np.abs(expected).max(initial=0.0))
    apart = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    difference = float(apart.max(initial=0.0)) / (largest or 1.0)
    if not difference <= tolerance:
        raise MismatchError(
            f"'{path}' not written: the export differs from the model by {difference:.1e} of the "
            f"largest output, at most {tolerance:g} is rounding"
        )
    try:
        write_bytes(path, proto.SerializeToString(deterministic=True))
    except OSError as error:
        raise ArtefactError(f"cannot write '{path}': {error.strerror}") from error
    return Exported(path, len(proto.graph.node), difference)
