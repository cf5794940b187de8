# SPDX-License-Identifier: Apache-2.0
"""Write every layer's integers for the whole test set: qat.npz -> golden.npz."""

from __future__ import annotations

from quant.build import Build, load_quantized
from quant.golden import golden_arrays, layer_names, output_scale, result_module
from quant.train.resume import Resume
from winnow.artefact import save_arrays
from winnow.flow import Result
from winnow.score import score_of, score_text


def run(build: Build, resume: Resume) -> Result:  # noqa: ARG001 (no training here)
    """Write every layer's integers for the whole test set."""
    net = load_quantized(build)
    arrays = golden_arrays(net, build.split().test)
    path = build.out / "golden.npz"
    save_arrays(path, arrays)
    logits = arrays[f"layer.{layer_names(net.graph)[net.graph.head()]}"][:, :, 0, 0]
    scale = output_scale(result_module(net)).item()
    ((kind, number),) = score_of(logits, arrays["labels"], scale).items()
    summary = f"integers of {len(logits)} test images, {score_text(kind, number)},"
    return Result([path], summary, {"images": len(logits), f"golden_{kind}": number})
