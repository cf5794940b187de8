# SPDX-License-Identifier: Apache-2.0
"""Run the whole chain with untrained weights, so that what cannot work is refused before training.

configuration, a few images -> check.json
"""

from __future__ import annotations

from collections.abc import Mapping

from codegen.check import check_graph
from codegen.fuse import fuse, written_maps
from codegen.interpret import interpret
from codegen.lower import rehearsed_graph
from codegen.schedule import schedule
from winnow.compare import require_equal
from winnow.flow import Build, Result
from winnow.parts import find_part
from winnow.room import require_room


def run(build: Build, _: Mapping[str, str]) -> Result:
    """Compare with the part, convert, calibrate, lower, interpret two images, schedule.

    Nothing is kept.
    """
    print(f"check: {require_room(build.config.engine, find_part(build.config.target.part))}")
    graph, golden = rehearsed_graph(build)
    check_graph(graph)
    layers = fuse(graph)
    require_equal(golden.layers, written_maps(layers, interpret(graph, golden.images)))
    if build.config.prune_channels.method != "none":  # how wide the layers will be is not known yet
        return Result([], f"{len(layers)} layers can be lowered,")
    plan = schedule(graph, build.config.engine)
    if plan.input.window is not None:
        print(
            f"check: the host unrolls the images by the {plan.input.window} kernel of the first "
            f"layer, {plan.input.words * 8} bytes each"
        )
    widest = max(build.config.quantize.weight_bits)
    weighted = [layer.multiply for layer in layers if layer.has_weights]
    is_widest = all(node.weight_bits == widest for node in weighted)
    widths = "the widest widths" if is_widest else "the file's widths"
    return Result(
        [],
        f"{len(layers)} layers fit, {plan.total_cycles} modelled cycles at {widths},",
        {"layers": len(layers), "total_cycles": plan.total_cycles},
    )
