# SPDX-License-Identifier: Apache-2.0
"""Runs a kernel of `tests/kernels` twice: as C++ with AMD's headers, and as RTL in Verilator.

Both take and give tokens as lists of integers per channel.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openhls.channels import Channel, Role, address_bits
from openhls.compile import CompiledProcess
from sim.csim import ap_types
from sim.verilator import environment

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "tests" / "kernels"
LIBRARY = ROOT / "openhls" / "rtl"
LIMIT = 200_000

Tokens = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Outcome:
    """Tokens per output, cycles from the first one in to the last one out, tokens not taken."""

    tokens: dict[str, list[int]]
    cycles: int = 0
    unread: int = 0


def _run(command: Sequence[str], folder: Path) -> str:
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment()
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def _write_tokens(folder: Path, tokens: Tokens) -> Path:
    lines = [f"{name} {value:x}" for name, values in tokens.items() for value in values]
    (folder / "tokens.txt").write_text("\n".join(lines) + "\n")
    return folder / "tokens.txt"


def _parse(output: str, processes: Sequence[CompiledProcess]) -> dict[str, list[int]]:
    widths = {c.name: c.width for p in processes for c in p.channels if c.is_output}
    tokens: dict[str, list[int]] = {}
    for line in output.splitlines():
        name, value, *_ = line.split()
        if name in widths:
            tokens.setdefault(name, []).append(int(value, 16) & ((1 << widths[name]) - 1))
    return tokens


# RTL


def connect(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the end of an instance: (port, net) pairs of ready/valid channels."""
    pins = [f".{p}_{s}({n}_{s})" for p, n in pairs for s in ("data", "vld", "rdy")]
    return ["    " + ", ".join(pins) + ");"]


def _connect_memory(ports: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Connect what a process uses of a memory; nobody asks at the other ports."""
    unused = [port for port in ports if port not in dict(pairs)]
    return ["    " + "".join(f".{x}_vld(1'b0), " for x in unused), *connect(pairs)]


def _word_bits(ports: Sequence[Channel]) -> int:
    """Return the width of a memory's words; a write request holds the address below the word."""
    for port in ports:
        if port.role is Role.RESPONSE:
            return port.width
    written = next(port for port in ports if port.role is Role.WRITE_REQUEST)
    return written.width - address_bits(written.depth)


def memory_instance(process: str, name: str, ports: Sequence[Channel]) -> list[str]:
    """Return the RAM of a process."""
    width, depth = _word_bits(ports), max(port.depth for port in ports)
    pairs = [(x.role.value[1:], f"{process}_{x.name}") for x in ports]
    return [
        f"  openhls_ram #(.WIDTH({width}), .DEPTH({depth})) {process}_{name} (.clk, .rst,",
        *_connect_memory(["rd_req", "wr_req"], pairs),
    ]


def bank_instance(name: str, ends: Sequence[tuple[str, Channel]]) -> list[str]:
    """Return the bank between two processes."""
    channels = [channel for _, channel in ends]
    width, depth = _word_bits(channels), max(channel.depth for channel in channels)
    writer = next(p for p, c in ends if c.role is Role.WRITE_REQUEST)
    pairs = []
    for process, channel in ends:
        side = "w_" if process == writer else "r_"
        shared = channel.role in (Role.ACQUIRE, Role.RELEASE)
        pin = f"{side if shared else ''}{channel.role.value[1:]}"
        pairs.append((pin, f"{process}_{channel.name}"))
    head = f"  openhls_bank #(.WIDTH({width}), .DEPTH({depth})) {name}_bank (.clk, .rst,"
    return [head, *_connect_memory(["rd_req", "wr_req"], pairs)]


def _wrapper(top: str, processes: Sequence[CompiledProcess]) -> tuple[str, list[Channel]]:
    """Return a module around the processes with their memories and banks, and its channels."""
    pins, body, outer = ["input logic clk", "input logic rst"], list[str](), list[Channel]()
    memories: dict[tuple[str, str], list[Channel]] = {}
    banks: dict[str, list[tuple[str, Channel]]] = {}
    for process in processes:
        for channel in process.channels:
            net = f"{process.name}_{channel.name}"
            out, into = ("output", "input") if channel.is_output else ("input", "output")
            data = f"logic [{channel.width - 1}:0]"
            if channel.role is Role.STREAM:
                outer.append(channel)
                n = channel.name
                pins += [f"{out} {data} {n}_data", f"{out} logic {n}_vld", f"{into} logic {n}_rdy"]
                continue
            body += [f"  {data} {net}_data;", f"  logic {net}_vld, {net}_rdy;"]
            base = channel.name.removesuffix(channel.role.value)
            if base in process.formals:
                banks.setdefault(base, []).append((process.name, channel))
            else:
                memories.setdefault((process.name, base), []).append(channel)
    for (name, base), ports in memories.items():
        body += memory_instance(name, base, ports)
    for name, ends in banks.items():
        body += bank_instance(name, ends)
    for process in processes:
        nets = [
            (c.name, c.name if c.role is Role.STREAM else f"{process.name}_{c.name}")
            for c in process.channels
        ]
        body += [f"  {process.module} {process.name} (.clk, .rst,", *connect(nets)]
    text = [f"module {top} (", "  " + ",\n  ".join(pins), ");", *body, "endmodule", ""]
    return "\n".join(text), outer


def build_rtl(processes: Sequence[CompiledProcess], folder: Path) -> Path:
    """Verilate the processes; return the program."""
    wrapper, channels = _wrapper("bench_top", processes)
    sources = [wrapper, *(p.verilog for p in processes)]
    (folder / "design.sv").write_text("\n".join(sources))
    inputs = " ".join(f"F({c.name})" for c in channels if not c.is_output)
    outputs = " ".join(f"F({c.name})" for c in channels if c.is_output)
    (folder / "ports.hpp").write_text(
        f'#include "Vbench_top.h"\n#define MODEL Vbench_top\n#define INPUTS(F) {inputs}\n'
        f"#define OUTPUTS(F) {outputs}\n"
    )
    library = [str(LIBRARY / f"openhls_{name}.sv") for name in ("ram", "bank")]
    command = ["verilator", "--cc", "--exe", "--build", "-Wno-fatal", "-Wno-lint", "-O3"]
    command += ["--top-module", "bench_top", "--Mdir", "model", "-CFLAGS", f"-I{folder} -O1"]
    command += ["--x-initial", "unique", "--x-assign", "unique"]
    _run([*command, "design.sv", *library, str(KERNELS / "rtl_main.cpp")], folder)
    return folder / "model" / "Vbench_top"


def run_rtl(
    program: Path,
    processes: Sequence[CompiledProcess],
    tokens: Tokens,
    *,
    stall: int = 0,
    seed: int = 1,
) -> Outcome:
    """Feed tokens to the RTL; `stall` percent of the cycles every channel waits."""
    file = _write_tokens(program.parent.parent, tokens)
    output = _run([str(program), str(file), str(stall), str(seed), str(LIMIT)], file.parent)
    _, cycles, _, unread = output.splitlines()[-1].split()
    return Outcome(_parse(output, processes), int(cycles), int(unread))


# C++

_HOST = """#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include "{kernel}.cpp"
template <int N> ap_uint<N> parse(const std::string& hex) {{
  ap_uint<N> x = 0;
  for (char c : hex) x = (x << 4) | ap_uint<N>(c <= '9' ? c - '0' : c - 'a' + 10);
  return x;
}}
template <int N> void print(const char* name, ap_uint<N> x) {{
  std::printf("%s ", name);
  for (int i = (N + 3) / 4; i-- > 0;) std::printf("%x", unsigned(ap_uint<4>(x >> (4 * i))));
  std::printf("\\n");
}}
int main(int, char** arguments) {{
{declarations}
  std::ifstream file(arguments[1]);
  for (std::string name, hex; file >> name >> hex;) {{
{feed}
  }}
{calls}
{drain}
}}
"""


def build_host(
    kernel: str, processes: Sequence[CompiledProcess], types: Mapping[str, str], folder: Path
) -> Path:
    """Compile the C++ with AMD's headers. `types` gives the type of every argument."""
    streams = [c for p in processes for c in p.channels if c.role is Role.STREAM]
    feed = [
        f'    if (name == "{c.name}") {c.name}.write(parse<{c.width}>(hex));'
        for c in streams
        if not c.is_output
    ]
    drain = [
        f'  while (!{c.name}.empty()) print<{c.width}>("{c.name}", {c.name}.read());'
        for c in streams
        if c.is_output
    ]
    text = _HOST.format(
        kernel=kernel,
        declarations="\n".join(f"  {type_} {name};" for name, type_ in types.items()),
        feed="\n".join(feed),
        calls="\n".join(f"  {p.name}({', '.join(p.formals)});" for p in processes),
        drain="\n".join(drain),
    )
    (folder / "host.cpp").write_text(text)
    includes = [KERNELS, ROOT / "hls_templates" / "host", ROOT / "hls_templates" / "include"]
    command = ["g++", "-std=c++14", "-O1", "-w", *(f"-I{path}" for path in includes)]
    _run([*command, "-isystem", str(ap_types()), "host.cpp", "-o", "host"], folder)
    return folder / "host"


def run_host(program: Path, processes: Sequence[CompiledProcess], tokens: Tokens) -> Outcome:
    """Feed tokens to the compiled C++."""
    file = _write_tokens(program.parent, tokens)
    return Outcome(_parse(_run([str(program), str(file)], program.parent), processes))
