# SPDX-License-Identifier: Apache-2.0
"""Early exits of a build on the engine: the programs of its parts, and the test images on them.

qat.npz, train.npz, hls/, golden.npz -> exits/: program_<exit>.bin, weights.bin, exits.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from codegen.emit import input_table, region_table
from codegen.exit_programs import ExitPrograms, exit_programs, with_exits
from codegen.fuse import fuse, written_maps
from codegen.golden import load_golden
from codegen.interpret import interpret
from codegen.lower import lower_build_exits
from sim import csim, early_exit
from winnow.artefact import write_bytes
from winnow.compare import require_equal
from winnow.errors import ConfigError
from winnow.fixed_point import IntArray
from winnow.flow import Build, require_current

FORMAT = 1


def exits(build: Build, threshold: float) -> None:
    """Write the programs up to the exits, and run the test images on the compiled C++.

    A part runs for those images whose largest softmax probability was below `threshold` at every
    exit before. All maps must equal the interpreter's. Raises ConfigError for a threshold that is
    no probability and for a network without exits.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"--threshold must be within 0..1, got {threshold:g}")
    require_current(("emit", "golden"), build)
    network, graphs = lower_build_exits(build)
    if not graphs:
        raise ConfigError("exits needs a network with exits; set model.exit_after and train again")
    programs = exit_programs(network, graphs, build.config.engine)
    golden = load_golden(build)
    write_programs(build, programs)
    engine = csim.build(build.hls, build.cache / "csim")
    left = early_exit.run(early_exit.on_csim(engine), programs, golden.images, threshold)
    graph = with_exits(network, graphs)
    expected = written_maps(fuse(graph), interpret(graph, golden.images))
    found = csim.layer_maps(programs.whole, left.memory)
    values = 0
    for number, part in enumerate(programs.parts, start=1):
        ran = left.parts >= number
        names = [plan.name for plan in part.layers]
        require_equal({n: expected[n][ran] for n in names}, {n: found[n][ran] for n in names})
        values += sum(expected[n][ran].size for n in names)
    print(summary(programs, left.parts, left.results.argmax(1) == golden.labels, values))


def summary(programs: ExitPrograms, parts: IntArray, right: IntArray, values: int) -> str:
    """Return what happened in words; `parts` [n] that ran for the images, `right` [n] answers."""
    shares = (
        f"{part.name} {100 * float((parts == number).mean()):.1f} %"
        for number, part in enumerate(programs.parts, start=1)
    )
    cycles = np.cumsum([part.cycles for part in programs.parts])
    return (
        f"exits: C++ = interpreter on {values} values of {len(parts)} images, accuracy "
        f"{100 * float(right.mean()):.2f}%; left at {', '.join(shares)}; modelled cycles "
        f"{float(cycles[parts - 1].mean()):,.0f} on the average, {_listed(cycles)} by place"
    )


def _listed(cycles: Sequence[int] | IntArray) -> str:
    return ", ".join(f"{int(count):,}" for count in cycles)


def write_programs(build: Build, programs: ExitPrograms) -> None:
    """Write OUT/exits: a program per part, the weights of all, and where their results lie."""
    folder, whole = build.out / "exits", programs.whole
    write_bytes(folder / "weights.bin", b"".join(plan.packed.tobytes() for plan in whole.layers))
    table = {
        "format": FORMAT,
        "feature_words": whole.feature_words,
        "weight_beats": whole.weight_beats,
        "input": input_table(whole.input),
        "parts": [
            {
                "exit": part.name,
                "program": f"program_{part.name}.bin",
                "cycles": part.cycles,
                "layers": [plan.name for plan in part.layers],
                "result": region_table(part.result),
            }
            for part in programs.parts
        ],
    }
    for part in programs.parts:
        write_bytes(folder / f"program_{part.name}.bin", part.program.tobytes())
    write_bytes(folder / "exits.json", (json.dumps(table, indent=2) + "\n").encode())
