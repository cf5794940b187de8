# SPDX-License-Identifier: Apache-2.0
"""Early exits of a build on the engine: the programs of its parts, and the test images on them.

qat.npz, train.npz, hls/, golden.npz -> exits/: program.bin, weights.bin, memory.json, and
program_<exit>.bin of every part
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codegen.emit import emit_data
from codegen.exit_programs import ExitPrograms, exit_programs, with_exits
from codegen.fuse import fuse, written_maps
from codegen.golden import Golden, load_golden
from codegen.interpret import interpret
from codegen.ir import Graph
from codegen.lower import lower_build_exits
from codegen.split import layer_of
from quant.integer_exits import chosen_threshold
from sim import csim, early_exit
from winnow.artefact import write_bytes
from winnow.compare import require_equal
from winnow.errors import ConfigError
from winnow.fixed_point import IntArray
from winnow.flow import Build, require_current


@dataclass(frozen=True, eq=False)
class Exits:
    """A build's network with its exits: graph, programs, the threshold at which images leave.

    `left` is what the test images of `golden` did on the compiled C++.
    """

    graph: Graph
    programs: ExitPrograms
    threshold: float
    golden: Golden
    left: early_exit.Left


def exits(build: Build, threshold: float | None = None) -> Exits:
    """Write the programs up to the exits, and run the test images on the compiled C++.

    A part runs for those images whose largest softmax probability was below `threshold` at every
    exit before; without one, below that chosen on validation images. All maps must equal the
    interpreter's. Raises ConfigError for a threshold that is no probability and for a network
    without exits.
    """
    require_leaving(build, threshold)
    require_current(("emit", "golden"), build)
    network, graphs = lower_build_exits(build)
    if not graphs:
        raise ConfigError("exits needs a network with exits; set model.exit_after and train again")
    threshold = chosen_threshold(build) if threshold is None else threshold
    programs = exit_programs(network, graphs, build.config.engine)
    golden = load_golden(build)
    write_programs(build, programs, threshold)
    engine = csim.build(build.hls, build.cache / "csim")
    left = early_exit.run(early_exit.on_csim(engine), programs, golden.images, threshold)
    made = Exits(with_exits(network, graphs), programs, threshold, golden, left)
    right = left.results.argmax(1) == golden.labels
    print(summary(programs, threshold, left.parts, right, require_interpreter(made)))
    return made


def require_leaving(build: Build, threshold: float | None) -> None:
    """Raise ConfigError unless the network has classes, and a threshold is a probability."""
    if build.config.data.has_values:
        raise ConfigError("early exits need data.labels 'classes', got 'values'")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"--threshold must be within 0..1, got {threshold:g}")


def require_interpreter(made: Exits) -> int:
    """Compare all maps of all parts that ran with the interpreter's; return how many integers."""
    expected = written_maps(fuse(made.graph), interpret(made.graph, made.golden.images))
    found = csim.layer_maps(made.programs.whole, made.left.memory)
    values = 0
    for number, part in enumerate(made.programs.parts, start=1):
        ran = made.left.parts >= number
        names = list(dict.fromkeys(layer_of(plan.name) for plan in part.layers))
        require_equal({n: expected[n][ran] for n in names}, {n: found[n][ran] for n in names})
        values += sum(expected[n][ran].size for n in names)
    return values


def summary(
    programs: ExitPrograms, threshold: float, parts: IntArray, right: IntArray, values: int
) -> str:
    """Return what happened in words; `parts` [n] that ran for the images, `right` [n] answers."""
    shares = (
        f"{part.name} {100 * float((parts == number).mean()):.1f} %"
        for number, part in enumerate(programs.parts, start=1)
    )
    cycles = np.cumsum([part.cycles for part in programs.parts])
    return (
        f"exits: C++ = interpreter on {values} values of {len(parts)} images, threshold "
        f"{threshold:g}, accuracy {100 * float(right.mean()):.2f}%; left at {', '.join(shares)}; "
        f"modelled cycles {float(cycles[parts - 1].mean()):,.0f} on the average, "
        f"{_listed(cycles)} by place"
    )


def _listed(cycles: Sequence[int] | IntArray) -> str:
    return ", ".join(f"{int(count):,}" for count in cycles)


def write_programs(build: Build, programs: ExitPrograms, threshold: float) -> None:
    """Write OUT/exits, and nothing of another network stays: what the driver reads, all parts in
    one program, and a program per part for other hosts."""
    folder, first, parts = build.out / "exits", 0, []
    for part in programs.parts:
        parts.append({"exit": part.name, "first": first, "layers": len(part.layers)})
        first += len(part.layers)
    written = emit_data(folder, programs.whole, exits={"threshold": threshold, "parts": parts})
    for part in programs.parts:
        path = folder / f"program_{part.name}.bin"
        write_bytes(path, part.program.tobytes())
        written.append(path)
    for path in (*folder.glob("program_*.bin"), *folder.glob("exits.json")):
        if path not in written:
            path.unlink()
