# SPDX-License-Identifier: Apache-2.0
"""A network on disk: NAME.network.json holds its graph, NAME.npz its arrays.

The arrays file holds the hash of the graph file, so that two files of different builds are never
taken for one network; each is written whole or not at all. Nothing in them is executed.

    {"format": 2, "input": [1, 16, 16], "output": "fc", "exits": [],
     "nodes": [{"op": "Conv", "name": "conv1", "inputs": [".input"], "shape": [16, 16, 16], ...}],
     "tensors": [["conv1.weight", "float32", [16, 1, 3, 3]]]}
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quant.layers.bit_widths import BitWidths
from quant.network.graph import RECORDS, WITH_WEIGHTS, NetworkGraph, Node
from quant.network.layer_modules import layer_module
from quant.network.network import Network
from quant.network.state import arrays_of, load_state
from winnow.artefact import load_arrays, save_arrays, write_text
from winnow.errors import ArtefactError, NetworkError

FORMAT = 2
GRAPH_HASH = "network_sha256"  # no tensor has this name: those contain a dot
Tensors = tuple[tuple[str, str, tuple[int, ...]], ...]  # name, kind of number, shape


def graph_path(arrays: Path) -> Path:
    """Return the graph file beside an arrays file: train.npz -> train.network.json."""
    return arrays.with_suffix(".network.json")


def save_network(path: Path, net: Network) -> list[Path]:
    """Write a network to `path` (.npz) and the graph file beside it; return both."""
    arrays = arrays_of(net)
    tensors = tuple((name, str(a.dtype), a.shape) for name, a in arrays.items())
    text = format_network(net.graph, tensors)
    save_arrays(path, {**arrays, GRAPH_HASH: _hash(text)})
    write_text(graph_path(path), text)
    return [path, graph_path(path)]


def load_network(path: Path, made_by: str) -> Network:
    """Read the network that `save_network` wrote, on the CPU, in evaluation mode.

    `made_by` is the command that makes it. Raises ArtefactError when a file is missing, damaged or
    of another build than the other.
    """
    graph, tensors, arrays = _read(path, made_by)
    try:
        with torch.random.fork_rng(devices=[]):  # fresh weights, replaced at once
            layers = {node.name: layer_module(node) for node in _layers(graph, tensors)}
            net = Network(graph, layers)
    except (NetworkError, RuntimeError, ValueError, TypeError) as error:
        raise _damaged(graph_path(path), made_by, error) from error
    if any(array.dtype == np.float64 for array in arrays.values()):
        net.double()
    load_state(net, arrays, path, made_by)
    return net.eval()


def load_graph(path: Path, made_by: str) -> NetworkGraph:
    """Read the graph alone, checked as by `load_network`."""
    return _read(path, made_by)[0]


def _read(path: Path, made_by: str) -> tuple[NetworkGraph, Tensors, dict[str, NDArray[Any]]]:
    arrays = load_arrays(path, made_by)
    described = graph_path(path)
    if not described.is_file():
        raise ArtefactError(f"'{described}' is missing; make it with: {made_by}")
    content = described.read_bytes()
    found = arrays.pop(GRAPH_HASH, np.empty(0))
    if not np.array_equal(found, _hash(content)):
        raise ArtefactError(
            f"'{described}' is damaged or belongs to another build than '{path.name}'; "
            f"make both with: {made_by}"
        )
    try:
        graph, tensors = parse_network(content.decode())
    except (ArtefactError, UnicodeDecodeError) as error:
        raise _damaged(described, made_by, error) from error
    return graph, tensors, arrays


def _layers(graph: NetworkGraph, tensors: Tensors) -> list[Node]:
    """Return the records with weights in the order of the state dict."""
    order: dict[str, int] = {}
    for i, (name, _, _) in enumerate(tensors):
        for end in (i for i, c in enumerate(name) if c == "."):
            order.setdefault(name[:end], i)
    nodes = [node for node in graph.nodes if isinstance(node, WITH_WEIGHTS)]
    missing = [node.name for node in nodes if node.name not in order]
    if missing:
        raise NetworkError(f"record '{missing[0]}' has no tensor")
    return sorted(nodes, key=lambda node: order[node.name])


def _damaged(path: Path, made_by: str, error: Exception) -> ArtefactError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ArtefactError(f"'{path}' is damaged ({reason}); delete it and run: {made_by}")


def _hash(text: str | bytes) -> NDArray[np.uint8]:
    content = text.encode() if isinstance(text, str) else text
    return np.frombuffer(hashlib.sha256(content).digest(), dtype=np.uint8)


# --- the graph file ---------------------------------------------------------------------------


def format_network(graph: NetworkGraph, tensors: Tensors) -> str:
    """Return the text of a graph file: the same graph gives the same bytes, a record per line."""
    nodes = [{"op": type(node).__name__, **asdict(node)} for node in graph.nodes]
    parts = {
        "format": json.dumps(FORMAT),
        "input": json.dumps(graph.input),
        "output": json.dumps(graph.output),
        "exits": json.dumps(graph.exits),
        "nodes": _lines(nodes),
        "tensors": _lines(tensors),
    }
    return "{\n" + ",\n".join(f'"{key}": {value}' for key, value in parts.items()) + "\n}\n"


def _lines(items: typing.Iterable[object]) -> str:
    return "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in items) + "\n]"


def parse_network(text: str) -> tuple[NetworkGraph, Tensors]:
    """Return graph and tensors of a graph file; ArtefactError that names the wrong entry."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"no JSON: {error}") from error
    keys = {"format", "input", "output", "exits", "nodes", "tensors"}
    if not isinstance(table, dict) or table.keys() != keys:
        raise ArtefactError(f"must hold the keys {', '.join(sorted(keys))}")
    if table["format"] != FORMAT:
        raise ArtefactError(f"format {table['format']!r} is unknown, this version reads {FORMAT}")
    shape = _value(tuple[int, ...], table["input"], "input")
    output = _value(str, table["output"], "output")
    exits = _value(tuple[tuple[str, str], ...], table["exits"], "exits")
    tensors = _value(tuple[tuple[str, str, tuple[int, ...]], ...], table["tensors"], "tensors")
    if not isinstance(table["nodes"], list):
        raise ArtefactError("nodes must be a list")
    nodes = [_node(row, f"nodes[{i}]") for i, row in enumerate(table["nodes"])]
    try:
        graph = NetworkGraph.of(shape, nodes, output, exits)
    except (NetworkError, IndexError, ArithmeticError) as error:
        raise ArtefactError(str(error)) from error
    for node, made in zip(nodes, graph.nodes, strict=True):
        if node.shape != made.shape:
            raise ArtefactError(f"'{node.name}' gives {made.shape}, the file says {node.shape}")
    return graph, tensors


def _node(row: object, where: str) -> Node:
    if not isinstance(row, dict) or row.get("op") not in RECORDS:
        raise ArtefactError(f"{where}: must be a record with one of the ops {', '.join(RECORDS)}")
    kind = RECORDS[row["op"]]
    return _record(kind, {key: value for key, value in row.items() if key != "op"}, where)


def _record(kind: type[Any], row: Mapping[str, Any], where: str) -> Any:
    """Return a dataclass of a table whose keys are its fields."""
    types_of = typing.get_type_hints(kind)
    names = {f.name for f in fields(kind)}
    if row.keys() != names:
        other = sorted(row.keys() ^ names)[0]
        wanted = ", ".join(sorted(names))
        raise ArtefactError(
            f"{where}: a {kind.__name__} must hold the keys {wanted}; see '{other}'"
        )
    values = {key: _value(types_of[key], value, f"{where}.{key}") for key, value in row.items()}
    return kind(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    """Return a value of JSON as a field of `kind` holds it; ArtefactError if it is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not type(None))
        return None if value is None else _value(inner, value, where)
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(kinds) == len(value):
            return tuple(
                _value(k, v, f"{where}[{i}]")
                for i, (k, v) in enumerate(zip(kinds, value, strict=True))
            )
    elif kind is BitWidths and isinstance(value, dict):
        return _record(BitWidths, value, where)
    elif kind in _PLAIN and _PLAIN[kind](value):
        return kind(value)
    raise ArtefactError(f"{where}: must be {_told(kind)}, got {str(value)[:60]}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_PLAIN: Mapping[type, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    float: _is_number,
}


def _told(kind: Any) -> str:
    return getattr(kind, "__name__", "") if typing.get_origin(kind) is None else str(kind)
