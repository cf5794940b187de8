# SPDX-License-Identifier: Apache-2.0
"""XLS IR -> pipelined SystemVerilog through the xls-python wheel, and what to report about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import xls

from openhls.errors import HlsError

_ASSERTION = re.compile(r"^.*_assert: assert property.*\n|^ *`(ifdef|endif) *ASSERT_ON\n", re.M)
_REGISTER = re.compile(r"^  reg (?:\[(\d+):0\] )?(\w+);", re.M)
_PRODUCT = re.compile(r"^  assign (\w+) = [us]mul\w*\(", re.M)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How to schedule: stages, and the delay model that says where to cut.

    No FPGA model comes with XLS. asap7 with four stages puts registers where a DSP block has them
    (after a memory read: operands, product, sum); sky130 balances other logic. More stages do not
    help a loop whose next iteration needs the result of this one.
    """

    stages: int = 4
    delay_model: str = "sky130"


MULTIPLIER_PIPELINE = Pipeline(4, "asap7")


@dataclass(frozen=True, slots=True)
class Generated:
    """A module's text and its size."""

    verilog: str
    stages: int
    multipliers: int
    state_bits: int
    register_bits: int


def generate(ir: str, name: str, constraints: Sequence[str], pipeline: Pipeline) -> Generated:
    """Schedule the proc `name` to one tick per cycle; raises HlsError when that is impossible."""
    try:
        package = xls.Package.parse_ir(xls.optimize_ir(ir, name))
        result = package.schedule_and_codegen(
            with_delay_model=True,
            delay_model=pipeline.delay_model,
            pipeline_stages=pipeline.stages,
            io_constraints=list(constraints),
            worst_case_throughput=1,
            generator="pipeline",
            module_name=name,
            reset="rst",
            use_system_verilog=True,
            flop_inputs=False,
            flop_outputs=False,  # a flop would part a read request from its response
            add_invariant_assertions=False,
            streaming_channel_data_suffix="_data",
            streaming_channel_valid_suffix="_vld",
            streaming_channel_ready_suffix="_rdy",
        )
    except RuntimeError as error:
        raise HlsError(_explain(name, pipeline, str(error))) from error
    verilog = merge_product_registers(_ASSERTION.sub("", result.get_verilog_text()))
    registers = {found: int(high or 0) + 1 for high, found in _REGISTER.findall(verilog)}
    return Generated(
        verilog,
        1 + max((int(x) for x in re.findall(r"\bp(\d+)_inputs_valid\b", verilog)), default=0),
        len(_PRODUCT.findall(verilog)),
        sum(bits for found, bits in registers.items() if found.startswith("__s_")),
        sum(registers.values()),
    )


def _explain(name: str, pipeline: Pipeline, message: str) -> str:
    process = name.removesuffix("_process")
    first = message.split(";")[0].removeprefix("INVALID_ARGUMENT: ")
    hint = re.search(r"Would succeed with: (.*?)(?:;|$)", message)
    return (
        f"process '{process}' cannot run one iteration per cycle in {pipeline.stages} stages: "
        f"{first}{f' ({hint.group(1)})' if hint else ''}; an iteration needs its own result "
        "too early, or a memory is read and written in an order that no pipeline keeps"
    )


def merge_product_registers(verilog: str) -> str:
    """Keep pipeline registers that hold slices of one product as one register of the product.

    XLS registers only the used slices, apart; synthesis then finds no register behind the
    multiplier to put into a DSP block.

        p0_a <= en ? slice_a : p0_a;  p0_b <= en ? slice_b : p0_b;
     -> p0_product_m <= en ? product : p0_product_m;  a, b are slices of it
    """
    products = set(_PRODUCT.findall(verilog))
    widths = {
        name: int(high) + 1
        for high, name in re.findall(r"^  (?:wire|reg) \[(\d+):0\] (\w+);", verilog, re.M)
    }
    slices = {
        name: (product, bits)
        for name, product, bits in re.findall(
            r"^ *assign (\w+) = (\w+)\[(\d+(?::\d+)?)\];", verilog, re.M
        )
        if product in products
    }
    groups: dict[tuple[str, str, str], list[tuple[str, str, str]]] = {}
    pattern = re.compile(r"^ *((p\d+)_\w+) <= (\w+) \? (\w+) : \1;\n", re.M)
    for line in pattern.finditer(verilog):
        register, stage, enable, source = line.groups()
        if source in slices:
            product, bits = slices[source]
            groups.setdefault((stage, enable, product), []).append((register, bits, line.group()))
    for (stage, enable, product), parts in groups.items():
        if len(parts) > 1:
            bits = widths[product] - 1
            verilog = _merge(verilog, _Merge(f"{stage}_{product}_m", bits, enable, product), parts)
    return verilog


@dataclass(frozen=True, slots=True)
class _Merge:
    """A register for a whole product."""

    name: str
    high: int
    enable: str
    product: str


def _merge(verilog: str, merge: _Merge, parts: Sequence[tuple[str, str, str]]) -> str:
    for position, (register, bits, line) in enumerate(parts):
        update = f"{merge.enable} ? {merge.product} : {merge.name}"
        verilog = verilog.replace(line, "" if position else f"      {merge.name} <= {update};\n")
        declaration = re.search(rf"^  reg (\[\d+:0\] )?{register};\n", verilog, re.M)
        if declaration is None:
            raise AssertionError(f"register {register} has no declaration")
        wire = f"  wire {declaration.group(1) or ''}{register} = {merge.name}[{bits}];\n"
        whole = "" if position else f"  reg [{merge.high}:0] {merge.name};\n"
        verilog = verilog.replace(declaration.group(), whole + wire)
    return verilog
