# SPDX-License-Identifier: Apache-2.0
"""The text form of integer graphs, and the two files that hold one.

`graph.txt` has one line per record, with a checksum in place of every array; `graph.npz` has the
arrays and the hash of the text, so that two files of different builds are never taken for one
graph. The same graph gives the same bytes. Form: `docs/ir.md`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.check import check_graph
from codegen.ir import Graph, Layer, Op, TensorType
from winnow.artefact import load_arrays, save_arrays, write_text
from winnow.errors import ArtefactError
from winnow.fixed_point import IntArray

TEXT_FILE, ARRAY_FILE = "graph.txt", "graph.npz"
MADE_BY = "python -m codegen lower --config ... --out ..."
ARRAYS = ("weight", "bias", "v_exponent", "weight_exponent")
_TEXT_HASH = "text_sha256"  # no array of a layer has this name: those contain a dot

_INTEGER = r"-?\d+"
_TYPE = re.compile(rf"([su])(\d+)\[(\d+)x(\d+)x(\d+)\]\*2\^({_INTEGER})")
_LAYER = re.compile(
    rf"(?P<name>\S+) = (?P<op>[a-z]+)\((?P<source>\S+)\) m=(?P<m>{_INTEGER})"
    rf" w_bits=(?P<weight_bits>{_INTEGER}) v_bits=(?P<v_bits>{_INTEGER})"
    rf" keep=(?P<keep>{_INTEGER}) e=(?P<acc_exponent>{_INTEGER}) pool=(?P<pool>[01])"
    r" raw=(?P<raw>[01])"
    + "".join(rf" {array}=(?P<{array}>[0-9x]+#[0-9a-f]{{8}})" for array in ARRAYS)
    + r" -> (?P<output>\S+)"
)


def format_graph(graph: Graph) -> str:
    """Return the graph's text: the input's line, then one line per layer."""
    lines = [f"input: {graph.input}", *(format_layer(layer) for layer in graph.layers)]
    return "\n".join(lines) + "\n"


def format_layer(layer: Layer) -> str:
    """Return a layer's line."""
    arrays = " ".join(f"{name}={_checksum(getattr(layer, name))}" for name in ARRAYS)
    return (
        f"{layer.name} = {layer.op.value}({layer.source}) m={layer.m}"
        f" w_bits={layer.weight_bits} v_bits={layer.v_bits} keep={layer.keep}"
        f" e={layer.acc_exponent} pool={int(layer.pool)} raw={int(layer.raw)} {arrays}"
        f" -> {layer.output}"
    )


def graph_arrays(graph: Graph) -> dict[str, IntArray]:
    """Return every array of the graph, named `layer.array`."""
    return {
        f"{layer.name}.{name}": getattr(layer, name) for layer in graph.layers for name in ARRAYS
    }


def parse_graph(text: str, arrays: Mapping[str, NDArray[Any]]) -> Graph:
    """Return the graph of a text and its arrays (named as by `graph_arrays`, copied read-only).

    Raises ArtefactError naming the line, or the array that is missing or has another checksum.
    """
    lines = text.splitlines()
    if not lines or not lines[0].startswith("input: "):
        raise ArtefactError(f"line 1: must be 'input: TYPE', got '{lines[0] if lines else ''}'")
    kind = _parse_type(lines[0].removeprefix("input: "), 1)
    layers = [_parse_layer(line, number, arrays) for number, line in enumerate(lines[1:], 2)]
    return Graph(kind, tuple(layers))


def save_graph(folder: Path, graph: Graph) -> None:
    """Write graph.txt and graph.npz into `folder`, each whole or not at all."""
    check_graph(graph)
    text = format_graph(graph)
    save_arrays(folder / ARRAY_FILE, {**graph_arrays(graph), _TEXT_HASH: _text_hash(text)})
    write_text(folder / TEXT_FILE, text)


def load_graph(folder: Path) -> Graph:
    """Read and check the graph that `save_graph` wrote into `folder`.

    Raises ArtefactError when a file is missing, damaged or of another build, GraphError when the
    graph breaks a rule.
    """
    path = folder / TEXT_FILE
    if not path.is_file():
        raise ArtefactError(f"'{path}' is missing; make it with: {MADE_BY}")
    arrays = load_arrays(folder / ARRAY_FILE, MADE_BY)
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"'{path}' is damaged; delete it and run: {MADE_BY}") from error
    if not np.array_equal(arrays.pop(_TEXT_HASH, np.empty(0)), _text_hash(text)):
        raise ArtefactError(
            f"'{path}' is damaged or belongs to another build than {ARRAY_FILE}; "
            f"make both with: {MADE_BY}"
        )
    try:
        graph = parse_graph(text, arrays)
    except ArtefactError as error:
        raise ArtefactError(f"'{path}': {error}; make it with: {MADE_BY}") from error
    check_graph(graph)
    return graph


def _text_hash(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint8)


def _checksum(array: NDArray[Any]) -> str:
    """Return 'SHAPE#HASH' of an array's int64 values."""
    shape = "x".join(str(length) for length in array.shape)
    content = np.ascontiguousarray(array, dtype="<i8").tobytes()
    return f"{shape}#{hashlib.sha256(content).hexdigest()[:8]}"


def _parse_type(text: str, number: int) -> TensorType:
    match = _TYPE.fullmatch(text)
    if not match:
        raise ArtefactError(f"line {number}: a type must look like u8[1x2x3]*2^-4, got '{text}'")
    bits, channels, height, width, exponent = (int(group) for group in match.groups()[1:])
    return TensorType(channels, height, width, bits, match[1] == "s", exponent)


def _parse_layer(line: str, number: int, arrays: Mapping[str, NDArray[Any]]) -> Layer:
    match = _LAYER.fullmatch(line)
    ops = [op.value for op in Op]
    if not match or match["op"] not in ops:
        raise ArtefactError(
            f"line {number}: must be 'NAME = {'|'.join(ops)}(SOURCE) m=... -> TYPE', got '{line}'"
        )
    taken = {name: _take(arrays, f"{match['name']}.{name}", match[name]) for name in ARRAYS}
    return Layer(
        name=match["name"],
        op=Op(match["op"]),
        source=match["source"],
        m=int(match["m"]),
        weight=taken["weight"],
        bias=taken["bias"],
        v_exponent=taken["v_exponent"],
        weight_exponent=taken["weight_exponent"],
        v_bits=int(match["v_bits"]),
        weight_bits=int(match["weight_bits"]),
        keep=int(match["keep"]),
        acc_exponent=int(match["acc_exponent"]),
        pool=match["pool"] == "1",
        raw=match["raw"] == "1",
        output=_parse_type(match["output"], number),
    )


def _take(arrays: Mapping[str, NDArray[Any]], name: str, checksum: str) -> IntArray:
    if name not in arrays:
        raise ArtefactError(f"array '{name}' is missing")
    array = arrays[name]
    if array.dtype != np.int64:
        raise ArtefactError(f"array '{name}' must be int64, got {array.dtype}")
    actual = _checksum(array)
    if actual != checksum:
        raise ArtefactError(f"array '{name}' must be {checksum}, got {actual}")
    copy = array.copy()
    copy.flags.writeable = False
    return copy
