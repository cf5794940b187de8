# SPDX-License-Identifier: Apache-2.0
"""Turn the quantized model into the integer graph and check it against the golden values.

qat.npz, golden.npz -> graph.txt, graph.npz (and graph = golden, bit for bit)
"""

from __future__ import annotations

from collections.abc import Mapping

from codegen.fuse import fuse, written_maps
from codegen.golden import load_golden, require_golden
from codegen.graph_text import save_graph
from codegen.interpret import interpret
from codegen.lower import lower_checkpoint
from winnow.flow import Build, Result


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Write the graph once the interpreter has reproduced every golden value."""
    graph = lower_checkpoint(build.config, build.out)
    golden = load_golden(build)
    layers = fuse(graph)
    maps = written_maps(layers, interpret(graph, golden.images))
    values = require_golden(maps, golden)
    save_graph(build.out, graph)
    return Result(
        [build.out / "graph.txt", build.out / "graph.npz"],
        f"{len(layers)} layers; interpreter = Brevitas on {values} values of "
        f"{len(golden.images)} images",
        {"layers": len(layers), "values": values, "images": len(golden.images)},
    )
