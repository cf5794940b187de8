# SPDX-License-Identifier: Apache-2.0
"""The text form of integer graphs, and the two files that hold one.

`graph.txt` has one line per node, made from the fields of its record, with a checksum in place of
every array; `graph.npz` has the arrays and the hash of the text, so that two files of different
builds are never taken for one graph. The same graph gives the same bytes. Form: `docs/ir.md`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from codegen.check import check_graph
from codegen.ir import NODES, Graph, Node, TensorType
from winnow.artefact import load_arrays, save_arrays, write_text
from winnow.errors import ArtefactError
from winnow.fixed_point import IntArray

TEXT_FILE, ARRAY_FILE = "graph.txt", "graph.npz"
FORMAT = 4  # of the text; format 1 had no line that names it
MADE_BY = "python -m codegen lower --config ... --out ..."
_TEXT_HASH = "text_sha256"  # no array of a node has this name: those contain a dot

_TYPE = re.compile(r"([su])(\d+)\[(\d+)x(\d+)x(\d+)\]\*2\^(-?\d+)", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_NODE = re.compile(r"(\S+) = ([a-z_]+)\(([^\s()]*)\)((?: \S+=\S+)*) -> (\S+)")


def kind_of(record: type[Node]) -> str:
    """Return what the text calls a record: its class's name as a_name_like_this."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", record.__name__).lower()


KINDS = {kind_of(record): record for record in NODES}


def _value_fields(record: type[Node]) -> dict[str, bool]:
    """Return the fields between a line's inputs and its output, and whether each is an array.

    Numbers come before arrays, either in the order of the record.
    """
    common = {field.name for field in fields(Node)}
    hints = get_type_hints(record)
    own = {f.name: hints[f.name] is not int for f in fields(record) if f.name not in common}
    return dict(sorted(own.items(), key=lambda item: item[1]))


def format_graph(graph: Graph) -> str:
    """Return the graph's text: the format's and the input's line, then one line per node."""
    lines = [f"format: {FORMAT}", f"input: {graph.input}", *map(format_node, graph.nodes)]
    return "\n".join(lines) + "\n"


def format_node(node: Node) -> str:
    """Return a node's line."""
    values = "".join(
        f" {name}={_checksum(getattr(node, name)) if is_array else getattr(node, name)}"
        for name, is_array in _value_fields(type(node)).items()
    )
    return f"{node.name} = {kind_of(type(node))}({','.join(node.inputs)}){values} -> {node.output}"


def graph_arrays(graph: Graph) -> dict[str, IntArray]:
    """Return every array of the graph, named `node.array`."""
    return {
        f"{node.name}.{name}": getattr(node, name)
        for node in graph.nodes
        for name, is_array in _value_fields(type(node)).items()
        if is_array
    }


def parse_graph(text: str, arrays: Mapping[str, NDArray[Any]]) -> Graph:
    """Return the graph of a text and its arrays (named as by `graph_arrays`, copied read-only).

    Raises ArtefactError naming the line, or the array that is missing or has another checksum.
    """
    lines = text.splitlines()
    first, second = (*lines, "", "")[:2]
    if first != f"format: {FORMAT}":
        raise ArtefactError(f"line 1: must be 'format: {FORMAT}', got '{first}'")
    if not second.startswith("input: "):
        raise ArtefactError(f"line 2: must be 'input: TYPE', got '{second}'")
    kind = _parse_type(second.removeprefix("input: "), 2)
    nodes = [_parse_node(line, number, arrays) for number, line in enumerate(lines[2:], 3)]
    return Graph(kind, tuple(nodes))


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
    _require_format(path, text)
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


def _require_format(path: Path, text: str) -> None:
    """Raise ArtefactError for a graph of an older or newer version of this program."""
    match = re.match(r"format: (\d{1,9})\n", text, re.ASCII)
    found = match[1] if match else "1" if text.startswith("input: ") else str(FORMAT)
    if found != str(FORMAT):
        raise ArtefactError(
            f"'{path}' is a graph of format {found}, this version reads format {FORMAT}; "
            f"make it again with: {MADE_BY}"
        )


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


def _parse_node(line: str, number: int, arrays: Mapping[str, NDArray[Any]]) -> Node:
    match = _NODE.fullmatch(line)
    if not match or match[2] not in KINDS:
        raise ArtefactError(
            f"line {number}: must be 'NAME = {'|'.join(KINDS)}(INPUTS) KEY=VALUE... -> TYPE', "
            f"got '{line}'"
        )
    name, kind, inputs, values, output = match.groups()
    texts = dict(item.split("=", 1) for item in values.split())
    wanted = _value_fields(KINDS[kind])
    if tuple(texts) != tuple(wanted) or len(texts) != len(values.split()):
        raise ArtefactError(
            f"line {number}: {kind} must have {', '.join(wanted) or 'no values'} in this order, "
            f"got '{values.strip()}'"
        )
    taken = {
        key: _take(arrays, f"{name}.{key}", texts[key])
        if is_array
        else _parse_integer(texts[key], key, number)
        for key, is_array in wanted.items()
    }
    sources = tuple(inputs.split(",")) if inputs else ()
    record: Callable[..., Node] = KINDS[kind]
    return record(name=name, inputs=sources, output=_parse_type(output, number), **taken)


def _parse_integer(text: str, key: str, number: int) -> int:
    if not _INTEGER.fullmatch(text):
        raise ArtefactError(f"line {number}: {key} must be an integer, got '{text}'")
    return int(text)


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
