# SPDX-License-Identifier: Apache-2.0
"""A C++ file with a dataflow top -> one SystemVerilog module per process.

The top function becomes the control process: it has a port `start` and a port `done`, and waits on
`<process>_done` for every process that writes to memory. Results are cached by the content of what
they depend on.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from openhls import llvm
from openhls.accesses import ProcessOptions
from openhls.channels import MARKERS, Channel, Pointers, Role
from openhls.credit import CREDITED, REGISTERS, add_credits, credit_orders, find_fifos
from openhls.frontend import Unit, compile_unit, preprocess
from openhls.liveness import update_dead_states
from openhls.machine import ProcessPlan
from openhls.order import split_answers, stage_orders
from openhls.translate import Translator
from openhls.xls_ir import constraint, make_channels, write_xls_ir
from openhls.xls_tool import MULTIPLIER_PIPELINE, Generated, MemoryPorts, Pipeline, generate
from winnow.artefact import sha256_bytes, sha256_file
from winnow.cache import read_entry, write_entry
from winnow.process import worker_pool
from winnow.progress import steps

HERE = Path(__file__).parent
CONTROL = "control"
# Of banks and RAMs, which accept them always.
REQUESTS = (Role.READ_REQUEST, Role.WRITE_REQUEST, Role.RELEASE)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """Size and speed of a process.

    `control_steps` is the number of states of its machine, which does one step per cycle.
    `interval` is the most steps that an iteration of a loop takes: 1, or more where a port is used
    twice.
    """

    stages: int
    control_steps: int
    multipliers: int
    state_bits: int
    register_bits: int
    interval: int


@dataclass(frozen=True, slots=True)
class CompiledProcess:
    """A compiled process.

    `module` is the name of the SystemVerilog module, `formals` the names of the function's
    arguments in order; the names of the channels begin with them.
    """

    name: str
    module: str
    verilog: str
    formals: tuple[str, ...]
    channels: tuple[Channel, ...]
    report: Report

    @property
    def has_write_port(self) -> bool:
        return any(channel.role is Role.WRITE_DATA for channel in self.channels)


@dataclass(frozen=True, slots=True)
class CompiledProject:
    """All processes of a design by source name, and its top function.

    `names` maps mangled to source names; `depths` the local channels of the top (LLVM names) to
    the depth stated for them; `arrays` to their number of elements.
    """

    processes: Mapping[str, CompiledProcess]
    control: CompiledProcess
    top_ir: llvm.Function
    names: Mapping[str, str]
    depths: Mapping[str, int]
    arrays: Mapping[str, int]


@dataclass(frozen=True)
class Settings:
    """Pipelines of processes by source name; the others have the default."""

    pipelines: Mapping[str, Pipeline] = field(default_factory=dict)
    default: Pipeline | None = None

    def pipeline(self, name: str, multiplies: bool) -> Pipeline:
        chosen = self.pipelines.get(name) or self.default
        return chosen or (MULTIPLIER_PIPELINE if multiplies else Pipeline())


def make_plan(
    module: llvm.Module,
    function: llvm.Function,
    options: ProcessOptions,
    credited: Collection[int] = (),
) -> tuple[ProcessPlan, Translator]:
    """Translate a function, with as many control steps as its order of accesses needs.

    `credited` numbers the arguments that are streams with credits.
    """
    translator = Translator(module, function, options)
    machine = translator.run()
    while split_answers(translator, machine):
        machine = translator.run()
    orders = stage_orders(translator, machine)
    update_dead_states(machine, [step.active for step in translator.steps])
    parameters = [parameter.name for parameter in function.parameters]
    add_credits(machine, {parameters[number] for number in credited})
    channels = make_channels(machine, translator.pointers)
    plan = ProcessPlan(machine, channels, credit_orders(machine, orders))
    return plan, translator


@dataclass(frozen=True)
class _Job:
    """What XLS needs to know of a process."""

    module: str
    ir: str
    constraints: tuple[str, ...]
    pipeline: Pipeline
    memory: MemoryPorts

    def key(self) -> str:
        sources = (HERE / name for name in ("xls_tool.py", "handshake.py", "enable.py"))
        tool = [version("xls-python"), *map(sha256_file, sources)]
        setting = [repr(self.pipeline), repr(self.memory)]
        parts = [*tool, self.module, self.ir, *self.constraints, *setting]
        return sha256_bytes("\0".join(parts).encode())[:24]

    def run(self) -> Generated:
        return generate(self.ir, self.module, self.constraints, self.pipeline, self.memory)


def _cached(job: _Job, cache: Path | None) -> Generated | None:
    found = None if cache is None else read_entry(cache, job.key())
    try:
        return Generated(**found) if found else None
    except TypeError:  # of another version
        return None


def _run_jobs(jobs: Mapping[str, _Job], cache: Path | None, workers: int) -> dict[str, Generated]:
    done = {name: found for name, job in jobs.items() if (found := _cached(job, cache))}
    left = {name: job for name, job in jobs.items() if name not in done}
    if workers > 1 and len(left) > 2:
        with worker_pool(workers) as pool:
            results = steps("XLS", pool.map(_Job.run, left.values()), len(left))
            made = dict(zip(left, results, strict=True))
    else:
        made = {name: left[name].run() for name in steps("XLS", left)}
    for name, found in made.items():
        if cache is not None:
            write_entry(cache, left[name].key(), asdict(found))
    return done | made


def _job(name: str, plan: ProcessPlan, settings: Settings, registers: Collection[str] = ()) -> _Job:
    module = f"{name}_process"
    multiplies = any(node.op in ("smul", "umul") for node in plan.machine.graph.nodes)
    return _Job(
        module,
        write_xls_ir(module, plan),
        tuple(constraint(order, plan) for order in plan.orders),
        settings.pipeline(name, multiplies),
        memory_ports(plan, registers),
    )


def memory_ports(plan: ProcessPlan, registers: Collection[str] = ()) -> MemoryPorts:
    """Return the ports of a process that lead to banks and RAMs, and sends to certain FIFOs.

    Those are sends with credits, and sends to FIFOs of one word, the arguments `registers`.
    """
    channels = plan.channels.values()
    taken = {port.object for port in plan.channels if port.role is Role.CREDIT}
    return MemoryPorts(
        tuple(
            channel.name
            for port, channel in plan.channels.items()
            if channel.role in REQUESTS or (channel.role is Role.STREAM and port.object in taken)
        ),
        tuple(channel.name for channel in channels if channel.role is Role.RESPONSE),
        tuple(
            channel.name
            for port, channel in plan.channels.items()
            if port in plan.machine.sends and port.object.base in registers
        ),
        tuple(channel.name for channel in channels if channel.role is Role.ACQUIRE),
    )


def _process(
    name: str, plan: ProcessPlan, translator: Translator, made: Generated
) -> CompiledProcess:
    formals = tuple(
        translator.pointers.base_name(parameter.name)
        for parameter in translator.function.parameters
        if parameter.type == "ptr"
    )
    report = Report(
        made.stages,
        plan.machine.num_steps,
        made.multipliers,
        made.state_bits,
        made.register_bits,
        translator.flow.interval(),
    )
    channels = tuple(plan.channels.values())
    return CompiledProcess(name, f"{name}_process", made.verilog, formals, channels, report)


def _writes(unit: Unit, mangled: str) -> bool:
    return any(
        instruction.detail == "__openhls_send" and instruction.operands[1].name == _WRITE_DATA
        for instruction in unit.module.functions[mangled].instructions()
        if instruction.opcode == "call"
    )


_WRITE_DATA = str(tuple(Role).index(Role.WRITE_DATA))


def compile_project(
    source: Path,
    include_dirs: Sequence[Path],
    top: str,
    *,
    settings: Settings | None = None,
    cache: Path | None = None,
    workers: int = 2,
) -> CompiledProject:
    """Compile the processes of the dataflow design whose top function is `top`.

    Raises HlsError, which names file and line, for what the subset does not contain.
    """
    settings = settings or Settings()
    unit = compile_unit(preprocess(source, include_dirs), top)
    writers = {mangled for mangled in unit.processes if _writes(unit, mangled)}
    calls = {m: f"{name}_done" if m in writers else "" for m, name in unit.processes.items()}
    options = {m: ProcessOptions(done=m in writers) for m in unit.processes}
    names = dict(unit.processes)
    options[unit.top], names[unit.top] = ProcessOptions(True, True, calls), CONTROL
    top_ir = unit.module.functions[unit.top]
    pointers = Pointers(top_ir)
    depths = _depths(top_ir, pointers)
    credited = find_fifos(top_ir, pointers, depths, CREDITED)
    registers = _register_arguments(unit, options, find_fifos(top_ir, pointers, depths, REGISTERS))
    plans = {
        names[mangled]: make_plan(
            unit.module, unit.module.functions[mangled], chosen, credited.get(mangled, ())
        )
        for mangled, chosen in options.items()
    }
    jobs = {
        names[mangled]: _job(names[mangled], plans[names[mangled]][0], settings, bases)
        for mangled, bases in registers.items()
    }
    made = _run_jobs(jobs, cache, workers)
    processes = {name: _process(name, *plans[name], made[name]) for name in plans}
    return CompiledProject(
        {name: process for name, process in processes.items() if name != CONTROL},
        processes[CONTROL],
        top_ir,
        unit.processes,
        depths,
        pointers.arrays(),
    )


def _register_arguments(
    unit: Unit, functions: Collection[str], numbers: Mapping[str, Collection[int]]
) -> dict[str, set[str]]:
    """Return by function the arguments with certain numbers."""
    found = {}
    for mangled in functions:
        parameters = unit.module.functions[mangled].parameters
        found[mangled] = {parameters[number].name for number in numbers.get(mangled, ())}
    return found


def compile_processes(
    source: Path,
    include_dirs: Sequence[Path],
    functions: Sequence[str],
    *,
    settings: Settings | None = None,
) -> dict[str, CompiledProcess]:
    """Compile functions of a file that take channels, each as a process that starts by itself."""
    settings = settings or Settings()
    text = preprocess(source, include_dirs)
    found = {}
    for name in functions:
        unit = compile_unit(text, name)
        plan, translator = make_plan(unit.module, unit.module.functions[unit.top], ProcessOptions())
        found[name] = _process(name, plan, translator, _job(name, plan, settings).run())
    return found


def _depths(function: llvm.Function, pointers: Pointers) -> dict[str, int]:
    """Return the depths stated by `#pragma HLS stream`, by the channel's name."""
    depths = {}
    for instruction in function.instructions():
        if instruction.opcode == "call" and instruction.detail == MARKERS[1]:
            found = pointers.find(instruction.operands[0].name)
            if found is not None:
                depths[pointers.base_name(found.base)] = (
                    llvm.literal(instruction.operands[1].name) or 0
                )
    return depths
