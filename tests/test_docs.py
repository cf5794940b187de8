# SPDX-License-Identifier: Apache-2.0
"""The documents tell the truth: tables equal the code, links resolve, commands and files exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, replace
from functools import cache
from importlib.machinery import PathFinder
from typing import Any

import pytest

from codegen import abi, graph_text, ports
from codegen.descriptor import layer_fields, readers
from tests.conftest import ROOT
from winnow.blocking import Op
from winnow.config import ChannelPruningConfig, Config, tomllib
from winnow.engine import EngineConfig
from winnow.errors import ConfigError
from winnow.flow import STAGES
from winnow.schema import keys as declared

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix() for part in ("*.md", "docs/*.md") for path in ROOT.glob(part)
)
FOLDERS = "winnow|quant|codegen|openhls|sim|deploy|hls_templates|tests|docs|configs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
REPOSITORY_FILE = re.compile(rf"(?:{FOLDERS})/(?:[\w./-]*(?:\.\w+|/))?")
PYTHON_MODULE = re.compile(r"python -m ([\w.]+)(?: ([a-z]\w*))?")
MAKE_VERB = re.compile(r"(?<![\w-])make ((?:[A-Z]+=\S+ )*)([a-z][a-z ]*)")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code(text: str) -> Iterator[str]:
    """Yield fenced blocks and inline code; wrapped lines of prose hold no inline code."""
    yield from (block for _, block in FENCE.findall(text))
    yield from INLINE.findall(FENCE.sub("", text))


def table(text: str, *columns: str) -> list[list[str]]:
    """Return the body cells, without backticks, of the one table with these columns."""
    head = f"| {' | '.join(columns)} |"
    found = [part for part in text.split("\n\n") if part.startswith(head)]
    assert len(found) == 1, f"{len(found)} tables are headed {head}"
    rows = found[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows]


# --- docs/program.md --------------------------------------------------------------------------


def test_registers_are_those_of_the_code() -> None:
    documented = table(read("docs/program.md"), "offset", "name", "bits", "meaning")
    assert documented == [
        [f"0x{r.offset:02x}", r.name, str(r.bits), r.doc] for r in ports.ALL_REGISTERS
    ]
    names = {"start": "START", "done": "DONE", "idle": "IDLE", "ready": "READY"}
    names |= {"auto-restart": "AUTO_RESTART", "abort": "ABORT"}
    (bits,) = re.findall(r"Bits of `control`: ([^.]*)\.", read("docs/program.md"))
    found = {names[name]: 1 << int(bit) for bit, name in re.findall(r"(\d+) ([a-z-]+)", bits)}
    assert found == {bit.name: bit.value for bit in ports.Control}


def test_ports_are_those_of_the_code() -> None:
    columns = ("argument", "master", "direction", "bits", "bursts", "longest burst", "used by")
    expected = []
    for p in ports.PORTS:
        widths = {p.bits(EngineConfig(po=2, axi_bits=bits)) for bits in (64, 128)}
        width = "axi_bits" if len(widths) > 1 else str(widths.pop())
        names = [p.name, p.bundle, p.direction.value, width]
        expected.append(
            [*names, str(p.outstanding), str(p.burst), p.process or "the top", p.memory]
        )
    assert table(read("docs/program.md"), *columns, "memory") == expected


def test_status_codes_are_those_of_the_code() -> None:
    documented = table(read("docs/program.md"), "code", "name", "meaning")
    assert documented == [[str(s.value), s.name, abi.STATUS_TEXT[s]] for s in abi.Status]


def test_descriptor_fields_are_those_of_the_code() -> None:
    columns = ("field", "bits", "word", "low", "meaning", "read by")
    small, large = (layer_fields(EngineConfig(m=m)) for m in (2, 4))
    expected = []
    for field, other in zip(small, large, strict=True):
        word = str(field.word) if field.word == other.word else f"{field.word} / {other.word}"
        kind = " bound" if field.bias else " signed" * field.signed
        bits = f"{field.bits}{kind}{' x lanes' * field.is_array}"
        who = ", ".join(readers(field)) or "host"
        expected.append([field.name, bits, word, str(field.low), field.doc, who])
    assert table(read("docs/program.md"), *columns) == expected


def test_header_and_opcodes_are_those_of_the_code() -> None:
    text = read("docs/program.md")
    rows = table(text, "word", "low", "bits", "field", "content")
    assert rows == [
        [
            *map(str, (field.word, field.low, field.bits)),
            *(field.name, field.doc + (", for the host" if not field.for_engine else "")),
        ]
        for field in abi.HEADER
    ]
    assert f"Word {abi.HEADER_WORDS - 1} is the checksum" in text
    assert f"header of {abi.HEADER_WORDS} words" in text
    assert f"descriptor of {abi.LAYER_WORDS} words" in text
    ops = table(text, "op", "what a lane is", "order of the words")
    assert [row[0] for row in ops] == [op.name.lower() for op in Op]


# --- docs/ir.md -------------------------------------------------------------------------------


def test_nodes_are_those_of_the_code() -> None:
    text = read("docs/ir.md")
    rows = table(text, "node", "record", "reads", "map")
    assert [row[:2] for row in rows] == [[k, r.__name__] for k, r in graph_text.KINDS.items()]
    assert f"format: {graph_text.FORMAT}\n" in text


# --- docs/flow.md -----------------------------------------------------------------------------


def keys(kind: type[Any], prefix: str = "") -> dict[str, Field[Any]]:
    """Return every key of a configuration dataclass by its dotted name."""
    found: dict[str, Field[Any]] = {}
    for field in declared(kind).values():
        nested = field.metadata.get("table")
        found |= keys(nested, f"{field.name}.") if nested else {prefix + field.name: field}
    return found


CONFIGURATION = table(read("docs/flow.md"), "key", "values", "default", "meaning")


def test_configuration_table_lists_every_key() -> None:
    assert [row[0] for row in CONFIGURATION] == list(keys(Config))


@pytest.mark.parametrize("row", CONFIGURATION, ids=lambda row: row[0])
def test_configuration_table_tells_default_and_range(row: list[str]) -> None:
    key, values, default, meaning = row
    field = keys(Config)[key]
    assert field.default is not MISSING
    check = field.metadata["check"]
    assert check(key, tomllib.loads(f"x = {default}")["x"]) == field.default
    assert meaning
    if values == "text":
        return
    is_list = isinstance(field.default, tuple)

    def wrap(value: Any) -> Any:
        return [value] if is_list else value

    first, *_ = values.split(", ")
    inside, outside = bounds(first) if ".." in first else choices(first)
    for value in inside:
        assert check(key, wrap(value)) in (value, (value,))
    for value in outside:
        with pytest.raises(ConfigError):
            check(key, wrap(value))
    if is_list and "at least 1" not in values:
        assert check(key, []) == ()
    elif is_list:
        with pytest.raises(ConfigError):
            check(key, [])


def bounds(text: str) -> tuple[list[Any], list[Any]]:
    """Return the ends of "low..high" and what lies just beyond them."""
    low, high = (tomllib.loads(f"x = {end}")["x"] for end in text.split(".."))
    step = 1 if isinstance(high, int) else abs(high) / 1000
    beyond = low / 2 if isinstance(low, float) and low > 0 else low - 1
    return [low, high], [beyond, high + step]


def choices(text: str) -> tuple[list[Any], list[Any]]:
    """Return the values of "a or b" and one that is neither."""
    values = [tomllib.loads(f"x = {value}")["x"] for value in text.split(" or ")]
    return values, [99 if isinstance(values[0], int) else "other"]


# --- all documents ----------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_resolve(name: str) -> None:
    text = read(name)
    for link in LINK.findall(FENCE.sub("", text)):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), f"{name}: broken link {link}"
        if anchor:
            found = anchors(path.read_text(encoding="utf-8"))
            assert anchor in found, f"{name}: no heading for {link}, only {sorted(found)}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_files_exist(name: str) -> None:
    text = FENCE.sub("", read(name))
    named = [span for span in INLINE.findall(text) if REPOSITORY_FILE.fullmatch(span)]
    assert [span for span in named if not (ROOT / span).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_verbs_exist(name: str) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert phony is not None
    verbs = {v for part in code(read(name)) for _, v in MAKE_VERB.findall(part)}
    used = {word for verb in verbs for word in verb.split()}
    assert used - set(phony[1].split()) == set()


@cache
def help_of(module: str) -> str:
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_commands_exist(name: str) -> None:
    for part in code(read(name)):
        for module, verb in PYTHON_MODULE.findall(part):
            if module.isupper():  # a placeholder
                continue
            # Setuptools' own finder warns when it is asked for pip behind torch.
            find = importlib.util.find_spec if "." in module else PathFinder.find_spec
            assert find(module), f"{name}: no module {module}"
            if verb and (ROOT / module.split(".")[0]).is_dir():
                words = re.findall(r"\w+", help_of(module))
                assert verb in words, f"{name}: python -m {module} has no verb {verb}"


def examples() -> Iterator[tuple[str, str]]:
    """Yield (command, output) of every console block: one `$` line, its `> ` lines, the output."""
    for name in DOCUMENTS:
        for language, block in FENCE.findall(read(name)):
            if language == "console":
                lines = block.splitlines()
                length = 1 + sum(line.startswith("> ") for line in lines)
                command = [line[2:] for line in lines[:length]]
                yield "\n".join(command), "\n".join(lines[length:])


EXAMPLES = list(examples())


@pytest.mark.parametrize(("command", "output"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_print_what_the_documents_show(command: str, output: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "python"
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    assert result.stdout.rstrip() == output.rstrip()


def test_there_are_documents_and_examples() -> None:
    pages = ("engine", "flow", "ir", "numerics", "openhls", "program", "verification")
    assert {"README.md", *(f"docs/{page}.md" for page in pages)} <= set(DOCUMENTS)
    assert len(EXAMPLES) >= 3


def test_table_of_stages_is_the_list_of_stages() -> None:
    """docs/flow.md names what every stage reads, as winnow/flow.py does."""
    text = (ROOT / "docs" / "flow.md").read_text(encoding="utf-8")
    narrowed = replace(Config(), prune_channels=ChannelPruningConfig(method="cascade"))
    for stage in STAGES:
        reads, keys = (
            ", ".join(f"`{name}`" for name in names) or "none"
            for names in (stage.reads, stage.keys_of(narrowed))
        )
        assert f"\n| `{stage.name}` | {reads} | {keys} |\n" in text
