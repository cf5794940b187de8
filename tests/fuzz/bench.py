# SPDX-License-Identifier: Apache-2.0
"""Runs a batch of cases twice: as C++ with AMD's headers, and as RTL in Verilator.

One host program and one Verilated model hold all cases of a batch, side by side.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from openhls import xls_tool
from openhls.accesses import ProcessOptions
from openhls.channels import Channel, Role, source_name
from openhls.compile import Settings, make_plan, memory_ports
from openhls.credit import MOST_DEPTH, credited_depth
from openhls.errors import HlsError
from openhls.frontend import Unit, compile_unit, preprocess
from openhls.xls_ir import constraint, write_xls_ir
from openhls.xls_tool import generate
from sim.csim import ap_types
from sim.verilator import environment, verilator_bin
from tests.fuzz.case import EXTRA_CALLS, Case
from tests.kernel_bench import LIBRARY, ROOT, bank_instance, connect, memory_instance
from winnow.artefact import sha256_bytes, sha256_file
from winnow.cache import read_entry, write_entry

MOST_CYCLES = 30_000
CACHE = ROOT / "build" / ".cache" / "tests" / "fuzz"
_TOP = "batch"
_HOST = ROOT / "hls_templates" / "host"


@dataclass(frozen=True)
class Compiled:
    """A process as SystemVerilog."""

    name: str
    verilog: str
    channels: tuple[Channel, ...]
    stages: int


@dataclass(frozen=True)
class Expected:
    """What the C++ did: tokens taken per input, tokens sent per output.

    Of the tokens of output x the first `least[x]` must come; the others may, from later calls.
    """

    taken: Mapping[str, int]
    sent: Mapping[str, tuple[int, ...]]
    least: Mapping[str, int]


@dataclass(frozen=True)
class Found:
    """What the RTL did: tokens sent per output, tokens not taken per input."""

    sent: Mapping[str, tuple[int, ...]]
    left: Mapping[str, int]


def run_command(command: Sequence[str], folder: Path) -> str:
    """Run a command in a folder and return what it printed; it must succeed."""
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment()
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr[-4000:]}"
    return result.stdout


def keep(cache_folder: Path | None, name: str, build: Callable[[Path], Path], folder: Path) -> Path:
    """Return the file that `build(folder)` makes; `name` holds the hash of all it depends on."""
    if cache_folder is None:
        return build(folder)
    kept = cache_folder / name
    if not kept.is_file():
        built = build(folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{kept.name}.{folder.name}")
        shutil.copy(built, partial)
        partial.replace(kept)
    return kept


def content_name(stem: str, *parts: str) -> str:
    return f"{stem}-{sha256_bytes(chr(0).join(parts).encode())[:24]}"


# openhls


def compile_cases(
    cases: Sequence[Case], folder: Path, cache_folder: Path | None = None
) -> dict[str, list[Compiled] | HlsError]:
    """Compile all processes of the cases; a case that is refused gives its error."""
    try:
        unit = _unit(cases, folder)
    except HlsError as error:
        if len(cases) == 1:
            return {cases[0].name: error}
        half = len(cases) // 2
        parts = (cases[:half], cases[half:])
        return {n: x for p in parts for n, x in compile_cases(p, folder, cache_folder).items()}
    return {case.name: _compile_case(case, unit, cache_folder) for case in cases}


def _compile_case(case: Case, unit: Unit, cache_folder: Path | None) -> list[Compiled] | HlsError:
    mangled = {name: mangled for mangled, name in unit.processes.items()}
    try:
        return [_compile(unit, mangled[name], case, cache_folder) for name, _ in case.calls]
    except HlsError as error:
        return error


def _unit(cases: Sequence[Case], folder: Path) -> Unit:
    """Compile the cases in one file, under a top that makes their functions processes."""
    lines = [case.source for case in cases] + [f"void {_TOP}() {{", "#pragma HLS dataflow"]
    for case in cases:
        lines += case.declarations()
        lines += [f"  {name}({', '.join(arguments)});" for name, arguments in case.calls]
    source = folder / f"{cases[0].name}.cpp"
    source.write_text("\n".join([case_header(), *lines, "}", ""]))
    return compile_unit(preprocess(source, []), _TOP)


def case_header() -> str:
    names = ("ap_int", "hls_ram", "hls_stream", "hls_streamofblocks")
    return "\n".join(f"#include <{name}.h>" for name in names)


def _compile(unit: Unit, mangled: str, case: Case, cache_folder: Path | None) -> Compiled:
    name = unit.processes[mangled]
    function = unit.module.functions[mangled]
    streams = [source_name(parameter.name) for parameter in function.parameters]
    credited = [i for i, x in enumerate(streams) if 1 < case.fifos.get(x, 0) <= MOST_DEPTH]
    plan, _ = make_plan(unit.module, unit.module.functions[mangled], ProcessOptions(), credited)
    multiplies = any(node.op in ("smul", "umul") for node in plan.machine.graph.nodes)
    ir, orders = write_xls_ir(name, plan), [constraint(order, plan) for order in plan.orders]
    pipeline, memory = Settings().pipeline(name, multiplies), memory_ports(plan)
    here = Path(xls_tool.__file__)
    sources = (here, here.with_name("handshake.py"), here.with_name("enable.py"))
    tool = (version("xls-python"), *map(sha256_file, sources))

    key = content_name("xls", *tool, ir, *orders, repr(pipeline), repr(memory))
    made = read_entry(cache_folder, key) if cache_folder else None
    if made is None:
        made = asdict(generate(ir, name, orders, pipeline, memory))
        if cache_folder:
            write_entry(cache_folder, key, made)
    return Compiled(name, made["verilog"], tuple(plan.channels.values()), made["stages"])


# RTL


@dataclass(frozen=True)
class Model:
    """A Verilated batch: its program, and its inputs and outputs in the order of its ports."""

    program: Path
    inputs: tuple[Channel, ...]
    outputs: tuple[Channel, ...]


def _fifo(name: str, depth: int, writer: Compiled, reader: Compiled, width: int) -> list[str]:
    pairs = [("in", f"{writer.name}_{name}"), ("out", f"{reader.name}_{name}")]
    lines = []
    if any(channel.name == f"{name}_credit" for channel in writer.channels):
        depth = credited_depth(depth, writer.stages)
        credit, out = f"{writer.name}_{name}_credit", f"{reader.name}_{name}"
        returned = f".returned({out}_vld && {out}_rdy),"
        head = f"  openhls_credit #(.CREDITS({depth})) {name}_credits (.clk, .rst, {returned}"
        if writer.stages == 1:
            lines = [f"  assign {credit}_vld = {writer.name}_{name}_rdy;"]
        else:
            lines = [head, *connect([("credit", credit)])]
    head = f"  openhls_fifo #(.WIDTH({width}), .DEPTH({depth})) {name}_fifo (.clk, .rst,"
    return [*lines, head, *connect(pairs)]


def _case_rtl(case: Case, processes: Sequence[Compiled]) -> tuple[list[str], list[Channel]]:
    """Return the lines of a case in the batch, and its channels to the outside."""
    body, outer = list[str](), list[Channel]()
    memories: dict[tuple[str, str], list[Channel]] = {}
    banks: dict[str, list[tuple[str, Channel]]] = {}
    links: dict[str, dict[bool, Compiled]] = {}
    for process in processes:
        nets = []
        for channel in process.channels:
            net, base = f"{process.name}_{channel.name}", channel.name
            nets.append((channel.name, net))
            body += [f"  logic [{channel.width - 1}:0] {net}_data;"]
            body += [f"  logic {net}_vld, {net}_rdy;"]
            if channel.role is Role.STREAM and channel.name in case.fifos:
                links.setdefault(channel.name, {})[channel.is_output] = process
                links_width = channel.width
                if len(links[channel.name]) == 2:
                    ends = links[channel.name]
                    depth = case.fifos[channel.name]
                    body += _fifo(channel.name, depth, ends[True], ends[False], links_width)
            elif channel.role is Role.CREDIT:
                continue
            elif channel.role is Role.STREAM:
                outer.append(Channel(net, *_rest(channel)))
            else:
                base = channel.name.removesuffix(channel.role.value)
                if base in case.banks:
                    banks.setdefault(base, []).append((process.name, channel))
                else:
                    memories.setdefault((process.name, base), []).append(channel)
        body += [f"  {process.name} {process.name}_i (.clk, .rst,", *connect(nets)]
    for (name, base), ports in memories.items():
        body += memory_instance(name, base, ports)
    for name, ends_of_bank in banks.items():
        body += bank_instance(name, ends_of_bank)
    return body, outer


def _rest(channel: Channel) -> tuple[int, bool, Role, str, int, int]:
    c = channel
    return c.width, c.is_output, c.role, c.name, c.element, c.depth


def _batch_rtl(
    cases: Sequence[Case], compiled: Mapping[str, Sequence[Compiled]]
) -> tuple[str, list[Channel], list[Channel]]:
    body, channels = list[str](), list[Channel]()
    for case in cases:
        lines, outer = _case_rtl(case, compiled[case.name])
        body += lines
        channels += outer
    inputs = [c for c in channels if not c.is_output]
    outputs = [c for c in channels if c.is_output]
    for i, c in enumerate(inputs):
        body += [f"  assign {c.name}_data = in_data[{i}][{c.width - 1}:0];"]
        body += [f"  assign {c.name}_vld = in_vld[{i}];"]
        body += [f"  assign in_rdy[{i}] = {c.name}_rdy;"]
    high = _words(channels) * 32 - 1
    for i, c in enumerate(outputs):
        body += [f"  assign out_data[{i}] = {high + 1}'({c.name}_data);"]
        body += [f"  assign out_vld[{i}] = {c.name}_vld;"]
        body += [f"  assign {c.name}_rdy = out_rdy[{i}];"]
    pins = ["input logic clk", "input logic rst"]
    for side, into, out, count in (
        ("in", "input", "output", inputs),
        ("out", "output", "input", outputs),
    ):
        size = f"[{len(count)}]"
        pins += [f"{into} logic [{high}:0] {side}_data {size}", f"{into} logic {side}_vld {size}"]
        pins += [f"{out} logic {side}_rdy {size}"]
    head = [f"module {_TOP} (", "  " + ",\n  ".join(pins), ");"]
    return "\n".join([*head, *body, "endmodule", ""]), inputs, outputs


def _words(channels: Sequence[Channel]) -> int:
    """Return 32-bit words per token; three at least, so that Verilator has one type for them."""
    return max(3, *((c.width + 31) // 32 for c in channels))


@cache
def _runtime() -> list[str]:
    """Compile Verilator's library, once; return the objects."""
    include = verilator_bin().parent / "include"
    found = []
    for name in ("verilated", "verilated_threads"):
        command = ["g++", "-std=c++17", "-O1", "-w", f"-I{include}", f"-I{include}/vltstd", "-c"]

        def build(place: Path, name: str = name, command: Sequence[str] = command) -> Path:
            run_command([*command, str(include / f"{name}.cpp"), "-o", f"{name}.o"], place)
            return place / f"{name}.o"

        with tempfile.TemporaryDirectory() as folder:
            kept = f"{content_name(name, version('verilator'))}.o"
            found.append(str(keep(CACHE, kept, build, Path(folder))))
    return found


def build_model(
    cases: Sequence[Case],
    compiled: Mapping[str, Sequence[Compiled]],
    folder: Path,
    cache_folder: Path | None = None,
) -> Model:
    """Verilate the cases."""
    wrapper, inputs, outputs = _batch_rtl(cases, compiled)
    sources = [wrapper, *(p.verilog for case in cases for p in compiled[case.name])]
    library = [LIBRARY / f"openhls_{name}.sv" for name in ("ram", "bank", "fifo", "credit")]
    main = Path(__file__).parent / "rtl_main.cpp"
    sources += [path.read_text() for path in library]
    ports = f"#define NUM_INPUTS {len(inputs)}\n#define NUM_OUTPUTS {len(outputs)}\n"
    ports += f"#define NUM_WORDS {_words([*inputs, *outputs])}\n"

    def build(place: Path) -> Path:
        (place / "batch.sv").write_text("\n".join(sources))
        (place / "ports.hpp").write_text(ports)
        command = ["verilator", "--cc", "-Wno-fatal", "-Wno-lint", "-O3", "--top-module", _TOP]
        command += ["--Mdir", "model", "--x-initial", "unique", "--x-assign", "unique"]
        run_command([*command, "batch.sv"], place)
        parts = [f'#include "{x.name}"' for x in sorted((place / "model").glob("*.cpp"))]
        (place / "all.cpp").write_text("\n".join([*parts, f'#include "{main}"', ""]))
        include = verilator_bin().parent / "include"
        command = ["g++", "-std=c++17", "-O0", "-w", "-I.", "-Imodel", f"-I{include}"]
        command += [f"-I{include}/vltstd", "all.cpp", *_runtime()]
        run_command([*command, "-o", "rtl", "-pthread"], place)
        return place / "rtl"

    kept = content_name("rtl", version("verilator"), main.read_text(), ports, *sources)
    program = keep(cache_folder, kept, build, folder)
    return Model(program, tuple(inputs), tuple(outputs))


def run_model(
    model: Model,
    tokens: Mapping[str, Sequence[int]],
    folder: Path,
    *,
    stall: int,
    seed: int,
) -> Found:
    """Feed tokens, by stream, to all cases; `stall` percent of the cycles every channel waits."""
    names = [_stream(c) for c in model.inputs]
    lines = [f"{i} {t:x}" for i, name in enumerate(names) for t in tokens.get(name, ())]
    (folder / "rtl_tokens.txt").write_text("\n".join([*lines, ""]))
    command = [str(model.program), "rtl_tokens.txt", str(stall), str(seed), str(MOST_CYCLES)]
    sent: dict[str, list[int]] = {_stream(c): [] for c in model.outputs}
    left: dict[str, int] = {}
    for line in run_command(command, folder).splitlines():
        first, *rest = line.split()
        if first == "left":
            left[names[int(rest[0])]] = int(rest[1])
        else:
            sent[_stream(model.outputs[int(first)])].append(int(rest[0], 16))
    return Found({name: tuple(found) for name, found in sent.items()}, left)


def _stream(channel: Channel) -> str:
    return channel.base


# C++

_HOST_HEAD = """#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>
typedef ap_uint<512> Bits;
typedef std::map<std::string, std::vector<std::string> > Tokens;
static Bits parse(const std::string& hex) {
  Bits x = 0;
  for (char c : hex) x = (x << 4) | Bits(c <= '9' ? c - '0' : c - 'a' + 10);
  return x;
}
static void print(const char* name, Bits x) {
  std::printf("%s ", name);
  for (int i = 128; i-- > 0;) std::printf("%x", unsigned((x >> (4 * i)) & 15));
  std::printf("\\n");
}
"""


def _host_case(case: Case) -> list[str]:
    """Return the function that runs a case: feed, call, print."""
    lines = [f"static void run_{case.name}(Tokens& tokens) {{", *case.declarations()]
    for name, leaves in case.inputs.items():
        lines.append(f'  for (auto& hex : tokens["{name}"]) {{')
        lines.append(f"    Bits bits = parse(hex);\n    {case.types[name]} token;")
        for leaf, offset, bits in leaves:
            high = offset + bits - 1
            lines.append(f"    token{leaf} = ap_uint<{bits}>(bits.range({high}, {offset}));")
        lines.append(f"    {name}.write(token);\n  }}")
    lines.append(f"  for (int call = 0; call < {case.num_calls + EXTRA_CALLS}; call++) {{")
    lines.append(f"    if (call == {case.num_calls}) {{")
    sized = (*case.inputs, *case.outputs)
    lines += [f'      std::printf("size {name} %zu\\n", {name}.size());' for name in sized]
    lines.append("    }")
    lines += [f"    {name}({', '.join(arguments)});" for name, arguments in case.calls]
    lines.append("  }")
    for name, leaves in case.outputs.items():
        lines.append(f"  while (!{name}.empty()) {{")
        lines.append(f"    Bits bits = 0;\n    {case.types[name]} token = {name}.read();")
        for leaf, offset, bits in leaves:
            high = offset + bits - 1
            lines.append(f"    bits.range({high}, {offset}) = ap_uint<{bits}>(token{leaf});")
        lines.append(f'    print("{name}", bits);\n  }}')
    return [*lines, "}"]


def build_host(cases: Sequence[Case], folder: Path, cache_folder: Path | None = None) -> Path:
    """Compile the cases with AMD's headers into one program."""
    lines = [case_header(), _HOST_HEAD]
    for case in cases:
        lines += [case.source, *_host_case(case)]
    lines += ["int main(int, char** arguments) {", "  Tokens tokens;"]
    lines += ["  std::ifstream file(arguments[1]);", "  std::string name, hex;"]
    lines += ["  while (file >> name >> hex) tokens[name].push_back(hex);"]
    lines += [*(f"  run_{case.name}(tokens);" for case in cases), "}", ""]
    text = "\n".join(lines)

    def build(place: Path) -> Path:
        (place / "host.cpp").write_text(text)
        includes = [f"-I{_HOST}", f"-I{ROOT / 'hls_templates' / 'include'}"]
        command = ["g++", "-std=c++14", "-O0", "-w", *includes, "-isystem", str(ap_types())]
        run_command([*command, "host.cpp", "-o", "host"], place)
        return place / "host"

    headers = [*_HOST.glob("*.*"), *(ROOT / "hls_templates" / "include").glob("*.h")]
    parts = [version("hls4ml"), *(path.read_text() for path in sorted(headers)), text]
    return keep(cache_folder, content_name("host", *parts), build, folder)


def run_host(program: Path, cases: Sequence[Case], folder: Path) -> dict[str, Expected]:
    """Run the cases' C++ on their tokens."""
    lines = [f"{n} {t:x}" for case in cases for n, ts in case.tokens.items() for t in ts]
    (folder / "host_tokens.txt").write_text("\n".join([*lines, ""]))
    size: dict[str, int] = {}
    sent: dict[str, list[int]] = {}
    output = run_command([str(program), "host_tokens.txt"], folder)
    assert "read while empty" not in output, f"a case needs more tokens: {output[:200]}"
    for line in output.splitlines():
        name, value, *rest = line.split()
        if name == "size":
            size[value] = int(rest[0])
        elif not name.startswith("WARNING"):  # of AMD's streams: tokens are left over
            sent.setdefault(name, []).append(int(value, 16))
    return {
        case.name: Expected(
            {name: len(case.tokens.get(name, ())) - size[name] for name in case.inputs},
            {name: tuple(sent.get(name, ())) for name in case.outputs},
            {name: size[name] for name in case.outputs},
        )
        for case in cases
    }
