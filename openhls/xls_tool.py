# SPDX-License-Identifier: Apache-2.0
"""XLS IR -> pipelined SystemVerilog through the xls-python wheel, and what to report about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xls

from openhls.enable import drop_done_registers, narrow_enables
from openhls.errors import HlsError
from openhls.handshake import (
    free_answers,
    free_loads,
    free_requests,
    free_stages,
    join_acquires,
    join_requests,
)

_ASSERTION = re.compile(r"^.*_assert: assert property.*\n|^ *`(ifdef|endif) *ASSERT_ON\n", re.M)
_REGISTER = re.compile(r"^  reg (?:\[(\d+):0\] )?(\w+);", re.M)
_PRODUCT = re.compile(r"^  assign (\w+) = [us]mul\w*\(", re.M)


# What XLS' sky130 model takes for 1300 ps maps to 4 to 6 levels of 7-series LUTs (measured with
# Yosys); a loop whose next iteration needs the result of this one may need a longer period.
TARGET_PS = 1300
PERIODS = (1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.4, 8.0)  # of the target, tried in turn


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How to schedule: a clock period in the units of a delay model, or a number of stages.

    With `stages` None, XLS takes as few stages as the period allows, and the shortest of `PERIODS`
    at which the process does an iteration per cycle. No FPGA model comes with XLS.
    """

    stages: int | None = None
    delay_model: str = "sky130"
    clock_ps: int = TARGET_PS

    def tries(self) -> list[dict[str, int]]:
        """Return the settings of XLS to try in turn."""
        if self.stages is not None:
            return [{"pipeline_stages": self.stages}]
        return [{"clock_period_ps": round(self.clock_ps * factor)} for factor in PERIODS]


# asap7 with four stages puts registers where a DSP block has them: after a memory read operands,
# product, sum.
MULTIPLIER_PIPELINE = Pipeline(4, "asap7")


@dataclass(frozen=True, slots=True)
class MemoryPorts:
    """Ports by their XLS names: sends that never wait, answers of banks and RAMs, FIFOs of a word.

    `registers` are sends to FIFOs of one word, `acquires` the tokens of halves of banks.
    """

    requests: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    registers: tuple[str, ...] = ()
    acquires: tuple[str, ...] = ()


NO_MEMORY = MemoryPorts()


@dataclass(frozen=True, slots=True)
class Generated:
    """A module's text and its size."""

    verilog: str
    stages: int
    multipliers: int
    state_bits: int
    register_bits: int


def generate(
    ir: str,
    name: str,
    constraints: Sequence[str],
    pipeline: Pipeline,
    memory: MemoryPorts = NO_MEMORY,
) -> Generated:
    """Schedule the proc `name` to a control step per cycle; HlsError when that is impossible."""
    optimised = xls.optimize_ir(ir, name)
    verilog, message = None, ""
    for setting in pipeline.tries():
        try:
            verilog = _schedule(optimised, name, constraints, pipeline.delay_model, setting)
            break
        except RuntimeError as error:
            message = str(error)
    if verilog is None:
        raise HlsError(_explain(name, pipeline, message))
    verilog = merge_product_registers(_ASSERTION.sub("", verilog))
    verilog = free_answers(free_requests(verilog, memory.requests), memory.answers)
    verilog = join_acquires(join_requests(verilog, memory.registers), memory.acquires)
    verilog = narrow_enables(drop_done_registers(free_loads(free_stages(verilog))))
    registers = {found: int(high or 0) + 1 for high, found in _REGISTER.findall(verilog)}
    return Generated(
        verilog,
        1 + max((int(x) for x in re.findall(r"\bp(\d+)_inputs_valid\b", verilog)), default=0),
        len(_PRODUCT.findall(verilog)),
        sum(bits for found, bits in registers.items() if found.startswith("__s_")),
        sum(registers.values()),
    )


def _schedule(
    ir: str, name: str, constraints: Sequence[str], delay_model: str, setting: Mapping[str, int]
) -> str:
    result = xls.Package.parse_ir(ir).schedule_and_codegen(
        with_delay_model=True,
        delay_model=delay_model,
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
        **setting,
    )
    return str(result.get_verilog_text())


def _explain(name: str, pipeline: Pipeline, message: str) -> str:
    process = name.removesuffix("_process")
    first = message.split(";")[0].removeprefix("INVALID_ARGUMENT: ")
    hint = re.search(r"Would succeed with: (.*?)(?:;|$)", message)
    return (
        f"process '{process}' cannot run one iteration per cycle{_limit(pipeline)}: "
        f"{first}{f' ({hint.group(1)})' if hint else ''}; an iteration needs its own result "
        "too early, or a memory is read and written in an order that no pipeline keeps"
    )


def _limit(pipeline: Pipeline) -> str:
    if pipeline.stages is not None:
        return f" in {pipeline.stages} stages"
    return f" within {pipeline.clock_ps * PERIODS[-1]:.0f} ps of {pipeline.delay_model}"


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
