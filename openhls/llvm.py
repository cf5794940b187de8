# SPDX-License-Identifier: Apache-2.0
"""Reader of textual LLVM IR, as clang prints it, into records.

Only what compute code needs is understood in detail (functions, blocks, instructions on integers
and pointers, debug locations); any other instruction keeps its opcode and text, so that whoever
uses it can say what it was and where.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

_DEFINE = re.compile(r'^define [^\n]*?@("[^"]*"|[-\w.$]+)\((.*)$')
_LABEL = re.compile(r'^("[^"]*"|[-\w.$]+):')
_RESULT = re.compile(r'^(%"[^"]*"|%[-\w.$]+) = (.*)$')
_SUFFIX = re.compile(r"(?:, !(?!dbg)[\w.]+ (?:!\d+|!\{\}|!DI\w+\(.*?\)))+$")
_DEBUG = re.compile(r", !dbg !(\d+)")
_METADATA = re.compile(r"^!(\d+) = (?:distinct )?!(DI\w+)\((.*)\)$", re.MULTILINE)
_TUPLE = re.compile(r"^!(\d+) = (?:distinct )?!\{(.*)\}$", re.MULTILINE)
_FIELD = re.compile(r'(\w+): ("(?:[^"\\]|\\.)*"|!\d+|[^,]+)')
_FLAGS = {
    *("nuw", "nsw", "exact", "disjoint", "samesign", "nneg", "inbounds", "nusw", "volatile"),
    *("tail", "musttail", "notail", "fast", "inrange"),
}
_CASTS = {"zext", "sext", "trunc", "bitcast", "ptrtoint", "inttoptr"}
_BINARY = {
    *("add", "sub", "mul", "udiv", "sdiv", "urem", "srem"),
    *("shl", "lshr", "ashr", "and", "or", "xor"),
}
_LITERALS = dict.fromkeys(("false", "undef", "poison", "null", "zeroinitializer"), "0")
_LITERALS["true"] = "1"
_BRACKETS = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|\[[^\]]*\]|\{[^}]*\}|<[^>]*>"
_WORD = re.compile(rf'(?:"[^"]*"|{_BRACKETS}|[^\s])+')
ENTRY = "%entry"


@dataclass(frozen=True, slots=True)
class Location:
    """A line of the user's source."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Value:
    """A typed operand: an SSA name "%x", a literal, or a constant expression."""

    type: str
    name: str

    def __repr__(self) -> str:
        return f"{self.type} {self.name}"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    `type` is the result's type (of a store: void); `detail` the predicate of a comparison, the
    callee of a call or the element type of a getelementptr; `labels` the blocks of a branch or the
    origins of a phi; `cases` the literals of a switch, one for every label but the first.
    """

    opcode: str
    type: str = "void"
    result: str = ""
    operands: tuple[Value, ...] = ()
    detail: str = ""
    labels: tuple[str, ...] = ()
    cases: tuple[int, ...] = ()
    debug: str = ""
    text: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Block:
    """A labelled run of instructions that ends with a branch or return."""

    name: str
    instructions: tuple[Instruction, ...]

    @property
    def successors(self) -> tuple[str, ...]:
        last = self.instructions[-1]
        return () if last.opcode == "phi" else tuple(dict.fromkeys(last.labels))


@dataclass(frozen=True, slots=True)
class Function:
    """A function definition; `name` is mangled. Blocks are in the order of the text."""

    name: str
    parameters: tuple[Value, ...]
    blocks: tuple[Block, ...]
    debug: str = ""

    def instructions(self) -> Iterator[Instruction]:
        for block in self.blocks:
            yield from block.instructions


@dataclass(frozen=True, slots=True)
class Module:
    """A translation unit: its functions and its debug metadata by number."""

    functions: Mapping[str, Function]
    metadata: Mapping[str, Mapping[str, str]]

    def location(self, debug: str, skip: str = "openhls/include") -> Location | None:
        """Return the innermost line of a location that is not inside a folder named `skip`."""
        best: Location | None = None
        node = self.metadata.get(debug)
        while node is not None:
            here = Location(self._file(node.get("scope", "")), int(node.get("line", "0")))
            best = best or here
            if skip not in here.file:
                return here
            node = self.metadata.get(node.get("inlinedAt", "").lstrip("!"))
        return best

    def _file(self, reference: str) -> str:
        node = self.metadata.get(reference.lstrip("!"), {})
        file = self.metadata.get(node.get("file", "").lstrip("!"), {})
        return file.get("filename", "?").strip('"')

    def short_name(self, function: Function) -> str:
        """Return the function's name as written in the source."""
        node = self.metadata.get(function.debug, {})
        return node.get("name", f'"{function.name}"').strip('"')


def integer_width(type_: str) -> int | None:
    """Return the width of an integer type, None for any other."""
    return int(type_[1:]) if re.fullmatch(r"i\d+", type_) else None


def literal(name: str) -> int | None:
    """Return the integer a literal stands for (undefined ones are zero), None for a variable."""
    if name.startswith(("%", "@")) or " " in name:
        return None
    return int(_LITERALS.get(name, name))


def split_commas(text: str) -> list[str]:
    """Split at the commas outside of brackets and quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for i, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif char in "([{<":
            depth += 1
        elif char in ")]}>":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    if text[start:].strip():
        parts.append(text[start:].strip())
    return parts


def _words(text: str) -> list[str]:
    """Split at the spaces outside of brackets and quotes."""
    return _WORD.findall(text)


def _value(text: str) -> Value:
    """Read "i32 noundef %x": the type is the first word, the value what stands last."""
    words = [word for word in _words(text) if word not in _FLAGS]
    if len(words) > 2 and words[1] in ("getelementptr", "ptrtoint", "inttoptr"):
        return Value(words[0], " ".join(words[1:]))
    return Value(words[0], words[-1])


def _typed_list(text: str) -> tuple[Value, ...]:
    """Read "i32 %a, %b" or "i32 %a, i64 %b": a missing type is that of the value before."""
    values: list[Value] = []
    for part in split_commas(text):
        words = [word for word in _words(part) if word not in _FLAGS]
        values.append(Value(values[0].type, words[0]) if len(words) == 1 else _value(part))
    return tuple(values)


def _label(text: str) -> str:
    return text.removeprefix("label ").strip()


def _parse_body(body: str) -> Instruction:
    words = body.split(" ", 1)
    while words[0] in _FLAGS:
        words = words[1].split(" ", 1)
    opcode, rest = words[0], words[1] if len(words) > 1 else ""
    if opcode in _BINARY:
        operands = _typed_list(rest)
        return Instruction(opcode, operands[0].type, operands=operands)
    if opcode in _CASTS:
        source, target = rest.rsplit(" to ", 1)
        return Instruction(opcode, target.strip(), operands=(_value(source),))
    reader = _READERS.get(opcode)
    return Instruction(opcode) if reader is None else reader(opcode, rest)


def _parse_icmp(opcode: str, rest: str) -> Instruction:
    words = rest.split(" ")
    while words[0] in _FLAGS:
        words = words[1:]
    operands = _typed_list(" ".join(words[1:]))
    return Instruction(opcode, "i1", operands=operands, detail=words[0])


def _parse_select(opcode: str, rest: str) -> Instruction:
    operands = tuple(_value(part) for part in split_commas(rest))
    return Instruction(opcode, operands[1].type, operands=operands)


def _parse_freeze(opcode: str, rest: str) -> Instruction:
    value = _value(rest)
    return Instruction(opcode, value.type, operands=(value,))


def _parse_phi(opcode: str, rest: str) -> Instruction:
    parts = split_commas(rest)
    type_ = _words(parts[0])[0]
    parts[0] = parts[0][len(type_) :].strip()
    pairs = [split_commas(part[1:-1]) for part in parts]
    operands = tuple(Value(type_, value) for value, _ in pairs)
    return Instruction(opcode, type_, operands=operands, labels=tuple(label for _, label in pairs))


def _parse_branch(opcode: str, rest: str) -> Instruction:
    parts = split_commas(rest)
    if len(parts) == 1:
        return Instruction(opcode, labels=(_label(parts[0]),))
    labels = tuple(_label(part) for part in parts[1:])
    return Instruction(opcode, operands=(_value(parts[0]),), labels=labels)


def _parse_switch(opcode: str, rest: str) -> Instruction:
    head, table = rest.split("[", 1)
    value, default = split_commas(head)
    pairs = re.findall(r"i\d+ (-?\d+|true|false), label (%\"[^\"]*\"|%[-\w.$]+)", table)
    cases = tuple(literal(case) or 0 for case, _ in pairs)
    labels = (_label(default), *(label for _, label in pairs))
    return Instruction(opcode, operands=(_value(value),), labels=labels, cases=cases)


def _parse_return(opcode: str, rest: str) -> Instruction:
    return Instruction(opcode, operands=() if rest == "void" else (_value(rest),))


def _parse_call(opcode: str, rest: str) -> Instruction:
    match = re.search(r'([@%](?:"[^"]*"|[-\w.$]+))\(', rest)
    if match is None:
        return Instruction(opcode)
    depth, end = 1, match.end()
    while depth:
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    words = [word for word in _words(rest[: match.start()]) if word not in _FLAGS]
    type_ = next((w for w in words if re.match(r"(void|ptr|i\d+|[{\[<])", w)), "void")
    operands = tuple(_value(part) for part in split_commas(rest[match.end() : end - 1]))
    callee = match.group(1).lstrip("@").strip('"')
    return Instruction(opcode, type_.split("(")[0].strip(), operands=operands, detail=callee)


def _parse_memory(opcode: str, rest: str) -> Instruction:
    parts = [part for part in split_commas(rest) if not part.startswith(("align ", "!"))]
    if opcode == "load":
        return Instruction(opcode, _words(parts[0])[-1], operands=(_value(parts[1]),))
    if opcode == "alloca":
        return Instruction(opcode, "ptr", detail=parts[0])
    return Instruction(opcode, operands=tuple(_value(part) for part in parts))


def _parse_gep(opcode: str, rest: str) -> Instruction:
    parts = split_commas(rest)
    element = [word for word in _words(parts[0]) if word not in _FLAGS][-1]
    operands = tuple(_value(part) for part in parts[1:])
    return Instruction(opcode, "ptr", operands=operands, detail=element)


_READERS = {
    "icmp": _parse_icmp,
    "select": _parse_select,
    "freeze": _parse_freeze,
    "phi": _parse_phi,
    "br": _parse_branch,
    "switch": _parse_switch,
    "ret": _parse_return,
    "call": _parse_call,
    "load": _parse_memory,
    "store": _parse_memory,
    "alloca": _parse_memory,
    "getelementptr": _parse_gep,
}


def parse_instruction(line: str) -> Instruction:
    """Read one line of a function's body."""
    text = line.strip()
    debug = _DEBUG.search(text)
    body = _SUFFIX.sub("", _DEBUG.sub("", text))
    result = _RESULT.match(body)
    name, body = (result.group(1), result.group(2)) if result else ("", body)
    instruction = _parse_body(body)
    return replace(
        instruction, result=name, debug=debug.group(1) if debug else "", text=_DEBUG.sub("", text)
    )


def _lines(lines: Iterator[str]) -> Iterator[str]:
    """Yield logical lines of a body: a switch spans several; comments and debug records go."""
    for line in lines:
        if line.startswith("}"):
            return
        if line.lstrip().startswith(("#dbg_", ";")) or not line.strip():
            continue
        while line.lstrip().startswith("switch") and "]" not in line:
            line = f"{line} {next(lines).strip()}"
        yield line


def _function(head: re.Match[str], lines: Iterator[str]) -> Function:
    rest, depth, end = head.group(2), 1, 0
    while depth:
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    parameters = tuple(_value(part) for part in split_commas(rest[: end - 1]))
    debug = re.search(r"!dbg !(\d+)", rest[end:])
    blocks: list[tuple[str, list[Instruction]]] = []
    for line in _lines(lines):
        label = _LABEL.match(line)
        if label:
            blocks.append((f"%{label.group(1)}", []))
            continue
        if not blocks:
            blocks.append((ENTRY, []))
        blocks[-1][1].append(parse_instruction(line))
    return Function(
        head.group(1).strip('"'),
        parameters,
        tuple(Block(name, tuple(body)) for name, body in blocks),
        debug.group(1) if debug else "",
    )


def parse(text: str) -> Module:
    """Read a module."""
    functions = {}
    lines = iter(text.splitlines())
    for line in lines:
        head = _DEFINE.match(line)
        if head:
            function = _function(head, lines)
            functions[function.name] = function
    return Module(functions, parse_metadata(text))


def parse_metadata(text: str) -> dict[str, dict[str, str]]:
    """Read the debug metadata: number -> fields; a tuple has the one field "items"."""
    metadata: dict[str, dict[str, str]] = {}
    for number, kind, fields in _METADATA.findall(text):
        metadata[number] = {"kind": kind, **dict(_FIELD.findall(fields))}
    for number, items in _TUPLE.findall(text):
        metadata[number] = {"kind": "tuple", "items": items}
    return metadata
