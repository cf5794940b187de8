# SPDX-License-Identifier: Apache-2.0
"""Text and files of a graph: a stable form, an exact way back, and no damage unnoticed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen.graph_text import (
    ARRAY_FILE,
    KINDS,
    TEXT_FILE,
    format_graph,
    format_node,
    graph_arrays,
    kind_of,
    load_graph,
    parse_graph,
    save_graph,
)
from codegen.ir import NODES, Graph, MaxPool, Winograd
from tests.ladder import (
    random_average_graph,
    random_chain_graph,
    random_concat_graph,
    random_layer_graph,
    random_residual_graph,
    random_unrolled_graph,
)
from tests.ladder_grouped import random_grouped_graph
from winnow.artefact import save_arrays, write_text
from winnow.errors import ArtefactError, GraphError, WinnowError

MADE_BY = "python -m codegen lower --config ... --out ..."


def assert_same(left: Graph, right: Graph) -> None:
    assert left.input == right.input
    assert len(left.nodes) == len(right.nodes)
    for a, b in zip(left.nodes, right.nodes, strict=True):
        assert type(a) is type(b)
        for field in fields(a):
            x, y = getattr(a, field.name), getattr(b, field.name)
            assert type(x) is type(y)
            assert np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y


def test_text_is_golden(golden: Callable[[str, str], None]) -> None:
    texts = [format_graph(random_chain_graph(4, 2)), format_graph(random_chain_graph(2, 4))]
    golden("graph.txt", "\n".join(texts))


@given(seed=st.integers(0, 2**31), m=st.sampled_from([2, 4]))
def test_parse_undoes_format(seed: int, m: int) -> None:
    for graph in (random_layer_graph(seed, m), random_chain_graph(seed, m)):
        assert_same(parse_graph(format_graph(graph), graph_arrays(graph)), graph)


@pytest.mark.parametrize(
    "make",
    [random_residual_graph, random_average_graph, random_unrolled_graph, random_grouped_graph],
)
def test_parse_undoes_format_of_sums_and_averages(make: Callable[[int, int], Graph]) -> None:
    for seed in range(10):
        graph = make(seed, 2)
        assert_same(parse_graph(format_graph(graph), graph_arrays(graph)), graph)


def test_node_line_is_a_line_of_the_text() -> None:
    graph = random_chain_graph(0, 2)
    lines = format_graph(graph).splitlines()
    assert lines == ["format: 4", f"input: {graph.input}", *map(format_node, graph.nodes)]


def test_every_field_of_a_record_is_in_its_line() -> None:
    makers = (random_chain_graph, random_average_graph, random_concat_graph, random_unrolled_graph)
    graphs = [make(seed, 2) for seed in range(20) for make in makers]
    seen = {type(node): node for graph in graphs for node in graph.nodes}
    assert set(seen) == set(NODES)
    for record, node in seen.items():
        line = format_node(node)
        for name in {f.name for f in fields(record)} - {"name", "inputs", "output"}:
            assert f" {name}=" in line
        assert line.startswith(f"{node.name} = ")
        assert f"({','.join(node.inputs)})" in line
        assert line.endswith(f" -> {node.output}")


def test_every_record_has_a_word_in_the_text() -> None:
    assert list(KINDS.values()) == list(NODES)
    assert (kind_of(Winograd), kind_of(MaxPool)) == ("winograd", "max_pool")


def test_nodes_of_any_number_of_inputs_have_a_line() -> None:
    """A record with two inputs, or none, needs no parser of its own."""
    graph = random_chain_graph(0, 2)
    (name, *_), pool = graph.nodes[0].inputs, graph.nodes[1]
    for inputs in ((), (name, pool.name), (name, name, name)):
        node = replace(pool, name="other", inputs=inputs)
        wide = replace(graph, nodes=(*graph.nodes, node))
        assert_same(parse_graph(format_graph(wide), graph_arrays(wide)), wide)


def test_checksum_sees_every_array_and_its_shape() -> None:
    graph = random_chain_graph(0, 2)
    arrays = graph_arrays(graph)
    text = format_graph(graph)
    for name, array in arrays.items():
        changed = array.copy()
        changed.flat[-1] ^= 1
        for bad in (changed, array[:0], array[None]):
            with pytest.raises(
                ArtefactError, match=rf"array '{name}' must be [0-9x]+#\w{{8}}, got"
            ):
                parse_graph(text, {**arrays, name: bad})


def test_parsed_arrays_are_read_only_copies() -> None:
    graph = random_layer_graph(0, 2)
    arrays = graph_arrays(graph)
    weight = parse_graph(format_graph(graph), arrays).nodes[0].weight
    assert not np.shares_memory(weight, arrays["layer.weight"])
    with pytest.raises(ValueError, match="read-only"):
        weight[0] = 0


def test_files_hold_the_graph(tmp_path: Path) -> None:
    graph = random_chain_graph(5, 4)
    save_graph(tmp_path / "build", graph)
    assert_same(load_graph(tmp_path / "build"), graph)
    assert sorted(p.name for p in (tmp_path / "build").iterdir()) == [ARRAY_FILE, TEXT_FILE]


def test_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save_graph(tmp_path / folder, random_chain_graph(5, 4))
    for name in (TEXT_FILE, ARRAY_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def winograd_graph() -> Graph:
    graphs = (random_layer_graph(seed, 2) for seed in range(100))
    return next(graph for graph in graphs if isinstance(graph.nodes[0], Winograd))


def rejected(folder: Path) -> str:
    with pytest.raises(ArtefactError) as caught:
        load_graph(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(MADE_BY)
    return message.replace(f"{folder}/", "").removesuffix(MADE_BY)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_graph(tmp_path, random_layer_graph(0, 2))
    return tmp_path


def test_missing_files_are_named(saved: Path) -> None:
    (saved / ARRAY_FILE).unlink()
    assert rejected(saved) == "'graph.npz' is missing; make it with: "
    (saved / TEXT_FILE).unlink()
    assert rejected(saved) == "'graph.txt' is missing; make it with: "


def test_changed_text_is_noticed(saved: Path) -> None:
    path = saved / TEXT_FILE
    write_text(path, path.read_text().replace("keep=", "keep= "))
    message = "'graph.txt' is damaged or belongs to another build than graph.npz; make both with: "
    assert rejected(saved) == message
    path.write_bytes(b"\xff\xfe")
    assert rejected(saved) == "'graph.txt' is damaged; delete it and run: "


def test_files_of_two_builds_are_noticed(
    saved: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    save_graph(other, random_layer_graph(1, 2))
    (saved / ARRAY_FILE).write_bytes((other / ARRAY_FILE).read_bytes())
    assert "belongs to another build" in rejected(saved)


def test_arrays_without_the_hash_of_a_text_are_noticed(saved: Path) -> None:
    save_arrays(saved / ARRAY_FILE, graph_arrays(random_layer_graph(0, 2)))
    assert "belongs to another build" in rejected(saved)


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    """Flips single bits all over both files; a flip in zip padding may load, but never wrongly."""
    graph = load_graph(saved)
    rng = np.random.default_rng(0)
    num_rejected = 0
    for name, num_flips in ((TEXT_FILE, 50), (ARRAY_FILE, 400)):
        content = (saved / name).read_bytes()
        for _ in range(num_flips):
            flipped = bytearray(content)
            flipped[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
            (saved / name).write_bytes(bytes(flipped))
            try:
                assert_same(load_graph(saved), graph)
            except ArtefactError:
                num_rejected += 1
        (saved / name).write_bytes(content)
    assert num_rejected > 300


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_cut_files_are_noticed(saved: Path, kept: int) -> None:
    path = saved / ARRAY_FILE
    path.write_bytes(path.read_bytes()[:kept])
    assert "'graph.npz' is damaged" in rejected(saved)


def test_pickled_arrays_are_refused(saved: Path) -> None:
    np.savez(saved / ARRAY_FILE, weight=np.array([{}], dtype=object))
    assert "'graph.npz' is damaged" in rejected(saved)


MUST_BE = f"must be 'NAME = {'|'.join(KINDS)}(INPUTS) KEY=VALUE... -> TYPE'"
VALUES = (
    "v_bits, weight_bits, keep, acc_exponent, m, groups, weight, bias, v_exponent, weight_exponent"
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format: 4", "format: 2", "line 1: must be 'format: 4', got 'format: 2'"),
        ("format: 4\n", "", "line 1: must be 'format: 4', got 'input: "),
        ("input: ", "", "line 2: must be 'input: TYPE', got '"),
        ("input: ", "input: f", "line 2: a type must look like u8[1x2x3]*2^-4, got 'f"),
        ("-> ", "-> x", "line 3: a type must look like u8[1x2x3]*2^-4, got 'x"),
        ("-> u", "-> ", "line 3: a type must look like u8[1x2x3]*2^-4, got '"),
        ("winograd(", "conv(", f"line 3: {MUST_BE}, got 'layer = conv("),
        ("winograd(", "winograd (", f"line 3: {MUST_BE}, got 'layer = winograd ("),
        (" m=", " m =", f"line 3: {MUST_BE}, got 'layer = winograd("),
        ("m=", "n=", f"line 3: winograd must have {VALUES} in this order, got 'v_bits="),
        (" m=2", "", f"line 3: winograd must have {VALUES} in this order, got 'v_bits="),
        (" m=2", " m=2 m=2", f"line 3: winograd must have {VALUES} in this order, got 'v_bits="),
        (" m=2", " m=2 pool=1", f"line 3: winograd must have {VALUES} in this order, got 'v_bits="),
        ("m=2", "m=2.0", "line 3: m must be an integer, got '2.0'"),
        ("m=2", "m=+2", "line 3: m must be an integer, got '+2'"),
        ("m=2", "m=\u0662", "line 3: m must be an integer, got '\u0662'"),
        ("m=2", f"m={'9' * 5000}", "line 3: m must be an integer, got '999"),
        (" weight=", " weight=x", "array 'layer.weight' must be x"),
        ("layer = ", "other = ", "array 'other.weight' is missing"),
    ],
)
def test_bad_text_is_explained(old: str, new: str, message: str) -> None:
    graph = winograd_graph()
    text = format_graph(graph)
    assert old in text
    text = text.replace(old, new, 1)
    with pytest.raises(ArtefactError) as caught:
        parse_graph(text, graph_arrays(graph))
    assert str(caught.value).startswith(message)


def test_empty_text_is_explained() -> None:
    with pytest.raises(ArtefactError, match=r"^line 1: must be 'format: 4', got ''$"):
        parse_graph("", {})
    with pytest.raises(ArtefactError, match=r"^line 2: must be 'input: TYPE', got ''$"):
        parse_graph("format: 4\n", {})


def test_values_a_record_does_not_have_are_explained() -> None:
    graph = random_chain_graph(0, 2)
    text = format_graph(graph).replace("max_pool(winograd_0)", "add(winograd_0) keep=1")
    text = re.sub(r" rows=2.* right=0", "", text)
    with pytest.raises(ArtefactError) as caught:
        parse_graph(text, graph_arrays(graph))
    message = "line 4: add must have no values in this order, got 'keep=1'"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ("1", "input: u8[1x16x16]*2^-8\nfc = dense(input) m=1 w_bits=8 -> s32[10x1x1]*2^-14\n"),
        ("2", "format: 2\ninput: u8[1x16x16]*2^-8\n"),
    ],
)
def test_graph_of_another_format_is_refused_by_name(saved: Path, found: str, text: str) -> None:
    plant(saved, text, random_layer_graph(0, 2))
    assert rejected(saved) == (
        f"'graph.txt' is a graph of format {found}, this version reads format 4; "
        "make it again with: "
    )


def test_arrays_of_another_dtype_are_refused() -> None:
    graph = random_layer_graph(0, 2)
    arrays = {**graph_arrays(graph), "layer.bias": np.zeros(3)}
    with pytest.raises(ArtefactError, match=r"^array 'layer.bias' must be int64, got float64$"):
        parse_graph(format_graph(graph), arrays)


def plant(folder: Path, text: str, graph: Graph) -> None:
    """Write files whose hashes agree, whatever the text says."""
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint8)
    save_arrays(folder / ARRAY_FILE, {**graph_arrays(graph), "text_sha256": digest})
    write_text(folder / TEXT_FILE, text)


def test_load_names_the_file_of_a_bad_line(tmp_path: Path) -> None:
    graph = random_layer_graph(0, 2)
    plant(tmp_path, format_graph(graph).replace(" = ", " is "), graph)
    assert rejected(tmp_path).startswith("'graph.txt': line 3: must be 'NAME = ")


def test_load_checks_the_graph(tmp_path: Path) -> None:
    graph = random_layer_graph(0, 2)
    plant(tmp_path, format_graph(graph).replace("keep=", "keep=9"), graph)
    with pytest.raises(GraphError, match="node 'layer': keep must be"):
        load_graph(tmp_path)


def test_save_refuses_a_graph_that_breaks_a_rule(tmp_path: Path) -> None:
    with pytest.raises(WinnowError, match="at least one node"):
        save_graph(tmp_path, Graph(random_layer_graph(0, 2).input, ()))
    assert list(tmp_path.iterdir()) == []
