# SPDX-License-Identifier: Apache-2.0
"""What AMD documents about Vitis HLS, kept by the engine's C++: see docs/vitis.md."""

from __future__ import annotations

import re

import pytest

from codegen.emit import emit_engine
from winnow.config import TargetConfig
from winnow.engine import EngineConfig


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the engine's C++, by file name, without comments."""
    folder = tmp_path_factory.mktemp("engine")
    files = emit_engine(folder, EngineConfig(), TargetConfig())
    engine = [path for path in files if folder / "host" not in path.parents]
    cpp = [path for path in engine if path.suffix in (".hpp", ".h", ".cpp")]
    return {path.name: re.sub(r"//[^\n]*", "", path.read_text()) for path in cpp}


def body(text: str, start: int) -> str:
    """Return what stands between the first brace from `start` on and the one that closes it."""
    start = text.index("{", start)
    depth = 0
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start + 1 : end]
    raise AssertionError("braces do not match")


def structs(text: str) -> dict[str, str]:
    return {m[1]: body(text, m.start()) for m in re.finditer(r"\bstruct (\w+) \{", text)}


def test_words_of_memories_are_plain_numbers(sources: dict[str, str]) -> None:
    text = "".join(sources.values())
    words = set(re.findall(r"typedef (\w+) \w+\[", text)) | set(re.findall(r"\bRam<(\w+), k", text))
    assert words >= {"VWord", "WWord", "ByteTile", "LineWord", "Word"}
    plain = set(re.findall(r"using (\w+) = ap_uint<", text))
    assert words <= plain


def test_what_travels_in_streams_has_no_methods(sources: dict[str, str]) -> None:
    text = "".join(sources.values())
    known = structs(text)
    waiting = set(re.findall(r"\bStream<(\w+)>", text)) & known.keys()
    assert len(waiting) > 20
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        assert "(" not in known[name], name
        waiting |= (set(re.findall(r"\b[A-Z]\w+", known[name])) & known.keys()) - seen
    assert {"Places", "Strips", "Verdict"} <= seen


def test_ports_are_passed_by_value(sources: dict[str, str]) -> None:
    text = "".join(sources.values())
    assert len(re.findall(r"\bPort<\w+> ", text)) > 8
    assert not re.search(r"\bPort<\w+>\s*&", text)


def test_dataflow_bodies_hold_declarations_and_calls_only(sources: dict[str, str]) -> None:
    text = sources["top.cpp"]
    found = [body(text, text.rindex("static void", 0, m.start())) for m in dataflow(text)]
    assert len(found) == 3
    for region in found:
        lines = [x for x in region.splitlines() if x.strip() and not x.startswith("#pragma")]
        for statement in "".join(lines).split(";"):
            declares = re.match(r"\s*(Stream|Bank)<\w+> [\w, \[\]]+$", statement)
            assert declares or re.match(r"\s*[a-z_]+\([\w,\s\[\]]*\)$", statement) or not statement


def dataflow(text: str) -> list[re.Match[str]]:
    return list(re.finditer("#pragma HLS dataflow", text))


def test_no_loop_writes_and_waits_for_the_response(sources: dict[str, str]) -> None:
    text = "".join(sources.values())
    loops = [body(text, m.start()) for m in re.finditer(r"\bdo \{\n#pragma HLS pipeline", text)]
    waiting = [loop for loop in loops if "write_response" in loop]
    assert len(waiting) == 1
    assert "write(" not in waiting[0]
    assert "write_request" not in waiting[0]


def test_pragmas_of_a_memory_reach_the_process_that_holds_it(sources: dict[str, str]) -> None:
    constructor = body(sources["hls_ram.h"], sources["hls_ram.h"].index("ram() {"))
    pragmas = re.findall(r"#pragma HLS (\w+)", constructor)
    assert pragmas == ["inline", "bind_storage", "dependence"]
    others = "".join(text for name, text in sources.items() if name != "hls_ram.h")
    assert "#pragma HLS dependence" not in others
