# SPDX-License-Identifier: Apache-2.0
"""`#pragma HLS` lines of preprocessed C++ become what clang understands; lines keep their numbers.

A loop that is pipelined, or around one that is, stays a loop; every other loop is unrolled fully.

    for (...) {                        _Pragma("clang loop unroll(disable)") for (...) {
    #pragma HLS pipeline II = 1
      for (...) a[i] = 0;         ->     _Pragma("clang loop unroll(full)") for (...) a[i] = 0;
    }                                  }
    #pragma HLS dataflow          ->   __openhls_dataflow();
    #pragma HLS stream variable = x depth = 4   ->   __openhls_depth(&(x), 4);
    #pragma HLS dependence variable = x inter false   ->   __openhls_independent(&(x));

All other HLS pragmas have no meaning here and disappear. `#pragma openhls` is the same for openhls
alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r'(?P<directive>^[ \t]*\#[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\')'
    r"|(?P<word>\w+)|(?P<scope>::)|(?P<sign>[^\s\w])",
    re.MULTILINE,
)
_HLS = re.compile(r"\s*#\s*pragma\s+(?:open)?hls\s+(\w+)(.*)", re.IGNORECASE)
_OPTION = re.compile(r"(\w+)\s*=\s*([\w.]+)")
_INDEPENDENT = re.compile(r"\binter\b.*\bfalse\b", re.IGNORECASE)
_CLOSING = {"(": ")", "{": "}", "[": "]"}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


@dataclass
class _Loop:
    """A loop statement: tokens [first, last), its unroll factor if stated."""

    first: int
    last: int
    pipelined: bool = False
    factor: int | None = field(default=None)


def _tokens(text: str) -> list[_Token]:
    return [
        _Token(str(match.lastgroup), match.group(), match.start(), match.end())
        for match in _TOKEN.finditer(text)
    ]


class _Scanner:
    """Finds the extent of statements and collects the loops."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.loops: list[_Loop] = []
        self._tails: set[int] = set()  # `while` of a do statement

    def text(self, i: int) -> str:
        return self.tokens[i].text if i < len(self.tokens) else ""

    def collect(self) -> list[_Loop]:
        for i, token in enumerate(self.tokens):
            if token.kind == "word" and token.text in ("for", "while", "do"):
                if i not in self._tails:
                    self.loops.append(_Loop(i, self.after_statement(i)))
        return self.loops

    def after_group(self, i: int) -> int:
        """Return the token after the bracketed group that opens at i."""
        stack = [_CLOSING[self.text(i)]]
        while stack:
            i += 1
            text = self.text(i)
            if not text or text == stack[-1]:
                stack.pop()
            elif text in _CLOSING:
                stack.append(_CLOSING[text])
        return i + 1

    def after_statement(self, i: int) -> int:
        while self.tokens[i].kind == "directive":
            i += 1
        text = self.text(i)
        if text == "{":
            return self.after_group(i)
        if text in ("for", "while", "if", "switch"):
            return self.after_branch(i)
        if text == "do":
            tail = self.after_statement(i + 1)
            self._tails.add(tail)
            return self.after_group(tail + 1) + 1
        if self.tokens[i].kind == "word" and self.text(i + 1) == ":":
            return self.after_statement(i + 2)
        while self.text(i) not in (";", ""):
            i = self.after_group(i) if self.text(i) in _CLOSING else i + 1
        return i + 1

    def after_branch(self, i: int) -> int:
        is_if = self.text(i) == "if"
        while self.text(i) != "(":
            i += 1
        end = self.after_statement(self.after_group(i))
        if is_if and self.text(end) == "else":
            end = self.after_statement(end + 1)
        return end


def _innermost(loops: list[_Loop], position: int) -> _Loop | None:
    around = [loop for loop in loops if loop.first < position < loop.last]
    return max(around, key=lambda loop: loop.first, default=None)


def _statement(kind: str, rest: str, options: dict[str, str]) -> str:
    """Return the C++ statement that replaces a pragma."""
    if kind == "dataflow":
        return "__openhls_dataflow();"
    if kind == "stream" and "variable" in options and options.get("depth", "").isdigit():
        return f"__openhls_depth(&({options['variable']}), {options['depth']});"
    if kind == "dependence" and "variable" in options and _INDEPENDENT.search(rest):
        return f"__openhls_independent(&({options['variable']}));"
    return ""


def _hint(loop: _Loop, loops: list[_Loop]) -> str:
    keeps = loop.pipelined or any(
        inner.pipelined and loop.first < inner.first < loop.last for inner in loops
    )
    if keeps:
        return '_Pragma("clang loop unroll(disable)") '
    if loop.factor is not None:
        return f'_Pragma("clang loop unroll_count({loop.factor})") '
    return '_Pragma("clang loop unroll(full)") '


def rewrite_pragmas(text: str) -> str:
    """Replace the HLS pragmas of preprocessed C++."""
    tokens = _tokens(text)
    loops = _Scanner(tokens).collect()
    edits: list[tuple[int, int, str]] = []
    for position, token in enumerate(tokens):
        pragma = _HLS.match(token.text) if token.kind == "directive" else None
        if pragma is None:
            continue
        kind, rest = pragma.group(1).lower(), pragma.group(2)
        options = {key.lower(): value for key, value in _OPTION.findall(rest)}
        edits.append((token.start, token.end, _statement(kind, rest, options)))
        loop = _innermost(loops, position)
        if loop is not None and kind == "pipeline" and not re.search(r"\boff\b", rest.lower()):
            loop.pipelined = True
        if loop is not None and kind == "unroll" and options.get("factor", "").isdigit():
            loop.factor = int(options["factor"])
    edits += [(tokens[x.first].start, tokens[x.first].start, _hint(x, loops)) for x in loops]
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    return text
