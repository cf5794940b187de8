# SPDX-License-Identifier: Apache-2.0
"""The interface as it was agreed on, in numbers of its own: a change of a table must be meant.

Programs, drivers and hardware that exist rely on these numbers. Whoever changes one raises
`VERSION` and changes it here too.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codegen import abi, ports
from codegen.abi import decode_status
from codegen.descriptor import layer_fields
from codegen.emit import abi_header, emit_engine
from codegen.ports import Control, Direction
from winnow.blocking import Op
from winnow.config import TargetConfig
from winnow.engine import EngineConfig

# name, word, lowest bit, bits, kind; arrays hold one byte per lane of F(2,3)
DESCRIPTOR = """
op                  0   0   8  plain
in_signed           0   8   1  plain
wide_weights        0   9   1  plain
pool                0  10   1  plain
raw                 0  11   1  plain
skip_last_row       0  12   1  plain
skip_last_column    0  13   1  plain
keep                0  14   5  bound
sub_rows            0  19  17  bound
part_steps          0  36  17  bound
gathers             0  53   1  plain
pad_top             0  54   3  plain
pad_left            0  57   3  plain
one_tile            0  60   1  plain
blocks              1   0  17  bound
channel_groups      1  17  17  bound
strips_down         1  34  17  bound
strips_across       2   0  17  bound
groups_full         2  17  17  bound
groups_last_column  2  34  17  bound
groups_last_row     3   0  17  bound
groups_last_both    3  17  17  bound
rows_full           3  34  17  bound
rows_last           4   0  17  bound
columns_full        4  17  18  bound
columns_last        4  35  18  bound
read_rows_first     5   0  17  bound
read_rows_middle    5  17  17  bound
read_rows_last      5  34  17  bound
read_words_first    6   0  17  bound
read_words_middle   6  17  17  bound
read_words_last     6  34  17  bound
planes              7   0  17  bound
kernel_rows         7  17   5  bound
kernel_columns      7  22   5  bound
stride_columns      7  27   2  plain
pitch               7  29  16  plain
row_step            7  45  16  plain
feature_base        8   0  32  plain
row_words           8  32  16  plain
plane_words         9   0  32  plain
read_right_first    9  32  32  plain
read_right         10   0  32  plain
read_down_first    10  32  32  plain
read_down          11   0  32  plain
weight_base        11  32  32  plain
strip_beats        12   0  32  plain
v_limit            12  32   8  plain
y_shift            12  40   8  plain
low                12  48  16  signed
high               13   0  16  signed
result_base        13  16  32  plain
out_row_words      13  48  16  plain
out_plane_words    14   0  32  plain
write_right        14  32  32  plain
write_down         15   0  32  plain
write_rows_full    15  32  17  bound
write_rows_last    16   0  17  bound
write_words_full   16  17  17  bound
write_words_last   16  34  17  bound
tiles_full         17   0  16  plain
tiles_last         17  16  16  plain
shortcut_base      17  32  32  plain
no_add             18   0   1  plain
shortcut_signed    18   1   1  plain
own_shift          18   2   3  plain
shortcut_shift     18   5   3  plain
add_shift          18   8   3  plain
add_low            18  11   9  signed
add_high           18  20   9  signed
average            18  29   1  plain
average_signed     18  30   1  plain
average_shift      18  31   5  plain
average_low        18  36   9  signed
average_high       18  45   9  signed
maximum            18  54   1  plain
weight_checksum    19   0  32  plain
v_shift            20   0   8  plain x16
sum_shift          22   0   8  plain x16
"""
SECOND_ARRAY = {2: 22, 4: 25}  # word of `sum_shift` by the tile's size
HEADER = {
    "magic": (0, 0, 32),
    "version": (0, 32, 16),
    "num_layers": (0, 48, 16),
    "signature": (1, 0, 64),
    "input_base": (2, 0, 64),
    "input_words": (3, 0, 64),
    "feature_words": (4, 0, 64),
    "weight_beats": (5, 0, 64),
    "num_images": (6, 0, 8),
    "image_words": (6, 32, 32),
}
REGISTERS = {
    "control": (0x00, 32),
    "global_interrupt": (0x04, 32),
    "interrupt_enable": (0x08, 32),
    "interrupt_status": (0x0C, 32),
    "program": (0x10, 64),
    "weights": (0x1C, 64),
    "features": (0x28, 64),
    "results": (0x34, 64),
    "status": (0x40, 32),
    "shortcuts": (0x48, 64),
    "program_words": (0x54, 32),
    "weight_beats": (0x5C, 32),
    "feature_words": (0x64, 32),
    "axi_error": (0x6C, 32),
    "ended_by": (0x70, 32),
    "engine_id": (0x74, 64),
    "cycles": (0x7C, 32),
    "watchdog": (0x80, 32),
}
# argument, master, direction, bits with a weight port of 64 and of 128, outstanding, burst, memory
PORTS = [
    ("program", "gmem0", "read", 64, 64, 4, 16, "program"),
    ("weights", "gmem1", "read", 64, 128, 16, 256, "weights"),
    ("features", "gmem2", "read", 64, 64, 16, 64, "features"),
    ("results", "gmem3", "write", 64, 64, 16, 64, "features"),
    ("shortcuts", "gmem4", "read", 64, 64, 16, 64, "features"),
]
STATUS = {
    "OK": 0,
    "BAD_MAGIC": 1,
    "BAD_VERSION": 2,
    "WRONG_ENGINE": 3,
    "BAD_LAYER_COUNT": 4,
    "BAD_HEADER": 5,
    "BAD_OPCODE": 6,
    "BAD_SIZE": 7,
    "BAD_DESCRIPTOR": 8,
    "BAD_WEIGHTS": 9,
    "BAD_ADDRESS": 10,
    "BAD_IMAGE_COUNT": 11,
    "HUNG": 255,
}
OPCODES = {"WINOGRAD": 0, "DIRECT": 1, "DENSE": 2}


@pytest.mark.parametrize("m", [2, 4])
def test_descriptor_has_the_reference_layout(m: int) -> None:
    expected = []
    for line in DESCRIPTOR.strip().splitlines():
        name, word, low, bits, kind, *array = line.split()
        place = SECOND_ARRAY[m] if name == "sum_shift" else int(word)
        bias = 2 if kind == "bound" else 0
        count = (m + 2) ** 2 if array else 1
        expected.append((name, place, int(low), int(bits), kind != "plain", bias, count))
    fields = layer_fields(EngineConfig(m=m))
    assert [(f.name, f.word, f.low, f.bits, f.signed, f.bias, f.count) for f in fields] == expected


def test_header_has_the_reference_layout() -> None:
    assert {f.name: (f.word, f.low, f.bits) for f in abi.HEADER} == HEADER
    for_engine = [*list(HEADER)[:4], *list(HEADER)[8:]]
    assert [f.name for f in abi.HEADER if f.for_engine] == for_engine
    sizes = (abi.MAGIC, abi.VERSION, abi.HEADER_WORDS, abi.LAYER_WORDS, abi.MAX_LAYERS)
    assert sizes == (0x57494E4F, 7, 8, 32, 256)
    assert abi.MAX_IMAGES == (1 << abi.STATUS_IMAGES_BITS) - 1


def test_opcodes_and_status_codes_are_the_reference_ones() -> None:
    assert {op.name: op.value for op in Op} == OPCODES
    assert {status.name: status.value for status in abi.Status} == STATUS


def test_status_register_holds_code_layers_and_images() -> None:
    assert decode_status(0) == (0, 0, 0)
    assert decode_status(0x0000_0307) == (7, 3, 0)
    assert decode_status(0xABFF_FF05) == (5, 0xFFFF, 0xAB)


def test_registers_are_the_reference_ones() -> None:
    assert {r.name: (r.offset, r.bits) for r in ports.ALL_REGISTERS} == REGISTERS
    assert {name: offset for name, (offset, _) in REGISTERS.items()} == ports.OFFSETS
    assert [int(bit) for bit in Control] == [1, 2, 4, 8, 0x80, 0x10000]
    assert [bit.name for bit in Control] == [
        *("START", "DONE", "IDLE", "READY", "AUTO_RESTART", "ABORT")
    ]


def test_ports_are_the_reference_ones() -> None:
    narrow, wide = EngineConfig(), EngineConfig(axi_bits=128)
    assert [
        (p.name, p.bundle, p.direction.value, p.bits(narrow), p.bits(wide), p.outstanding, p.burst)
        + (p.memory,)
        for p in ports.PORTS
    ] == PORTS


def test_master_number_is_its_bit_in_axi_error() -> None:
    assert [port.bundle for port in ports.PORTS] == [f"gmem{i}" for i in range(len(ports.PORTS))]


# --- what is generated ------------------------------------------------------------------------


def pragmas(text: str, mode: str) -> list[dict[str, str]]:
    """Return the options of the interface pragmas of a mode, in order."""
    lines = re.findall(rf"^#pragma HLS interface mode = {mode} (.*)$", text, re.MULTILINE)
    return [dict(re.findall(r"(\w+) = (\w+)", line)) for line in lines]


def test_top_has_the_reference_pins(tmp_path: Path) -> None:
    emit_engine(tmp_path, EngineConfig(), TargetConfig())
    top = (tmp_path / "src" / "top.cpp").read_text(encoding="utf-8")
    assert pragmas(top, "m_axi") == [
        {
            "port": name,
            "bundle": bundle,
            "offset": "slave",
            f"num_{direction}_outstanding": str(outstanding),
            f"max_{direction}_burst_length": str(burst),
            "depth": str({"program": 8192, "weights": 65536, "features": 131072}[memory]),
        }
        for name, bundle, direction, _, _, outstanding, burst, memory in PORTS
    ]
    offsets = {name: REGISTERS[name][0] for name in list(REGISTERS)[4:13]}
    *arguments, control = pragmas(top, "s_axilite")
    assert control == {"port": "return", "bundle": "control"}
    assert {a["port"]: int(a["offset"], 16) for a in arguments} == offsets
    assert {a["bundle"] for a in arguments} == {"control"}


@pytest.mark.parametrize("axi_bits", [64, 128])
def test_hosts_get_the_reference_numbers(axi_bits: int) -> None:
    text = abi_header(EngineConfig(po=2, axi_bits=axi_bits))
    numbers = dict(re.findall(r"^constexpr [a-z ]+ (k\w+) = (\w+);", text, re.MULTILINE))
    found = {name: int(number.rstrip("ul"), 0) for name, number in numbers.items()}

    def camel(name: str) -> str:
        return name.title().replace("_", "")

    expected = {f"k{camel(name)}Offset": offset for name, (offset, _) in REGISTERS.items()}
    expected |= {f"kStatus{camel(name)}": code for name, code in STATUS.items()}
    expected |= {f"kOp{camel(name)}": code for name, code in OPCODES.items()}
    expected |= {"kHeaderWords": 8, "kLayerWords": 32, "kControlStart": 1, "kControlDone": 2}
    assert expected.items() <= found.items()
    rows = re.findall(r"^  (READ|WRITE)\((.*)\)", text, re.MULTILINE)
    assert [(kind.lower(), *row.split(", ")) for kind, row in rows] == [
        (
            *(direction, str(index), name, bundle, str((narrow, wide)[axi_bits == 128]), memory),
            f"0x{REGISTERS[name][0]:02x}",
        )
        for index, (name, bundle, direction, narrow, wide, _, _, memory) in enumerate(PORTS)
    ]


def hand_written(root: Path) -> list[Path]:
    """Return the files that use the interface and could hold a copy of it."""
    kinds = ("*.py", "*.hpp", "*.cpp", "*.h", "*.j2")
    folders = (root / "sim", root / "hls_templates")
    files = [path for folder in folders for kind in kinds for path in folder.rglob(kind)]
    return sorted(path for path in files if "fst" not in path.parts)


COPY = re.compile(
    r"\b0x0*(?:[048c]|10|1c|28|34|40|48|54|57494e4f|ffff)\b|gmem\d|(?:word|status) & 0xff\b",
    re.IGNORECASE,
)


def test_no_file_copies_a_number_of_the_interface(root: Path) -> None:
    files = hand_written(root)
    assert {path.name for path in files} >= {"rtl_main.cpp", "csim_main.cpp", "engine_bench.py"}
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if COPY.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line", ["write(0x0C, 1)", "{0x10, 0x1c}", "kStatusOffset = 0x40", '"gmem1"', "word & 0xFF)"]
)
def test_copy_would_be_found(line: str) -> None:
    assert COPY.search(line)


def test_every_direction_has_a_port() -> None:
    assert {port.direction for port in ports.PORTS} == set(Direction)
