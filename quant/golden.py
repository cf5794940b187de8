# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: every layer's output of the Brevitas network as integers, from float64.

float32 has 24 bits of significand and disagrees with integer arithmetic on F(4,3) sums.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quant.data import INPUT_EXPONENT, Samples, to_input
from quant.layers.quant_add import QuantAdd, QuantAverage
from quant.layers.quant_layer import QuantTapLayer
from quant.layers.quantizers import scale_of
from quant.network.graph import Add, Concat, NetworkGraph
from quant.network.graph import QuantAverage as Average
from quant.network.layer_graph import (
    layer_graph,
    layer_results,
    lone_pools,
    rounding,
    written_results,
)
from quant.network.network import Network
from winnow.errors import LoweringError
from winnow.progress import steps

BATCH = 120
Quantized = QuantTapLayer | QuantAdd | QuantAverage
RESERVED = "input"  # what the integer graph calls the images
POOL = "_pool"  # ends the name of the node that pools what a layer gives


def layer_names(graph: NetworkGraph) -> dict[str, str]:
    """Return the names of layers, sums, averages, concatenations and lone pools in the graph.

    "features.0" -> "features_0", "0" -> "layer_0", "Conv1" -> "conv1", "größe" -> "grosse". A name
    that is taken, or would be by what follows, gets a number. Layers come first, pools last.
    """
    names: dict[str, str] = {}
    nodes = graph.ending_at(graph.output).nodes
    sums = [node.name for node in nodes if isinstance(node, Add | Average | Concat)]
    for path in [*layer_graph(graph), *sums, *lone_pools(graph)]:
        wanted, number = _identifier(path), 1
        name = wanted
        while any(_collide(name, other) for other in (RESERVED, *names.values())):
            number += 1
            name = f"{wanted}_{number}"
        names[path] = name
    return names


def _identifier(path: str) -> str:
    """Return a path as [a-z][a-z0-9_]*: without accents, in small letters."""
    plain = unicodedata.normalize("NFKD", path.casefold()).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9_]", "_", plain)
    return name if name[:1].isalpha() else f"layer_{name.lstrip('_')}".rstrip("_")


def _collide(name: str, other: str) -> bool:
    """Whether two layers, or a layer and a node that follows the other, have one name."""
    return name == other or f"{name}{POOL}" == other or f"{other}{POOL}" == name


@torch.no_grad()
def golden_arrays(net: Network, samples: Samples) -> dict[str, NDArray[Any]]:
    """Return `images` uint8 [n, c, h, w], `labels` [n] and `layer.<name>` [n, c, h, w] integers.

    Maps are taken after sum, ReLU and pool, those of averages are further ones. They have the
    smallest type that holds their width; a raw layer gives its int32 accumulators. The network
    becomes float64. Raises LoweringError for a value that is no multiple of its scale.
    """
    net.double().eval()
    names, written = layer_names(net.graph), written_results(net.graph)
    roundings = _roundings(net, written)
    parts: dict[str, list[NDArray[Any]]] = {}
    for start in steps("golden values", range(0, len(samples), BATCH)):
        x = to_input(samples.images[start : start + BATCH], torch.float64)
        results = layer_results(net, x, written)
        for path in written:
            value = results[path]
            integers = to_integers(value, roundings[path], names[path])
            parts.setdefault(f"layer.{names[path]}", []).append(as_map(integers))
    arrays: dict[str, NDArray[Any]] = {n: np.concatenate(maps) for n, maps in parts.items()}
    images: NDArray[Any] = samples.images[: len(samples)].numpy()
    return {"images": images, "labels": samples.labels.numpy()} | arrays


def _roundings(net: Network, written: dict[str, str]) -> dict[str, Quantized | None]:
    """Return what rounds results; None for a pool of the images."""
    names = {path: rounding(net.graph, result) for path, result in written.items()}
    return {path: net.get_submodule(found[0]) if found else None for path, found in names.items()}


def as_map(values: NDArray[Any]) -> NDArray[Any]:
    """Return [n, c] or [n, c, h, w] as [n, c, h, w]."""
    return values.reshape(*values.shape, *(1,) * (4 - values.ndim))


def to_integers(value: Tensor, layer: Quantized | None, name: str) -> NDArray[Any]:
    """Return a layer's or sum's float64 output as integers of its scale, smallest type.

    Without a layer it is one of the images.
    """
    scale = 2.0**INPUT_EXPONENT if layer is None else output_scale(layer)
    steps = (value / scale).cpu().numpy()
    if not np.array_equal(steps, np.rint(steps)):
        raise LoweringError(f"layer '{name}': an output is not a whole multiple of its scale")
    integers: NDArray[Any] = steps.astype(_smallest(layer))
    assert np.array_equal(integers, steps), name  # the quantizer has clamped to this range
    return integers


def _smallest(layer: Quantized | None) -> type[np.integer[Any]]:
    if layer is None:
        return np.uint8
    if isinstance(layer, QuantTapLayer) and layer.is_raw:
        return np.int32
    relu = layer.widths.relu if isinstance(layer, QuantTapLayer) else layer.relu
    return np.uint8 if relu else np.int8


def result_module(net: Network) -> Quantized:
    """Return what rounds the network's result: its last layer, or a sum or average behind that."""
    last = layer_graph(net.graph)[net.graph.head()]
    found: Quantized = net.get_submodule(last.rounded_by)
    return found


def output_scale(layer: Quantized) -> Tensor:
    """Return the scale of an output: of its quantizer, or of the accumulator of a raw layer."""
    if isinstance(layer, QuantTapLayer) and layer.is_raw:
        return (
            scale_of(layer.input_quant).flatten() * scale_of(layer.weight_quant).flatten()
        ).min()
    return scale_of(layer.output_quant)
